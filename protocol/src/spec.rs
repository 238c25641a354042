use serde::{Deserialize, Serialize};

use crate::{ArchitectureKind, Failure};

/// One editing operation in full: enough to run it again and get the same weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditSpec {
    /// The editor and its hyper-parameters.
    pub editor: EditorSpec,
    /// What is kept of the editor's update.
    #[serde(default)]
    pub regularizer: Regularizer,
    /// Seeds everything that is sampled: context texts, the random regularizer.
    #[serde(default)]
    pub seed: u64,
}

impl EditSpec {
    /// Says which setting is impossible, by its name. Whether the model has such a layer, only the model knows.
    ///
    /// # Errors
    ///
    /// When a hyper-parameter is outside its range, a template has not exactly one `{}`, or `keep` is not in (0, 1].
    pub fn validate(&self) -> Result<(), Failure> {
        match &self.editor {
            EditorSpec::Rome(rome) => rome.validate()?,
        }
        self.regularizer.validate()
    }
}

/// Which editor, with its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum EditorSpec {
    /// Rank-One Model Editing, <https://arxiv.org/abs/2202.05262>.
    Rome(RomeSpec),
}

impl EditorSpec {
    /// Every method's name, as the command line and the page write it.
    pub const METHODS: &[&str] = &["rome"];

    /// The published settings of one of [`Self::METHODS`] for a model family.
    pub fn published(method: &str, architecture: ArchitectureKind) -> Option<Self> {
        (method == "rome").then(|| Self::Rome(RomeSpec::published(architecture)))
    }

    /// The method's name.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Rome(_) => "rome",
        }
    }
}

/// Hyper-parameters of ROME, named as in the field. The defaults are the published ones of GPT-2 XL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RomeSpec {
    /// The layer whose down projection is edited; the model's default when absent.
    pub layers: Option<Vec<usize>>,
    /// Which token's key is edited.
    pub fact_token: FactToken,
    /// At most this many evaluations of the loss (one update fewer).
    pub v_num_grad_steps: usize,
    /// Adam's learning rate for the value.
    pub v_lr: f64,
    /// Weight of `‖δ‖ / ‖t₀‖²` in the loss.
    pub v_weight_decay: f64,
    /// δ is projected onto the ball of radius this × `‖t₀‖`.
    pub clamp_norm_factor: f64,
    /// Weight of `KL(current ‖ initial)` of what follows the subject alone.
    pub kl_factor: f64,
    /// Whether the key is whitened by the inverse second moment of the layer's keys.
    pub mom2_adjustment: bool,
    /// Which key the update is made for.
    pub key: KeyChoice,
    /// The texts that stand before the prompt while key and value are found.
    pub contexts: Contexts,
}

impl Default for RomeSpec {
    fn default() -> Self {
        Self {
            layers: None,
            fact_token: FactToken::SubjectLast,
            v_num_grad_steps: 20,
            v_lr: 0.5,
            v_weight_decay: 0.5,
            clamp_norm_factor: 4.0,
            kl_factor: 0.0625,
            mom2_adjustment: false,
            key: KeyChoice::Mixed,
            contexts: Contexts::Sampled,
        }
    }
}

impl RomeSpec {
    /// The published settings for a model family: GPT-2 XL's, or LLaMA 7B's, which differ in two numbers.
    pub fn published(architecture: ArchitectureKind) -> Self {
        match architecture {
            ArchitectureKind::Gpt2 => Self::default(),
            ArchitectureKind::Llama => Self { v_num_grad_steps: 25, v_weight_decay: 1e-3, ..Self::default() },
        }
    }

    fn validate(&self) -> Result<(), Failure> {
        if let Some(layers) = self.layers.as_ref().filter(|layers| layers.len() != 1) {
            return Err(Failure::bad_input(format!("layers is {layers:?}; ROME edits exactly one layer")));
        }
        if self.v_num_grad_steps == 0 {
            return Err(Failure::bad_input("v_num_grad_steps is 0; it must be at least 1"));
        }
        for (name, value) in [("v_lr", self.v_lr), ("clamp_norm_factor", self.clamp_norm_factor)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Failure::bad_input(format!("{name} is {value}; it must be a finite number above 0")));
            }
        }
        for (name, value) in [("v_weight_decay", self.v_weight_decay), ("kl_factor", self.kl_factor)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Failure::bad_input(format!("{name} is {value}; it must be a finite number, 0 or above")));
            }
        }
        self.contexts.validate()
    }
}

/// Which token of the prompt an edit reads its key at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactToken {
    /// The last token of the subject, as published.
    SubjectLast,
    /// The last token of the prompt.
    Last,
}

/// Which key ROME whitens (`u`) and which it divides by: the published pair differs, which is why edits explode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyChoice {
    /// As published: the mean over contexts in `u`, the bare prompt's key in the denominator.
    Mixed,
    /// r-ROME: the mean key in both, <https://arxiv.org/abs/2403.07175>.
    Mean,
    /// p-ROME: the bare prompt's key in both.
    Prompt,
}

/// The context templates of an edit, each with one `{}` where the prompt goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contexts {
    /// The bare prompt and twenty short texts sampled from the unedited model with the spec's seed.
    Sampled,
    /// These templates.
    Given(Vec<String>),
}

impl Contexts {
    /// Says which template has not exactly one slot.
    ///
    /// # Errors
    ///
    /// When the list is empty, or a template has not exactly one `{}`.
    pub fn validate(&self) -> Result<(), Failure> {
        let Self::Given(templates) = self else { return Ok(()) };
        if templates.is_empty() {
            return Err(Failure::bad_input("contexts is an empty list; the bare prompt is the template \"{}\""));
        }
        for (i, template) in templates.iter().enumerate() {
            let n = template.matches("{}").count();
            if n != 1 {
                return Err(Failure::bad_input(format!(
                    "contexts[{i}] is {template:?} and has {n} places `{{}}`; it must have one, where the prompt goes"
                )));
            }
        }
        Ok(())
    }
}

/// What is kept of an update `ΔW`, per matrix. `keep` is a share in (0, 1].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Regularizer {
    /// All of it.
    #[default]
    None,
    /// RECT: the entries with the largest `|ΔW / W|`, <https://arxiv.org/abs/2401.04700>.
    Rect {
        /// The share of entries that survive.
        keep: f64,
    },
    /// As many entries, drawn at random.
    Random {
        /// The share of entries that survive.
        keep: f64,
    },
}

impl Regularizer {
    /// Every regularizer's name, as the command line and the page write it.
    pub const NAMES: &[&str] = &["none", "rect", "random"];

    /// The regularizer's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Rect { .. } => "rect",
            Self::Random { .. } => "random",
        }
    }

    /// Says so when the share is none.
    ///
    /// # Errors
    ///
    /// When `keep` is not in (0, 1].
    pub fn validate(&self) -> Result<(), Failure> {
        let keep = self.keep();
        if keep > 0.0 && keep <= 1.0 {
            return Ok(());
        }
        Err(Failure::bad_input(format!(
            "keep is {keep}; it is the share of entries that survive, above 0 and at most 1"
        )))
    }

    /// The share of entries that survive.
    pub fn keep(&self) -> f64 {
        match *self {
            Self::None => 1.0,
            Self::Rect { keep } | Self::Random { keep } => keep,
        }
    }
}

/// The candidate that a mistyped name most likely meant: at most a third of its letters wrong.
pub fn nearest<'a>(typed: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let (distance, best) = candidates.iter().map(|candidate| (edit_distance(typed, candidate), *candidate)).min()?;
    (distance * 3 <= best.chars().count().max(3)).then_some(best)
}

/// Levenshtein's distance, over characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(typed: &str, expected: Option<&str>) {
        assert_eq!(nearest(typed, &["rome", "memit", "mend", "kn"]), expected);
    }

    #[test]
    fn a_mistyped_name_finds_its_neighbor() {
        check("roem", None);
        check("rom", Some("rome"));
        check("mmit", Some("memit"));
        check("alphaedit", None);
    }

    #[test]
    fn every_name_in_the_tables_is_one_that_is_read() {
        for name in Regularizer::NAMES {
            let json = format!(r#"{{"name":"{name}","keep":0.4}}"#);
            assert_eq!(serde_json::from_str::<Regularizer>(&json).unwrap().name(), *name);
        }
        for method in EditorSpec::METHODS {
            let json = format!(r#"{{"method":"{method}"}}"#);
            assert_eq!(serde_json::from_str::<EditorSpec>(&json).unwrap().method(), *method);
            assert_eq!(EditorSpec::published(method, ArchitectureKind::Llama).unwrap().method(), *method);
        }
    }

    fn spec(change: impl FnOnce(&mut RomeSpec)) -> EditSpec {
        let mut rome = RomeSpec::default();
        change(&mut rome);
        EditSpec { editor: EditorSpec::Rome(rome), regularizer: Regularizer::None, seed: 0 }
    }

    #[track_caller]
    fn check_range(spec: EditSpec, complaint: Option<&str>) {
        match (spec.validate(), complaint) {
            (Ok(()), None) => {}
            (Err(failure), Some(part)) => assert!(failure.message.contains(part), "{failure}"),
            (found, expected) => panic!("expected {expected:?}, found {found:?}"),
        }
    }

    #[test]
    fn impossible_hyper_parameters_are_named() {
        check_range(spec(|_| {}), None);
        check_range(spec(|rome| rome.v_num_grad_steps = 0), Some("v_num_grad_steps is 0"));
        check_range(spec(|rome| rome.v_lr = 0.0), Some("v_lr is 0"));
        check_range(spec(|rome| rome.v_lr = f64::NAN), Some("v_lr is NaN"));
        check_range(spec(|rome| rome.clamp_norm_factor = 0.0), Some("clamp_norm_factor is 0"));
        check_range(spec(|rome| rome.v_weight_decay = -0.5), Some("v_weight_decay is -0.5"));
        check_range(spec(|rome| rome.v_weight_decay = 0.0), None);
        check_range(spec(|rome| rome.kl_factor = f64::INFINITY), Some("kl_factor is inf"));
        check_range(spec(|rome| rome.layers = Some(vec![])), Some("exactly one layer"));
        check_range(spec(|rome| rome.layers = Some(vec![4, 5])), Some("exactly one layer"));
        check_range(spec(|rome| rome.layers = Some(vec![4])), None);
    }

    #[test]
    fn a_template_has_one_place_for_the_prompt() {
        let given = |templates: &[&str]| {
            let templates = templates.iter().map(|template| template.to_string()).collect();
            spec(|rome| rome.contexts = Contexts::Given(templates))
        };
        check_range(given(&["{}", "The. {}"]), None);
        check_range(given(&[]), Some("empty list"));
        check_range(given(&["{}", "no place"]), Some("contexts[1]"));
        check_range(given(&["{} and {}"]), Some("has 2 places"));
    }

    #[test]
    fn keep_is_a_share_above_zero() {
        for keep in [0.4, 1.0, f64::MIN_POSITIVE] {
            check_range(EditSpec { regularizer: Regularizer::Rect { keep }, ..spec(|_| {}) }, None);
        }
        for keep in [0.0, -1.0, f64::NAN, 1.01, f64::INFINITY] {
            check_range(EditSpec { regularizer: Regularizer::Rect { keep }, ..spec(|_| {}) }, Some("keep is"));
            check_range(EditSpec { regularizer: Regularizer::Random { keep }, ..spec(|_| {}) }, Some("keep is"));
        }
    }
}
