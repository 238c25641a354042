//! The keys of many facts, layer by layer: what MEMIT and its relatives write to.
//!
//! Only the tokens up to a subject's last one matter, and only layers from the first edited one on change, so the rows
//! are cut there and walk upwards once, instead of from the bottom for each layer.

use burn::tensor::Tensor;
use rectify_protocol::{EditorSpec, Fact, FactToken};

use super::{Delta, Input, LayerKeys, value::FactRows};
use crate::{
    Result,
    kernels::matmul,
    model::{At, Cache, Capture, Frame, Model, NoTap, Site, generate::states_at, index_tensor, padded},
};

/// Tokens that go through a layer at once.
const CHUNK: usize = 4096;

/// Facts on their way up through a model.
pub struct Walk {
    chunks: Vec<Chunk>,
    n_contexts: usize,
    /// The layer that comes next.
    layer: usize,
}

struct Chunk {
    /// The residual stream before the layer: `[rows, pos, d_model]`.
    hidden: Tensor<3>,
    /// Tokens of each row; the last one is the subject's.
    lens: Vec<usize>,
}

/// What a layer shows of the facts.
pub struct Seen {
    /// `½ k(bare prompt) + ½ mean of k(prompt in each other context)`: `[facts, d_mlp]`.
    pub keys: Tensor<2>,
    /// The residual stream after some later layer, at each subject's last token in the bare prompt: `[facts, d_model]`.
    pub states: Tensor<2>,
    /// Each chunk's residual stream after the layer, and its keys at all tokens.
    passed: Vec<(Tensor<3>, Tensor<3>)>,
}

impl Walk {
    /// Runs everything below `layer`.
    pub fn new(model: &Model, facts: &[FactRows], layer: usize) -> Self {
        let n_contexts = facts.first().map_or(0, |fact| fact.contexts.len());
        let longest = facts.iter().flat_map(|fact| &fact.contexts).map(|row| row.lookup + 1).max().unwrap_or(1);
        let per_chunk = (CHUNK / (longest * n_contexts)).max(1);
        let chunks = facts.chunks(per_chunk).map(|facts| {
            let rows: Vec<&[u32]> =
                facts.iter().flat_map(|fact| &fact.contexts).map(|row| &row.ids[..=row.lookup]).collect();
            let lens: Vec<usize> = rows.iter().map(|row| row.len()).collect();
            let mut past = Cache::empty(rows.len(), model.shape().layers);
            let frame = Frame::new(&past, &lens, &model.device());
            let hidden = model.embed(&padded(&rows), &frame);
            let hidden = model.run(0..layer, hidden, &frame, &mut past, &mut NoTap);
            Chunk { hidden, lens }
        });
        Self { chunks: chunks.collect(), n_contexts, layer }
    }

    /// The keys that the next layer reads, and the states after layer `last`, with the weights of `model`.
    pub fn look(&self, model: &Model, last: usize) -> Seen {
        let (mut keys, mut states, mut passed) = (Vec::new(), Vec::new(), Vec::new());
        for chunk in &self.chunks {
            let (hidden, chunk_keys) = chunk.through(model, self.layer);
            keys.push(average(chunk.last_tokens(chunk_keys.clone()), self.n_contexts));
            states.push(chunk.bare(&hidden, self.n_contexts).states_after(model, self.layer + 1..last + 1));
            passed.push((hidden, chunk_keys));
        }
        Seen { keys: Tensor::cat(keys, 0), states: Tensor::cat(states, 0), passed }
    }

    /// Goes on behind the layer that was looked at, as it is once changed by `delta`.
    pub fn pass(&mut self, seen: Seen, delta: &Delta) {
        let delta = delta.dense();
        for (chunk, (hidden, keys)) in self.chunks.iter_mut().zip(seen.passed) {
            let [rows, pos, d_mlp] = keys.dims();
            let [_, d_model] = delta.dims();
            let added = matmul(keys.reshape([rows * pos, d_mlp]), delta.clone()).reshape([rows, pos, d_model]);
            chunk.hidden = hidden + added;
        }
        self.layer += 1;
    }

    /// Goes on up to `layer`, through layers that nobody changes.
    pub fn climb(&mut self, model: &Model, layer: usize) {
        while self.layer < layer {
            for chunk in &mut self.chunks {
                chunk.hidden = chunk.through(model, self.layer).0;
            }
            self.layer += 1;
        }
    }
}

impl Chunk {
    /// The residual stream after one layer, and the keys in it.
    fn through(&self, model: &Model, layer: usize) -> (Tensor<3>, Tensor<3>) {
        let mut past = Cache::empty(self.lens.len(), model.shape().layers);
        let frame = Frame::new(&past, &self.lens, &model.device());
        let site = Site { layer, at: At::MlpKey };
        let mut capture = Capture::new(&[site]);
        let hidden = model.run(layer..layer + 1, self.hidden.clone(), &frame, &mut past, &mut capture);
        (hidden, capture.take(site))
    }

    /// The bare prompts alone, at another place.
    fn bare(&self, hidden: &Tensor<3>, n_contexts: usize) -> Self {
        let rows: Vec<usize> = (0..self.lens.len()).step_by(n_contexts).collect();
        let lens: Vec<usize> = rows.iter().map(|row| self.lens[*row]).collect();
        let width = lens.iter().copied().max().unwrap_or(0);
        let hidden = hidden.clone().select(0, index_tensor(&rows, hidden)).narrow(1, 0, width);
        Self { hidden, lens }
    }

    /// The residual stream at each row's last token after some more layers.
    fn states_after(&self, model: &Model, layers: std::ops::Range<usize>) -> Tensor<2> {
        let mut past = Cache::empty(self.lens.len(), model.shape().layers);
        let frame = Frame::new(&past, &self.lens, &model.device());
        self.last_tokens(model.run(layers, self.hidden.clone(), &frame, &mut past, &mut NoTap))
    }

    fn last_tokens(&self, values: Tensor<3>) -> Tensor<2> {
        let [_, width, _] = values.dims();
        let at: Vec<usize> = self.lens.iter().enumerate().map(|(row, len)| row * width + len - 1).collect();
        states_at(values, &at)
    }
}

/// Of each fact, half the first context and half the mean of the others: `[facts * contexts, d]` to `[facts, d]`.
fn average(rows: Tensor<2>, n_contexts: usize) -> Tensor<2> {
    let [n, d] = rows.dims();
    let rows = rows.reshape([n / n_contexts, n_contexts, d]);
    let first = rows.clone().narrow(1, 0, 1).squeeze_dim(1);
    if n_contexts == 1 {
        return first;
    }
    let others = rows.narrow(1, 1, n_contexts - 1).mean_dim(1).squeeze_dim::<2>(1);
    (first + others) * 0.5
}

/// The facts' rows in the input's contexts, read at the subject.
pub(super) fn rows(input: &Input<'_>, facts: &[Fact]) -> Result<Vec<FactRows>> {
    let rows = |fact| FactRows::new(input.tokenizer, input.model, fact, input.templates, FactToken::SubjectLast);
    facts.iter().map(rows).collect()
}

/// The keys that an edit is known by to later ones, read on the edited model (`input.model`): of AlphaEdit and of MEMIT
/// with history, none of other editors.
pub fn history_keys(input: &Input<'_>, facts: &[Fact], editor: &EditorSpec) -> Result<Vec<LayerKeys>> {
    let kept = match editor {
        EditorSpec::AlphaEdit(_) => true,
        EditorSpec::Memit(spec) => spec.history,
        _ => false,
    };
    let Some(layers) = editor.layers().filter(|_| kept) else { return Ok(Vec::new()) };
    let mut walk = Walk::new(input.model, &rows(input, facts)?, layers[0]);
    let mut keys = Vec::with_capacity(layers.len());
    for layer in layers {
        walk.climb(input.model, *layer);
        keys.push(LayerKeys { layer: *layer, keys: walk.look(input.model, *layer).keys });
    }
    Ok(keys)
}
