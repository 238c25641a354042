//! What models are computed with: each operation whole, with a backward of its own.
//!
//! [`plain`] says what they are, in burn's operations, and serves any device. Kernels of our own serve processors
//! (`processor`, for burn's flex) and graphics cards (`card`, for CubeCL: one launch each, attention two); they
//! are held to the plain ones by the tests of this module, values and gradients. What is a constant in every use here,
//! as norms, biases and what rows have seen, has no gradient, and a kernel refuses to be given one that wants any.

#[cfg(feature = "card")]
mod card;
mod ops;
#[allow(clippy::disallowed_methods, reason = "it says what an exact product is, on devices whose own is exact")]
mod plain;
#[cfg(feature = "processor")]
mod processor;
#[cfg(test)]
mod tests;
mod tracked;
mod weight;

use burn::{
    backend::{Dispatch, DispatchDevice, DispatchTensor},
    tensor::{Device, Int, Tensor},
};

use crate::model::{heads::Heads, index_tensor};
pub(crate) use ops::Pace;
use ops::{Kernels, Layout, Turn, Way, With};
pub(crate) use plain::{picked, whole, wide};
pub(crate) use weight::{Blocks, Weight};

/// Whether there are kernels for tensors of this device.
fn serve(device: &Device) -> bool {
    match device.clone().without_autodiff().as_dispatch() {
        #[cfg(feature = "processor")]
        DispatchDevice::Flex(_) => true,
        _ => is_card(device),
    }
}

/// Whether this is a graphics card.
fn is_card(device: &Device) -> bool {
    match device.clone().without_autodiff().as_dispatch() {
        #[cfg(feature = "card")]
        DispatchDevice::Cube(_) => true,
        _ => false,
    }
}

/// `x W + b + r`: `x [n, d_in]`, `W [d_in, d_out]` whichever way it lies, `b [d_out]`, `r [n, d_out]`.
pub(crate) fn product(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<2>>,
) -> Tensor<2> {
    if !serve(&x.device()) {
        return plain::product(x, weight, bias, residual);
    }
    let with = With { bias: bias.is_some(), residual: residual.is_some() };
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    let (bias, residual) = (or(bias, &weight), or(residual, &weight));
    Tensor::from_dispatch(<Dispatch as Kernels>::product(x, weight, bias, residual, with))
}

/// `x W + b + r`, however `W` is stored: shapes as in [`product`].
pub(crate) fn linear(x: Tensor<2>, weight: Weight, bias: Option<Tensor<1>>, residual: Option<Tensor<2>>) -> Tensor<2> {
    let Blocks { words, scales, d_in } = match weight {
        Weight::Floats(weight) => return product(x, weight, bias, residual),
        blocks if !serve(&x.device()) => return plain::product(x, whole(blocks), bias, residual),
        Weight::Blocks(blocks) => blocks,
    };
    let with = With { bias: bias.is_some(), residual: residual.is_some() };
    let (x, words, scales) = (x.into_dispatch(), words.into_dispatch(), scales.into_dispatch());
    let (bias, residual) = (or(bias, &scales), or(residual, &scales));
    let way = Way { d_in, back: false };
    Tensor::from_dispatch(<Dispatch as Kernels>::product_of_blocks(x, words, scales, bias, residual, with, way))
}

/// `a b`, in 32 bits on every device: burn's own product may round its factors where a card is faster that way.
pub(crate) fn matmul(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    product(a, b, None, None)
}

/// The same of several matrices: `a [n, rows, d]`, `b [n, d, columns]`.
#[allow(clippy::disallowed_methods, reason = "burn's product is exact, but on cards")]
pub(crate) fn matmuls(a: Tensor<3>, b: Tensor<3>) -> Tensor<3> {
    if !is_card(&a.device()) {
        return a.matmul(b);
    }
    let one = |x: &Tensor<3>, i: usize| x.clone().narrow(0, i, 1).squeeze_dim::<2>(0);
    let n = a.dims()[0];
    Tensor::stack((0..n).map(|i| matmul(one(&a, i), one(&b, i))).collect(), 0)
}

/// Layer norm of rows, or without a shift RMS norm: `x [n, d]`, `scale` and `shift [d]`.
pub(crate) fn norm(x: Tensor<2>, scale: Tensor<1>, shift: Option<Tensor<1>>, epsilon: f64) -> Tensor<2> {
    if !serve(&x.device()) {
        return plain::norm(x, scale, shift, epsilon);
    }
    let centred = shift.is_some();
    let scale = scale.into_dispatch();
    let shift = or(shift, &scale);
    Tensor::from_dispatch(<Dispatch as Kernels>::normed(x.into_dispatch(), scale, shift, epsilon, centred))
}

/// `x/2 (1 + tanh y)`, `y = √(2/π) (x + 0.044715 x³)`: `[n, d]`.
pub(crate) fn gelu_tanh(x: Tensor<2>) -> Tensor<2> {
    if !serve(&x.device()) {
        return plain::gelu_tanh(x);
    }
    let x = x.into_dispatch();
    Tensor::from_dispatch(<Dispatch as Kernels>::activated(x.clone(), x, false))
}

/// `x σ(x) · y`: `[n, d]`.
pub(crate) fn silu_gate(x: Tensor<2>, y: Tensor<2>) -> Tensor<2> {
    if !serve(&x.device()) {
        return plain::silu_gate(x, y);
    }
    Tensor::from_dispatch(<Dispatch as Kernels>::activated(x.into_dispatch(), y.into_dispatch(), true))
}

/// `Σ softmax(scale q·k + mask) v`.
///
/// Shapes: `joined` as [`Heads`] says, `past [2, batch, group, pos, d_head]`, keys and then values, `mask
/// [batch, 1, pos, seen]`; returns `[batch * pos, heads * d_head]`.
pub(crate) fn attend(
    joined: Tensor<2>,
    past: Option<Tensor<5>>,
    mask: Tensor<4>,
    heads: Heads,
    scale: f64,
) -> Tensor<2> {
    if !serve(&joined.device()) {
        return plain::attend(joined, past, mask, heads, scale);
    }
    let held = past.as_ref().map_or(0, |past| past.dims()[3]);
    let mask = mask.into_dispatch();
    let past = or(past, &mask);
    let layout = Layout { heads, held, scale };
    Tensor::from_dispatch(<Dispatch as Kernels>::attended(joined.into_dispatch(), past, mask, layout))
}

/// The keys and values of a past, and behind them those of new tokens: `[2, batch, group, past + pos, d_head]`.
pub(crate) fn append(past: Option<Tensor<5>>, joined: Tensor<2>, heads: Heads) -> Tensor<5> {
    if !serve(&joined.device()) {
        return plain::append(past, &joined, heads);
    }
    let held = past.as_ref().map_or(0, |past| past.dims()[3]);
    let joined = joined.into_dispatch();
    let past = or(past, &joined);
    let layout = Layout { heads, held, scale: 1.0 };
    Tensor::from_dispatch(<Dispatch as Kernels>::appended(past, joined, layout))
}

/// Queries and keys turned by their positions: `cos` and `sin [batch, pos, 1, turning]`. Of `turning` columns of a head
/// `i` and `i + turning/2` turn together, or neighbors do.
pub(crate) fn rotate(joined: Tensor<2>, cos: Tensor<4>, sin: Tensor<4>, heads: Heads, neighbors: bool) -> Tensor<2> {
    if !serve(&joined.device()) {
        return plain::rotate(joined, cos, sin, heads, neighbors);
    }
    let turn = Turn { columns: heads.turning_columns(), d_head: heads.d_head, neighbors, back: false };
    let (cos, sin) = (cos.into_dispatch(), sin.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Kernels>::rotated(joined.into_dispatch(), cos, sin, turn))
}

/// Of each row of logits `[n, vocab]` the log-probability of one token: `[n, 1]`.
pub(crate) fn log_likelihoods(logits: Tensor<2>, targets: &[usize]) -> Tensor<2> {
    answers(logits, targets, None)
}

/// Of the first rows of `logits [n + m, vocab]` the log-probability of one token each, of the rest the divergence
/// `KL(p ‖ q)` from what other logits say, `reference [m, vocab]`: `[n + m, 1]`. Without a reference `m` is 0; of equal
/// logits the divergence is exactly 0.
pub(crate) fn answers(logits: Tensor<2>, targets: &[usize], reference: Option<Tensor<2>>) -> Tensor<2> {
    let ([rows, vocab], n) = (logits.dims(), targets.len());
    let m = reference.as_ref().map_or(0, |reference| reference.dims()[0]);
    assert_eq!(rows, n + m, "every row is asked something");
    assert!(targets.iter().all(|target| *target < vocab), "targets are tokens of the vocabulary");
    if !serve(&logits.device()) {
        return plain::answers(logits, targets, reference);
    }
    let targets = index_tensor(targets, &logits);
    let logits = logits.into_dispatch();
    let reference = or(reference, &logits);
    Tensor::from_dispatch(<Dispatch as Kernels>::answered(logits, targets.into_dispatch(), reference, n))
}

/// `hidden`, and at the first position of each row its fact's δ on top; a fact has `rows_each` rows.
///
/// Shapes: `hidden [rows, pos, d]`, `delta [facts, d]`.
pub(crate) fn shifted(hidden: Tensor<3>, delta: Tensor<2>, rows_each: usize) -> Tensor<3> {
    if !serve(&delta.device()) {
        return plain::shifted(hidden, delta, rows_each);
    }
    Tensor::from_dispatch(<Dispatch as Kernels>::shifted(hidden.into_dispatch(), delta.into_dispatch(), rows_each))
}

/// One step of Adam for rows `x` along `g + pull x`, and back within bounds. `now` holds the rows, the running mean of
/// their gradient and that of its square; returned is the same after the step: `m ← β₁m + (1 − β₁)g`,
/// `v ← β₂v + (1 − β₂)g²`, `x ← x − η m / (√(v u) + ε)`, each entry within ± `reach`, `x ← x min(1, radius / ‖x‖)`.
///
/// Shapes: `now [3, n, d]`, `gradient [n, d]`, `held [n, 3]`: each row's pull, reach and radius.
pub(crate) fn stepped(now: Tensor<3>, gradient: Tensor<2>, held: Tensor<2>, pace: Pace) -> Tensor<3> {
    if !serve(&now.device()) {
        return plain::stepped(now, gradient, held, pace);
    }
    let [gradient, held] = [gradient, held].map(Tensor::into_dispatch);
    Tensor::from_dispatch(<Dispatch as Kernels>::stepped(now.into_dispatch(), gradient, held, pace))
}

/// The place of each row's largest entry, of several the first: `[n, vocab]` to `[n, 1]`.
pub(crate) fn largest(logits: Tensor<2>) -> Tensor<2, Int> {
    if !serve(&logits.device()) {
        return plain::largest(logits);
    }
    Tensor::from_dispatch(<Dispatch as Kernels>::largest(logits.into_dispatch()))
}

/// A tensor, or in its place one that nobody will read.
fn or<const D: usize>(tensor: Option<Tensor<D>>, unread: &DispatchTensor) -> DispatchTensor {
    tensor.map_or_else(|| unread.clone(), Tensor::into_dispatch)
}
