//! What blocks are made of.

use burn::tensor::{Tensor, activation::sigmoid, module::layer_norm};

use super::tensors::Tensors;
use crate::Result;

/// `x W + b`, with `W [d_in, d_out]`.
#[derive(Clone)]
pub(super) struct Linear {
    pub weight: Tensor<2>,
    bias: Option<Tensor<1>>,
}

impl Linear {
    /// `NAME.weight`, stored as it is used, `[d_in, d_out]`, and `NAME.bias`: what transformers calls `Conv1D`.
    pub fn stored_straight(tensors: &mut Tensors, name: &str, [d_in, d_out]: [usize; 2]) -> Result<Self> {
        Ok(Self {
            weight: tensors.matrix(&format!("{name}.weight"), [d_in, d_out])?,
            bias: Some(tensors.vector(&format!("{name}.bias"), d_out)?),
        })
    }

    /// `NAME.weight`, stored `[d_out, d_in]` and turned once, and `NAME.bias` where there is one.
    pub fn stored_transposed(tensors: &mut Tensors, name: &str, [d_in, d_out]: [usize; 2], bias: bool) -> Result<Self> {
        Ok(Self {
            weight: tensors.matrix(&format!("{name}.weight"), [d_out, d_in])?.transpose(),
            bias: bias.then(|| tensors.vector(&format!("{name}.bias"), d_out)).transpose()?,
        })
    }

    /// The same with another matrix.
    pub fn with(&self, weight: Tensor<2>) -> Self {
        Self { weight, ..self.clone() }
    }

    /// `[n, d_in]` to `[n, d_out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let y = x.matmul(self.weight.clone());
        match &self.bias {
            None => y,
            Some(bias) => y + bias.clone().unsqueeze(),
        }
    }
}

/// `(x − mean) / √(variance + ε) · scale + shift` over the last dimension.
#[derive(Clone)]
pub(super) struct LayerNorm {
    scale: Tensor<1>,
    shift: Tensor<1>,
    epsilon: f64,
}

impl LayerNorm {
    /// `NAME.weight` and `NAME.bias`.
    pub fn load(tensors: &mut Tensors, name: &str, d: usize, epsilon: f64) -> Result<Self> {
        let (scale, shift) =
            (tensors.vector(&format!("{name}.weight"), d)?, tensors.vector(&format!("{name}.bias"), d)?);
        Ok(Self { scale, shift, epsilon })
    }

    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        layer_norm(x, self.scale.clone(), Some(self.shift.clone()), self.epsilon)
    }
}

/// `x / √(mean x² + ε) · scale` over the last dimension.
#[derive(Clone)]
pub(super) struct RmsNorm {
    scale: Tensor<1>,
    epsilon: f64,
}

impl RmsNorm {
    /// `NAME.weight`.
    pub fn load(tensors: &mut Tensors, name: &str, d: usize, epsilon: f64) -> Result<Self> {
        Ok(Self { scale: tensors.vector(&format!("{name}.weight"), d)?, epsilon })
    }

    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let mean_square = (x.clone() * x.clone()).mean_dim(D - 1);
        x / (mean_square + self.epsilon).sqrt() * self.scale.clone().unsqueeze()
    }
}

/// `x/2 (1 + tanh y)`, `y = √(2/π) (x + 0.044715 x³)`, as the same `x σ(2y)`: a logistic function costs a fraction of a
/// hyperbolic tangent on a processor. The cube is products, because a power costs several times as much.
pub(super) fn gelu_tanh(x: Tensor<2>) -> Tensor<2> {
    let sqrt_8_over_pi = (8.0 / std::f64::consts::PI).sqrt();
    let inner = x.clone() * ((x.clone() * x.clone()) * (0.044_715 * sqrt_8_over_pi) + sqrt_8_over_pi);
    x * sigmoid(inner)
}

/// The names by which configurations call [`gelu_tanh`].
pub(super) const GELU_TANH: [&str; 2] = ["gelu_new", "gelu_pytorch_tanh"];
