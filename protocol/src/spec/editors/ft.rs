use serde::{Deserialize, Serialize};

use super::hyperparameters::{Hyperparameters, has};
use crate::{
    ArchitectureKind, Failure,
    bounds::{self, finite_above_zero},
};

/// Hyper-parameters of fine-tuning down projections, FT-L and FT-M. The defaults are FT-L's for GPT-2 XL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FtSpec {
    /// The layers whose down projections are trained; the model's default when absent.
    pub layers: Option<Vec<usize>>,
    /// What is asked for.
    pub objective: FtObjective,
    /// Passes over the facts, at most.
    pub num_steps: usize,
    /// Adam's learning rate.
    pub lr: f64,
    /// No entry moves further than this; unbounded when absent.
    pub norm_constraint: Option<f64>,
}

/// What fine-tuning asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FtObjective {
    /// FT-L: every token of the target at the prompt's last position, as a bag.
    PromptLast,
    /// FT-M: the target after the prompt, token by token.
    TargetNew,
}

impl Default for FtSpec {
    fn default() -> Self {
        Self { layers: None, objective: FtObjective::PromptLast, num_steps: 25, lr: 5e-4, norm_constraint: Some(5e-4) }
    }
}

impl Hyperparameters for FtSpec {
    fn published(family: ArchitectureKind) -> Self {
        match family {
            ArchitectureKind::Gpt2 => Self::default(),
            ArchitectureKind::GptJ => Self { norm_constraint: Some(5e-5), ..Self::default() },
            _ => Self { norm_constraint: None, ..Self::default() },
        }
    }

    /// The first of a GPT, the last of a Qwen (27 of 28), two thirds up the others (21 of 32 for LLaMA 7B).
    fn usual_layers(family: ArchitectureKind, n_layers: usize) -> Option<Vec<usize>> {
        Some(vec![match family {
            ArchitectureKind::Gpt2 | ArchitectureKind::GptJ => 0,
            ArchitectureKind::Qwen2 | ArchitectureKind::Qwen3 => n_layers.saturating_sub(1),
            _ => n_layers * 2 / 3,
        }])
    }

    has!(layers);

    fn validate(&self) -> Result<(), Failure> {
        bounds::within("num_steps", self.num_steps, 1..=bounds::STEPS)?;
        finite_above_zero(&[("lr", self.lr), ("norm_constraint", self.norm_constraint.unwrap_or(1.0))])
    }
}
