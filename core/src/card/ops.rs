//! What a card computes in one launch each, or two, and the ways back.

use burn::backend::{Backend, backend_extension, tensor::FloatTensor};

use crate::model::heads::Heads;

/// Operations with a backward of their own. Shapes are those of the functions in [`super`].
#[backend_extension(Autodiff, Cube)]
pub trait Card: Backend {
    /// [`super::linear`]; what `with` does not have is not read.
    fn product(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        with: With,
    ) -> FloatTensor<Self>;

    /// [`super::norm`]; without `centred` the shift is not read.
    fn normed(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        epsilon: f64,
        centred: bool,
    ) -> FloatTensor<Self>;

    /// [`super::gelu_tanh`], or where `gated` [`super::silu_gate`]; otherwise `times` is not read.
    fn activated(x: FloatTensor<Self>, times: FloatTensor<Self>, gated: bool) -> FloatTensor<Self>;

    /// [`super::attend`]; a past that holds nothing is not read.
    fn attended(
        joined: FloatTensor<Self>,
        past_keys: FloatTensor<Self>,
        past_values: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        layout: Layout,
    ) -> FloatTensor<Self>;

    /// [`super::rotate`]
    fn rotated(
        joined: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        turn: Turn,
    ) -> FloatTensor<Self>;
}

/// Which columns turn, and how.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Queries and keys, which come first.
    pub columns: usize,
    /// Columns of a head.
    pub d_head: usize,
    /// Whether columns `2i` and `2i + 1` turn together, and not `i` and `i + n/2`.
    pub neighbors: bool,
    /// Whether the other way round.
    pub back: bool,
}

/// What is added to a product.
#[derive(Clone, Copy, Debug)]
pub struct With {
    /// A bias for every column.
    pub bias: bool,
    /// What passes by.
    pub residual: bool,
}

impl With {
    /// Nothing.
    pub const NOTHING: Self = Self { bias: false, residual: false };
}

/// How attention's input lies.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Queries, keys and values of the new tokens.
    pub heads: Heads,
    /// How many positions the past holds.
    pub held: usize,
    /// What scores are multiplied with.
    pub scale: f64,
}

/// What ways back need beside what [`Card`] has.
pub trait Slopes: Card {
    /// The gradient of `normed` with respect to `x`.
    fn normed_back(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        epsilon: f64,
        centred: bool,
    ) -> FloatTensor<Self>;

    /// That of `activated`.
    fn activated_back(
        x: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        times: FloatTensor<Self>,
        gated: bool,
    ) -> FloatTensor<Self>;

    /// What `attended` gives, and the weights `[batch, head, pos, seen]`. The past is keys and values.
    fn attended_and_weights(
        joined: FloatTensor<Self>,
        past: [FloatTensor<Self>; 2],
        mask: FloatTensor<Self>,
        layout: Layout,
    ) -> [FloatTensor<Self>; 2];

    /// The gradient of `attended` with respect to `joined`.
    fn attended_back(
        joined: FloatTensor<Self>,
        past: [FloatTensor<Self>; 2],
        weights: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        layout: Layout,
    ) -> FloatTensor<Self>;
}
