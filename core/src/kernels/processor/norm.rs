//! Layer norm and RMS norm of rows.

use burn_flex::FlexTensor;

use super::rows::{in_order, numbers, share, sum, tensor, wide, width};

/// The mean of a row, or 0 where it stays where it is, and `1 / √(variance + ε)`.
#[inline(always)]
fn measure(x: &[f32], epsilon: f32, centred: bool) -> (f32, f32) {
    let d = x.len();
    let mean = if centred { sum([x], |[x]| x) / d as f32 } else { 0.0 };
    let variance = sum([x], |[x]| (x - mean) * (x - mean)) / d as f32;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

/// `(x − mean) spread scale + shift`
#[inline(always)]
fn forward(x: &[f32], scale: &[f32], shift: Option<&[f32]>, epsilon: f32, out: &mut [f32]) {
    let (mean, spread) = measure(x, epsilon, shift.is_some());
    for ((out, x), scale) in out.iter_mut().zip(x).zip(scale) {
        *out = (x - mean) * spread * scale;
    }
    if let Some(shift) = shift {
        out.iter_mut().zip(shift).for_each(|(out, shift)| *out += shift);
    }
}

/// `spread (h − mean h − x̂ mean(h x̂))`, where `h = g scale` and `x̂` is what was normed. Without centring the first mean is
/// left out.
#[inline(always)]
fn backward(x: &[f32], scale: &[f32], grad: &[f32], epsilon: f32, centred: bool, out: &mut [f32]) {
    let d = x.len();
    let (scale, grad) = (&scale[..d], &grad[..d]);
    let (mean, spread) = measure(x, epsilon, centred);
    let along = sum([grad, scale, x], |[grad, scale, x]| grad * scale * (x - mean)) * spread / d as f32;
    let middle = if centred { sum([grad, scale], |[grad, scale]| grad * scale) / d as f32 } else { 0.0 };
    for (((out, x), scale), grad) in out.iter_mut().zip(x).zip(scale).zip(grad) {
        *out = (grad * scale - middle - (x - mean) * spread * along) * spread;
    }
}

/// `[rows, d]`: what [`forward`] computes.
pub fn normed(x: FlexTensor, scale: FlexTensor, shift: FlexTensor, epsilon: f64, centred: bool) -> FlexTensor {
    let [x, scale, shift] = [x, scale, shift].map(in_order);
    let (d, scale, shift) = (width(&x), numbers(&scale), centred.then(|| numbers(&shift)));
    let x = numbers(&x);
    let mut out = vec![0.0; x.len()];
    share(&mut out, d, |first, rows| {
        wide(|| {
            for (out, x) in rows.chunks_exact_mut(d).zip(x[first * d..].chunks_exact(d)) {
                forward(x, scale, shift, epsilon as f32, out);
            }
        });
    });
    let rows = out.len() / d;
    tensor(out, [rows, d])
}

/// `[rows, d]`: what [`backward`] computes.
pub fn normed_back(x: FlexTensor, scale: FlexTensor, grad: FlexTensor, epsilon: f64, centred: bool) -> FlexTensor {
    let [x, scale, grad] = [x, scale, grad].map(in_order);
    let d = width(&x);
    let [x, scale, grad] = [&x, &scale, &grad].map(numbers);
    let mut out = vec![0.0; x.len()];
    share(&mut out, d, |first, rows| {
        wide(|| {
            let [xs, grads] = [x, grad].map(|all| all[first * d..].chunks_exact(d));
            for ((out, x), grad) in rows.chunks_exact_mut(d).zip(xs).zip(grads) {
                backward(x, scale, grad, epsilon as f32, centred, out);
            }
        });
    });
    let rows = out.len() / d;
    tensor(out, [rows, d])
}
