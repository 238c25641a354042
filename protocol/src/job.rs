//! Heavy runs: what a server is asked to do while nobody watches, and how far it is.
//!
//! A request holds ids and numbers only: templates and models are those that the server lists, and no path comes from
//! outside.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{EditMode, Failure, MendTraining, Precision, SweepSpec, bounds};

/// What is asked for: `POST /api/jobs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    /// What to run.
    pub work: JobWork,
    /// How many processes share it, where it can be shared. On one machine they run as many at a time as the server
    /// allows.
    #[serde(default = "one")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1000))]
    pub parts: usize,
    /// How matrices are stored.
    #[serde(default, skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
}

fn one() -> usize {
    1
}

/// What a job runs. Models, files and folders are named by ids of [`JobOffer`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum JobWork {
    /// A grid of edits: `rectify sweep`.
    Sweep {
        /// One of [`JobOffer::templates`].
        template: String,
        /// What differs from it.
        #[serde(default)]
        change: SweepChange,
    },
    /// What a model can do: `rectify eval`.
    Evaluation {
        /// One of [`JobOffer::models`].
        model: String,
        /// One of [`JobOffer::edits`], applied first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        edits: Option<String>,
        /// The folder with the tasks' files: one of [`JobOffer::tasks`].
        data: String,
        /// Which tasks; `all` are the paper's eight.
        #[serde(default = "all")]
        tasks: Vec<String>,
        /// At most so many records of each, evenly spaced through its file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1_000_000))]
        limit: Option<usize>,
        /// Whether each record's prompts, replies and verdicts are kept.
        #[serde(default)]
        log_samples: bool,
    },
    /// Second moments of keys, as MEMIT and others need them: `rectify stats`.
    Statistics {
        /// One of [`JobOffer::models`].
        model: String,
        /// The corpus: one of [`JobOffer::texts`].
        text: String,
        /// Which layers.
        layers: Vec<usize>,
        /// How many tokens to average over.
        #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 4_000_000_000_i64))]
        tokens: usize,
    },
    /// MEND's hypernetwork: `rectify mend train`.
    MendTraining {
        /// One of [`JobOffer::models`].
        model: String,
        /// What to train on: one of [`JobOffer::facts`].
        facts: String,
        /// By what to choose the best: one of [`JobOffer::facts`].
        validation: String,
        /// At most so many steps, one fact each.
        #[serde(default = "steps")]
        #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1_000_000_000))]
        steps: usize,
        /// What differs from the model's default settings: keys of [`MendTraining`].
        #[serde(default)]
        settings: Map<String, Value>,
    },
}

fn all() -> Vec<String> {
    vec!["all".to_owned()]
}

fn steps() -> usize {
    100_000
}

impl JobWork {
    /// What a person calls it.
    pub fn name(&self) -> &str {
        match self {
            Self::Sweep { template, .. } => template,
            Self::Evaluation { .. } => "evaluation",
            Self::Statistics { .. } => "statistics",
            Self::MendTraining { .. } => "mend-training",
        }
    }

    /// The same with the model that is asked or made ready; a grid's template stands for its own.
    pub fn title(&self) -> String {
        match self.model() {
            Some(model) => format!("{} · {model}", self.name()),
            None => self.name().to_owned(),
        }
    }

    /// The model that it names itself.
    pub fn model(&self) -> Option<&str> {
        match self {
            Self::Sweep { change, .. } => change.model.as_deref(),
            Self::Evaluation { model, .. } | Self::Statistics { model, .. } | Self::MendTraining { model, .. } => {
                Some(model)
            }
        }
    }

    /// What its results are counted in.
    pub fn unit(&self) -> &'static str {
        match self {
            Self::Sweep { .. } => "rows",
            Self::Evaluation { .. } | Self::Statistics { .. } | Self::MendTraining { .. } => "files",
        }
    }

    /// Says which number is impossible. A grid's are looked at where its template is read.
    ///
    /// # Errors
    ///
    /// When one is outside its range.
    pub fn validate(&self) -> Result<(), Failure> {
        match self {
            Self::Sweep { .. } => Ok(()),
            Self::Evaluation { tasks, limit, .. } => {
                bounds::within("tasks", tasks.len(), 1..=bounds::POINTS)?;
                limit.map_or(Ok(()), |limit| bounds::within("limit", limit, 1..=bounds::RECORDS))
            }
            Self::Statistics { layers, tokens, .. } => {
                bounds::within("layers", layers.len(), 1..=bounds::LAYERS)?;
                layers.iter().try_for_each(|layer| bounds::within("layers", *layer, 0..=bounds::LAYERS))?;
                bounds::within("tokens", *tokens, 1..=bounds::CORPUS)
            }
            Self::MendTraining { steps, settings, .. } => {
                bounds::within("steps", *steps, 1..=bounds::TRAINING)?;
                let settings = serde_json::from_value::<MendTraining>(Value::Object(settings.clone()));
                settings.map_err(|error| Failure::bad_field("settings", error))?.validate()
            }
        }
    }
}

/// What differs from a template. Each is a key of [`SweepSpec`]; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SweepChange {
    /// One of [`JobOffer::models`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Which records of the template's file of facts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_items = 2, max_items = 2))]
    pub index: Option<[usize; 2]>,
    /// How they meet the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<EditMode>,
    /// When to measure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edits: Option<Vec<usize>>,
    /// How many facts each operation of a sequence writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// The seeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeds: Option<Vec<u64>>,
    /// What is kept of each update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regularizers: Option<Vec<String>>,
    /// Tasks, where the template has a folder of their files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<String>>,
    /// At most so many records of each task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The editors with their settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub editors: Option<Vec<Map<String, Value>>>,
}

impl SweepChange {
    /// The template with these changes.
    ///
    /// # Errors
    ///
    /// When what comes out is no grid.
    pub fn of(&self, template: SweepSpec) -> Result<SweepSpec, Failure> {
        let mut spec = template;
        let Self { model, index, mode, edits, batch, seeds, regularizers, tasks, limit, editors } = self.clone();
        spec.model = model.unwrap_or(spec.model);
        spec.index = index.or(spec.index);
        if let Some(mode) = mode.filter(|mode| *mode != spec.mode) {
            spec.mode = mode;
            // What means nothing in the other mode goes with it.
            (spec.batch, spec.edits) = (1, Vec::new());
            if mode == EditMode::Single {
                spec.tasks.clear();
            }
        }
        spec.edits = edits.unwrap_or(spec.edits);
        spec.batch = batch.unwrap_or(spec.batch);
        spec.seeds = seeds.unwrap_or(spec.seeds);
        spec.regularizers = regularizers.unwrap_or(spec.regularizers);
        spec.tasks = tasks.unwrap_or(spec.tasks);
        spec.limit = limit.or(spec.limit);
        spec.editors = editors.unwrap_or(spec.editors);
        bounds::entries("editors", &spec.editors, bounds::POINTS)?;
        spec.validate()?;
        Ok(spec)
    }
}

/// What jobs a server takes, and what there is to run them: `GET /api/machine`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Machine {
    /// The program, its version included.
    pub program: String,
    /// What it computes on.
    pub device: String,
    /// Processors it may use.
    pub processors: usize,
    /// Bytes of memory, where the system says so.
    pub memory: Option<u64>,
    /// Bytes of it that are free.
    pub memory_free: Option<u64>,
    /// What may be asked for; absent where the server takes no jobs.
    pub offer: Option<JobOffer>,
}

/// What a server's jobs may be made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobOffer {
    /// What starts processes: `local`, or `slurm`.
    pub dispatcher: String,
    /// How many processes run at a time; none where a cluster decides.
    pub at_once: Option<usize>,
    /// Grids, each with the spec it stands for.
    pub templates: Vec<Template>,
    /// Models that may take a template's place.
    pub models: Vec<OfferedModel>,
    /// Edit sets.
    #[serde(default)]
    pub facts: Vec<String>,
    /// Folders with files of tasks.
    #[serde(default)]
    pub tasks: Vec<String>,
    /// Corpora.
    #[serde(default)]
    pub texts: Vec<String>,
    /// Edits of models, as `rectify edit --out` writes them.
    #[serde(default)]
    pub edits: Vec<String>,
}

/// A grid that a server has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Template {
    /// Its id.
    pub id: String,
    /// What it is for.
    pub title: String,
    /// The model it names.
    pub model: String,
    /// How facts meet the model.
    pub mode: EditMode,
    /// The methods, in order.
    pub methods: Vec<String>,
    /// What is kept of each update.
    pub regularizers: Vec<String>,
    /// When it measures.
    pub edits: Vec<usize>,
    /// The tasks that are asked.
    pub tasks: Vec<String>,
    /// What it names that is not there; nothing where it can be run.
    pub missing: Option<String>,
}

/// A model that a server has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OfferedModel {
    /// Its id.
    pub id: String,
    /// What a person reads.
    pub name: String,
    /// Bytes of memory that one edit takes at its peak, where that was measured.
    pub memory_edit: Option<u64>,
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Job {
    /// Its id.
    pub id: String,
    /// What it runs.
    pub request: JobRequest,
    /// Where it stands.
    pub state: JobState,
    /// Each part.
    pub parts: Vec<JobPart>,
    /// How often its processes were started.
    pub attempt: u32,
    /// Results that are written, in [`JobWork::unit`].
    pub rows: usize,
    /// Results there will be, refusals aside.
    pub expected: usize,
    /// Seconds since 1970 when it was asked for.
    pub created: u64,
    /// Seconds since 1970 when it ended.
    pub ended: Option<u64>,
    /// Seconds until its end, by the rows of this attempt.
    pub seconds_left: Option<f64>,
    /// Why it failed, what it waits for, or what it said last.
    pub note: Option<String>,
}

impl Job {
    /// Whether its results are rows, of which curves can be drawn while they come.
    pub fn has_rows(&self) -> bool {
        matches!(self.request.work, JobWork::Sweep { .. })
    }
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for its turn.
    Queued,
    /// Results are being made.
    Running,
    /// Every result is there.
    Done,
    /// It cannot go on by itself; the note says why.
    Failed,
    /// Somebody stopped it; what was measured is kept.
    Cancelled,
}

impl JobState {
    /// Whether nothing happens any more, unless somebody resumes it.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }

    /// Its name, as it is written everywhere.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Where a part of a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum JobPart {
    /// Waits to be started, for the first time or again.
    Queued,
    /// A process works on it.
    Running,
    /// Its process said that every result is there.
    Done,
}

/// A file of a job's results: `GET /api/jobs/{id}/rows`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RowsFile {
    /// Its name.
    pub name: String,
    /// Bytes of it.
    pub size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> SweepSpec {
        let text = "model = \"m\"\nfacts = \"f.json\"\nmode = \"sequential\"\nedits = [0, 5]\ntasks = [\"nli\"]\n\
                    data = \"d\"\nregularizers = [\"none\"]\neditors = [{ method = \"rome\" }]\n";
        SweepSpec::from_toml("t.toml", text).unwrap()
    }

    #[track_caller]
    fn check(change: &str, expected: Result<&str, &str>) {
        let change: SweepChange = serde_json::from_str(change).unwrap();
        match (change.of(template()), expected) {
            (Ok(spec), Ok(part)) => {
                let text = toml::to_string(&spec).unwrap();
                assert!(text.contains(part), "{text}\nlacks {part:?}");
                // What is written is what is read.
                assert_eq!(SweepSpec::from_toml("again.toml", &text).unwrap(), spec);
            }
            (Err(failure), Err(part)) => assert!(failure.message.contains(part), "{failure}\nlacks {part:?}"),
            (found, _) => panic!("{found:?}"),
        }
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        check("{}", Ok("edits = [0, 5]"));
        check(r#"{"seeds": [1, 2], "index": [0, 9]}"#, Ok("seeds = [1, 2]"));
        check(r#"{"mode": "single"}"#, Ok("mode = \"single\""));
        check(r#"{"mode": "batch"}"#, Err("edits is empty"));
        check(r#"{"mode": "batch", "edits": [2, 4]}"#, Ok("edits = [2, 4]"));
        check(r#"{"regularizers": []}"#, Err("regularizers is empty"));
        check(r#"{"regularizers": ["rekt 40%"]}"#, Err("did you mean \"rect\"?"));
        check(r#"{"index": [4, 4]}"#, Err("holds nothing"));
        check(r#"{"editors": [{"method": "rome", "v_lr": 0.25}]}"#, Ok("v_lr = 0.25"));
    }

    #[test]
    fn a_request_names_no_path() {
        for body in [
            r#"{"work": {"sweep": {"template": "t", "change": {"facts": "/etc/passwd"}}}}"#,
            r#"{"work": {"sweep": {"template": "t", "data": "/"}}}"#,
            r#"{"work": {"shell": {"command": "ls"}}}"#,
            r#"{"work": {"sweep": {"template": "t"}}, "out": "/tmp"}"#,
            r#"{"work": {"sweep": {"template": "t", "change": {"covariance": {"path": "/etc"}}}}}"#,
            r#"{"work": {"evaluation": {"model": "m", "data": {"path": "/etc"}}}}"#,
            r#"{"work": {"evaluation": {"model": "m", "data": "d", "out": "/etc"}}}"#,
            r#"{"work": {"statistics": {"model": "m", "text": "t", "layers": [-1], "tokens": 1}}}"#,
        ] {
            assert!(serde_json::from_str::<JobRequest>(body).is_err(), "{body}");
        }
    }

    #[test]
    fn impossible_numbers_are_named() {
        let complaint = |work: &str| {
            let work: JobWork = serde_json::from_str(work).unwrap();
            work.validate().err().and_then(|failure| failure.field)
        };
        let check = |work: &str, field: Option<&str>| assert_eq!(complaint(work).as_deref(), field, "{work}");
        check(r#"{"evaluation": {"model": "m", "data": "d"}}"#, None);
        check(r#"{"evaluation": {"model": "m", "data": "d", "limit": 0}}"#, Some("limit"));
        let statistics = |layers: &str, tokens: u64| {
            format!(r#"{{"statistics": {{"model": "m", "text": "t", "layers": {layers}, "tokens": {tokens}}}}}"#)
        };
        check(&statistics("[0, 3]", 1000), None);
        check(&statistics("[]", 1000), Some("layers"));
        check(&statistics("[99999]", 1000), Some("layers"));
        check(&statistics("[0]", 0), Some("tokens"));
        check(&statistics("[0]", u64::MAX), Some("tokens"));
        let training =
            |more: &str| format!(r#"{{"mend_training": {{"model": "m", "facts": "f", "validation": "v", {more}}}}}"#);
        check(&training(r#""settings": {"lr": 1e-5, "outer": "prompt"}"#), None);
        check(&training(r#""steps": 0"#), Some("steps"));
        check(&training(r#""settings": {"lr": -1}"#), Some("lr"));
        check(&training(r#""settings": {"out": "/etc/passwd"}"#), Some("settings"));
    }
}
