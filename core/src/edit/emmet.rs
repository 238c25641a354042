//! EMMET, <https://arxiv.org/abs/2403.14236>: a batch of facts as constraints in one layer, where MEMIT weighs them.

use rectify_protocol::{EmmetSpec, Fact, Progress};

use super::{
    Input, Plan,
    memit::{Problem, Weights, closed_form, spread},
    plan::filled,
};
use crate::Result;

/// The change `ΔWᵀ = R (Kᵀ C₀⁻¹ K + emmet_lambda I)⁻¹ Kᵀ C₀⁻¹` with `C₀ = mom2_update_weight · C`; a single fact needs
/// no `emmet_lambda`.
///
/// # Errors
///
/// As [`super::plan`].
pub async fn plan(
    input: &Input<'_>,
    facts: &[Fact],
    spec: &EmmetSpec,
    watch: &mut dyn FnMut(Progress),
) -> Result<Plan> {
    let mu = if facts.len() > 1 { spec.emmet_lambda } else { 0.0 };
    let weights = Weights { lambda: spec.mom2_update_weight, mu };
    let solve = |problem: &Problem<'_>| closed_form(problem.moment, problem.keys, problem.residual, weights);
    spread(input, facts, filled(spec.layers.as_ref()), &[], &spec.value, &solve, watch).await
}
