use std::fmt;

use serde::{Deserialize, Serialize};

/// What went wrong, for a person: made once, at the edge where an error leaves the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Whose turn it is to do something about it.
    pub kind: Kind,
    /// What and where, in lower case, without a final period: ``the subject "Ada" does not occur in the prompt``.
    pub message: String,
}

/// Whose turn it is after a [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The request cannot be done as asked; the message says what to change. Exit code 2, HTTP 400.
    BadInput,
    /// What was asked for does not exist: a model, a session. Exit code 2, HTTP 404.
    NotFound,
    /// The device is missing, was lost, or ran out of memory.
    Device,
    /// Anything else, a bug of ours included. Exit code 1, HTTP 500.
    Internal,
}

impl Failure {
    /// A failure that the asker can mend.
    pub fn bad_input(message: impl Into<String>) -> Self {
        Self { kind: Kind::BadInput, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
