//! How an edit is made: the editor and its hyper-parameters, what is kept of its update, what would stop it.

pub(crate) mod editors;
mod hparams;
mod nearest;
mod regularizer;
mod training;
mod value;

pub use editors::*;
pub use nearest::{nearest, unknown};
pub use regularizer::Regularizer;
use serde::{Deserialize, Serialize};
pub use training::{MendTraining, OuterPrompt};
pub use value::{Contexts, ValueSpec};

use crate::{Failure, bounds::finite_above_zero};

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
    /// What stops an edit before it changes anything.
    #[serde(default)]
    pub guards: Guards,
}

impl EditSpec {
    /// This editor with everything else at its default: the whole update, seed 0, all guards.
    pub fn new(editor: EditorSpec) -> Self {
        Self { editor, regularizer: Regularizer::None, seed: 0, guards: Guards::default() }
    }

    /// Says which setting is impossible, by its name. Whether the model has such a layer, only the model knows.
    ///
    /// # Errors
    ///
    /// When a hyper-parameter is outside its range, a template has not exactly one `{}`, or `keep` is not in (0, 1].
    pub fn validate(&self) -> Result<(), Failure> {
        self.editor.validate()?;
        self.guards.validate()?;
        self.regularizer.validate()
    }
}

/// Limits beyond which an edit is given up and nothing is changed. What is not a finite number always stops an edit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Guards {
    /// An update may be this many times as large as the matrix it changes, in Frobenius norm; any size when absent.
    pub max_relative_norm: Option<f64>,
    /// The perplexity of a text that the unedited model wrote may grow by this factor; any when absent.
    pub max_perplexity_ratio: Option<f64>,
}

impl Default for Guards {
    fn default() -> Self {
        Self { max_relative_norm: Some(10.0), max_perplexity_ratio: Some(100.0) }
    }
}

impl Guards {
    /// Nothing but a number that is not finite stops an edit: for measuring the damage itself.
    pub const NONE: Self = Self { max_relative_norm: None, max_perplexity_ratio: None };

    fn validate(&self) -> Result<(), Failure> {
        finite_above_zero(&[
            ("max_relative_norm", self.max_relative_norm.unwrap_or(1.0)),
            ("max_perplexity_ratio", self.max_perplexity_ratio.unwrap_or(1.0)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ArchitectureKind;

    #[test]
    fn every_method_in_the_table_is_one_that_is_read() {
        for method in EditorSpec::METHODS {
            let json = format!(r#"{{"method":"{method}"}}"#);
            assert_eq!(serde_json::from_str::<EditorSpec>(&json).unwrap().method(), *method);
            for family in [ArchitectureKind::Gpt2, ArchitectureKind::Llama] {
                let published = EditorSpec::published(method, family).unwrap();
                assert_eq!(published.method(), *method);
                published.validate().unwrap();
            }
        }
    }

    #[track_caller]
    fn check(method: &str, change: impl FnOnce(&mut EditorSpec), complaint: Option<&str>) {
        let mut editor = EditorSpec::published(method, ArchitectureKind::Gpt2).unwrap();
        change(&mut editor);
        match (EditSpec::new(editor).validate(), complaint) {
            (Ok(()), None) => {}
            (Err(failure), Some(part)) => assert!(failure.message.contains(part), "{failure}"),
            (found, expected) => panic!("expected {expected:?}, found {found:?}"),
        }
    }

    #[test]
    fn impossible_hyper_parameters_of_the_value_are_named() {
        let value = |change: fn(&mut ValueSpec)| move |editor: &mut EditorSpec| change(editor.value_mut().unwrap());
        for method in ["rome", "memit", "emmet", "alphaedit"] {
            check(method, |_| {}, None);
            check(method, value(|value| value.v_num_grad_steps = 0), Some("v_num_grad_steps is 0"));
            check(method, value(|value| value.v_num_grad_steps = 1_000_000_000_000_000), Some("from 1 to 10000"));
            check(method, value(|value| value.v_lr = 0.0), Some("v_lr is 0"));
            check(method, value(|value| value.v_lr = f64::NAN), Some("v_lr is NaN"));
            check(method, value(|value| value.clamp_norm_factor = 0.0), Some("clamp_norm_factor is 0"));
            check(method, value(|value| value.v_weight_decay = -0.5), Some("v_weight_decay is -0.5"));
            check(method, value(|value| value.v_weight_decay = 0.0), None);
            check(method, value(|value| value.kl_factor = f64::INFINITY), Some("kl_factor is inf"));
        }
    }

    #[test]
    fn layers_are_as_many_as_the_method_edits() {
        let layers = |layers: &'static [usize]| {
            move |editor: &mut EditorSpec| *editor.layers_mut().unwrap() = Some(layers.to_vec())
        };
        check("rome", layers(&[]), Some("at least one"));
        check("rome", layers(&[4, 5]), Some("ROME edits exactly one layer"));
        check("emmet", layers(&[4, 5]), Some("EMMET edits exactly one layer"));
        check("rome", layers(&[4]), None);
        check("memit", layers(&[4, 5]), None);
        check("memit", layers(&[]), Some("at least one"));
        check("alphaedit", layers(&[5, 4]), Some("ascending"));
        check("ft", layers(&[4, 4]), Some("each once"));
    }

    #[test]
    fn impossible_hyper_parameters_of_a_method_are_named() {
        let set = |json: &'static str| move |editor: &mut EditorSpec| *editor = serde_json::from_str(json).unwrap();
        check("memit", set(r#"{"method":"memit","mom2_update_weight":0}"#), Some("mom2_update_weight is 0"));
        check("emmet", set(r#"{"method":"emmet","emmet_lambda":-1}"#), Some("emmet_lambda is -1"));
        check("alphaedit", set(r#"{"method":"alphaedit","L2":0}"#), Some("L2 is 0"));
        check("kn", set(r#"{"method":"kn","steps":20,"batch_size":7}"#), Some("batch_size divides steps"));
        check("kn", set(r#"{"method":"kn","adaptive_threshold":1.0}"#), Some("chooses no neuron"));
        check("mend", set(r#"{"method":"mend","lr_scale":0}"#), Some("lr_scale is 0"));
        check("kn", set(r#"{"method":"kn","steps":1000000000,"batch_size":1000000000}"#), Some("steps is 1000000000"));
        check("kn", set(r#"{"method":"kn","steps":20,"batch_size":0}"#), Some("batch_size is 0"));
        check("ft", set(r#"{"method":"ft","num_steps":0}"#), Some("num_steps is 0"));
        check("ft", set(r#"{"method":"ft","num_steps":100000000}"#), Some("num_steps is 100000000"));
        check("ft", set(r#"{"method":"ft","norm_constraint":-1}"#), Some("norm_constraint is -1"));
        check("ft", set(r#"{"method":"ft","norm_constraint":null}"#), None);
    }

    #[test]
    fn a_setting_that_does_not_exist_is_named() {
        let error = serde_json::from_str::<EditorSpec>(r#"{"method":"memit","in_loop":true}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `in_loop`"), "{error}");
    }

    #[test]
    fn a_template_has_one_place_for_the_prompt() {
        let given = |templates: &'static [&'static str]| {
            move |editor: &mut EditorSpec| {
                let templates = templates.iter().map(|template| template.to_string()).collect();
                editor.value_mut().unwrap().contexts = Contexts::Given(templates);
            }
        };
        check("rome", given(&["{}", "The. {}"]), None);
        check("rome", given(&[]), Some("empty list"));
        check("rome", given(&["{}", "no place"]), Some("contexts[1]"));
        check("memit", given(&["{} and {}"]), Some("has 2 places"));
    }

    #[test]
    fn a_guard_is_a_limit_above_zero() {
        let editor = EditorSpec::published("kn", ArchitectureKind::Gpt2).unwrap();
        let guards = Guards { max_relative_norm: Some(0.0), ..Guards::NONE };
        let failure = EditSpec { guards, ..EditSpec::new(editor) }.validate().unwrap_err();
        assert!(failure.message.contains("max_relative_norm is 0"), "{failure}");
    }
}
