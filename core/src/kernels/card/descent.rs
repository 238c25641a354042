//! What an optimisation of rows does beside running a model: adds δ, and moves it.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    super::ops::Pace,
    launch::{ROW_UNITS, each, empty_like, grid, in_order, sides, sum_of},
};

/// `hidden`, and at the first position of each row its fact's δ on top: a unit for each entry.
#[cube(launch_unchecked)]
fn add(hidden: &Tensor<f32>, delta: &Tensor<f32>, out: &mut Tensor<f32>, rows_each: usize) {
    let at = ABSOLUTE_POS;
    if at >= out.len() {
        terminate!();
    }
    let (width, d) = (hidden.shape(1), hidden.shape(2));
    let mut value = hidden[at];
    if at / d % width == 0 {
        value += delta[at / (width * d) / rows_each * d + at % d];
    }
    out[at] = value;
}

/// Of each fact the sum over its rows of what stands at their first positions: a unit for each entry.
#[cube(launch_unchecked)]
fn collect(grad: &Tensor<f32>, out: &mut Tensor<f32>, rows_each: usize) {
    let at = ABSOLUTE_POS;
    if at >= out.len() {
        terminate!();
    }
    let (width, d) = (grad.shape(1), grad.shape(2));
    let first = at / d * rows_each;
    let mut sum = 0.0f32;
    for row in 0..rows_each {
        sum += grad[(first + row) * width * d + at % d];
    }
    out[at] = sum;
}

/// `[rows, pos, d]`: what [`add`] computes.
pub fn shifted(hidden: CubeTensor, delta: CubeTensor, rows_each: usize) -> CubeTensor {
    let [hidden, delta] = [hidden, delta].map(in_order);
    let shape = [0, 1, 2].map(|i| hidden.meta.shape()[i]);
    let out = empty_like(&hidden, shape);
    let client = out.client.clone();
    let (count, dim) = each(shape.iter().product());
    let [hidden, delta, to] = [hidden, delta, out.clone()].map(CubeTensor::into_tensor_arg);
    // SAFETY: every unit beyond the last entry ends at once.
    unsafe { add::launch_unchecked(&client, count, dim, hidden, delta, to, rows_each) };
    out
}

/// `[facts, d]`: what [`collect`] computes.
pub fn shifted_back(grad: CubeTensor, rows_each: usize) -> CubeTensor {
    let grad = in_order(grad);
    let [rows, d] = [0, 2].map(|i| grad.meta.shape()[i]);
    let facts = rows / rows_each;
    let out = empty_like(&grad, [facts, d]);
    let client = out.client.clone();
    let (count, dim) = each(facts * d);
    let [grad, to] = [grad, out.clone()].map(CubeTensor::into_tensor_arg);
    // SAFETY: as in `shifted`.
    unsafe { collect::launch_unchecked(&client, count, dim, grad, to, rows_each) };
    out
}

/// One step of Adam for a row and its two means, and back within its bounds: a cube for each row.
#[cube(launch_unchecked)]
fn step(
    now: &Tensor<f32>,
    gradient: &Tensor<f32>,
    held: &Tensor<f32>,
    out: &mut Tensor<f32>,
    first: f32,
    second: f32,
    first_left: f32,
    second_left: f32,
    rate: f32,
    unbias: f32,
    epsilon: f32,
    #[comptime] units: usize,
) {
    let (row, n, d) = (CUBE_POS as usize, now.shape(1), now.shape(2));
    if row >= n {
        terminate!();
    }
    let (base, plane) = (row * d, n * d);
    let (pull, reach, radius) = (held[row * 3], held[row * 3 + 1], held[row * 3 + 2]);
    let mut squares = 0.0f32;
    let mut column = UNIT_POS as usize;
    while column < d {
        let at = base + column;
        let gradient = gradient[at] + now[at] * pull;
        let mean = now[plane + at] * first + gradient * first_left;
        let square = now[2 * plane + at] * second + gradient * gradient * second_left;
        let moved = now[at] - mean / ((square * unbias).sqrt() + epsilon) * rate;
        let moved = max(min(moved, reach), -reach);
        out[at] = moved;
        out[plane + at] = mean;
        out[2 * plane + at] = square;
        squares += moved * moved;
        column += units;
    }
    let mut shared = Shared::<[f32]>::new_slice(units);
    let length = sum_of(&mut shared, squares, units).sqrt();
    if length > radius {
        let shrink = radius / length;
        let mut column = UNIT_POS as usize;
        while column < d {
            out[base + column] = out[base + column] * shrink;
            column += units;
        }
    }
}

/// `[3, n, d]`: what [`step`] computes.
pub fn stepped(now: CubeTensor, gradient: CubeTensor, held: CubeTensor, pace: Pace) -> CubeTensor {
    let [now, gradient, held] = [now, gradient, held].map(in_order);
    let [n, d] = sides(&gradient);
    let out = empty_like(&now, [3, n, d]);
    let client = out.client.clone();
    let [now, gradient, held, to] = [now, gradient, held, out.clone()].map(CubeTensor::into_tensor_arg);
    let Pace { decay: [first, second], rate, unbias, epsilon } = pace;
    // SAFETY: a cube without a row ends at once, and its units look at their own row alone.
    unsafe {
        step::launch_unchecked(
            &client,
            grid(n),
            CubeDim::new_1d(ROW_UNITS as u32),
            now,
            gradient,
            held,
            to,
            first as f32,
            second as f32,
            (1.0 - first) as f32,
            (1.0 - second) as f32,
            rate as f32,
            unbias as f32,
            epsilon as f32,
            ROW_UNITS,
        );
    }
    out
}
