use std::fmt;

use serde::{Deserialize, Serialize};

/// What went wrong, for a person: made once, at the edge where an error leaves the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Failure {
    /// Whose turn it is to do something about it.
    pub kind: Kind,
    /// What and where, in lower case, without a final period: ``the subject "Ada" does not occur in the prompt``.
    pub message: String,
    /// The field of the request that is wrong, where it is one: `target_new`, `paraphrases[0]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// Whose turn it is after a [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The request cannot be done as asked; the message says what to change. Exit code 2, HTTP 400.
    BadInput,
    /// What was asked for does not exist: a model, a session. Exit code 2, HTTP 404.
    NotFound,
    /// A guard rejected an edit that would damage the model; nothing was changed, and the guard can be lifted. Exit code
    /// 2, HTTP 400.
    Harmful,
    /// Part of the work is done and kept; the same request finishes the rest. Exit code 75, HTTP 503.
    Unfinished,
    /// Somebody stopped it. Exit code 130, HTTP 503.
    Cancelled,
    /// The device is missing, was lost, or ran out of memory. Exit code 1, HTTP 503.
    Device,
    /// Anything else, a bug of ours included. Exit code 1, HTTP 500.
    Internal,
}

impl Kind {
    /// Its name, as it is written everywhere: `bad_input`.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadInput => "bad_input",
            Self::NotFound => "not_found",
            Self::Harmful => "harmful",
            Self::Unfinished => "unfinished",
            Self::Cancelled => "cancelled",
            Self::Device => "device",
            Self::Internal => "internal",
        }
    }
}

impl Failure {
    /// A failure that concerns no single field.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), field: None }
    }

    /// A failure that the asker can mend.
    pub fn bad_input(message: impl Into<String>) -> Self {
        Self::new(Kind::BadInput, message)
    }

    /// A field of the request that the asker can mend: ``target_new is empty``.
    pub fn bad_field(field: &str, problem: impl fmt::Display) -> Self {
        Self { field: Some(field.to_owned()), ..Self::bad_input(format!("{field} {problem}")) }
    }

    /// The same failure with the place where it happened in front: ``record 3: target_new is empty``.
    #[must_use]
    pub fn at(self, place: impl fmt::Display) -> Self {
        Self { message: format!("{place}: {}", self.message), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
