use serde::{Deserialize, Serialize};

use crate::{EditSpec, Fact, Play, Regularizer, TraceSpec};

/// A command and the number its events will carry. Numbers are the asker's and grow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Repeated in every [`crate::Reply`] to this request.
    pub id: u64,
    /// What to do.
    pub command: Command,
}

/// What can be asked of a session. One runs at a time; `Cancel` is the exception and ends one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Take up a model; its history starts anew. Ends in [`crate::Event::Loaded`].
    /// The one command an edge serves itself, for only an edge can fetch.
    Load(ModelSource),
    /// Complete a prompt with the model as it is now. Ends in [`crate::Event::Answered`].
    Ask {
        /// Text to complete.
        prompt: String,
        /// How many tokens to generate, greedily.
        tokens: usize,
        /// How many candidates for the next token to list.
        top: usize,
    },
    /// One editing operation. Ends in [`crate::Event::Edited`].
    Edit {
        /// One fact, or a batch where the editor can.
        facts: Vec<Fact>,
        /// How.
        spec: EditSpec,
    },
    /// Facts asked of the untouched model and of the model as it is now. Ends in [`crate::Event::Measured`].
    Measure {
        /// What to ask.
        facts: Vec<Fact>,
    },
    /// Regularise the session's edits anew, from the updates as their editors made them: nothing is optimised again.
    /// Ends in [`crate::Event::Changed`].
    Regularize {
        /// What is kept.
        regularizer: Regularizer,
        /// Whether of each edit or of their sum.
        over: Over,
        /// Seeds the random regularizer.
        seed: u64,
    },
    /// How far the model is from the unedited one, matrix by matrix. Ends in [`crate::Event::Changed`].
    Changes,
    /// Ask records of a task of the model as it is now, or of the unedited one. Ends in [`crate::Event::Evaluated`].
    Evaluate {
        /// The task's id.
        task: String,
        /// At most so many records, evenly spaced through its file.
        records: usize,
        /// Whether the unedited model is asked.
        #[serde(default)]
        unedited: bool,
    },
    /// Write facts one after another beside the session's own edits, and measure. Ends in [`crate::Event::Played`].
    Play(Box<Play>),
    /// Find which states of the model as it is now carry what it says after a prompt. Ends in [`crate::Event::Traced`].
    Trace(TraceSpec),
    /// Take back the latest edit. Ends in [`crate::Event::Undone`].
    Undo,
    /// Drop a command that runs or waits: it ends in [`crate::Event::Cancelled`] and has changed nothing. One that has
    /// ended stays as it is, and no other is dropped in its place.
    Cancel {
        /// The number of its [`Request`].
        request: u64,
    },
}

impl Command {
    /// Whether it asks tasks, whose records an edge hands to the session first.
    pub fn asks_tasks(&self) -> bool {
        matches!(self, Self::Evaluate { .. } | Self::Play(_))
    }
}

/// What [`Command::Regularize`] regularises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// Each edit's update, beside the weights it was added to.
    #[default]
    Each,
    /// The sum of all updates, beside the unedited weights.
    Total,
}

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelSource {
    /// One of `static/models.json`.
    Bundled {
        /// Its id.
        id: String,
    },
}

/// What `POST /api/sessions` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionOpened {
    /// Part of the session's address: `/api/sessions/{key}/commands` and `/api/sessions/{key}/events`.
    pub key: String,
}
