use serde::{Deserialize, Serialize};

use super::hyperparameters::{Hyperparameters, has, several_layers_up};
use crate::{ArchitectureKind, Failure, ValueSpec, bounds::finite_above_zero};

/// Hyper-parameters of AlphaEdit, <https://arxiv.org/abs/2410.02355>: MEMIT within the directions that keys leave free.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlphaEditSpec {
    /// The layers that share an update, ascending; MEMIT's default when absent.
    pub layers: Option<Vec<usize>>,
    /// Eigenvalues of the second moment below this count as free.
    pub nullspace_threshold: f64,
    /// Ridge of the solution.
    #[serde(rename = "L2")]
    pub l2: f64,
    /// How the values are found.
    pub value: ValueSpec,
}

impl Default for AlphaEditSpec {
    fn default() -> Self {
        let value = ValueSpec { clamp_norm_factor: 0.75, ..ValueSpec::default() };
        Self { layers: None, nullspace_threshold: 2e-2, l2: 10.0, value }
    }
}

impl Hyperparameters for AlphaEditSpec {
    fn published(family: ArchitectureKind) -> Self {
        let value = Self::default().value;
        let value = match family {
            ArchitectureKind::Gpt2 => value,
            ArchitectureKind::GptJ => ValueSpec { v_num_grad_steps: 25, ..value },
            // Llama-3-8B's, the only one of its kind that its authors ran.
            _ => ValueSpec { v_num_grad_steps: 25, v_lr: 0.1, ..value },
        };
        Self { value, ..Self::default() }
    }

    fn usual_layers(family: ArchitectureKind, n_layers: usize) -> Option<Vec<usize>> {
        Some(several_layers_up(family, n_layers))
    }

    has!(layers, value);

    fn needs_moments(&self) -> bool {
        true
    }

    fn validate(&self) -> Result<(), Failure> {
        finite_above_zero(&[("nullspace_threshold", self.nullspace_threshold), ("L2", self.l2)])
    }
}
