//! Kernels of our own for graphics cards, behind burn's devices of CubeCL.
//!
//! Each operation is one launch (attention two) with a backward of its own, and each is held to burn's own operations by
//! the tests of this module. Models do not compute with them yet.
#![allow(clippy::too_many_arguments, reason = "kernels are handed sizes one by one")]

mod activation;
mod attention;
mod cube;
mod launch;
mod linear;
mod norm;
mod ops;
mod rotation;
#[cfg(test)]
mod tests;
mod tracked;

use burn::{
    backend::{Dispatch, DispatchDevice, DispatchTensor},
    tensor::{Device, Tensor},
};

use crate::model::heads::Heads;
use ops::{Card, Layout, Turn, With};

/// Whether tensors of this device are computed with here.
pub(crate) fn is_one(device: &Device) -> bool {
    let device = device.clone().without_autodiff();
    matches!(device.as_dispatch(), DispatchDevice::Cube(_))
}

/// `x W + b + r`: `x [n, d_in]`, `W [d_in, d_out]` whichever way it lies, `b [d_out]`, `r [n, d_out]`.
pub(crate) fn linear(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<2>>,
) -> Tensor<2> {
    let with = With { bias: bias.is_some(), residual: residual.is_some() };
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    let (bias, residual) = (or(bias, &weight), or(residual, &weight));
    Tensor::from_dispatch(<Dispatch as Card>::product(x, weight, bias, residual, with))
}

/// Layer norm of rows, or without a shift RMS norm: `x [n, d]`, `scale` and `shift [d]`, which are constants.
pub(crate) fn norm(x: Tensor<2>, scale: Tensor<1>, shift: Option<Tensor<1>>, epsilon: f64) -> Tensor<2> {
    let centred = shift.is_some();
    let scale = scale.into_dispatch();
    let shift = or(shift, &scale);
    Tensor::from_dispatch(<Dispatch as Card>::normed(x.into_dispatch(), scale, shift, epsilon, centred))
}

/// `x σ(√(8/π) (x + 0.044715 x³))`: `[n, d]`.
pub(crate) fn gelu_tanh(x: Tensor<2>) -> Tensor<2> {
    let x = x.into_dispatch();
    Tensor::from_dispatch(<Dispatch as Card>::activated(x.clone(), x, false))
}

/// `x σ(x) · y`: `[n, d]`.
pub(crate) fn silu_gate(x: Tensor<2>, y: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Card>::activated(x.into_dispatch(), y.into_dispatch(), true))
}

/// `Σ softmax(scale q·k + mask) v`.
///
/// Shapes: `joined` as [`Heads`] says, keys and values of the past `[batch, group, pos, d_head]`, which are constants,
/// `mask [batch, 1, pos, seen]`; returns `[batch * pos, heads * d_head]`.
pub(crate) fn attend(
    joined: Tensor<2>,
    past: Option<[Tensor<4>; 2]>,
    mask: Tensor<4>,
    heads: Heads,
    scale: f64,
) -> Tensor<2> {
    let [keys, values] = past.map_or([None, None], |past| past.map(Some));
    let held = keys.as_ref().map_or(0, |keys| keys.dims()[2]);
    let mask = mask.into_dispatch();
    let (keys, values) = (or(keys, &mask), or(values, &mask));
    let layout = Layout { heads, held, scale };
    Tensor::from_dispatch(<Dispatch as Card>::attended(joined.into_dispatch(), keys, values, mask, layout))
}

/// Queries and keys turned by their positions: `cos` and `sin [batch, 1, pos, turning]`.
pub(crate) fn rotate(joined: Tensor<2>, cos: Tensor<4>, sin: Tensor<4>, heads: Heads, neighbors: bool) -> Tensor<2> {
    let columns = (heads.heads + heads.groups) * heads.d_head;
    let turn = Turn { columns, d_head: heads.d_head, neighbors, back: false };
    let (cos, sin) = (cos.into_dispatch(), sin.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Card>::rotated(joined.into_dispatch(), cos, sin, turn))
}

/// A tensor, or in its place one that nobody will read.
fn or<const D: usize>(tensor: Option<Tensor<D>>, unread: &DispatchTensor) -> DispatchTensor {
    tensor.map_or_else(|| unread.clone(), Tensor::into_dispatch)
}
