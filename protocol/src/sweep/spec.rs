use serde::{Deserialize, Serialize};

use crate::{EditMode, Failure, Regularizer, bounds, unknown};

/// A grid of edits: every editor, with every seed, under every regularizer. Written as TOML.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepSpec {
    /// A bundled model's id, or a folder: beside the spec's file, or anywhere.
    pub model: String,
    /// The file of facts, beside the spec's own.
    pub facts: String,
    /// Which of its records: from the first number, to before the second. All when absent.
    pub index: Option<[usize; 2]>,
    /// How the facts meet the model.
    pub mode: EditMode,
    /// Sequential: after how many operations to measure. Batch: how many facts in one operation. 0 is the unedited model.
    /// Single mode has none.
    #[serde(default)]
    pub edits: Vec<usize>,
    /// Sequential: how many facts each operation writes.
    #[serde(default = "one")]
    pub batch: usize,
    /// Each seeds the context texts, the random regularizer, and (but in single mode) which facts come first.
    #[serde(default = "one_seed")]
    pub seeds: Vec<u64>,
    /// What is kept of each update: `none`, `rect 40%`, `random 40%`, `pca 40%`, `low_rank 40%`, `prune`.
    pub regularizers: Vec<String>,
    /// Second moments of keys: a folder beside the spec, or `identity`; what lies beside the model when absent.
    #[serde(default)]
    pub covariance: Option<String>,
    /// Tasks to ask whenever something is measured, by id, or `all`.
    #[serde(default)]
    pub tasks: Vec<String>,
    /// The folder of their files, beside the spec.
    #[serde(default)]
    pub data: Option<String>,
    /// At most so many records of each task.
    #[serde(default)]
    pub limit: Option<usize>,
    /// Whether to let the model write, and score its texts: costs as much as all else together.
    #[serde(default)]
    pub texts: bool,
    /// ROME's `attribute_snippets.json`, beside the spec, which a text's consistency is measured with.
    #[serde(default)]
    pub snippets: Option<String>,
    /// Each with its `method`, and hyper-parameters by their names where they differ from the model's own settings.
    pub editors: Vec<serde_json::Map<String, serde_json::Value>>,
}

/// The first entry that was there before.
fn twice<T: PartialEq>(list: &[T]) -> Option<&T> {
    list.iter().enumerate().find(|(n, entry)| list[..*n].contains(entry)).map(|(_, entry)| entry)
}

fn one() -> usize {
    1
}

fn one_seed() -> Vec<u64> {
    vec![0]
}

impl SweepSpec {
    const KEYS: &[&str] = &[
        "model",
        "facts",
        "index",
        "mode",
        "edits",
        "batch",
        "seeds",
        "regularizers",
        "covariance",
        "tasks",
        "data",
        "limit",
        "texts",
        "snippets",
        "editors",
    ];

    /// Reads a spec; `file` is its name in messages.
    ///
    /// # Errors
    ///
    /// When the text is no TOML, has an unknown key, or asks for what cannot be.
    pub fn from_toml(file: &str, text: &str) -> Result<Self, Failure> {
        let wrong = |problem: String| Failure::bad_input(format!("{file}: {problem}"));
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| wrong(error.to_string()))?;
        if let Some(key) = table.keys().find(|key| !Self::KEYS.contains(&key.as_str())) {
            return Err(wrong(unknown("key", key, Self::KEYS)));
        }
        let spec: Self = table.try_into().map_err(|error: toml::de::Error| wrong(error.to_string()))?;
        spec.validate().map_err(|failure| wrong(failure.message))?;
        Ok(spec)
    }

    /// # Errors
    ///
    /// When it asks for what cannot be.
    pub fn validate(&self) -> Result<(), Failure> {
        let wrong = |problem: String| Err(Failure::bad_input(problem));
        for (name, empty) in [
            ("editors", self.editors.is_empty()),
            ("regularizers", self.regularizers.is_empty()),
            ("seeds", self.seeds.is_empty()),
        ] {
            if empty {
                return wrong(format!("{name} is empty; a grid needs at least one"));
            }
        }
        bounds::within("batch", self.batch, 0..=bounds::FACTS)?;
        bounds::within("edits", self.edits.iter().copied().max().unwrap_or(0), 0..=bounds::FACTS)?;
        bounds::entries("edits", &self.edits, bounds::POINTS)?;
        bounds::entries("seeds", &self.seeds, bounds::POINTS)?;
        bounds::entries("regularizers", &self.regularizers, bounds::POINTS)?;
        if let Some(seed) = twice(&self.seeds) {
            return wrong(format!("seeds has {seed} twice"));
        }
        if let Some(task) = twice(&self.tasks) {
            return wrong(format!("tasks has {task:?} twice"));
        }
        if self.tasks.len() > 1 && self.tasks.iter().any(|task| task == "all") {
            return wrong("tasks has \"all\" beside others, which it holds already".into());
        }
        if let Some(editor) = twice(&self.editors) {
            let method = editor.get("method").and_then(serde_json::Value::as_str).unwrap_or("one");
            return wrong(format!("editors has {method} twice, with the same settings"));
        }
        if self.limit == Some(0) {
            return wrong("limit is 0; without records there is no score".into());
        }
        match self.mode {
            EditMode::Single if !self.edits.is_empty() => return wrong("edits has no meaning in single mode".into()),
            EditMode::Sequential | EditMode::Batch if self.edits.is_empty() => {
                return wrong(format!("edits is empty; {:?} mode measures after so many", self.mode));
            }
            EditMode::Sequential if self.batch == 0 => return wrong("batch is 0; each operation writes a fact".into()),
            EditMode::Single | EditMode::Batch if self.batch != 1 => {
                return wrong("batch is for sequential mode; in batch mode edits says how many facts".into());
            }
            _ => {}
        }
        if !self.edits.is_sorted_by(|a, b| a < b) {
            return wrong(format!("edits is {:?}; list numbers ascending, each once", self.edits));
        }
        if let Some([from, to]) = self.index.filter(|[from, to]| from >= to) {
            return wrong(format!("index is [{from}, {to}] and holds nothing; the end is not part of it"));
        }
        if self.snippets.is_some() && !self.texts {
            return wrong("snippets are for scoring texts: set texts = true".into());
        }
        if !self.tasks.is_empty() && self.data.is_none() {
            return wrong("tasks are named, but not the folder of their files: data".into());
        }
        if !self.tasks.is_empty() && self.mode == EditMode::Single {
            return wrong("tasks need a model that stays edited: mode sequential or batch".into());
        }
        self.regularizers().map(drop)
    }

    /// What is kept of each update.
    ///
    /// # Errors
    ///
    /// When a name or share is unknown.
    pub fn regularizers(&self) -> Result<Vec<Regularizer>, Failure> {
        let mut regularizers: Vec<Regularizer> = Vec::with_capacity(self.regularizers.len());
        for text in &self.regularizers {
            let regularizer: Regularizer = text.parse()?;
            // Rows are told apart by how a regularizer is written.
            if regularizers.iter().any(|other| other.to_string() == regularizer.to_string()) {
                return Err(Failure::bad_input(format!("regularizers has {regularizer} twice")));
            }
            regularizers.push(regularizer);
        }
        Ok(regularizers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        model = "m"
        facts = "f.json"
        mode = "single"
        regularizers = ["none", "rect 40%", "random 0.2"]
        editors = [{ method = "rome", v_lr = 0.1 }]
    "#;

    #[test]
    fn a_spec_is_read_with_its_defaults() {
        let spec = SweepSpec::from_toml("s.toml", GOOD).unwrap();
        assert_eq!(spec.seeds, [0]);
        let expected = [Regularizer::None, Regularizer::Rect { keep: 0.4 }, Regularizer::Random { keep: 0.2 }];
        assert_eq!(spec.regularizers().unwrap(), expected);
        assert_eq!(spec.editors[0]["v_lr"], 0.1);
    }

    #[track_caller]
    fn check_refused(from: &str, to: &str, parts: &[&str]) {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD);
        let failure = SweepSpec::from_toml("s.toml", &text).unwrap_err();
        for part in ["s.toml"].iter().chain(parts) {
            assert!(failure.message.contains(part), "{failure}\nlacks {part:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_spec_is_named() {
        check_refused("mode = ", "mode : ", &["line 4"]);
        check_refused(
            "regularizers = ",
            "regularisers = ",
            &["unknown key \"regularisers\"; did you mean \"regularizers\"?"],
        );
        check_refused("\"single\"", "\"sinlge\"", &["sinlge"]);
        check_refused("rect 40%", "rekt 40%", &["did you mean \"rect\"?"]);
        check_refused("rect 40%", "rect 140%", &["keep is 1.4"]);
        check_refused("rect 40%", "rect much", &["much"]);
        check_refused("\"rect 40%\"", "\"rect 40%\", \"rect 0.4\"", &["regularizers has rect 40% twice"]);
        check_refused("\"single\"", "\"sequential\"", &["edits is empty"]);
        check_refused("\"single\"", "\"single\"\nedits = [1]", &["no meaning in single mode"]);
        check_refused("\"single\"", "\"batch\"\nedits = [5, 1]", &["ascending"]);
        check_refused("\"single\"", "\"sequential\"\nedits = [1]\nbatch = 0", &["batch is 0"]);
        check_refused("\"single\"", "\"batch\"\nedits = [1]\nbatch = 2", &["for sequential mode"]);
        check_refused("\"single\"", "\"single\"\nindex = [3, 3]", &["holds nothing"]);
        check_refused("\"single\"", "\"batch\"\nedits = [1]\ntasks = [\"all\"]", &["the folder of their files"]);
        check_refused("\"single\"", "\"single\"\nseeds = []", &["seeds is empty"]);
        check_refused("\"single\"", "\"single\"\nsnippets = \"s.json\"", &["texts = true"]);
        check_refused("[{ method = \"rome\", v_lr = 0.1 }]", "[]", &["editors is empty"]);
        check_refused("\"single\"", "\"single\"\nseeds = [0, 1, 0]", &["seeds has 0 twice"]);
        let tasks = |tasks: &str| format!("\"batch\"\nedits = [1]\ndata = \"d\"\ntasks = {tasks}");
        check_refused("\"single\"", &tasks("[\"nli\", \"nli\"]"), &["tasks has \"nli\" twice"]);
        check_refused("\"single\"", &tasks("[\"nli\", \"all\"]"), &["\"all\" beside others"]);
        let rome = "{ method = \"rome\", v_lr = 0.1 }";
        check_refused(&format!("[{rome}]"), &format!("[{rome}, {rome}]"), &["editors has rome twice"]);
    }
}
