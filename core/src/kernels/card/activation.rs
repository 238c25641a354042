//! GELU, and SiLU as a gate.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{each, empty_like, in_order, sides};

const SQRT_8_OVER_PI: f32 = 1.595_769_2;

/// `σ(inner)` and the slope of `inner` there: `inner` is `x` in a gate and `√(8/π) (x + 0.044715 x³)` elsewhere.
#[cube]
fn gate(x: f32, #[comptime] gated: bool) -> (f32, f32) {
    let mut inner = x;
    let mut slope = 1.0f32;
    if comptime!(!gated) {
        let square = x * x * 0.044_715f32;
        inner = SQRT_8_OVER_PI * x * (1.0f32 + square);
        slope = SQRT_8_OVER_PI * (1.0f32 + 3.0f32 * square);
    }
    (1.0f32 / (1.0f32 + (-inner).exp()), slope)
}

/// `x σ(inner)`, in a gate times another: a unit for each entry.
#[cube(launch_unchecked)]
fn forward(x: &Tensor<f32>, times: &Tensor<f32>, out: &mut Tensor<f32>, #[comptime] gated: bool) {
    let at = ABSOLUTE_POS;
    if at >= out.len() {
        terminate!();
    }
    let (open, _slope) = gate(x[at], gated);
    let mut value = x[at] * open;
    if comptime!(gated) {
        value *= times[at];
    }
    out[at] = value;
}

/// `g σ(inner) (1 + x (1 − σ(inner)) inner')`, in a gate times the other: a unit for each entry.
#[cube(launch_unchecked)]
fn backward(x: &Tensor<f32>, grad: &Tensor<f32>, times: &Tensor<f32>, out: &mut Tensor<f32>, #[comptime] gated: bool) {
    let at = ABSOLUTE_POS;
    if at >= out.len() {
        terminate!();
    }
    let (open, slope) = gate(x[at], gated);
    let mut value = grad[at] * open * (1.0f32 + x[at] * (1.0f32 - open) * slope);
    if comptime!(gated) {
        value *= times[at];
    }
    out[at] = value;
}

/// `[rows, columns]`: what [`forward`] computes.
pub fn activated(x: CubeTensor, times: CubeTensor, gated: bool) -> CubeTensor {
    let [x, times] = [x, times].map(in_order);
    let [rows, columns] = sides(&x);
    let out = empty_like(&x, [rows, columns]);
    let (count, dim) = each(rows * columns);
    // SAFETY: units beyond the last entry do nothing.
    unsafe {
        forward::launch_unchecked(
            &out.client,
            count,
            dim,
            x.into_tensor_arg(),
            times.into_tensor_arg(),
            out.clone().into_tensor_arg(),
            gated,
        );
    }
    out
}

/// `[rows, columns]`: what [`backward`] computes.
pub fn activated_back(x: CubeTensor, grad: CubeTensor, times: CubeTensor, gated: bool) -> CubeTensor {
    let [x, grad, times] = [x, grad, times].map(in_order);
    let [rows, columns] = sides(&x);
    let out = empty_like(&x, [rows, columns]);
    let (count, dim) = each(rows * columns);
    // SAFETY: as above.
    unsafe {
        backward::launch_unchecked(
            &out.client,
            count,
            dim,
            x.into_tensor_arg(),
            grad.into_tensor_arg(),
            times.into_tensor_arg(),
            out.clone().into_tensor_arg(),
            gated,
        );
    }
    out
}
