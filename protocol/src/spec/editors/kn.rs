use serde::{Deserialize, Serialize};

use super::hyperparameters::Hyperparameters;
use crate::{
    ArchitectureKind, Failure,
    bounds::{self, finite_above_zero},
};

/// Hyper-parameters of KN, knowledge neurons, <https://arxiv.org/abs/2104.08696>. The defaults are the published ones
/// of GPT-2 XL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KnSpec {
    /// Points of the integral from a silent neuron to its activation.
    pub steps: usize,
    /// Points that are computed together; it divides `steps`.
    pub batch_size: usize,
    /// A neuron is chosen when its share exceeds this × the largest share.
    pub adaptive_threshold: f64,
    /// Which tokens neurons are held responsible for, and what is written into them.
    pub variant: KnVariant,
    /// What a neuron is.
    pub neuron: KnNeuron,
}

/// Which value of the MLP is taken for a neuron's activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KnNeuron {
    /// As released: before the nonlinearity; LLaMA's gate.
    PreActivation,
    /// As in the paper: what the down projection reads.
    PostActivation,
}

/// How KN reads a fact, and how much it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KnVariant {
    /// As published: objects have no space before them and keep a BOS; GPT-2 is asked for each token of the true object
    /// after the bare prompt, LLaMA after what it says itself; of an object of one token, what the model says now is
    /// taken out twice and the new object put in once.
    Released,
    /// Objects are tokenized as they follow a prompt, each true token is asked for after the true tokens before it, and
    /// what is taken out and what is put in weigh the same.
    Strict,
}

impl Default for KnSpec {
    fn default() -> Self {
        Self {
            steps: 20,
            batch_size: 20,
            adaptive_threshold: 0.2,
            variant: KnVariant::Released,
            neuron: KnNeuron::PreActivation,
        }
    }
}

impl Hyperparameters for KnSpec {
    fn published(family: ArchitectureKind) -> Self {
        match family {
            ArchitectureKind::Gpt2 => Self::default(),
            ArchitectureKind::GptJ => Self { adaptive_threshold: 0.1, ..Self::default() },
            _ => Self { steps: 1, batch_size: 1, ..Self::default() },
        }
    }

    fn validate(&self) -> Result<(), Failure> {
        bounds::within("steps", self.steps, 1..=bounds::STEPS)?;
        bounds::within("batch_size", self.batch_size, 1..=self.steps)?;
        if !self.steps.is_multiple_of(self.batch_size) {
            let (steps, size) = (self.steps, self.batch_size);
            let problem = format!("steps is {steps} and batch_size {size}; batch_size divides steps");
            return Err(Failure { field: Some("batch_size".into()), ..Failure::bad_input(problem) });
        }
        finite_above_zero(&[("adaptive_threshold", self.adaptive_threshold)])?;
        if self.adaptive_threshold < 1.0 {
            return Ok(());
        }
        let threshold = self.adaptive_threshold;
        let problem = format_args!("is {threshold}; at 1 or above it chooses no neuron");
        Err(Failure::bad_field("adaptive_threshold", problem))
    }
}
