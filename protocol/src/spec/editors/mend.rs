use serde::{Deserialize, Serialize};

use super::hyperparameters::Hyperparameters;
use crate::{ArchitectureKind, Failure, bounds::finite_above_zero};

/// How MEND's hypernetwork is used, <https://arxiv.org/abs/2110.11309>. What it learnt is in its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MendSpec {
    /// The update is multiplied by this.
    pub lr_scale: f64,
    /// Whether the hypernetwork is used as in the code that RECT was released with, which differs in four ways from
    /// how it was trained: the learnt step sizes go to the matrices in the order in which the model defines them; the
    /// learnt statistics are thrown away and taken from the facts alone; labels are tokenised by themselves, LLaMA's
    /// first token included; and what fills shorter labels up is asked for too.
    pub released: bool,
}

impl Default for MendSpec {
    fn default() -> Self {
        Self { lr_scale: 1.0, released: false }
    }
}

impl Hyperparameters for MendSpec {
    fn published(_: ArchitectureKind) -> Self {
        Self::default()
    }

    fn validate(&self) -> Result<(), Failure> {
        finite_above_zero(&[("lr_scale", self.lr_scale)])
    }
}
