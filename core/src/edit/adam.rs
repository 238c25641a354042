use burn::tensor::Tensor;

use crate::model::index_tensor;

/// Decay rates of the two means, and what keeps a division from being one by zero: as in the references.
const DECAY: (f64, f64) = (0.9, 0.999);
const EPSILON: f64 = 1e-8;

/// Adam without weight decay, <https://arxiv.org/abs/1412.6980>: what it remembers of a matrix that it moves.
pub(super) struct Adam {
    /// Running mean of the gradient.
    mean: Tensor<2>,
    /// Running mean of its square.
    square: Tensor<2>,
    steps: i32,
}

impl Adam {
    /// Before the first step of a matrix like `of`.
    pub(super) fn new(of: &Tensor<2>) -> Self {
        Self { mean: of.zeros_like(), square: of.zeros_like(), steps: 0 }
    }

    /// Goes on with only some of the rows.
    pub(super) fn only(self, rows: &[usize]) -> Self {
        let index = index_tensor(rows, &self.mean);
        Self { mean: self.mean.select(0, index.clone()), square: self.square.select(0, index), ..self }
    }

    /// What the next step subtracts: `η m̂ / (√v̂ + ε)`, with `m ← β₁m + (1 − β₁)g`, `v ← β₂v + (1 − β₂)g²`,
    /// `m̂ = m / (1 − β₁ᵗ)` and `v̂ = v / (1 − β₂ᵗ)`.
    pub(super) fn step(&mut self, gradient: Tensor<2>, rate: f64) -> Tensor<2> {
        let (first, second) = DECAY;
        self.steps += 1;
        self.mean = self.mean.clone() * first + gradient.clone() * (1.0 - first);
        self.square = self.square.clone() * second + gradient.clone() * gradient * (1.0 - second);
        let scale = (self.square.clone() / (1.0 - second.powi(self.steps))).sqrt() + EPSILON;
        self.mean.clone() / scale * (rate / (1.0 - first.powi(self.steps)))
    }
}
