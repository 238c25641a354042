//! What an architecture is to the rest of the program.
//!
//! To add one: a file beside `gpt2.rs` with a [`Family`] and a type that is an [`Architecture`], and a line in
//! [`super::families`].

use std::{ops::Range, sync::Arc};

use burn::tensor::Tensor;
use rectify_protocol::ArchitectureKind;

use super::{At, Cache, Frame, Matrix, Shape, Tap, WeightSite, config::Config, embedding::Embedding, tensors::Tensors};
use crate::{Result, kernels::Weight};

/// Checkpoints that say the same `model_type`.
pub(super) struct Family {
    /// What `config.json` calls it.
    pub model_type: &'static str,
    /// What the rest of the program calls it.
    pub kind: ArchitectureKind,
    /// What the names of blocks begin with in the whole model; a checkpoint's file may leave it out.
    pub root: &'static str,
    /// Whether matrices are stored `[d_out, d_in]`.
    pub stores_transposed: bool,
    /// Asks for every key that matters, and says how the model is made of its tensors.
    pub read: fn(&mut Config) -> Result<Build>,
    /// Whether a tensor is an embedding or an output head, which are split by rows.
    pub is_embedding: fn(&str) -> bool,
    /// Whether a tensor is a table that old checkpoints store and that is computed here.
    pub is_buffer: fn(&str) -> bool,
}

/// Makes a model of a checkpoint's tensors.
pub(super) type Build = Box<dyn FnOnce(&mut Tensors) -> Result<Arc<dyn Architecture>> + Send>;

/// The weights of one architecture, and what is computed with them.
///
/// Weights are `[d_in, d_out]`, whichever way the checkpoint stores them.
pub(super) trait Architecture: Send + Sync {
    /// The model's sizes.
    fn shape(&self) -> Shape;

    /// The matrices of a block's MLP, in the order in which MEND's authors list them.
    fn matrices(&self) -> &'static [MlpMatrix];

    /// The token embedding.
    fn embedding(&self) -> &Embedding;

    /// Token (and position) embeddings: `frame`'s `[batch, pos]` tokens to `[batch, pos, d_model]`.
    fn embed(&self, tokens: &[u32], frame: &Frame) -> Tensor<3>;

    /// Some blocks, as [`super::Model::run`] describes.
    fn run(
        &self,
        layers: Range<usize>,
        hidden: Tensor<3>,
        frame: &Frame,
        past: &mut Cache,
        tap: &mut dyn Tap,
    ) -> Tensor<3>;

    /// Final norm and output head: `[n, d_model]` to `[n, vocab]`.
    fn logits(&self, hidden: Tensor<2>) -> Tensor<2>;

    /// The matrix at a site that [`Architecture::matrices`] lists, `[d_in, d_out]`.
    fn weight(&self, site: WeightSite) -> Weight;

    /// The same weights but for one matrix.
    fn with_weight(&self, site: WeightSite, weight: Tensor<2>) -> Arc<dyn Architecture>;

    /// The matrix's name in the checkpoint.
    fn name(&self, site: WeightSite) -> String;

    /// Whether the checkpoint stores matrices `[d_out, d_in]`.
    fn stores_transposed(&self) -> bool;
}

/// A matrix of an MLP, and where the values pass that it reads and that it makes.
pub(super) struct MlpMatrix {
    pub matrix: Matrix,
    pub from: At,
    pub to: At,
}

impl MlpMatrix {
    /// Into the MLP, before the nonlinearity.
    pub const UP: Self = Self { matrix: Matrix::MlpUp, from: At::MlpIn, to: At::MlpPre };
    /// Into a gated MLP, before the nonlinearity.
    pub const GATE: Self = Self { matrix: Matrix::MlpGate, from: At::MlpIn, to: At::MlpPre };
    /// Into a gated MLP, beside the gate.
    pub const GATED_UP: Self = Self { matrix: Matrix::MlpUp, from: At::MlpIn, to: At::MlpUp };
    /// Out of the MLP.
    pub const DOWN: Self = Self { matrix: Matrix::MlpDown, from: At::MlpKey, to: At::MlpOut };
}

/// What a family without gates panics with: [`Architecture::matrices`] lists none.
pub(super) fn no_gate() -> ! {
    panic!("this architecture has no gate")
}
