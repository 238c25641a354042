use burn::tensor::{Device, Tensor, TensorData};

use crate::{
    kernels::{Pace, stepped},
    model::index_tensor,
};

/// Decay rates of the two means, and what keeps a division from being one by zero: as in the references.
const DECAY: [f64; 2] = [0.9, 0.999];
const EPSILON: f64 = 1e-8;

/// Adam without weight decay, <https://arxiv.org/abs/1412.6980>, and the rows that it moves.
pub(super) struct Adam {
    /// The rows, the running mean of their gradient and that of its square: `[3, n, d]`.
    now: Tensor<3>,
    steps: i32,
}

/// What else moves a row: it is drawn to the origin by a multiple of itself, and never leaves a cube and a ball around
/// it.
#[derive(Clone, Copy)]
pub(super) struct Held {
    /// Added to the row's gradient as this many times the row.
    pub pull: f64,
    /// The largest size of an entry.
    pub reach: f64,
    /// The ball's radius.
    pub radius: f64,
}

impl Held {
    /// By nothing.
    pub(super) const FREE: Self = Self { pull: 0.0, reach: f32::MAX as f64, radius: f32::MAX as f64 };
}

impl Adam {
    /// Before the first step, which begins at the origin.
    pub(super) fn new([n, d]: [usize; 2], device: &Device) -> Self {
        Self { now: Tensor::zeros([3, n, d], device), steps: 0 }
    }

    /// Goes on with only some of the rows.
    pub(super) fn only(self, rows: &[usize]) -> Self {
        let index = index_tensor(rows, &self.now);
        Self { now: self.now.select(1, index), ..self }
    }

    /// The rows: `[n, d]`.
    pub(super) fn rows(&self) -> Tensor<2> {
        self.now.clone().narrow(0, 0, 1).squeeze_dim(0)
    }

    /// One step: `x ← x − η m̂ / (√v̂ + ε)`, with `m ← β₁m + (1 − β₁)g`, `v ← β₂v + (1 − β₂)g²`, `m̂ = m / (1 − β₁ᵗ)` and
    /// `v̂ = v / (1 − β₂ᵗ)`, where `g` is the gradient and what each row is held by.
    pub(super) fn step(&mut self, gradient: Tensor<2>, rate: f64, held: impl Iterator<Item = Held>) {
        self.steps += 1;
        let [first, second] = DECAY.map(|decay| 1.0 - decay.powi(self.steps));
        let pace = Pace { decay: DECAY, rate: rate / first, unbias: 1.0 / second, epsilon: EPSILON };
        let held: Vec<f32> =
            held.flat_map(|Held { pull, reach, radius }| [pull, reach, radius]).map(|number| number as f32).collect();
        let held = TensorData::new(held, [gradient.dims()[0], 3]);
        let held = Tensor::from_data(held, &gradient.device());
        self.now = stepped(self.now.clone(), gradient, held, pace);
    }
}
