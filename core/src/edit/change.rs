//! How far a change moves a matrix: RECT's Table 1 and the picture of its Figure 5.

use burn::tensor::Tensor;
use rectify_protocol::{Above, Blocks, Percentile, WeightChange};

use super::{Delta, regularize::ratio};
use crate::{
    Result,
    read::{floats, read_data},
};

/// Blocks of a picture, at most, down and across.
const PICTURE: [usize; 2] = [128, 32];

/// The size of `delta` beside the `weight` it is added to, and how large that is. `kept` is how many entries its
/// regularizer let through, and `name` the matrix' in the checkpoint; with `picture` the relative changes are drawn as
/// well.
///
/// A relative change of a zero weight counts as [`WeightChange::LARGEST`], and as 0 where nothing changes. Both matrices
/// are read and compared on the host, as RECT does: on a card each step of it would be a kernel of its own.
pub async fn weight_change(
    name: String,
    delta: &Delta,
    weight: &Tensor<2>,
    kept: usize,
    picture: bool,
) -> Result<(WeightChange, f64)> {
    let [rows, columns] = delta.dims();
    let (delta, weight) = (read_data(delta.dense()).await?, read_data(weight.clone()).await?);
    let (delta, weight) = (floats(&delta)?, floats(&weight)?);
    let square_root_of_squares = |of: &[f32]| of.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let largest = WeightChange::LARGEST as f32;
    let entries = delta.iter().zip(weight);
    let ratio: Vec<f32> =
        entries.map(|(delta, weight)| if *delta == 0.0 { 0.0 } else { ratio(*delta, *weight).min(largest) }).collect();
    let share = |threshold: f64| {
        let above = ratio.iter().filter(|ratio| f64::from(**ratio) > threshold).count();
        above as f64 / ratio.len() as f64
    };
    let above = WeightChange::THRESHOLDS.map(|threshold| Above { threshold, share: share(threshold) }).to_vec();
    let blocks = picture.then(|| blocks(&ratio, [rows, columns]));
    let change = WeightChange {
        name,
        entries: rows * columns,
        kept,
        frobenius: square_root_of_squares(delta),
        manhattan: delta.iter().map(|x| f64::from(x.abs())).sum(),
        percentiles: percentiles(ratio),
        above,
        blocks,
    };
    Ok((change, square_root_of_squares(weight)))
}

/// The value that so many of the entries do not exceed, for each of [`WeightChange::SHARES`].
fn percentiles(mut values: Vec<f32>) -> Vec<Percentile> {
    let n = values.len();
    let mut from = 0;
    let value = |share: f64| {
        let at = ((share * n as f64).ceil() as usize).clamp(1, n) - 1;
        // Everything before `from` is smaller already: shares ascend.
        let (_, value, _) = values[from..].select_nth_unstable_by(at - from, f32::total_cmp);
        let value = f64::from(*value);
        from = at;
        Percentile { share, value }
    };
    WeightChange::SHARES.map(value).to_vec()
}

/// Largest and mean relative change, cut off at 1, of blocks of about equal size.
fn blocks(ratio: &[f32], [rows, columns]: [usize; 2]) -> Blocks {
    let [down, across] = [rows.min(PICTURE[0]), columns.min(PICTURE[1])];
    let (mut max, mut sums) = (vec![0.0f32; down * across], vec![0.0f64; down * across]);
    let mut counts = vec![0u32; down * across];
    for (i, row) in ratio.chunks(columns).enumerate() {
        let first = i * down / rows * across;
        for (j, value) in row.iter().enumerate() {
            let block = first + j * across / columns;
            let value = value.min(1.0);
            max[block] = max[block].max(value);
            sums[block] += f64::from(value);
            counts[block] += 1;
        }
    }
    let mean = sums.iter().zip(counts).map(|(sum, count)| (sum / f64::from(count)) as f32).collect();
    Blocks { rows: down, columns: across, max, mean }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_a_sorted_list() {
        let values: Vec<f32> = (0..100).map(|i| ((i * 37) % 100) as f32 + 1.0).collect();
        let found: Vec<f64> = percentiles(values).iter().map(|percentile| percentile.value).collect();
        assert_eq!(found, [50.0, 80.0, 90.0, 99.0]);
    }

    #[test]
    fn a_picture_shows_a_single_changed_entry() {
        let mut ratio = vec![0.0; 300 * 70];
        ratio[150 * 70 + 69] = 7.0;
        let blocks = blocks(&ratio, [300, 70]);
        assert_eq!((blocks.rows, blocks.columns), (128, 32));
        let lit: Vec<usize> = (0..blocks.max.len()).filter(|i| blocks.max[*i] > 0.0).collect();
        assert_eq!(lit, [150 * 128 / 300 * 32 + 31]);
        assert_eq!(blocks.max[lit[0]], 1.0);
        assert!(blocks.mean[lit[0]] > 0.0 && blocks.mean[lit[0]] < 1.0);
    }
}
