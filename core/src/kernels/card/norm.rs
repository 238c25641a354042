//! Layer norm and RMS norm of rows, one cube a row.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{ROW_UNITS, empty_like, grid, in_order, sides, sum_of};

/// `(x − mean) spread scale + shift`: a cube for each row.
#[cube(launch_unchecked)]
fn forward(
    x: &Tensor<f32>,
    scale: &Tensor<f32>,
    shift: &Tensor<f32>,
    out: &mut Tensor<f32>,
    epsilon: f32,
    #[comptime] centred: bool,
    #[comptime] units: usize,
) {
    let (row, d) = (CUBE_POS as usize, x.shape(1));
    if row >= x.shape(0) {
        terminate!();
    }
    let base = row * d;
    let mut shared = Shared::<[f32]>::new_slice(units);
    let mean = mean_of(x, base, d, &mut shared, centred, units);
    let spread = spread_of(x, base, d, mean, epsilon, &mut shared, units);
    let mut column = UNIT_POS as usize;
    while column < d {
        let mut value = (x[base + column] - mean) * spread * scale[column];
        if comptime!(centred) {
            value += shift[column];
        }
        out[base + column] = value;
        column += units;
    }
}

/// The mean of a row, or 0 where it stays where it is.
#[cube]
fn mean_of(
    x: &Tensor<f32>,
    base: usize,
    d: usize,
    shared: &mut Shared<[f32]>,
    #[comptime] centred: bool,
    #[comptime] units: usize,
) -> f32 {
    let mut sum = 0.0f32;
    if comptime!(centred) {
        let mut column = UNIT_POS as usize;
        while column < d {
            sum += x[base + column];
            column += units;
        }
        sum = sum_of(shared, sum, units);
    }
    sum / d as f32
}

/// `1 / √(variance + ε)` of a row.
#[cube]
fn spread_of(
    x: &Tensor<f32>,
    base: usize,
    d: usize,
    mean: f32,
    epsilon: f32,
    shared: &mut Shared<[f32]>,
    #[comptime] units: usize,
) -> f32 {
    let mut squares = 0.0f32;
    let mut column = UNIT_POS as usize;
    while column < d {
        let value = x[base + column] - mean;
        squares += value * value;
        column += units;
    }
    1.0f32 / (sum_of(shared, squares, units) / d as f32 + epsilon).sqrt()
}

/// `spread (h − mean h − x̂ mean(h x̂))`, where `h = g scale` and `x̂` is what was normed: a cube for each row.
///
/// Without centring the first mean is left out.
#[cube(launch_unchecked)]
fn backward(
    x: &Tensor<f32>,
    scale: &Tensor<f32>,
    grad: &Tensor<f32>,
    out: &mut Tensor<f32>,
    epsilon: f32,
    #[comptime] centred: bool,
    #[comptime] units: usize,
) {
    let (row, d) = (CUBE_POS as usize, x.shape(1));
    if row >= x.shape(0) {
        terminate!();
    }
    let (base, width) = (row * d, d as f32);
    let mut shared = Shared::<[f32]>::new_slice(units);
    let mean = mean_of(x, base, d, &mut shared, centred, units);
    let spread = spread_of(x, base, d, mean, epsilon, &mut shared, units);
    let mut along = 0.0f32;
    let mut sum = 0.0f32;
    let mut column = UNIT_POS as usize;
    while column < d {
        let pulled = grad[base + column] * scale[column];
        along += pulled * (x[base + column] - mean) * spread;
        sum += pulled;
        column += units;
    }
    let along = sum_of(&mut shared, along, units) / width;
    let mut pull = 0.0f32;
    if comptime!(centred) {
        pull += sum_of(&mut shared, sum, units);
    }
    let middle = pull / width;
    let mut column = UNIT_POS as usize;
    while column < d {
        let normed = (x[base + column] - mean) * spread;
        out[base + column] = (grad[base + column] * scale[column] - middle - normed * along) * spread;
        column += units;
    }
}

/// `[rows, d]`: what [`forward`] computes.
pub fn normed(x: CubeTensor, scale: CubeTensor, shift: CubeTensor, epsilon: f64, centred: bool) -> CubeTensor {
    let [x, scale, shift] = [x, scale, shift].map(in_order);
    let [rows, d] = sides(&x);
    let out = empty_like(&x, [rows, d]);
    // SAFETY: a cube has a row, and units look at no column beyond the last.
    unsafe {
        forward::launch_unchecked(
            &out.client,
            grid(rows),
            CubeDim::new_1d(ROW_UNITS as u32),
            x.into_tensor_arg(),
            scale.into_tensor_arg(),
            shift.into_tensor_arg(),
            out.clone().into_tensor_arg(),
            epsilon as f32,
            centred,
            ROW_UNITS,
        );
    }
    out
}

/// `[rows, d]`: what [`backward`] computes.
pub fn normed_back(x: CubeTensor, scale: CubeTensor, grad: CubeTensor, epsilon: f64, centred: bool) -> CubeTensor {
    let [x, scale, grad] = [x, scale, grad].map(in_order);
    let [rows, d] = sides(&x);
    let out = empty_like(&x, [rows, d]);
    // SAFETY: as above.
    unsafe {
        backward::launch_unchecked(
            &out.client,
            grid(rows),
            CubeDim::new_1d(ROW_UNITS as u32),
            x.into_tensor_arg(),
            scale.into_tensor_arg(),
            grad.into_tensor_arg(),
            out.clone().into_tensor_arg(),
            epsilon as f32,
            centred,
            ROW_UNITS,
        );
    }
    out
}
