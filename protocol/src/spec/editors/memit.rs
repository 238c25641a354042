use serde::{Deserialize, Serialize};

use super::{
    hyperparameters::{Hyperparameters, has, several_layers_up},
    rome::RomeSpec,
};
use crate::{ArchitectureKind, Failure, ValueSpec, bounds::finite_above_zero};

/// Hyper-parameters of MEMIT, <https://arxiv.org/abs/2210.07229>. The defaults are the published ones of GPT-2 XL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemitSpec {
    /// The layers that share an update, ascending; the model's default when absent.
    pub layers: Option<Vec<usize>>,
    /// λ: weight of the second moment against the batch's own keys.
    pub mom2_update_weight: f64,
    /// Whether the keys of earlier edits are held as well (MEMIT-seq).
    pub history: bool,
    /// How the values are found.
    pub value: ValueSpec,
}

impl Default for MemitSpec {
    fn default() -> Self {
        let value = ValueSpec { clamp_norm_factor: 0.75, ..ValueSpec::default() };
        Self { layers: None, mom2_update_weight: 20_000.0, history: false, value }
    }
}

impl Hyperparameters for MemitSpec {
    fn published(family: ArchitectureKind) -> Self {
        match family {
            ArchitectureKind::Gpt2 => Self::default(),
            ArchitectureKind::GptJ => {
                let value = ValueSpec { v_num_grad_steps: 25, ..Self::default().value };
                Self { mom2_update_weight: 15_000.0, value, ..Self::default() }
            }
            _ => Self { mom2_update_weight: 15_000.0, value: RomeSpec::published(family).value, ..Self::default() },
        }
    }

    fn usual_layers(family: ArchitectureKind, n_layers: usize) -> Option<Vec<usize>> {
        Some(several_layers_up(family, n_layers))
    }

    has!(layers, value);

    fn needs_moments(&self) -> bool {
        true
    }

    fn validate(&self) -> Result<(), Failure> {
        finite_above_zero(&[("mom2_update_weight", self.mom2_update_weight)])
    }
}
