//! What is kept of an update: functions from a delta and the weight it changes to a delta.

use burn::tensor::{Bool, Int, Tensor, TensorData};
use rand::{SeedableRng, seq::index};
use rand_chacha::ChaCha8Rng;
use rectify_protocol::Regularizer;

use super::Delta;
use crate::{Result, read::read_count};

/// `delta` as `regularizer` leaves it, and how many entries survive.
///
/// # Errors
///
/// When `keep` is not a share in (0, 1].
pub async fn regularize(
    delta: Delta,
    weight: &Tensor<2>,
    regularizer: Regularizer,
    seed: u64,
) -> Result<(Delta, usize)> {
    let [rows, columns] = delta.dims();
    let entries = rows * columns;
    regularizer.validate()?;
    let keep = regularizer.keep();
    let kept = n_kept(entries, keep);
    match regularizer {
        Regularizer::None => Ok((delta, entries)),
        Regularizer::Rect { .. } => Ok((Delta::Dense(rect(delta.dense(), weight.clone(), keep).await?), kept)),
        Regularizer::Random { .. } => Ok((Delta::Dense(random(delta.dense(), keep, seed)), kept)),
    }
}

/// How many of `entries` survive: all but `⌊entries · (1 − keep)⌋`, as in the authors' code.
pub fn n_kept(entries: usize, keep: f64) -> usize {
    entries - (entries as f64 * (1.0 - keep)).floor() as usize
}

/// RECT: the entries of `ΔW` with the largest relative change `|ΔW / W|`; the others become zero.
///
/// <https://arxiv.org/abs/2401.04700>, section 4. Over the whole matrix; survivors keep their value. Where `W` is zero
/// the relative change is infinite, so a change there survives (and `0 / 0` counts as infinite too, keeping a zero).
/// Of entries with the same relative change the later ones, row by row, survive: the count is always exact.
///
/// The threshold is found by bisecting over the bits of a float, which for non-negative floats order like integers:
/// 31 passes that compare and count, one number read in each, nothing sorted and no matrix read back.
///
/// Shapes: `delta` and `weight` `[d_in, d_out]`.
pub async fn rect(delta: Tensor<2>, weight: Tensor<2>, keep: f64) -> Result<Tensor<2>> {
    let [rows, columns] = delta.dims();
    let n_kept = n_kept(rows * columns, keep);
    if n_kept == rows * columns {
        return Ok(delta);
    }
    let ratio = delta.clone().abs() / weight.clone().abs();
    let undefined = weight.equal_scalar(0.0);
    let ratio = ratio.mask_fill(undefined, f32::INFINITY);
    let at_least = |bits: u32| ratio.clone().greater_equal_scalar(f32::from_bits(bits));

    // The largest threshold that still lets n_kept entries through.
    let threshold = bisect(f32::INFINITY.to_bits(), async |bits| Ok(count(at_least(bits)).await? >= n_kept)).await?;
    let through = at_least(threshold);
    if count(through.clone()).await? == n_kept {
        return Ok(delta.mask_fill(through.bool_not(), 0.0));
    }
    // Some entries tie at the threshold: those from a linear index on survive, so that the count is exact.
    let above = ratio.clone().greater_scalar(f32::from_bits(threshold));
    let tied = ratio.equal_scalar(f32::from_bits(threshold));
    let n_tied = n_kept - count(above.clone()).await?;
    let entries = (rows * columns) as i64;
    let linear = Tensor::<1, Int>::arange(0..entries, &delta.device()).reshape([rows, columns]);
    let tied_from = |first: u32| tied.clone().bool_and(linear.clone().greater_equal_scalar(first as i32));
    let first = bisect(entries as u32, async |first| Ok(count(tied_from(first)).await? >= n_tied)).await?;
    Ok(delta.mask_fill(above.bool_or(tied_from(first)).bool_not(), 0.0))
}

/// As many entries as RECT would keep, drawn at random: the control that says whether *which* entries matters.
///
/// An exact count with a seed, where the authors' code draws each entry by itself without one.
pub fn random(delta: Tensor<2>, keep: f64, seed: u64) -> Tensor<2> {
    let [rows, columns] = delta.dims();
    let entries = rows * columns;
    let mut mask = vec![true; entries];
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for i in index::sample(&mut rng, entries, n_kept(entries, keep)) {
        mask[i] = false;
    }
    let dropped = Tensor::<2, Bool>::from_data(TensorData::new(mask, [rows, columns]), &delta.device());
    delta.mask_fill(dropped, 0.0)
}

/// The largest value in `0..=last` for which `holds`, given that it holds for 0 and never again once it fails.
async fn bisect(last: u32, holds: impl AsyncFn(u32) -> Result<bool>) -> Result<u32> {
    let (mut low, mut high) = (0, last);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if holds(middle).await? { low = middle } else { high = middle - 1 }
    }
    Ok(low)
}

async fn count(mask: Tensor<2, Bool>) -> Result<usize> {
    read_count(mask.int().sum()).await
}
