//! Products with a matrix that is stored in whole numbers of eight bits.

use std::ops::Range;

use burn_flex::FlexTensor;

use super::{
    super::{
        ops::Way,
        weight::{BLOCK, PACKED},
    },
    halves::AT_ONCE,
    rows::{in_order, matmul, numbers, share, tensor, width},
};

/// `x W`, or `x Wᵀ`, widening some columns of what is multiplied with at a time.
pub fn product(x: &FlexTensor, words: &FlexTensor, scales: &FlexTensor, way: Way) -> FlexTensor {
    let (words, scales) = (words.to_contiguous(), in_order(scales.clone()));
    let stored =
        Stored { words: words.as_slice().expect("brought in order"), scales: numbers(&scales), blocks: width(&scales) };
    let (rows, depth) = (x.layout().shape()[0], width(x));
    let columns = if way.back { way.d_in } else { words.layout().shape()[0] };
    let each = (AT_ONCE / depth.max(1)).max(1).next_multiple_of(BLOCK);
    let mut out = vec![0.0f32; rows * columns];
    for first in (0..columns).step_by(each) {
        let count = each.min(columns - first);
        let piece = match way.back {
            true => stored.widened(0..depth, first..first + count),
            false => stored.widened(first..first + count, 0..depth).transpose(0, 1),
        };
        let part = in_order(matmul(x.clone(), piece));
        for (out, part) in out.chunks_exact_mut(columns).zip(numbers(&part).chunks_exact(count)) {
            out[first..first + count].copy_from_slice(part);
        }
    }
    tensor(out, [rows, columns])
}

struct Stored<'a> {
    words: &'a [i32],
    scales: &'a [f32],
    /// Of an output.
    blocks: usize,
}

impl Stored<'_> {
    /// Some inputs of some outputs, which begin with a block: `[outputs, inputs]`.
    fn widened(&self, outputs: Range<usize>, inputs: Range<usize>) -> FlexTensor {
        let (wide, first_block) = (inputs.len(), inputs.start / BLOCK);
        let mut out = vec![0.0f32; outputs.len() * wide];
        share(&mut out, wide, |first, part| {
            for (row, out) in part.chunks_exact_mut(wide).enumerate() {
                let block = (outputs.start + first + row) * self.blocks + first_block;
                for (i, out) in out.chunks_mut(BLOCK).enumerate() {
                    let scale = self.scales[block + i];
                    let words = &self.words[(block + i) * BLOCK / PACKED..];
                    for (word, out) in words.iter().zip(out.chunks_mut(PACKED)) {
                        for (code, out) in word.to_le_bytes().into_iter().zip(out) {
                            *out = f32::from(code.cast_signed()) * scale;
                        }
                    }
                }
            }
        });
        tensor(out, [outputs.len(), wide])
    }
}
