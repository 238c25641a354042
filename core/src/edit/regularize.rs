//! What is kept of an update: functions from a delta and the weight it changes to a delta.

use burn::tensor::{Bool, Tensor, TensorData};
use rand::{SeedableRng, seq::index};
use rand_chacha::ChaCha8Rng;
use rectify_protocol::Regularizer;

use super::{Delta, low_rank, pca, prune};
use crate::{
    Result,
    read::{floats, read_data},
};

/// `delta` as `regularizer` leaves it, and how many entries may differ from zero.
///
/// # Errors
///
/// When a setting is out of its range.
pub async fn regularize(
    delta: Delta,
    weight: &Tensor<2>,
    regularizer: Regularizer,
    seed: u64,
) -> Result<(Delta, usize)> {
    regularizer.validate()?;
    let [rows, columns] = delta.dims();
    let all = rows * columns;
    Ok(match regularizer {
        Regularizer::None => (delta, all),
        Regularizer::Rect { keep } => {
            (Delta::Dense(rect(delta.dense(), weight.clone(), keep).await?), n_kept(all, keep))
        }
        Regularizer::Random { keep } => (Delta::Dense(random(delta.dense(), keep, seed)), n_kept(all, keep)),
        Regularizer::Pca { keep } => pca(&delta, keep).await?,
        Regularizer::LowRank { keep } => (low_rank(delta, keep).await?, all),
        Regularizer::Prune { base } => (prune(delta, weight, base).await?, all),
    })
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
/// Selected on the host, where a division is the same everywhere, so every device keeps the same entries.
///
/// Shapes: `delta` and `weight` `[d_in, d_out]`.
pub async fn rect(delta: Tensor<2>, weight: Tensor<2>, keep: f64) -> Result<Tensor<2>> {
    let (shape, device) = (delta.dims(), delta.device());
    let entries = shape[0] * shape[1];
    let n_dropped = entries - n_kept(entries, keep);
    if n_dropped == 0 {
        return Ok(delta);
    }
    let (delta, weight) = (read_data(delta).await?, read_data(weight).await?);
    let (delta, weight) = (floats(&delta)?, floats(&weight)?);
    let Dropped { largest, ties, all_ties } = Dropped::of(delta, weight, n_dropped);
    let pairs = delta.iter().zip(weight);
    let kept: Vec<f32> = if ties == all_ties {
        pairs.map(|(delta, weight)| if ratio(*delta, *weight) <= largest { 0.0 } else { *delta }).collect()
    } else {
        // Of those that tie, only the first so many are dropped.
        let mut left = ties;
        let keep = |(delta, weight): (&f32, &f32)| {
            let ratio = ratio(*delta, *weight);
            let ties = ratio == largest && left > 0;
            left -= usize::from(ties);
            if ratio < largest || ties { 0.0 } else { *delta }
        };
        pairs.map(keep).collect()
    };
    Ok(Tensor::from_data(TensorData::new(kept, shape), &device))
}

/// `|ΔW / W|` of one entry, infinite where `W` is zero.
#[inline(always)] // Millions of calls that must become vector instructions, in every profile.
pub(super) fn ratio(delta: f32, weight: f32) -> f32 {
    // Of NaN, which is 0 / 0, and infinity, `min` takes infinity.
    (delta / weight).abs().min(f32::INFINITY)
}

/// What the smallest relative changes of a matrix are.
#[derive(Debug, PartialEq)]
struct Dropped {
    /// The largest of them.
    largest: f32,
    /// How many of them are equal to it.
    ties: usize,
    /// How many of the whole matrix are.
    all_ties: usize,
}

impl Dropped {
    /// The `n` smallest, `n ≥ 1`.
    ///
    /// A sample says between which two values the `n`-th smallest lies almost surely. One pass counts what is below and
    /// collects the few between, which are then ordered; should it not lie there, all entries are.
    fn of(delta: &[f32], weight: &[f32], n: usize) -> Self {
        let (low, high) = bracket(delta, weight, n);
        Self::between(low, high, delta, weight, n)
            .or_else(|| Self::between(0.0, f32::INFINITY, delta, weight, n))
            .expect("no relative change is outside all of them")
    }

    /// The `n` smallest, if the largest of them lies between `low` and `high`.
    fn between(low: f32, high: f32, delta: &[f32], weight: &[f32], n: usize) -> Option<Self> {
        const CHUNK: usize = 1024;
        let (mut ratios, mut found) = ([0.0; CHUNK], [0.0; CHUNK]);
        let (mut below, mut between) = (0, Vec::new());
        for (delta, weight) in delta.chunks(CHUNK).zip(weight.chunks(CHUNK)) {
            let ratios = &mut ratios[..delta.len()];
            for ((value, delta), weight) in ratios.iter_mut().zip(delta).zip(weight) {
                *value = ratio(*delta, *weight);
            }
            below += ratios.iter().map(|ratio| u32::from(*ratio < low)).sum::<u32>() as usize;
            // Every value is written, and the end moves where one counts: a branch here would be guessed wrong often.
            let mut end = 0;
            for ratio in ratios.iter() {
                found[end] = *ratio;
                end += usize::from((low <= *ratio) & (*ratio <= high));
            }
            between.extend_from_slice(&found[..end]);
        }
        let left = n.checked_sub(below).filter(|left| (1..=between.len()).contains(left))?;
        let (smaller, largest, _) = between.select_nth_unstable_by(left - 1, f32::total_cmp);
        let largest = *largest;
        let ties = 1 + smaller.iter().filter(|ratio| **ratio == largest).count();
        let all_ties = between.iter().filter(|ratio| **ratio == largest).count();
        Some(Self { largest, ties, all_ties })
    }
}

/// Values between which the `n`-th smallest relative change almost surely lies, from a sample.
fn bracket(delta: &[f32], weight: &[f32], n: usize) -> (f32, f32) {
    /// The golden ratio's fraction: its multiples lie evenly and in step with no row.
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    let entries = delta.len();
    let n_sampled = (entries / 32).min(1 << 13);
    // Four standard deviations of how many of the sample lie below the value, at most.
    let margin = 2 * n_sampled.isqrt();
    let at = |i: u64| ((u128::from(i.wrapping_mul(STEP)) * entries as u128) >> 64) as usize;
    let mut sample: Vec<f32> = (0..n_sampled as u64).map(|i| ratio(delta[at(i)], weight[at(i)])).collect();
    sample.sort_unstable_by(f32::total_cmp);
    let middle = (n as u128 * n_sampled as u128 / entries as u128) as usize;
    let low = middle.checked_sub(margin).and_then(|i| sample.get(i).copied()).unwrap_or(0.0);
    let high = sample.get(middle + margin).copied().unwrap_or(f32::INFINITY);
    (low, high)
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

/// The seed that one of an edit's matrices draws by, or matrices of one shape would all keep the same entries.
pub(crate) fn seed_of_matrix(seed: u64, place: usize) -> u64 {
    seed ^ (place as u64) << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ratios: &[f32], n: usize, (largest, ties, all_ties): (f32, usize, usize)) {
        let ones = vec![1.0; ratios.len()];
        assert_eq!(Dropped::of(ratios, &ones, n), Dropped { largest, ties, all_ties });
    }

    #[test]
    fn the_n_th_smallest_is_found_with_its_ties() {
        let inf = f32::INFINITY;
        check(&[3.0], 1, (3.0, 1, 1));
        check(&[0.5, inf, inf, 0.1, 0.2], 3, (0.5, 1, 1));
        check(&[0.5, inf, inf, 0.1, 0.2], 4, (inf, 1, 2));
        check(&[1.0, 0.0, 1.0, 1.0, 2.0], 3, (1.0, 2, 3));
        check(&[1.0, 1.0 + f32::EPSILON, 1.0 + 2.0 * f32::EPSILON], 2, (1.0 + f32::EPSILON, 1, 1));
    }

    #[test]
    fn a_sample_changes_nothing_for_a_large_matrix() {
        let scattered: Vec<f32> = (0..50_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 16) as f32).collect();
        let mut sorted = scattered.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        for n in [1, 2, 25_000, 49_999, 50_000] {
            let largest = sorted[n - 1];
            let ties = sorted[..n].iter().filter(|value| **value == largest).count();
            let all_ties = sorted.iter().filter(|value| **value == largest).count();
            check(&scattered, n, (largest, ties, all_ties));
        }
    }

    #[test]
    fn a_sample_that_misleads_is_no_mistake() {
        // Every sampled entry is large, all others are small.
        let mut values = vec![1.0; 100_000];
        values[0] = 7.0;
        for i in 0..100_000 / 32 {
            values[((u128::from(u64::wrapping_mul(i, 0x9E37_79B9_7F4A_7C15)) * 100_000) >> 64) as usize] = 7.0;
        }
        let small = values.iter().filter(|value| **value == 1.0).count();
        check(&values, small, (1.0, small, small));
    }

    #[test]
    fn a_change_of_a_zero_is_infinite() {
        assert_eq!(ratio(1.0, 0.0), f32::INFINITY);
        assert_eq!(ratio(0.0, 0.0), f32::INFINITY);
        assert_eq!(ratio(-1.0, 2.0), 0.5);
    }
}
