//! Rotary positions of queries and keys where they lie side by side.

use burn_flex::FlexTensor;

use super::{
    super::ops::Turn,
    rows::{in_order, numbers, share, tensor, wide, width},
};

/// `x cos + (x a quarter turn on) sin` in the first columns of a head.
#[inline(always)]
fn turn_head(x: &[f32], cos: &[f32], sin: &[f32], neighbors: bool, back: bool, out: &mut [f32]) {
    let turning = cos.len();
    let half = turning / 2;
    let sign = if back { -1.0 } else { 1.0 };
    for pair in 0..half {
        let (i, j) = if neighbors { (2 * pair, 2 * pair + 1) } else { (pair, pair + half) };
        out[i] = x[i] * cos[i] - x[j] * (sign * sin[i]);
        out[j] = x[j] * cos[j] + x[i] * (sign * sin[j]);
    }
}

/// `[rows, columns]`: queries and keys turned, values as they are.
pub fn rotated(x: FlexTensor, cos: FlexTensor, sin: FlexTensor, turn: Turn) -> FlexTensor {
    let [x, cos, sin] = [x, cos, sin].map(in_order);
    let (columns, turning) = (width(&x), width(&cos));
    let [cos, sin] = [&cos, &sin].map(numbers);
    let mut out = numbers(&x).to_vec();
    let x = numbers(&x);
    share(&mut out, columns, |first, rows| {
        wide(|| {
            for (row, out) in rows.chunks_exact_mut(columns).enumerate() {
                let row = first + row;
                let [cos, sin] = [cos, sin].map(|table| &table[row * turning..][..turning]);
                let heads = x[row * columns..][..turn.columns].chunks_exact(turn.d_head);
                for (out, x) in out.chunks_exact_mut(turn.d_head).zip(heads) {
                    turn_head(x, cos, sin, turn.neighbors, turn.back, out);
                }
            }
        });
    });
    let rows = out.len() / columns;
    tensor(out, [rows, columns])
}
