//! What kernels of our own compute, and the ways back.

use burn::backend::{
    Backend, backend_extension,
    tensor::{FloatTensor, IntTensor},
};

use crate::model::heads::Heads;

/// Operations with a backward of their own. Shapes are those of the functions in [`super`].
#[backend_extension(Autodiff, Cube: cfg(feature = "card"), Flex: cfg(feature = "processor"))]
pub trait Kernels: Backend {
    /// [`super::product`]; what `with` does not have is not read.
    fn product(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        with: With,
    ) -> FloatTensor<Self>;

    /// [`super::linear`] with a matrix in blocks, or with it turned; what `with` does not have is not read.
    fn product_of_blocks(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        with: With,
        way: Way,
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
        past: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        layout: Layout,
    ) -> FloatTensor<Self>;

    /// [`super::append`]; a past that holds nothing is not read.
    fn appended(past: FloatTensor<Self>, joined: FloatTensor<Self>, layout: Layout) -> FloatTensor<Self>;

    /// [`super::answers`]; where every row has a target, the reference is not read.
    fn answered(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        reference: FloatTensor<Self>,
        of_tokens: usize,
    ) -> FloatTensor<Self>;

    /// [`super::largest`]
    fn largest(logits: FloatTensor<Self>) -> IntTensor<Self>;

    /// [`super::shifted`]
    fn shifted(hidden: FloatTensor<Self>, delta: FloatTensor<Self>, rows_each: usize) -> FloatTensor<Self>;

    /// [`super::stepped`]
    fn stepped(
        now: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        held: FloatTensor<Self>,
        pace: Pace,
    ) -> FloatTensor<Self>;

    /// [`super::rotate`]
    fn rotated(
        joined: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        turn: Turn,
    ) -> FloatTensor<Self>;
}

/// How far a step of Adam goes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How much of the mean of gradients, and of that of their squares, stays.
    pub decay: [f64; 2],
    /// The learning rate, with the first mean's bias taken out.
    pub rate: f64,
    /// What takes out that of the second.
    pub unbias: f64,
    /// What keeps a division from being one by zero.
    pub epsilon: f64,
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

/// Which way a matrix in blocks is multiplied with.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// How many inputs it has.
    pub d_in: usize,
    /// Whether as `Wᵀ`.
    pub back: bool,
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

/// What ways back need beside what [`Kernels`] has.
pub trait Slopes: Kernels {
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

    /// What `attended` gives, and the weights `[batch, head, pos, seen]`.
    fn attended_and_weights(
        joined: FloatTensor<Self>,
        past: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        layout: Layout,
    ) -> [FloatTensor<Self>; 2];

    /// The gradient of `attended` with respect to `joined`.
    fn attended_back(
        joined: FloatTensor<Self>,
        past: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        layout: Layout,
    ) -> FloatTensor<Self>;

    /// The gradient of `shifted` with respect to `delta`.
    fn shifted_back(grad: FloatTensor<Self>, rows_each: usize) -> FloatTensor<Self>;

    /// What `answered` gives, and of each row, and then of its reference, the largest entry and
    /// `log Σ exp(entry − largest)`: `[n + m, 4]`.
    fn answers_and_totals(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        reference: FloatTensor<Self>,
        of_tokens: usize,
    ) -> [FloatTensor<Self>; 2];

    /// The gradient of `answered` with respect to the logits.
    fn answered_back(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        reference: FloatTensor<Self>,
        of_tokens: usize,
        answers_and_totals: [FloatTensor<Self>; 2],
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}
