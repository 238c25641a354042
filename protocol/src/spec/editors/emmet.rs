use serde::{Deserialize, Serialize};

use super::{
    hyperparameters::{Hyperparameters, has, one_layer},
    rome::RomeSpec,
};
use crate::{
    ArchitectureKind, Failure, ValueSpec,
    bounds::{at_least_zero, finite_above_zero},
};

/// Hyper-parameters of EMMET, <https://arxiv.org/abs/2403.14236>: as MEMIT, but the facts are a constraint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmmetSpec {
    /// The layer that is edited; the model's default for ROME when absent.
    pub layers: Option<Vec<usize>>,
    /// Weight of the second moment.
    pub mom2_update_weight: f64,
    /// How far a batch of more than one fact may miss its values.
    pub emmet_lambda: f64,
    /// How the values are found.
    pub value: ValueSpec,
}

impl Default for EmmetSpec {
    fn default() -> Self {
        let value = ValueSpec { clamp_norm_factor: 0.75, ..ValueSpec::default() };
        Self { layers: None, mom2_update_weight: 1_000.0, emmet_lambda: 0.1, value }
    }
}

impl Hyperparameters for EmmetSpec {
    fn published(family: ArchitectureKind) -> Self {
        match family {
            ArchitectureKind::Gpt2 => Self::default(),
            ArchitectureKind::GptJ => {
                let value = ValueSpec { v_num_grad_steps: 25, ..Self::default().value };
                Self { mom2_update_weight: 1.0, value, ..Self::default() }
            }
            _ => Self { mom2_update_weight: 1.0, value: RomeSpec::published(family).value, ..Self::default() },
        }
    }

    fn usual_layers(family: ArchitectureKind, n_layers: usize) -> Option<Vec<usize>> {
        RomeSpec::usual_layers(family, n_layers)
    }

    has!(layers, value);

    fn needs_moments(&self) -> bool {
        true
    }

    fn validate(&self) -> Result<(), Failure> {
        one_layer("EMMET", self.layers())?;
        at_least_zero(&[("emmet_lambda", self.emmet_lambda)])?;
        finite_above_zero(&[("mom2_update_weight", self.mom2_update_weight)])
    }
}
