//! Rotary positions of queries and keys where they lie side by side.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    super::ops::Turn,
    launch::{each, empty_like, in_order, sides},
};

/// `x cos + (x a quarter turn on) sin` in columns that turn: a unit for each entry.
#[cube(launch_unchecked)]
fn forward(
    x: &Tensor<f32>,
    cos: &Tensor<f32>,
    sin: &Tensor<f32>,
    out: &mut Tensor<f32>,
    turned: usize,
    d_head: usize,
    turning: usize,
    #[comptime] neighbors: bool,
    #[comptime] back: bool,
) {
    let at = ABSOLUTE_POS;
    if at >= out.len() {
        terminate!();
    }
    let width = x.shape(1);
    let (row, column) = (at / width, at % width);
    let within = column % d_head;
    let mut value = x[at];
    if column < turned && within < turning {
        let half = turning / 2;
        let mut first = within < half;
        let mut away = half;
        if comptime!(neighbors) {
            first = within % 2 == 0;
            away = 1usize;
        }
        let mut quarter = 0.0f32;
        if first {
            quarter -= x[at + away];
        } else {
            quarter += x[at - away];
        }
        if comptime!(back) {
            quarter = -quarter;
        }
        let angle = row * turning + within;
        value = value * cos[angle] + quarter * sin[angle];
    }
    out[at] = value;
}

/// `[rows, columns]`: what [`forward`] computes.
pub fn rotated(x: CubeTensor, cos: CubeTensor, sin: CubeTensor, turn: Turn) -> CubeTensor {
    let [x, cos, sin] = [x, cos, sin].map(in_order);
    let [rows, columns] = sides(&x);
    let turning = *cos.meta.shape().last().expect("a table has columns");
    let out = empty_like(&x, [rows, columns]);
    let (count, dim) = each(rows * columns);
    // SAFETY: units beyond the last entry do nothing, and a pair lies within a head.
    unsafe {
        forward::launch_unchecked(
            &out.client,
            count,
            dim,
            x.into_tensor_arg(),
            cos.into_tensor_arg(),
            sin.into_tensor_arg(),
            out.clone().into_tensor_arg(),
            turn.columns,
            turn.d_head,
            turning,
            turn.neighbors,
            turn.back,
        );
    }
    out
}
