use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{
    EditReport, EditSpec, FactReport, Failure, ModelInfo, ProbabilityMeans, ProbabilityScores, WeightChange,
    report::mean,
};

/// What `rectify edit` writes as `report.json` and prints with `--json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// Version of this shape.
    pub schema: u32,
    /// The command in full: enough to run it again.
    pub command: RunCommand,
    /// The unedited model.
    pub model: ModelInfo,
    /// Each editing operation, with its facts right after it.
    pub operations: Vec<EditReport>,
    /// Records that were not edited, and why. Without [`RunCommand::skip_bad`] the run stopped at the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FailedRecord>,
    /// Means over the operations' facts.
    pub summary: Summary,
    /// Sequential mode: every fact once more, asked of the model that carries all edits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_measure: Option<Vec<FactReport>>,
    /// Sequential mode: how far all edits together moved each matrix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_weights: Option<Vec<WeightChange>>,
    /// Means over `final_measure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_summary: Option<Summary>,
}

impl RunReport {
    /// The version written into [`RunReport::schema`].
    pub const SCHEMA: u32 = 2;
}

/// A record that was not edited.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailedRecord {
    /// Its number in the file.
    pub record: usize,
    /// Why.
    pub failure: Failure,
}

/// A `rectify edit` command with everything filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunCommand {
    /// The program and its version.
    pub program: String,
    /// The file of facts.
    pub facts: String,
    /// The format it was taken for.
    pub format: String,
    /// The records that were edited: from the first number, to before the second.
    pub index: [usize; 2],
    /// How the facts met the model.
    pub mode: EditMode,
    /// Whether records that cannot be edited were left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_bad: bool,
    /// The folder of second moments, if keys were whitened.
    pub covariance: Option<String>,
    /// The editor's settings.
    pub spec: EditSpec,
    /// What computed.
    pub device: String,
}

/// How several facts meet one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EditMode {
    /// Each fact edits the untouched model.
    #[default]
    Single,
    /// Each fact edits the model that carries the ones before it.
    Sequential,
    /// All facts in one operation, where the editor can.
    Batch,
}

impl EditMode {
    /// Every mode's name, as the command line and the page write it.
    pub const NAMES: &[&str] = &["single", "sequential", "batch"];
}

impl FromStr for EditMode {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "single" => Ok(Self::Single),
            "sequential" => Ok(Self::Sequential),
            "batch" => Ok(Self::Batch),
            _ => Err(()),
        }
    }
}

/// Means over facts. A score that no fact has is absent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many facts.
    pub n: usize,
    /// Mean of [`FactReport::reliability`].
    pub reliability: Option<f64>,
    /// Mean of [`FactReport::generalization`] over the facts that have it.
    pub generalization: Option<f64>,
    /// Mean of [`FactReport::locality`] over the facts that have it.
    pub locality: Option<f64>,
    /// Mean of [`FactReport::portability`] over the facts that have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub portability: Option<f64>,
    /// Means of [`FactReport::probability`] over the facts that have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<ProbabilityMeans>,
    /// Seconds of editing, without measuring.
    pub seconds: f64,
}

impl Summary {
    /// The means over `facts`.
    pub fn of<'a>(facts: impl IntoIterator<Item = &'a FactReport>, seconds: f64) -> Self {
        let facts: Vec<&FactReport> = facts.into_iter().collect();
        let mean = |score: fn(&FactReport) -> Option<f64>| mean(facts.iter().filter_map(|fact| score(fact)));
        let probability: Vec<ProbabilityScores> = facts.iter().filter_map(|fact| fact.probability).collect();
        Self {
            n: facts.len(),
            reliability: mean(|fact| Some(fact.reliability)),
            generalization: mean(|fact| fact.generalization),
            locality: mean(|fact| fact.locality),
            portability: mean(|fact| fact.portability),
            probability: ProbabilityMeans::of(&probability),
            seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Measure;

    fn fact(reliability: f64, locality: Option<f64>) -> FactReport {
        let measure = Measure { p_new: 0.5, p_true: None, top: vec![], text: String::new() };
        FactReport {
            subject: "Ada".into(),
            prompt: "Ada is".into(),
            target_new: "x".into(),
            target_true: None,
            before: measure.clone(),
            after: measure,
            reliability,
            generalization: None,
            locality,
            portability: None,
            probability: None,
            paraphrases: vec![],
            neighbors: vec![],
            consequences: vec![],
        }
    }

    #[test]
    fn a_mean_is_over_the_facts_that_have_the_score() {
        let summary = Summary::of(&[fact(1.0, None), fact(0.5, Some(0.75)), fact(0.0, Some(0.25))], 2.0);
        let expected = Summary {
            n: 3,
            reliability: Some(0.5),
            generalization: None,
            locality: Some(0.5),
            portability: None,
            probability: None,
            seconds: 2.0,
        };
        assert_eq!(summary, expected);
        assert_eq!(Summary::of(&[], 0.0).reliability, None);
    }

    #[test]
    fn every_mode_is_read_by_its_name() {
        for name in EditMode::NAMES {
            let mode: EditMode = name.parse().unwrap();
            assert_eq!(serde_json::to_string(&mode).unwrap(), format!("{name:?}"));
        }
    }
}
