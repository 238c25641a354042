use burn::tensor::{Device, Tensor};

use super::WeightSite;
use crate::kernels::matmul;

/// A change of one matrix.
#[derive(Clone)]
pub struct WeightDelta {
    /// The matrix it changes.
    pub site: WeightSite,
    /// By how much.
    pub delta: Delta,
}

/// A change `ΔW [d_in, d_out]`.
#[derive(Clone)]
pub enum Delta {
    /// `left [d_in, r] · right [r, d_out]`, as editors make it.
    LowRank {
        /// `[d_in, r]`
        left: Tensor<2>,
        /// `[r, d_out]`
        right: Tensor<2>,
    },
    /// Any change, as a regularizer leaves it.
    Dense(Tensor<2>),
}

impl Delta {
    /// `[d_in, d_out]`
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::LowRank { left, right } => [left.dims()[0], right.dims()[1]],
            Self::Dense(dense) => dense.dims(),
        }
    }

    /// Where it is.
    pub fn device(&self) -> Device {
        match self {
            Self::LowRank { left: tensor, .. } | Self::Dense(tensor) => tensor.device(),
        }
    }

    /// `ΔW` in full.
    pub fn dense(&self) -> Tensor<2> {
        match self {
            Self::LowRank { left, right } => matmul(left.clone(), right.clone()),
            Self::Dense(dense) => dense.clone(),
        }
    }
}
