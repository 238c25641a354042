//! Models: values that answer, can be resumed in the middle, and give an edited copy of themselves.
//!
//! A [`Model`] is a handful of counted tensor handles. Cloning one copies nothing; [`Model::apply`] returns another
//! that shares every weight but those it changes. Begin reading at [`Model::run`] and [`Frame`].

use std::ops::Range;

use burn::tensor::{Device, Tensor};
use rectify_protocol::{ArchitectureKind, EditorSpec};

use crate::{Error, Result, edit::WeightDelta, tokenizer::Tokenizer};

mod checkpoint;
mod embedding;
mod frame;
pub mod generate;
mod gpt2;
mod llama;
mod presets;
mod tap;
mod trunk;

pub use checkpoint::Loader;
pub(crate) use checkpoint::{floats, hex, metadata, open};
pub use frame::{Cache, Frame};
pub use presets::presets;
pub use tap::{At, Capture, NoTap, Site, Tap};
pub(crate) use trunk::Trunk;

/// A language model: weights on a device.
#[derive(Clone)]
pub enum Model {
    /// GPT-2, any size.
    Gpt2(gpt2::Gpt2),
    /// LLaMA 1 and 2 and what shares their blocks.
    Llama(llama::Llama),
}

/// A model with what belongs to it.
#[derive(Clone)]
pub struct LoadedModel {
    /// The id or folder it was loaded by.
    pub id: String,
    /// The weights.
    pub model: Model,
    /// Its vocabulary.
    pub tokenizer: Tokenizer,
    /// The tokens that end a text.
    pub ends: Vec<u32>,
    /// SHA-256 of the weights' file, or of its shards' hashes in order; hexadecimal.
    pub hash: String,
    /// Each method's settings for it, layers filled in; [`presets`] unless an edge knows better.
    pub editors: Vec<EditorSpec>,
}

/// A model's sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of the MLP: the length of a key.
    pub d_mlp: usize,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Tokens that fit the context.
    pub context: usize,
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

/// Rows of tokens, padded to the right into one array.
pub(crate) fn padded(rows: &[&[u32]]) -> Vec<u32> {
    let width = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    rows.iter().flat_map(|row| row.iter().copied().chain(std::iter::repeat(0)).take(width)).collect()
}

impl Model {
    /// The model's sizes.
    pub fn shape(&self) -> Shape {
        match self {
            Self::Gpt2(model) => model.shape(),
            Self::Llama(model) => model.shape(),
        }
    }

    /// The model's family.
    pub fn architecture(&self) -> ArchitectureKind {
        match self {
            Self::Gpt2(_) => ArchitectureKind::Gpt2,
            Self::Llama(_) => ArchitectureKind::Llama,
        }
    }

    /// How many blocks, from the first on, are as they were loaded.
    pub fn intact(&self) -> usize {
        match self {
            Self::Gpt2(model) => model.intact,
            Self::Llama(model) => model.intact,
        }
    }

    /// The matrices of a block's MLP, in the order in which MEND's authors list them.
    pub fn mlp_matrices(&self) -> &'static [Matrix] {
        match self {
            Self::Gpt2(_) => &[Matrix::MlpDown, Matrix::MlpUp],
            Self::Llama(_) => &[Matrix::MlpGate, Matrix::MlpUp, Matrix::MlpDown],
        }
    }

    /// Where the values pass that the matrix at `site` reads, and where those that it makes.
    pub fn ends(&self, site: WeightSite) -> (Site, Site) {
        let (from, to) = match (self, site.matrix) {
            (_, Matrix::MlpDown) => (At::MlpKey, At::MlpOut),
            (Self::Gpt2(_), _) | (Self::Llama(_), Matrix::MlpGate) => (At::MlpIn, At::MlpPre),
            (Self::Llama(_), Matrix::MlpUp) => (At::MlpIn, At::MlpUp),
        };
        (Site { layer: site.layer, at: from }, Site { layer: site.layer, at: to })
    }

    /// Rows of the token embedding: `[tokens, d_model]`.
    pub fn embeddings(&self, tokens: &[u32]) -> Tensor<2> {
        let embedding = match self {
            Self::Gpt2(model) => model.embedding(),
            Self::Llama(model) => model.embedding(),
        };
        embedding.rows(tokens, &embedding.device())
    }

    /// Token (and position) embeddings of a padded batch: `frame`'s `[batch, pos]` tokens to `[batch, pos, d_model]`.
    pub fn embed(&self, tokens: &[u32], frame: &Frame) -> Tensor<3> {
        match self {
            Self::Gpt2(model) => model.embed(tokens, frame),
            Self::Llama(model) => model.embed(tokens, frame),
        }
    }

    /// Runs `layers` over the new tokens of a frame, looking back at `past`, to which their keys and values are added.
    ///
    /// `hidden` is the residual stream before the first of `layers`, `[batch, pos, d_model]`; returned is the one
    /// after the last. Running `0..4` and then `4..L` gives the same as `0..L`. The cache is told of the new tokens
    /// by [`Cache::seen_by`] when all layers have run.
    pub fn run(
        &self,
        layers: Range<usize>,
        hidden: Tensor<3>,
        frame: &Frame,
        past: &mut Cache,
        tap: &mut dyn Tap,
    ) -> Tensor<3> {
        match self {
            Self::Gpt2(model) => model.run(layers, hidden, frame, past, tap),
            Self::Llama(model) => model.run(layers, hidden, frame, past, tap),
        }
    }

    /// Final norm and output head of some tokens: `[n, d_model]` to `[n, vocab]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Gpt2(model) => model.logits(hidden),
            Self::Llama(model) => model.logits(hidden),
        }
    }

    /// The whole pass over rows of new tokens: `[batch, pos, d_model]` after the last block. `past` grows by them.
    pub fn extend(&self, rows: &[&[u32]], past: &mut Cache, tap: &mut dyn Tap) -> (Tensor<3>, Frame) {
        let lens: Vec<usize> = rows.iter().map(|row| row.len()).collect();
        let frame = Frame::new(past, &lens, &self.device());
        let hidden = self.embed(&padded(rows), &frame);
        let hidden = self.run(0..self.shape().layers, hidden, &frame, past, tap);
        past.seen_by(&frame);
        (hidden, frame)
    }

    /// The matrix at `site`, `[d_in, d_out]`.
    pub fn weight(&self, site: WeightSite) -> Tensor<2> {
        match self {
            Self::Gpt2(model) => model.weight(site),
            Self::Llama(model) => model.weight(site),
        }
    }

    /// The matrix's name in the checkpoint.
    pub fn name(&self, site: WeightSite) -> String {
        match self {
            Self::Gpt2(model) => model.name(site),
            Self::Llama(model) => model.name(site),
        }
    }

    /// Whether the checkpoint stores this model's matrices `[d_out, d_in]`.
    pub fn stores_transposed(&self) -> bool {
        matches!(self, Self::Llama(_))
    }

    /// A model that differs by `deltas` and shares every other weight with this one.
    ///
    /// # Errors
    ///
    /// When a delta has another shape than the matrix it changes, or its layer does not exist.
    pub fn apply(&self, deltas: &[WeightDelta]) -> Result<Self> {
        let mut edited = self.clone();
        for WeightDelta { site, delta } in deltas {
            self.check_layer(site.layer)?;
            let weight = edited.weight(*site);
            if delta.dims() != weight.dims() {
                return Err(Error::bad_input(format!(
                    "a change of shape {:?} does not fit {} of shape {:?}",
                    delta.dims(),
                    self.name(*site),
                    weight.dims()
                )));
            }
            let changed = weight + delta.dense();
            edited = match &edited {
                Self::Gpt2(model) => Self::Gpt2(model.with_weight(*site, changed)),
                Self::Llama(model) => Self::Llama(model.with_weight(*site, changed)),
            };
        }
        Ok(edited)
    }

    /// Complains about a layer that this model does not have.
    pub fn check_layer(&self, layer: usize) -> Result<()> {
        let layers = self.shape().layers;
        if layer < layers {
            return Ok(());
        }
        Err(Error::bad_input(format!("layer {layer} does not exist: the model has layers 0 to {}", layers - 1)))
    }

    /// Complains about a row of tokens that does not fit the context.
    pub fn check_length(&self, tokens: usize, what: &str) -> Result<()> {
        let context = self.shape().context;
        if tokens <= context {
            return Ok(());
        }
        Err(Error::bad_input(format!("{what} has {tokens} tokens; the model's context holds {context}")))
    }

    /// The device the weights are on; without tracking, also where a tracked change was applied.
    pub fn device(&self) -> Device {
        self.weight(WeightSite { layer: 0, matrix: Matrix::MlpDown }).device().without_autodiff()
    }
}

/// Complains when `parts` does not divide `whole`.
fn check_heads(whole: usize, parts: usize, whole_name: &str, parts_name: &str) -> Result<()> {
    if parts > 0 && whole > 0 && whole.is_multiple_of(parts) {
        return Ok(());
    }
    Err(Error::bad_file("config.json", format!("{parts_name} {parts} does not divide {whole_name} {whole}")))
}
