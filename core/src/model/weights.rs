//! The model itself: what runs, and gives an edited copy of itself.

use std::{ops::Range, sync::Arc};

use burn::tensor::{Device, Tensor};
use rectify_protocol::ArchitectureKind;

use super::{
    Cache, Frame, Matrix, Shape, Site, Tap, WeightDelta, WeightSite, architecture::Architecture, rows::padded,
};
use crate::{Error, Result, kernels::whole};

/// A language model: weights on a device.
#[derive(Clone)]
pub struct Model {
    kind: ArchitectureKind,
    weights: Arc<dyn Architecture>,
    /// How many blocks, from the first on, no edit has changed.
    intact: usize,
}

impl Model {
    /// A model as it was loaded.
    pub(super) fn loaded(kind: ArchitectureKind, weights: Arc<dyn Architecture>) -> Self {
        let intact = weights.shape().layers;
        Self { kind, weights, intact }
    }

    /// The model's sizes.
    pub fn shape(&self) -> Shape {
        self.weights.shape()
    }

    /// The model's family.
    pub fn architecture(&self) -> ArchitectureKind {
        self.kind
    }

    /// How many blocks, from the first on, are as they were loaded.
    pub fn intact(&self) -> usize {
        self.intact
    }

    /// The matrices of some blocks' MLPs, block by block in the order in which MEND's authors list them.
    pub fn mlp_sites(&self, layers: Range<usize>) -> impl Iterator<Item = WeightSite> + use<> {
        let matrices = self.weights.matrices();
        layers.flat_map(|layer| matrices.iter().map(move |listed| WeightSite { layer, matrix: listed.matrix }))
    }

    /// The matrix of this name in the checkpoint, if it is one that editors change.
    pub fn site_named(&self, name: &str) -> Option<WeightSite> {
        self.mlp_sites(0..self.shape().layers).find(|site| self.name(*site) == name)
    }

    /// Where the values pass that the matrix at `site` reads, and where those that it makes.
    ///
    /// # Panics
    ///
    /// When the architecture has no such matrix.
    pub fn ends(&self, site: WeightSite) -> (Site, Site) {
        let mut matrices = self.weights.matrices().iter();
        let listed = matrices.find(|listed| listed.matrix == site.matrix).expect("the architecture has this matrix");
        (Site { layer: site.layer, at: listed.from }, Site { layer: site.layer, at: listed.to })
    }

    /// Rows of the token embedding: `[tokens, d_model]`.
    pub fn embeddings(&self, tokens: &[u32]) -> Tensor<2> {
        let embedding = self.weights.embedding();
        embedding.rows(tokens, &embedding.device())
    }

    /// Token (and position) embeddings of a padded batch: `frame`'s `[batch, pos]` tokens to `[batch, pos, d_model]`.
    pub fn embed(&self, tokens: &[u32], frame: &Frame) -> Tensor<3> {
        self.weights.embed(tokens, frame)
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
        self.weights.run(layers, hidden, frame, past, tap)
    }

    /// Final norm and output head of some tokens: `[n, d_model]` to `[n, vocab]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.weights.logits(hidden)
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

    /// The matrix at `site`, `[d_in, d_out]`, in 32 bits.
    pub fn weight(&self, site: WeightSite) -> Tensor<2> {
        whole(self.weights.weight(site))
    }

    /// The matrix's name in the checkpoint.
    pub fn name(&self, site: WeightSite) -> String {
        self.weights.name(site)
    }

    /// Whether the checkpoint stores this model's matrices `[d_out, d_in]`.
    pub fn stores_transposed(&self) -> bool {
        self.weights.stores_transposed()
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
            edited.weights = edited.weights.with_weight(*site, weight + delta.dense());
            edited.intact = edited.intact.min(site.layer);
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
        /// Bytes of one layer's attention over one text, which are held at once: 11,500 tokens of LLaMA 7B take as many.
        const ATTENTION: u64 = 1 << 34;
        let Shape { context, bounded_by, heads, .. } = self.shape();
        if tokens > context {
            let problem = format!("{what} has {tokens} tokens; the model's context holds {context} ({bounded_by})");
            return Err(Error::bad_input(problem));
        }
        let bytes = (tokens as u64).saturating_mul(tokens as u64).saturating_mul(4 * heads as u64);
        if bytes <= ATTENTION {
            return Ok(());
        }
        Err(Error::bad_input(format!(
            "{what} has {tokens} tokens; attention over so many takes {} GiB at once, and at most {} are taken",
            bytes >> 30,
            ATTENTION >> 30
        )))
    }

    /// The device the weights are on; without tracking, also where a tracked change was applied.
    pub fn device(&self) -> Device {
        self.weights.weight(WeightSite { layer: 0, matrix: Matrix::MlpDown }).device().without_autodiff()
    }
}
