//! ROME, Rank-One Model Editing, <https://arxiv.org/abs/2202.05262>: key, value, update.
//!
//! Where we differ from the released code, and why, is in `docs/papers.md`; every difference of definition is a setting.

use burn::tensor::Tensor;
use rectify_protocol::{Fact, KeyChoice, Progress, RomeSpec};

use super::{
    Delta, Input, Plan, WeightDelta,
    plan::{filled, moment_of},
    value::{FactRows, Prepared, steps},
};
use crate::{
    Error, Result,
    model::{Matrix, WeightSite},
    read::read,
};

/// The rank-one change that makes the spec's layer answer `fact.target_new`.
///
/// # Errors
///
/// When the fact or a setting cannot be used, or a number leaves the finite ones.
pub async fn plan(input: &Input<'_>, fact: &Fact, spec: &RomeSpec, watch: &mut dyn FnMut(Progress)) -> Result<Plan> {
    let layer = filled(spec.layers.as_ref())[0];
    let rows = FactRows::new(input.tokenizer, input.model, fact, input.templates, spec.fact_token)?;
    let prepared = Prepared::new(input.model, &[rows], layer)?;
    let (shift, trace) =
        prepared.optimize(input.model, &prepared.values(), &spec.value, &mut steps(&spec.value, watch)).await?;

    let first = |rows: &Tensor<2>| rows.clone().narrow(0, 0, 1);
    let mean = |rows: &Tensor<2>| rows.clone().mean_dim(0);
    let (key, divisor) = match spec.key {
        KeyChoice::Mixed => (mean(&prepared.keys), first(&prepared.keys)),
        KeyChoice::Mean => (mean(&prepared.keys), mean(&prepared.keys)),
        KeyChoice::Prompt => (first(&prepared.keys), first(&prepared.keys)),
    };
    // v* − k W: for the bare prompt's key t₀ is k W itself, so δ alone is missing.
    let missing = match spec.key {
        KeyChoice::Mixed | KeyChoice::Prompt => shift,
        KeyChoice::Mean => prepared.values() + shift - mean(&prepared.outputs),
    };
    let (mut whitened, mut notes) = (key, Vec::new());
    if spec.mom2_adjustment {
        let moment = moment_of(input.moments, layer)?;
        whitened = moment.whiten(whitened).await?;
        notes.extend(moment.note());
    }
    let delta = rank_one(whitened, divisor, missing);
    let Delta::LowRank { left, right } = &delta else { unreachable!("made of two vectors") };
    let size = read((left.clone().abs().sum() + right.clone().abs().sum()).unsqueeze::<2>()).await?[0];
    if !size.is_finite() {
        return Err(Error::NotFinite {
            what: "the update".into(),
            hint: "; the key of the bare prompt is almost orthogonal to the mean key, key = mean avoids that".into(),
        });
    }
    let site = WeightSite { layer, matrix: Matrix::MlpDown };
    Ok(Plan { notes, ..Plan::new(vec![WeightDelta { site, delta }], trace) })
}

/// The rank-one change that adds `missing` to what `W` answers for `divisor`, and moves other keys least.
///
/// `ΔW = u missing / (divisor·u)`, with `u = C⁻¹k / ‖C⁻¹k‖`: ROME eq. 2. The length of `u` cancels.
///
/// Shapes: `whitened` and `divisor` `[1, d_mlp]`, `missing [1, d_model]`; the delta is `[d_mlp, d_model]`.
pub fn rank_one(whitened: Tensor<2>, divisor: Tensor<2>, missing: Tensor<2>) -> Delta {
    let length = (whitened.clone() * whitened.clone()).sum_dim(1).sqrt(); // [1, 1]
    let u = whitened / length;
    let along = (divisor * u.clone()).sum_dim(1); // [1, 1]
    Delta::LowRank { left: u.transpose(), right: missing / along }
}
