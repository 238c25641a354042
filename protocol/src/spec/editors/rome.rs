use serde::{Deserialize, Serialize};

use super::hyperparameters::{Hyperparameters, has, layers_up, one_layer};
use crate::{ArchitectureKind, Failure, ValueSpec};

/// Hyper-parameters of ROME, <https://arxiv.org/abs/2202.05262>. The defaults are the published ones of GPT-2 XL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RomeSpec {
    /// The layer whose down projection is edited; the model's default when absent.
    pub layers: Option<Vec<usize>>,
    /// Which token's key is edited.
    pub fact_token: FactToken,
    /// Whether the key is whitened by the inverse second moment of the layer's keys.
    pub mom2_adjustment: bool,
    /// Which key the update is made for.
    pub key: KeyChoice,
    /// How the value is found.
    pub value: ValueSpec,
}

impl Default for RomeSpec {
    fn default() -> Self {
        Self {
            layers: None,
            fact_token: FactToken::SubjectLast,
            mom2_adjustment: false,
            key: KeyChoice::Mixed,
            value: ValueSpec::default(),
        }
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

impl Hyperparameters for RomeSpec {
    fn published(family: ArchitectureKind) -> Self {
        let value = match family {
            ArchitectureKind::Gpt2 | ArchitectureKind::GptJ => ValueSpec::default(),
            _ => ValueSpec { v_num_grad_steps: 25, v_weight_decay: 1e-3, ..ValueSpec::default() },
        };
        Self { value, ..Self::default() }
    }

    /// A third up a GPT-2 (17 of 48 for XL, 12 of 36 for large, 8 of 24 for medium), a sixth up the others (5 of 32 for
    /// LLaMA 7B, 5 of 28 for GPT-J and Qwen2).
    fn usual_layers(family: ArchitectureKind, n_layers: usize) -> Option<Vec<usize>> {
        Some(vec![layers_up(family, n_layers)])
    }

    has!(layers, value);

    fn needs_moments(&self) -> bool {
        self.mom2_adjustment
    }

    fn validate(&self) -> Result<(), Failure> {
        one_layer("ROME", self.layers())
    }
}
