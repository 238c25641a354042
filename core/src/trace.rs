//! Causal tracing: which states, put back as they were, bring back an answer that noise has destroyed.
//!
//! Section 2.1 of ROME, <https://arxiv.org/abs/2202.05262>, and `experiments/causal_trace.py` of its released code. A
//! *clean* run gives the answer, the likeliest next token. *Corrupted* runs see the subject's embeddings through noise. In
//! a *corrupted run with restoration* some values are those of the clean run, and everything behind follows from them.
//! Begin reading at [`Corrupted::restored`].
//!
//! What a restored token cannot reach is not computed again: a run begins at the first restored token, looks back at what
//! the corrupted runs have seen before it, and starts from their states below the first restored layer. This is exact,
//! because attention is causal; and for the same reason nothing before the subject needs a run at all.

use std::{collections::BTreeMap, ops::Range};

use burn::tensor::{Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rectify_protocol::{Noise, Progress, TraceReport, TraceSpec, bounds};

use crate::{
    Error, Result,
    kernels::{largest, log_likelihoods},
    model::{At, Cache, Capture, Frame, LoadedModel, Model, Site, Tap, padded},
    random::standard_normal,
    read::{read, read_ids},
    tokenizer::Tokenizer,
};

/// A prompt without noise and with it, ready for states to be put back.
pub struct Corrupted<'m> {
    model: &'m Model,
    /// The prompt's tokens, and which of them are the subject's.
    tokens: usize,
    subject: Range<usize>,
    samples: usize,
    /// The likeliest next token of the clean run.
    pub answer: u32,
    /// Its probability there.
    pub high: f64,
    /// Its probability in each corrupted run.
    pub low: Vec<f64>,
    /// Values of the clean run: `[1, tokens, d_model]`.
    clean: BTreeMap<Site, Tensor<3>>,
    /// The corrupted runs' residual streams before each block: `[samples, tokens, d_model]`.
    before: Vec<Tensor<3>>,
    /// What the corrupted runs have seen.
    seen: Cache,
}

/// Where values are put back: what a row of Figure 1 in the paper shows.
const RESTORED: [At; 3] = [At::ResidPost, At::MlpOut, At::AttnOut];

impl<'m> Corrupted<'m> {
    /// Runs a prompt once as it is, and once for each sample of `noise` with that added to the embeddings of the tokens
    /// `subject`, before their positions are.
    ///
    /// Shape: `noise [samples, subject, d_model]`.
    ///
    /// # Errors
    ///
    /// When a probability is not a number.
    ///
    /// # Panics
    ///
    /// When the noise has another shape, or the prompt is empty.
    pub async fn new(model: &'m Model, ids: &[u32], subject: Range<usize>, noise: Tensor<3>) -> Result<Self> {
        let layers = model.shape().layers;
        let [samples, noisy, d] = noise.dims();
        assert_eq!([noisy, d], [subject.len(), model.shape().d_model], "noise is for the subject's tokens");
        let sites = |at| (0..layers).map(move |layer| Site { layer, at });

        let all: Vec<Site> = RESTORED.into_iter().flat_map(sites).collect();
        let mut capture = Capture::new(&all);
        let (hidden, _) = model.extend(&[ids], &mut Cache::empty(1, layers), &mut capture);
        let logits = last_logits(model, hidden);
        let answer = read_ids(largest(logits.clone())).await?[0];
        let high = probabilities(logits, answer).await?[0];
        let clean = all.into_iter().map(|site| (site, capture.take(site))).collect();

        let mut seen = Cache::empty(samples, layers);
        let frame = Frame::new(&seen, &vec![ids.len(); samples], &model.device());
        let embedded = model.embed(&padded(&vec![ids; samples]), &frame);
        let places = [0..samples, subject.clone(), 0..d];
        let noisy = embedded.clone().slice(places.clone()) + noise;
        let mut before = vec![embedded.slice_assign(places, noisy)];
        let mut capture = Capture::new(&sites(At::ResidPost).collect::<Vec<_>>());
        let hidden = model.run(0..layers, before[0].clone(), &frame, &mut seen, &mut capture);
        seen.seen_by(&frame);
        before.extend(sites(At::ResidPost).take(layers - 1).map(|site| capture.take(site)));
        let low = probabilities(last_logits(model, hidden), answer).await?;
        // All of it, joined once and for all.
        let seen = seen.before(ids.len());
        Ok(Self { model, tokens: ids.len(), subject, samples, answer, high, low, clean, before, seen })
    }

    /// The probability of the answer in each corrupted run in which, at the tokens `tokens` and in the blocks `layers`,
    /// the values at `at` are those of the clean run.
    ///
    /// # Errors
    ///
    /// When a probability is not a number.
    ///
    /// # Panics
    ///
    /// When there are no such tokens or layers, or `at` is no place that is traced: behind a block, or what its MLP or its
    /// attention adds.
    pub async fn restored(&self, at: At, layers: Range<usize>, tokens: Range<usize>) -> Result<Vec<f64>> {
        let past = self.seen.before(tokens.start);
        self.restored_after(past, at, layers, tokens).await
    }

    /// The same, after what the corrupted runs have seen before the first of these tokens.
    async fn restored_after(
        &self,
        mut past: Cache,
        at: At,
        layers: Range<usize>,
        tokens: Range<usize>,
    ) -> Result<Vec<f64>> {
        assert!(!tokens.is_empty() && tokens.end <= self.tokens, "tokens of the prompt");
        let pos = self.tokens - tokens.start;
        let frame = Frame::new(&past, &vec![pos; self.samples], &self.model.device());
        let hidden = self.before[layers.start].clone().narrow(1, tokens.start, pos);
        let above = layers.start..self.before.len();
        let mut restore = Restore { clean: &self.clean, at, layers, tokens };
        let hidden = self.model.run(above, hidden, &frame, &mut past, &mut restore);
        probabilities(last_logits(self.model, hidden), self.answer).await
    }

    /// The mean probability of the answer with each token's value at `at` put back in a window of `width` layers around
    /// each layer, `[token][layer]`; `tell` is called after each.
    ///
    /// # Errors
    ///
    /// When a probability is not a number.
    pub async fn map(&self, at: At, width: usize, tell: &mut dyn FnMut()) -> Result<Vec<Vec<f64>>> {
        let layers = self.before.len();
        let mut map = Vec::with_capacity(self.tokens);
        for token in 0..self.tokens {
            let mut row = Vec::with_capacity(layers);
            let past = self.seen.before(token);
            for layer in 0..layers {
                // Before the subject the corrupted runs are clean.
                row.push(if token < self.subject.start {
                    mean(&self.low)
                } else {
                    let window = window(layer, width, layers);
                    mean(&self.restored_after(past.clone(), at, window, token..token + 1).await?)
                });
                tell();
            }
            map.push(row);
        }
        Ok(map)
    }
}

/// The layers of a window of `width` around `layer`, of which there are fewer at either end: as released, an even width
/// reaches one layer further down than up.
pub fn window(layer: usize, width: usize, layers: usize) -> Range<usize> {
    layer.saturating_sub(width / 2)..layers.min(layer + width.div_ceil(2))
}

/// The standard deviation of all numbers in the embeddings of these texts' tokens, each text by itself and without what
/// the vocabulary puts in front of one; `√(Σ(x − mean)² / (n − 1))`.
///
/// # Errors
///
/// When a text has no tokens, or does not fit the context.
pub async fn deviation(model: &Model, tokenizer: &Tokenizer, texts: &[String]) -> Result<f64> {
    /// Tokens that are read at once.
    const CHUNK: usize = 4096;
    let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
    let mut ids = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        let its = tokenizer.encode(text)?.split_off(tokenizer.begin().len());
        if its.is_empty() {
            return Err(Error::bad_input(format!("the subject {text:?} has no tokens")));
        }
        model.check_length(its.len(), "a subject")?;
        ids.extend(its);
        if ids.len() >= CHUNK || i + 1 == texts.len() {
            for value in read(model.embeddings(&ids)).await? {
                let value = f64::from(value);
                (n, sum, squares) = (n + 1.0, sum + value, squares + value * value);
            }
            ids.clear();
        }
    }
    // Embeddings lie around zero, so that nothing is lost in this difference.
    let found = ((squares - sum * sum / n) / (n - 1.0)).max(0.0).sqrt();
    if found.is_finite() {
        return Ok(found);
    }
    Err(Error::NotFinite { what: "the deviation of the subjects' embeddings".into(), hint: String::new() })
}

/// The standard deviation of a trace's noise.
///
/// # Errors
///
/// As [`deviation`].
pub async fn sigma(model: &Model, tokenizer: &Tokenizer, spec: &TraceSpec) -> Result<f64> {
    match spec.noise {
        Noise::Sigma(sigma) => Ok(sigma),
        Noise::Deviations(n) => {
            let own = std::slice::from_ref(&spec.subject);
            let texts = if spec.subjects.is_empty() { own } else { &spec.subjects };
            Ok(n * deviation(model, tokenizer, texts).await?)
        }
    }
}

/// Traces what a model says after a prompt; it carries so many edits.
pub(crate) async fn trace(
    of: &LoadedModel,
    model: &Model,
    edits: usize,
    spec: TraceSpec,
    watch: &mut dyn FnMut(Progress),
) -> Result<TraceReport> {
    spec.validate()?;
    let tokenizer = &of.tokenizer;
    let ids = tokenizer.encode(&spec.prompt)?;
    check_size(model, ids.len(), spec.samples)?;
    let start = spec.prompt.find(&spec.subject).expect("validated");
    let subject = tokenizer.tokens_of(&spec.prompt, start..start + spec.subject.len())?;
    let sigma = sigma(model, tokenizer, &spec).await?;
    let noise = noise(model, [spec.samples, subject.len()], sigma, spec.seed);
    let corrupted = Corrupted::new(model, &ids, subject.clone(), noise).await?;
    let (mut done, total) = (0, RESTORED.len() * ids.len() * model.shape().layers);
    let mut tell = || {
        done += 1;
        watch(Progress::Tracing { done, total });
    };
    let states = corrupted.map(At::ResidPost, 1, &mut tell).await?;
    let mlp = corrupted.map(At::MlpOut, spec.window, &mut tell).await?;
    let attention = corrupted.map(At::AttnOut, spec.window, &mut tell).await?;
    Ok(TraceReport {
        edits,
        sigma,
        answer: tokenizer.token(corrupted.answer)?,
        answer_id: corrupted.answer,
        high: corrupted.high,
        low: mean(&corrupted.low),
        tokens: ids.iter().map(|id| tokenizer.token(*id)).collect::<Result<_>>()?,
        subject: [subject.start, subject.end],
        states,
        mlp,
        attention,
        spec,
    })
}

/// Complains about more tokens than can be kept.
fn check_size(model: &Model, tokens: usize, samples: usize) -> Result<()> {
    model.check_length(tokens, "the prompt")?;
    if tokens.saturating_mul(samples) <= bounds::TRACED {
        return Ok(());
    }
    let most = bounds::TRACED;
    Err(Error::bad_input(format!(
        "the prompt has {tokens} tokens, and samples is {samples}; at most {most} tokens are traced in all samples together"
    )))
}

/// Normal noise of standard deviation `sigma`: `[samples, subject, d_model]`. The released code draws the same numbers
/// for every model and prompt too, but from NumPy's generator.
fn noise(model: &Model, [samples, subject]: [usize; 2], sigma: f64, seed: u64) -> Tensor<3> {
    let shape = [samples, subject, model.shape().d_model];
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let drawn: Vec<f32> =
        (0..shape.iter().product()).map(|_| (sigma * f64::from(standard_normal(&mut rng))) as f32).collect();
    Tensor::from_data(TensorData::new(drawn, shape), &model.device())
}

/// Logits of what follows each row: `[rows, pos, d_model]` to `[rows, vocab]`.
fn last_logits(model: &Model, hidden: Tensor<3>) -> Tensor<2> {
    let [_, pos, _] = hidden.dims();
    model.logits(hidden.narrow(1, pos - 1, 1).flatten(0, 1))
}

/// The probability of one token in each row of `logits [rows, vocab]`.
async fn probabilities(logits: Tensor<2>, token: u32) -> Result<Vec<f64>> {
    let [rows, _] = logits.dims();
    let log_p = read(log_likelihoods(logits, &vec![token as usize; rows])).await?;
    if log_p.iter().any(|log_p| log_p.is_nan()) {
        let hint = "; the model's weights, a change, or the noise lead out of what f32 holds".into();
        return Err(Error::NotFinite { what: "what the model says after this prompt".into(), hint });
    }
    Ok(log_p.into_iter().map(|log_p| f64::from(log_p).exp()).collect())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Puts values of the clean run back. The pass begins at the first token that is restored.
struct Restore<'c> {
    clean: &'c BTreeMap<Site, Tensor<3>>,
    at: At,
    layers: Range<usize>,
    tokens: Range<usize>,
}

impl Tap for Restore<'_> {
    fn tap(&mut self, site: Site, value: Tensor<3>) -> Tensor<3> {
        let [samples, _, d] = value.dims();
        let clean = self.clean.get(&site).expect("a place that is traced");
        let n = self.tokens.len();
        let clean = clean.clone().narrow(1, self.tokens.start, n).expand([samples, n, d]);
        value.slice_assign([0..samples, 0..n, 0..d], clean)
    }

    fn looks_at(&self, site: Site) -> bool {
        site.at == self.at && self.layers.contains(&site.layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_the_released_code_s() {
        for (layer, width, layers, expected) in
            [(0, 10, 12, 0..5), (5, 10, 12, 0..10), (11, 10, 12, 6..12), (3, 1, 12, 3..4), (3, 3, 12, 2..5)]
        {
            assert_eq!(window(layer, width, layers), expected, "{layer} {width}");
        }
    }
}
