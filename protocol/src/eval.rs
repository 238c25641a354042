use serde::{Deserialize, Serialize};

use crate::{Precision, TaskScores};

/// What `rectify eval` writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalReport {
    /// Version of this shape.
    pub schema: u32,
    /// The program and its version.
    pub program: String,
    /// The model, and the edits it carries.
    pub model: String,
    /// SHA-256 of the unedited model's weights.
    pub model_hash: String,
    /// The file of edits that were applied.
    pub edits: Option<String>,
    /// Keys of `config.json` and tensors of the model that were left out of account.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
    /// How the model's matrices were stored while it computed.
    #[serde(default, skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
    /// Each task.
    pub tasks: Vec<TaskReport>,
}

/// A task's scores on one model, and how fast they were found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    /// The task's id.
    pub task: String,
    /// What a person reads.
    pub name: String,
    /// The file of records, and its SHA-256.
    pub file: [String; 2],
    /// Records that do not fit the model's context.
    pub skipped: usize,
    /// The scores of the others.
    pub scores: TaskScores,
    /// Seconds of answering.
    pub seconds: f64,
    /// Tokens that went through the model.
    pub tokens: usize,
}
