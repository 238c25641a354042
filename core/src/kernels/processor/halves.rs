//! Products with a matrix that is stored in half precision.

use burn_flex::FlexTensor;
use half::{f16, slice::HalfFloatSliceExt};

use super::rows::{in_order, matmul, numbers, share, tensor, width};

/// How many numbers are widened at once: the matrix is never there whole in 32 bits.
pub const AT_ONCE: usize = 1 << 21;

/// `x W`, widening some columns of `W` at a time.
pub fn product(x: &FlexTensor, weight: &FlexTensor) -> FlexTensor {
    let (rows, columns) = (x.layout().shape()[0], width(weight));
    let depth = width(x);
    let each = (AT_ONCE / depth.max(1)).max(1);
    // Columns are cut where they lie side by side, and rows where the matrix lies the other way.
    let turned = weight.layout().strides()[1] != 1;
    let mut out = vec![0.0f32; rows * columns];
    for first in (0..columns).step_by(each) {
        let count = each.min(columns - first);
        let piece = weight.narrow(1, first, count);
        let piece = match turned {
            true => widened(&piece.transpose(0, 1)).transpose(0, 1),
            false => widened(&piece),
        };
        let part = in_order(matmul(x.clone(), piece));
        for (out, part) in out.chunks_exact_mut(columns).zip(numbers(&part).chunks_exact(count)) {
            out[first..first + count].copy_from_slice(part);
        }
    }
    tensor(out, [rows, columns])
}

/// The same numbers in 32 bits.
fn widened(halves: &FlexTensor) -> FlexTensor {
    let halves = halves.to_contiguous();
    let shape = halves.layout().shape();
    let shape = [shape[0], shape[1]];
    let halves = halves.as_slice::<f16>().expect("brought in order");
    let mut wide = vec![0.0f32; halves.len()];
    share(&mut wide, 1, |first, part| halves[first..first + part.len()].convert_to_f32_slice(part));
    tensor(wide, shape)
}
