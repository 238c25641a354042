use serde::{Deserialize, Serialize};

use crate::{EditMode, EditorSpec, FactScores, Judgement, Precision, Regularizer, WeightChange};

/// What one file of rows is about: an editor and a seed, with everything that decides its numbers. Its first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Version of the rows' shape.
    pub schema: u32,
    /// The program and its version.
    pub program: String,
    /// What computed.
    pub device: String,
    /// The model's id or folder, and its hash.
    pub model: String,
    /// SHA-256 of the model's weights.
    pub model_hash: String,
    /// The file of facts, and its SHA-256.
    pub facts: [String; 2],
    /// Which of its records.
    pub index: [usize; 2],
    /// How they meet the model.
    pub mode: EditMode,
    /// Facts of one operation of a sequence.
    pub batch: usize,
    /// The editor's settings in full.
    pub editor: EditorSpec,
    /// Second moments that were named.
    pub covariance: Option<String>,
    /// The tasks: the id, the file and its SHA-256 of each.
    #[serde(default)]
    pub tasks: Vec<[String; 3]>,
    /// At most so many records of each.
    #[serde(default)]
    pub limit: Option<usize>,
    /// The file of snippets that texts are compared with, and its SHA-256.
    #[serde(default)]
    pub snippets: Option<[String; 2]>,
    /// SHA-256 of the second moments that the editor reads, of all its layers together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moments: Option<String>,
    /// SHA-256 of what MEND learnt, where the editor reads that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypernetwork: Option<String>,
    /// Records that were left out because they cannot be used, by their numbers in the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<usize>,
    /// Keys of `config.json` and tensors of the model that were left out of account.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
    /// How the model's matrices were stored while it computed.
    #[serde(default, skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
    /// The seed.
    pub seed: u64,
}

impl Cell {
    /// The version written into [`Cell::schema`].
    pub const SCHEMA: u32 = 1;

    /// What decides the numbers of its rows, and nothing else: two files whose cells are equal in this hold rows of one
    /// cell. Which program and device made them, and where model and files lay, is left out; hashes say what was in them.
    pub fn identity(&self) -> Self {
        let nameless = |named: &Option<[String; 2]>| named.clone().map(|[_, hash]| [String::new(), hash]);
        // What fact is edited alone does not depend on which others are asked for.
        let alone = self.mode == EditMode::Single;
        Self {
            program: String::new(),
            device: String::new(),
            model: String::new(),
            facts: [String::new(), self.facts[1].clone()],
            index: if alone { [0, 0] } else { self.index },
            skipped: if alone { Vec::new() } else { self.skipped.clone() },
            covariance: self.covariance.clone().filter(|_| self.moments.is_none()),
            tasks: self.tasks.iter().map(|[id, _, hash]| [id.clone(), String::new(), hash.clone()]).collect(),
            snippets: nameless(&self.snippets),
            ..self.clone()
        }
    }
}

/// One finished measurement. Rows are added and never changed; every table is made of them anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was kept of each update.
    pub regularizer: Regularizer,
    /// How many operations had been made; in batch mode, of how many facts the one was.
    pub edits: usize,
    /// What was measured.
    pub measured: Measured,
}

/// What a row measures, apart from the numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A fact.
    Fact(usize),
    /// An operation.
    Edit(usize),
    /// An operation that was not made.
    Refused(usize),
    /// A record of a task.
    Task(String, usize),
    /// A fact's texts.
    Text(usize),
}

impl Row {
    /// What tells a row from all others of its cell. A regularizer is known by its text, for shares are no keys.
    pub fn id(&self) -> (String, usize, Key) {
        (self.regularizer.to_string(), self.edits, self.measured.key())
    }
}

impl Measured {
    /// What was measured.
    pub fn key(&self) -> Key {
        match self {
            Self::Fact { item, .. } => Key::Fact(*item),
            Self::Edit { item, .. } => Key::Edit(*item),
            Self::Refused { item, .. } => Key::Refused(*item),
            Self::Text { item, .. } => Key::Text(*item),
            Self::Task { task, item, .. } => Key::Task(task.clone(), *item),
        }
    }
}

/// What texts are like that a model writes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextScores {
    /// ROME's fluency: the entropy of word pairs and triples, in bits, mean over texts.
    pub entropy: f64,
    /// ROME's consistency, of all texts together with the fact's references; absent without any.
    pub consistency: Option<f64>,
}

/// What a row holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measured {
    /// A fact, by its number in the file.
    Fact {
        /// The number.
        item: usize,
        /// Its scores.
        scores: FactScores,
    },
    /// An operation: what it cost, and how far it moved the weights. Single mode: of the fact with this number.
    Edit {
        /// The first fact's number.
        item: usize,
        /// Seconds of editing.
        seconds: f64,
        /// Each matrix that differs from the unedited model's.
        weights: Vec<WeightChange>,
    },
    /// How the edited model writes on from a fact's generation prompts.
    Text {
        /// The fact's number.
        item: usize,
        /// How it writes.
        #[serde(flatten)]
        scores: TextScores,
        /// How the unedited model does; absent in rows of before it was asked.
        #[serde(default)]
        unedited: Option<TextScores>,
    },
    /// An edit that could not be made, and why.
    Refused {
        /// The first fact's number.
        item: usize,
        /// Why.
        reason: String,
    },
    /// A record of a task, by its number in the file.
    Task {
        /// The task's id.
        task: String,
        /// The number.
        item: usize,
        /// How it was answered; absent where prompt and answer do not fit the context.
        judgement: Option<Judgement>,
    },
}
