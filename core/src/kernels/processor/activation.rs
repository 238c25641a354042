//! GELU, and SiLU as a gate.

use burn_flex::FlexTensor;

use super::rows::{exp, in_order, numbers, share, tensor, wide};

const SQRT_8_OVER_PI: f32 = 1.595_769_2;

/// `σ(inner)` and the slope of `inner` there: `inner` is `x` in a gate and `√(8/π) (x + 0.044715 x³)` elsewhere.
#[inline(always)]
fn gate<const GATED: bool>(x: f32) -> (f32, f32) {
    let (inner, slope) = if GATED {
        (x, 1.0)
    } else {
        let square = x * x * 0.044_715;
        (SQRT_8_OVER_PI * x * (1.0 + square), SQRT_8_OVER_PI * (1.0 + 3.0 * square))
    };
    (1.0 / (1.0 + exp(-inner)), slope)
}

/// `x σ(inner)`, in a gate times another.
#[inline(always)]
fn forward<const GATED: bool>(x: &[f32], times: &[f32], out: &mut [f32]) {
    for ((out, x), times) in out.iter_mut().zip(x).zip(times) {
        let (open, _) = gate::<GATED>(*x);
        *out = if GATED { x * open * times } else { x * open };
    }
}

/// `g σ(inner) (1 + x (1 − σ(inner)) inner')`, in a gate times the other.
#[inline(always)]
fn backward<const GATED: bool>(x: &[f32], grad: &[f32], times: &[f32], out: &mut [f32]) {
    for (((out, x), grad), times) in out.iter_mut().zip(x).zip(grad).zip(times) {
        let (open, slope) = gate::<GATED>(*x);
        let value = grad * open * (1.0 + x * (1.0 - open) * slope);
        *out = if GATED { value * times } else { value };
    }
}

/// `[rows, columns]`: what [`forward`] computes.
pub fn activated(x: FlexTensor, times: FlexTensor, gated: bool) -> FlexTensor {
    let [x, times] = [x, times].map(in_order);
    filled(&x, |from, out| {
        let [x, times] = [&x, &times].map(|tensor| &numbers(tensor)[from..][..out.len()]);
        wide(|| if gated { forward::<true>(x, times, out) } else { forward::<false>(x, times, out) });
    })
}

/// `[rows, columns]`: what [`backward`] computes.
pub fn activated_back(x: FlexTensor, grad: FlexTensor, times: FlexTensor, gated: bool) -> FlexTensor {
    let [x, grad, times] = [x, grad, times].map(in_order);
    filled(&x, |from, out| {
        let [x, grad, times] = [&x, &grad, &times].map(|tensor| &numbers(tensor)[from..][..out.len()]);
        wide(|| if gated { backward::<true>(x, grad, times, out) } else { backward::<false>(x, grad, times, out) });
    })
}

/// As many numbers as `like` has: `fill` is handed the place of the first, and it with some that follow.
fn filled(like: &FlexTensor, fill: impl Fn(usize, &mut [f32]) + Sync) -> FlexTensor {
    let shape = like.layout().shape();
    let mut out = vec![0.0; shape.num_elements()];
    share(&mut out, 1, fill);
    tensor(out, [shape[0], shape[1]])
}
