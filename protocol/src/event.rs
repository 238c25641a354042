use serde::{Deserialize, Serialize};

use crate::{
    Ability, Answer, Cell, EditReport, FactReport, Failure, ModelInfo, PlayReport, Row, Step, TraceReport, WeightChange,
};

/// An event and the request it belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's number.
    pub id: u64,
    /// What happened.
    pub event: Event,
}

/// What a command leads to: any number of `Progress`, then exactly one of the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// How far the running command is.
    Progress(Progress),
    /// A model is ready.
    Loaded(ModelInfo),
    /// A prompt was completed.
    Answered(Answer),
    /// The session's model now carries the edit.
    Edited(EditReport),
    /// Facts were measured.
    Measured(Vec<FactReport>),
    /// How far each matrix is from the unedited model's.
    Changed(Vec<WeightChange>),
    /// Records of a task were asked.
    Evaluated(Ability),
    /// Facts were written one after another, beside the session's own edits.
    Played(Box<PlayReport>),
    /// States were put back into corrupted runs.
    Traced(Box<TraceReport>),
    /// The latest edit is gone.
    Undone {
        /// How many edits remain.
        edits: usize,
    },
    /// The command was dropped on request; nothing changed.
    Cancelled,
    /// The command could not be done; nothing changed.
    Failed(Failure),
}

impl Event {
    /// Whether this ends its command.
    pub fn is_last(&self) -> bool {
        !matches!(self, Self::Progress(_))
    }
}

/// How far a command is: what the reference implementations print, as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Bytes of a model that have arrived.
    Fetching {
        /// The file being fetched.
        file: String,
        /// Bytes so far, over all files.
        done: u64,
        /// Bytes in all files, where known.
        total: Option<u64>,
    },
    /// Weights go to the device.
    Preparing,
    /// Facts are asked of the model before or after the edit.
    Measuring {
        /// Whether the edit is already applied.
        after: bool,
    },
    /// Context texts are sampled from the unedited model: tokens so far and in all.
    SamplingContexts {
        /// Tokens so far.
        done: usize,
        /// Tokens in all.
        total: usize,
    },
    /// One evaluation of the loss of one fact.
    Optimizing {
        /// The evaluation.
        step: Step,
        /// At most this many evaluations.
        steps: usize,
    },
    /// An editor's other work: layers swept, layers solved.
    Planning {
        /// Parts done.
        done: usize,
        /// Parts in all.
        total: usize,
    },
    /// The update is regularised and applied.
    Applying,
    /// Records of a task are asked: prompts so far and in all.
    Asking {
        /// The task's id.
        task: String,
        /// Prompts so far.
        done: usize,
        /// Prompts in all.
        total: usize,
    },
    /// States are put back into corrupted runs: states so far and in all.
    Tracing {
        /// States so far.
        done: usize,
        /// States in all.
        total: usize,
    },
    /// What the rows of a play are about, before the first.
    Playing(Box<Cell>),
    /// One of them.
    Row(Box<Row>),
}
