//! ROME, Rank-One Model Editing, <https://arxiv.org/abs/2202.05262>: key, value, update.
//!
//! Where we differ from the released code, and why, is in `docs/papers.md`; every difference of definition is a setting.

use burn::tensor::{Tensor, TensorData};
use rectify_protocol::{Fact, KeyChoice, Progress, RomeSpec};

use super::{
    Delta, Input, Plan, WeightDelta,
    plan::{filled, moment_of},
    value::{FactRows, Prepared, host_rows, steps},
};
use crate::{
    Error, Result,
    model::{Matrix, WeightSite},
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

    // What is left are a few vectors, and the host computes with them in f64: on a card each operation would be a kernel.
    let keys = host_rows(prepared.keys.clone()).await?;
    let shift = host_rows(shift).await?.remove(0);
    let first = || keys[0].clone();
    let (key, divisor) = match spec.key {
        KeyChoice::Mixed => (mean(&keys), first()),
        KeyChoice::Mean => (mean(&keys), mean(&keys)),
        KeyChoice::Prompt => (first(), first()),
    };
    // v* − k W: for the bare prompt's key t₀ is k W itself, so δ alone is missing.
    let missing = match spec.key {
        KeyChoice::Mixed | KeyChoice::Prompt => shift,
        KeyChoice::Mean => {
            let outputs = host_rows(prepared.outputs.clone()).await?;
            let (first, mean) = (&outputs[0], mean(&outputs));
            (0..shift.len()).map(|i| first[i] + shift[i] - mean[i]).collect()
        }
    };
    let (mut whitened, mut notes) = (key, Vec::new());
    if spec.mom2_adjustment {
        let moment = moment_of(input.moments, layer)?;
        whitened = moment.whiten(&whitened)?;
        notes.extend(moment.note());
    }
    let [left, right] = rank_one(&whitened, &divisor, &missing);
    if left.iter().chain(&right).any(|x| !x.is_finite()) {
        return Err(Error::NotFinite {
            what: "the update".into(),
            hint: "; the key of the bare prompt is almost orthogonal to the mean key, key = mean avoids that".into(),
        });
    }
    let tensor = |values: Vec<f32>, shape: [usize; 2]| {
        Tensor::<2>::from_data(TensorData::new(values, shape), &input.model.device())
    };
    let (rows, columns) = (left.len(), right.len());
    let delta = Delta::LowRank { left: tensor(left, [rows, 1]), right: tensor(right, [1, columns]) };
    let site = WeightSite { layer, matrix: Matrix::MlpDown };
    Ok(Plan { notes, ..Plan::new(vec![WeightDelta { site, delta }], trace) })
}

/// The rank-one change that adds `missing` to what `W` answers for `divisor`, and moves other keys least: its column and
/// its row.
///
/// `ΔW = u missing / (divisor·u)`, with `u = C⁻¹k / ‖C⁻¹k‖`: ROME eq. 2. The length of `u` cancels.
///
/// Shapes: `whitened` and `divisor` `[d_mlp]`, `missing [d_model]`; the change is `[d_mlp] · [d_model]`.
pub fn rank_one(whitened: &[f64], divisor: &[f64], missing: &[f64]) -> [Vec<f32>; 2] {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let length = dot(whitened, whitened).sqrt();
    let along = dot(divisor, whitened) / length;
    [whitened.iter().map(|x| (x / length) as f32).collect(), missing.iter().map(|x| (x / along) as f32).collect()]
}

/// The mean of rows.
fn mean(rows: &[Vec<f64>]) -> Vec<f64> {
    (0..rows[0].len()).map(|i| rows.iter().map(|row| row[i]).sum::<f64>() / rows.len() as f64).collect()
}
