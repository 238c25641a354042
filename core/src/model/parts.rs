//! What blocks are made of.

use burn::tensor::Tensor;

use super::{At, tap::BlockTap, tensors::Tensors};
use crate::{
    Result,
    kernels::{self, Weight},
};

/// `x W + b`, with `W [d_in, d_out]`.
#[derive(Clone)]
pub(super) struct Linear {
    pub weight: Weight,
    bias: Option<Tensor<1>>,
}

impl Linear {
    /// `NAME.weight`, and `NAME.bias` where there is one.
    pub fn load(tensors: &mut Tensors, name: &str, shape: [usize; 2], bias: bool) -> Result<Self> {
        let [_, d_out] = shape;
        Ok(Self {
            weight: tensors.matrix(&format!("{name}.weight"), shape)?,
            bias: bias.then(|| tensors.vector(&format!("{name}.bias"), d_out)).transpose()?,
        })
    }

    /// The same with another matrix.
    pub fn with(&self, weight: Tensor<2>) -> Self {
        Self { weight: Weight::Floats(weight), ..self.clone() }
    }

    /// Several maps of the same input as one, their outputs side by side.
    ///
    /// # Panics
    ///
    /// When only some of them have a bias.
    pub fn side_by_side<const N: usize>(parts: [Self; N]) -> Self {
        let biases: Vec<Tensor<1>> = parts.iter().filter_map(|part| part.bias.clone()).collect();
        assert!(biases.is_empty() || biases.len() == N, "maps side by side all have a bias or none");
        Self {
            weight: Weight::side_by_side(parts.map(|part| part.weight).into()),
            bias: (!biases.is_empty()).then(|| Tensor::cat(biases, 0)),
        }
    }

    /// `[n, d_in]` to `[n, d_out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        kernels::linear(x, self.weight.clone(), self.bias.clone(), None)
    }

    /// The same added to `stream [n, d_out]`.
    fn added_to(&self, stream: Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        kernels::linear(x, self.weight.clone(), self.bias.clone(), Some(stream))
    }

    /// The same where a tap may look at what is added.
    pub fn written_to(&self, stream: Tensor<2>, x: Tensor<2>, tap: &mut BlockTap<'_>, at: At) -> Tensor<2> {
        match tap.looks_at(at) {
            true => stream + tap.see(at, self.forward(x)),
            false => self.added_to(stream, x),
        }
    }
}

/// `(x − mean) / √(variance + ε) · scale + shift` of each row.
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
        kernels::norm(x, self.scale.clone(), Some(self.shift.clone()), self.epsilon)
    }
}

/// `x / √(mean x² + ε) · scale` of each row.
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

    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        kernels::norm(x, self.scale.clone(), None, self.epsilon)
    }
}

/// The names by which configurations call [`kernels::gelu_tanh`].
pub(super) const GELU_TANH: [&str; 2] = ["gelu_new", "gelu_pytorch_tanh"];
