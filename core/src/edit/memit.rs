//! MEMIT, Mass-Editing Memory in a Transformer, <https://arxiv.org/abs/2210.07229>: many facts at once, the residual
//! spread over several layers.
//!
//! Its walk through the layers serves EMMET and AlphaEdit too; each brings a solution of its own.

use burn::tensor::Tensor;
use faer::Mat;
use rectify_protocol::{Fact, MemitSpec, Progress, ValueSpec};

use super::{
    Delta, Input, LayerKeys, Plan, WeightDelta,
    keys::{Walk, rows},
    moments,
    plan::{filled, moment_of},
    value::{steps, targets_of_states},
};
use crate::{
    Result,
    linalg::{host, product, solve_symmetric, tensor},
    model::{Matrix, WeightSite},
};

/// The changes that make `facts` true.
///
/// # Errors
///
/// As [`super::plan`].
pub async fn plan(
    input: &Input<'_>,
    facts: &[Fact],
    spec: &MemitSpec,
    watch: &mut dyn FnMut(Progress),
) -> Result<Plan> {
    let layers = filled(spec.layers.as_ref());
    let history: &[LayerKeys] = if spec.history { input.history } else { &[] };
    let solve = |problem: &Problem<'_>| {
        let weights = Weights { lambda: spec.mom2_update_weight, mu: 1.0 };
        closed_form(problem.moment, &problem.all_keys(), problem.residual, weights)
    };
    spread(input, facts, layers, history, &spec.value, &solve, watch).await
}

/// What one layer must solve: find `ΔW [d_mlp, d_model]` that adds `residual` to what the keys answer.
pub(super) struct Problem<'a> {
    /// `C = E[k kᵀ]` of the layer on the unedited model.
    pub moment: &'a moments::Moment,
    /// Keys of earlier edits, which should keep what they answer: `[d_mlp, earlier]`.
    pub earlier: &'a Mat<f64>,
    /// Keys of the facts: `[d_mlp, facts]`.
    pub keys: &'a Mat<f64>,
    /// What is missing: `[facts, d_model]`.
    pub residual: &'a Mat<f64>,
}

impl Problem<'_> {
    /// Keys of earlier edits, then those of the facts: `[d_mlp, earlier + facts]`.
    pub fn all_keys(&self) -> Mat<f64> {
        faer::concat![[self.earlier, self.keys]]
    }
}

/// A change as two factors, `left [d_mlp, r] · right [r, d_model]`.
pub type Factors = (Mat<f64>, Mat<f64>);

/// Finds the values of all facts at the last of `layers`, and lets each layer write its share of what is still missing,
/// from the first to the last: the residual over the number of layers that remain.
pub(super) async fn spread(
    input: &Input<'_>,
    facts: &[Fact],
    layers: &[usize],
    history: &[LayerKeys],
    value: &ValueSpec,
    solve: &dyn Fn(&Problem<'_>) -> Result<Factors>,
    watch: &mut dyn FnMut(Progress),
) -> Result<Plan> {
    let (first, last) = (layers[0], layers[layers.len() - 1]);
    let moments = layers.iter().map(|layer| moment_of(input.moments, *layer)).collect::<Result<Vec<_>>>()?;
    let rows = rows(input, facts)?;
    let (targets, trace) = targets_of_states(input.model, &rows, last, value, &mut steps(value, watch)).await?;

    let mut walk = Walk::new(input.model, &rows, first);
    let mut deltas = Vec::with_capacity(layers.len());
    let mut model = input.model.clone();
    for (done, (&layer, moment)) in layers.iter().zip(&moments).enumerate() {
        watch(Progress::Planning { done, total: layers.len() });
        walk.climb(&model, layer);
        let seen = walk.look(&model, last);
        let share = (layers.len() - done) as f64;
        let residual = host((targets.clone() - seen.states.clone()) / share).await?;
        let keys = host(seen.keys.clone()).await?.transpose().to_owned();
        let earlier = earlier_keys(history, layer, keys.nrows()).await?;
        let (left, right) = solve(&Problem { moment, earlier: &earlier, keys: &keys, residual: &residual })?;
        let device = model.device();
        let delta = Delta::LowRank { left: tensor(left.as_ref(), &device), right: tensor(right.as_ref(), &device) };
        let site = WeightSite { layer, matrix: Matrix::MlpDown };
        walk.pass(seen, &delta);
        let change = WeightDelta { site, delta };
        model = model.apply(std::slice::from_ref(&change))?;
        deltas.push(change);
    }
    let mut notes: Vec<String> = moments.iter().filter_map(|moment| moment.note()).collect();
    notes.dedup();
    Ok(Plan { notes, ..Plan::new(deltas, trace) })
}

/// `[d_mlp, earlier]`
async fn earlier_keys(history: &[LayerKeys], layer: usize, d_mlp: usize) -> Result<Mat<f64>> {
    let earlier: Vec<Tensor<2>> =
        history.iter().filter(|written| written.layer == layer).map(|written| written.keys.clone()).collect();
    if earlier.is_empty() {
        return Ok(Mat::zeros(d_mlp, 0));
    }
    Ok(host(Tensor::cat(earlier, 0)).await?.transpose().to_owned())
}

/// How strongly a solution holds on to what is there.
#[derive(Clone, Copy, Debug)]
pub struct Weights {
    /// Weight of the second moment: λ.
    pub lambda: f64,
    /// How far the facts may miss their values: 1 is MEMIT, 0 makes them constraints, EMMET lies between.
    pub mu: f64,
}

/// `ΔWᵀ = R (μ I + G)⁻¹ Kᵀ (λC)⁻¹` with `G = Kᵀ (λC)⁻¹ K`: one formula for MEMIT (μ = 1), EMMET and ROME (μ = 0).
///
/// For μ = 1 it equals MEMIT's `R Kᵀ (λC + K Kᵀ)⁻¹`, eq. 14, by Woodbury's identity, and costs a system of the size of
/// the batch instead of one of the size of a key, once `C` is factored. A batch larger than a key takes the other form,
/// `(μλC + K Kᵀ)⁻¹ K`. The facts are the last columns of `keys`; columns before them have nothing missing.
///
/// Shapes: `keys [d_mlp, m]`, `residual [facts, d_model]`; returned are `[d_mlp, r]` and `[r, d_model]`.
///
/// # Errors
///
/// When `C` is singular.
pub fn closed_form(
    moment: &moments::Moment,
    keys: &Mat<f64>,
    residual: &Mat<f64>,
    weights: Weights,
) -> Result<Factors> {
    let (d_mlp, m) = (keys.nrows(), keys.ncols());
    if m > d_mlp && weights.mu > 0.0 {
        direct(moment, keys, residual, weights)
    } else {
        small(moment, keys, residual, weights)
    }
}

/// By the system of the batch's size.
fn small(moment: &moments::Moment, keys: &Mat<f64>, residual: &Mat<f64>, weights: Weights) -> Result<Factors> {
    let factor = moment.factor()?;
    let half = factor.half(keys.as_ref()); // [d_mlp, m]
    let mut gram = product(half.transpose(), half.as_ref()) / faer::Scale(weights.lambda); // [m, m]
    for i in 0..gram.nrows() {
        gram[(i, i)] += weights.mu;
    }
    let left = factor.other_half(half.as_ref()) / faer::Scale(weights.lambda); // [d_mlp, m]
    let right = solve_symmetric(gram.as_ref(), below_zeros(residual, keys.ncols()).as_ref()); // [m, d_model]
    Ok((left, right))
}

/// The same by the system of a key's size, `(μλC + K Kᵀ)⁻¹ K`: what [`closed_form`] avoids for a small batch.
///
/// # Errors
///
/// None; the signature is [`closed_form`]'s, with which it is compared.
pub fn direct(moment: &moments::Moment, keys: &Mat<f64>, residual: &Mat<f64>, weights: Weights) -> Result<Factors> {
    let d_mlp = keys.nrows();
    let scale = weights.mu * weights.lambda;
    let mut system = product(keys.as_ref(), keys.transpose());
    let c = moment.matrix();
    for i in 0..d_mlp {
        for j in 0..d_mlp {
            system[(i, j)] += scale * c[i * d_mlp + j];
        }
    }
    let facts = keys.subcols(keys.ncols() - residual.nrows(), residual.nrows());
    Ok((solve_symmetric(system.as_ref(), facts), residual.clone()))
}

/// `residual [facts, d_model]` as the last of `rows` rows.
pub(super) fn below_zeros(residual: &Mat<f64>, rows: usize) -> Mat<f64> {
    let zeros = Mat::<f64>::zeros(rows - residual.nrows(), residual.ncols());
    faer::concat![[zeros], [residual]]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::edit::moments::Moment;

    /// Numbers that look random and are the same everywhere.
    pub(in crate::edit) fn noise(rows: usize, columns: usize, seed: u64) -> Mat<f64> {
        use rand::{Rng, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        Mat::from_fn(rows, columns, |_, _| f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5)
    }

    /// A positive definite second moment.
    pub(in crate::edit) fn moment(d_mlp: usize) -> Moment {
        let keys = noise(d_mlp, 3 * d_mlp, 1);
        let c = product(keys.as_ref(), keys.transpose());
        Moment::given((0..d_mlp * d_mlp).map(|i| c[(i / d_mlp, i % d_mlp)]).collect(), d_mlp, 3 * d_mlp)
    }

    fn change((left, right): &Factors) -> Mat<f64> {
        product(left.as_ref(), right.as_ref())
    }

    #[test]
    fn both_forms_agree_for_any_batch() {
        let moment = moment(40);
        for facts in [1, 7, 100] {
            for (lambda, mu) in [(20.0, 1.0), (3.0, 0.1)] {
                let (keys, residual, weights) = (noise(40, facts, 2), noise(facts, 9, 3), Weights { lambda, mu });
                let small = change(&small(&moment, &keys, &residual, weights).unwrap());
                let direct = change(&direct(&moment, &keys, &residual, weights).unwrap());
                assert!((&small - &direct).norm_max() < 1e-8 * small.norm_max(), "{facts} facts, μ = {mu}");
            }
        }
    }

    #[test]
    fn constraints_of_one_fact_are_rome() {
        let (moment, key, missing) = (moment(40), noise(40, 1, 2), noise(1, 9, 3));
        let ours = change(&closed_form(&moment, &key, &missing, Weights { lambda: 7.0, mu: 0.0 }).unwrap());
        let u = moment.factor().unwrap().solve(key.as_ref());
        let along = product(key.transpose(), u.as_ref())[(0, 0)];
        let rome = product(u.as_ref(), missing.as_ref()) / faer::Scale(along);
        assert!((&ours - &rome).norm_max() < 1e-10 * rome.norm_max());
        let answered = product(ours.transpose(), key.as_ref());
        assert!((answered - missing.transpose()).norm_max() < 1e-10, "the constraint holds");
    }

    #[test]
    fn earlier_keys_hold_the_change_back() {
        let (moment, earlier, key, missing) = (moment(40), noise(40, 3, 4), noise(40, 1, 2), noise(1, 9, 3));
        let weights = Weights { lambda: 1e-3, mu: 1.0 };
        let moved = |factors: &Factors| product(change(factors).transpose(), earlier.as_ref()).norm_l2();
        let all = faer::concat![[&earlier, &key]];
        let free = moved(&closed_form(&moment, &key, &missing, weights).unwrap());
        let held = moved(&closed_form(&moment, &all, &missing, weights).unwrap());
        assert!(held < 0.1 * free, "{held} {free}");
    }
}
