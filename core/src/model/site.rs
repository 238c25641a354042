//! The places of a model, and its sizes.

/// A model's sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of blocks.
    pub layers: usize,
    /// Heads of each block's attention.
    pub heads: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of the MLP: the length of a key.
    pub d_mlp: usize,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Tokens of the longest row that is computed.
    pub context: usize,
    /// The key of `config.json` that says so.
    pub bounded_by: &'static str,
}

/// A matrix that an editor may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WeightSite {
    /// The block, from zero.
    pub layer: usize,
    /// Which matrix of the block.
    pub matrix: Matrix,
}

/// Which matrix of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Matrix {
    /// `[d_model, d_mlp]`: LLaMA's gate; GPT-2 has none.
    MlpGate,
    /// `[d_model, d_mlp]`: into the MLP.
    MlpUp,
    /// `[d_mlp, d_model]`: from key to value, the memory that ROME writes to.
    MlpDown,
}
