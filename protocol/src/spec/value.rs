use serde::{Deserialize, Serialize};

use crate::{
    Failure,
    bounds::{self, at_least_zero, finite_above_zero},
};

/// How the value is found that a fact should have: the loop that ROME, MEMIT, EMMET and AlphaEdit share.
///
/// Hyper-parameters are named as in the field. The defaults are ROME's published ones for GPT-2 XL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValueSpec {
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
    /// The texts that stand before the prompt while key and value are found.
    pub contexts: Contexts,
}

impl Default for ValueSpec {
    fn default() -> Self {
        Self {
            v_num_grad_steps: 20,
            v_lr: 0.5,
            v_weight_decay: 0.5,
            clamp_norm_factor: 4.0,
            kl_factor: 0.0625,
            contexts: Contexts::Sampled,
        }
    }
}

impl ValueSpec {
    pub(super) fn validate(&self) -> Result<(), Failure> {
        bounds::within("v_num_grad_steps", self.v_num_grad_steps, 1..=bounds::STEPS)?;
        finite_above_zero(&[("v_lr", self.v_lr), ("clamp_norm_factor", self.clamp_norm_factor)])?;
        at_least_zero(&[("v_weight_decay", self.v_weight_decay), ("kl_factor", self.kl_factor)])?;
        self.contexts.validate()
    }
}

/// The context templates of an edit, each with one `{}` where the prompt goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contexts {
    /// The bare prompt and short texts sampled from the unedited model with the spec's seed: twenty for ROME and
    /// five for the methods that write many facts at once, as published.
    Sampled,
    /// These templates.
    Given(Vec<String>),
}

impl Contexts {
    /// Says which template has not exactly one slot.
    ///
    /// # Errors
    ///
    /// When the list is empty or too long, or a template has not exactly one `{}`.
    pub fn validate(&self) -> Result<(), Failure> {
        let Self::Given(templates) = self else { return Ok(()) };
        if templates.is_empty() {
            return Err(Failure::bad_input("contexts is an empty list; the bare prompt is the template \"{}\""));
        }
        bounds::entries("contexts", templates, bounds::TEMPLATES)?;
        for (i, template) in templates.iter().enumerate() {
            bounds::text(&format!("contexts[{i}]"), template)?;
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
