//! Rows of tokens as arrays.

use std::ops::Range;

use burn::tensor::{Int, Tensor, TensorData};

/// Rows of tokens, padded to the right into one array.
pub(crate) fn padded(rows: &[&[u32]]) -> Vec<u32> {
    let width = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    rows.iter().flat_map(|row| row.iter().copied().chain(std::iter::repeat(0)).take(width)).collect()
}

/// Rows of these lengths in consecutive batches, each padded to a few thousand tokens at the most.
pub(crate) fn batches(lens: &[usize]) -> Vec<Range<usize>> {
    const TOKENS: usize = 4096;
    let mut batches = Vec::new();
    let (mut from, mut longest) = (0, 0);
    for (i, len) in lens.iter().enumerate() {
        longest = longest.max(*len);
        if i > from && longest * (i + 1 - from) > TOKENS {
            batches.push(from..i);
            (from, longest) = (i, *len);
        }
    }
    batches.push(from..lens.len());
    batches
}

/// Indices as a tensor beside `on`.
pub(crate) fn index_tensor<const D: usize>(at: &[usize], on: &Tensor<D>) -> Tensor<1, Int> {
    let values: Vec<i32> = at.iter().map(|i| i32::try_from(*i).expect("an index is small")).collect();
    Tensor::from_data(TensorData::new(values, [at.len()]), &on.device().without_autodiff())
}
