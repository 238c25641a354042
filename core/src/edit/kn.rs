//! KN, knowledge neurons, <https://arxiv.org/abs/2104.08696>: find the neurons that answer for a fact, and rewrite what
//! they say.
//!
//! A neuron here is an entry of the last token's activation in some layer, before the nonlinearity as released or after
//! it as in the paper, and what it says is its row of the down projection, the value vector. Begin reading at [`plan`].
//! Where we differ from the released code, and why, is in `docs/papers.md`; every difference of definition is a setting:
//! `variant` and `neuron`.

use burn::tensor::{Tensor, TensorData, activation::softmax};
use rectify_protocol::{ArchitectureKind, Fact, KnNeuron, KnSpec, KnVariant, Progress};

use super::{Delta, Input, Plan, WeightDelta};
use crate::{
    Error, Result,
    model::{At, Cache, Capture, Frame, Matrix, Model, NoTap, Site, Tap, WeightSite, index_tensor},
    read::read,
    tokenizer::Followed,
};

/// The change that rewrites the neurons that hold a fact: the same vector is added to the value vectors of all of them.
///
/// `ΔW_l = 1_l (Σ_t E[target_t] − c Σ_t E[says_t])`, with `1_l` the indicator of the chosen neurons of layer `l`, `E`
/// the token embedding and `says` what the model answers now. `c = 1`, but 2 for a target of one token as released.
/// A neuron is chosen when its score exceeds `adaptive_threshold` × the largest score of all layers.
///
/// Shapes: `1_l [d_mlp, 1]`, the added vector `[1, d_model]`.
///
/// # Errors
///
/// When the fact has no `target_true`, a prompt does not fit the context, no neuron raises the true object's
/// probability, or a number leaves the finite ones.
pub async fn plan(input: &Input<'_>, fact: &Fact, spec: &KnSpec, watch: &mut dyn FnMut(Progress)) -> Result<Plan> {
    let reading = Reading::new(input, fact, spec.variant).await?;
    let scores = attribute(input.model, &reading.questions, spec, watch).await?;
    let neurons = scores.above(spec.adaptive_threshold);
    if neurons.is_empty() {
        return Err(Error::bad_input(format!(
            "no neuron makes {:?} likelier after {:?}, so there is none to rewrite",
            reading.truth, fact.prompt
        )));
    }
    let added = reading.added(input.model);
    let of = |layer: usize| -> Vec<usize> {
        neurons.iter().filter(|neuron| neuron.layer == layer).map(|neuron| neuron.index).collect()
    };
    let changed: Vec<(usize, Vec<usize>)> =
        (0..scores.layers).map(|layer| (layer, of(layer))).filter(|(_, chosen)| !chosen.is_empty()).collect();
    let listed: Vec<String> =
        changed.iter().map(|(layer, chosen)| format!("{} in layer {layer}", chosen.len())).collect();
    let deltas = changed.iter().map(|(layer, chosen)| WeightDelta {
        site: WeightSite { layer: *layer, matrix: Matrix::MlpDown },
        delta: Delta::LowRank { left: indicator(chosen, scores.d_mlp, &added), right: added.clone() },
    });
    let notes = vec![format!("neurons that KN rewrote: {}", listed.join(", "))];
    Ok(Plan { notes, ..Plan::new(deltas.collect(), Vec::new()) })
}

/// 1 at `chosen`, 0 elsewhere, beside `on`: `[d_mlp, 1]`.
fn indicator(chosen: &[usize], d_mlp: usize, on: &Tensor<2>) -> Tensor<2> {
    let mut column = vec![0.0f32; d_mlp];
    for index in chosen {
        column[*index] = 1.0;
    }
    Tensor::from_data(TensorData::new(column, [d_mlp, 1]), &on.device())
}

/// A prompt, and the tokens whose probability right after it neurons are held responsible for.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The prompt's tokens.
    pub ids: Vec<u32>,
    /// What is asked for; at least one token.
    pub targets: Vec<u32>,
}

/// A fact as KN reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Together they ask once for each token of the true object.
    pub questions: Vec<Question>,
    /// What the model answers to the prompt now: as many tokens as the new object has.
    pub says: Vec<u32>,
    /// The new object.
    pub target: Vec<u32>,
    /// How much of what the model says is taken out.
    pub taken_out: f64,
    /// The true object, as it was written.
    truth: String,
}

impl Reading {
    /// Lays out a fact, and asks the model what it answers now.
    ///
    /// # Errors
    ///
    /// When the fact is not valid, has no `target_true`, or a prompt does not fit the context.
    pub async fn new(input: &Input<'_>, fact: &Fact, variant: KnVariant) -> Result<Self> {
        fact.validate()?;
        let truth = fact.target_true.clone().ok_or_else(|| {
            Error::bad_input("target_true is missing; KN looks for the neurons that hold the true object")
        })?;
        match variant {
            KnVariant::Released => Self::released(input, fact, truth).await,
            KnVariant::Strict => Self::strict(input, fact, truth).await,
        }
    }

    async fn released(input: &Input<'_>, fact: &Fact, truth: String) -> Result<Self> {
        let (gold, target) = (input.tokenizer.encode(&truth)?, input.tokenizer.encode(&fact.target_new)?);
        let asked = match input.model.architecture() {
            ArchitectureKind::Gpt2 | ArchitectureKind::GptJ => target.len(),
            _ => target.len().max(gold.len()),
        };
        let talk = continued(input, &fact.prompt, asked).await?;
        let questions = match input.model.architecture() {
            ArchitectureKind::Gpt2 | ArchitectureKind::GptJ => vec![Question { ids: talk[0].0.clone(), targets: gold }],
            _ => {
                let pairs = talk.iter().zip(&gold);
                pairs.map(|((ids, _), token)| Question { ids: ids.clone(), targets: vec![*token] }).collect()
            }
        };
        let says = talk[..target.len()].iter().map(|(_, answer)| *answer).collect();
        let taken_out = if target.len() == 1 { 2.0 } else { 1.0 };
        Ok(Self { questions, says, target, taken_out, truth })
    }

    async fn strict(input: &Input<'_>, fact: &Fact, truth: String) -> Result<Self> {
        let Followed { prompt, target: gold } = input.tokenizer.followed(&fact.prompt, &truth)?;
        let target = input.tokenizer.followed(&fact.prompt, &fact.target_new)?.target;
        input.model.check_length(prompt.len() + gold.len(), "the prompt with the true object")?;
        let says = input.model.greedy(std::slice::from_ref(&prompt), target.len(), &[]).await?.remove(0);
        let questions = gold
            .iter()
            .enumerate()
            .map(|(i, token)| Question { ids: [&prompt, &gold[..i]].concat(), targets: vec![*token] });
        Ok(Self { questions: questions.collect(), says, target, taken_out: 1.0, truth })
    }

    /// What is added to each chosen value vector: `[1, d_model]`.
    pub fn added(&self, model: &Model) -> Tensor<2> {
        let sum = |tokens: &[u32]| model.embeddings(tokens).sum_dim(0);
        sum(&self.target) - sum(&self.says) * self.taken_out
    }
}

/// What the model says after a prompt, token by token, each time with the tokens it was asked with.
///
/// The release decodes every answer and tokenizes the longer text anew, which loses a space or half a letter where the
/// vocabulary has such tokens; here the answer's id is appended.
async fn continued(input: &Input<'_>, prompt: &str, tokens: usize) -> Result<Vec<(Vec<u32>, u32)>> {
    let prompt = input.tokenizer.encode(prompt)?;
    let answers = input.model.greedy(std::slice::from_ref(&prompt), tokens, &[]).await?.remove(0);
    let asked = (0..tokens).map(|n| [&prompt, &answers[..n]].concat());
    Ok(asked.zip(answers.iter().copied()).collect())
}

/// How much each neuron contributes to a fact: `[layers, d_mlp]`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// The scores, layer by layer.
    pub values: Vec<f64>,
    /// Blocks of the model.
    pub layers: usize,
    /// Neurons of a block.
    pub d_mlp: usize,
}

/// One entry of the activation of a block's MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neuron {
    /// The block, from zero.
    pub layer: usize,
    /// Which entry.
    pub index: usize,
}

impl Scores {
    /// The neurons whose score exceeds `share` of the largest, which must be above zero; in order.
    pub fn above(&self, share: f64) -> Vec<Neuron> {
        let largest = self.values.iter().copied().fold(0.0, f64::max);
        let chosen = self.values.iter().enumerate().filter(|(_, score)| **score > share * largest);
        chosen.map(|(i, _)| Neuron { layer: i / self.d_mlp, index: i % self.d_mlp }).collect()
    }
}

/// Integrated gradients of a target token's probability in the last token's activation `a [d_mlp]` of each layer, mean over the tokens that are asked for:
///
/// `score_l = a · 1/m Σ_s ∂P(target)/∂(α_s a)`, with `α_s` from 0 to 1 in `m = steps` points (only 0 for one): the
/// paper's knowledge attribution as released, which counts both ends.
///
/// # Errors
///
/// When a score is not a finite number.
pub async fn attribute(
    model: &Model,
    questions: &[Question],
    spec: &KnSpec,
    watch: &mut dyn FnMut(Progress),
) -> Result<Scores> {
    let shape = model.shape();
    let points: Vec<f32> = (0..spec.steps).map(|s| s as f32 / spec.steps.saturating_sub(1).max(1) as f32).collect();
    let n_targets: usize = questions.iter().map(|question| question.targets.len()).sum();
    let weight = 1.0 / (spec.steps * n_targets) as f64;
    let mut values = vec![0.0; shape.layers * shape.d_mlp];
    let (mut done, total) = (0, questions.len() * points.chunks(spec.batch_size).len());
    for question in questions {
        let prompt = Prompt::new(model, &question.ids, activation(spec.neuron));
        for points in points.chunks(spec.batch_size) {
            watch(Progress::Planning { done, total });
            let found = read(prompt.sweep(model, points, &question.targets)).await?;
            for (sum, found) in values.iter_mut().zip(found) {
                *sum += f64::from(found) * weight;
            }
            done += 1;
        }
    }
    if values.iter().any(|score| !score.is_finite()) {
        return Err(Error::NotFinite { what: "a neuron's share in the fact".into(), hint: String::new() });
    }
    Ok(Scores { values, layers: shape.layers, d_mlp: shape.d_mlp })
}

/// A prompt's last token on its way up, and what it looks back at.
struct Prompt {
    /// Keys and values of the tokens before it.
    past: Cache,
    /// Its residual stream before each layer, `[1, 1, d_model]`.
    before: Vec<Tensor<3>>,
    /// Its activation `a` in each layer, `[1, d_mlp]`.
    activations: Vec<Tensor<2>>,
    /// Where `a` is.
    at: At,
}

fn activation(neuron: KnNeuron) -> At {
    match neuron {
        KnNeuron::PreActivation => At::MlpPre,
        KnNeuron::PostActivation => At::MlpKey,
    }
}

impl Prompt {
    fn new(model: &Model, ids: &[u32], at: At) -> Self {
        let layers = model.shape().layers;
        let (last, earlier) = ids.split_last().expect("a prompt has tokens");
        let mut past = Cache::empty(1, layers);
        if !earlier.is_empty() {
            model.extend(&[earlier], &mut past, &mut NoTap);
        }
        let sites = |at| (0..layers).map(move |layer| Site { layer, at });
        let all: Vec<Site> = sites(at).chain(sites(At::ResidPost)).collect();
        let mut capture = Capture::new(&all);
        let frame = Frame::lanes(&past, 1, &model.device());
        let embedded = model.embed(&[*last], &frame);
        model.run(0..layers, embedded.clone(), &frame, &mut past, &mut capture);
        let after = sites(At::ResidPost).map(|site| capture.take(site)).collect::<Vec<_>>();
        let before = std::iter::once(embedded).chain(after).take(layers).collect();
        let activations = sites(at).map(|site| capture.take(site).flatten(0, 1)).collect();
        Self { past, before, activations, at }
    }

    /// `a · Σ_s ∂P/∂(α_s a)` of every layer for some points `α_s` of the integral, `P` summed over `targets`:
    /// `[layers, d_mlp]`.
    ///
    /// One pass for all layers and points. Only the last token is ever changed, so each point of each layer is a lane:
    /// a version of that token over the same keys and values. The lanes of a layer join those of the layers below when
    /// the pass gets there, as copies of the unchanged token with their activation replaced; no lane sees another, so
    /// the gradient of the sum of all their probabilities is each one's own. Against a pass from the bottom for each
    /// layer this is exact, and for deep models more than ten times less work.
    fn sweep(&self, model: &Model, points: &[f32], targets: &[u32]) -> Tensor<2> {
        let (n, device) = (points.len(), model.device());
        let alpha = Tensor::<2>::from_data(TensorData::new(points.to_vec(), [n, 1]), &device);
        let mut lanes: Option<Tensor<3>> = None; // [1, layers so far * points, d_model]
        let mut replaced = Vec::with_capacity(self.before.len());
        for (layer, (before, activation)) in self.before.iter().zip(&self.activations).enumerate() {
            let scaled = (alpha.clone() * activation.clone()).autodiff().require_grad(); // [points, d_mlp]
            let joining = before.clone().repeat_dim(1, n);
            let hidden = match lanes {
                None => joining,
                Some(lanes) => Tensor::cat(vec![lanes, joining], 1),
            };
            let frame = Frame::lanes(&self.past, n * (layer + 1), &device);
            let mut replace = ReplaceLast { at: self.at, new: scaled.clone() };
            lanes = Some(model.run(layer..layer + 1, hidden, &frame, &mut self.past.clone(), &mut replace));
            replaced.push(scaled);
        }
        let lanes = lanes.expect("a model has layers").flatten(0, 1);
        let mut gradients = probability(model, lanes, targets).backward();
        let scores = replaced.iter().zip(&self.activations).map(|(scaled, activation)| {
            let gradient = scaled.grad_remove(&mut gradients).expect("the activation is tracked"); // [points, d_mlp]
            gradient.sum_dim(0) * activation.clone()
        });
        Tensor::cat(scores.collect(), 0)
    }
}

/// Replaces the activations of the last lanes.
struct ReplaceLast {
    at: At,
    /// `[points, d_mlp]`
    new: Tensor<2>,
}

impl Tap for ReplaceLast {
    fn tap(&mut self, _: Site, value: Tensor<3>) -> Tensor<3> {
        let ([_, all, _], [last, _]) = (value.dims(), self.new.dims());
        let new = self.new.clone().unsqueeze::<3>();
        if last == all { new } else { Tensor::cat(vec![value.narrow(1, 0, all - last), new], 1) }
    }

    fn looks_at(&self, site: Site) -> bool {
        site.at == self.at
    }
}

/// The probability that `targets` come next, summed over them and over all lanes: `hidden [lanes, d_model]` to `[1]`.
fn probability(model: &Model, hidden: Tensor<2>, targets: &[u32]) -> Tensor<1> {
    /// No buffer of logits is larger than this, so that any device takes it.
    const MAX_BYTES: usize = 64 << 20;
    let lanes = (MAX_BYTES / (4 * model.shape().vocab)).max(1);
    let targets: Vec<usize> = targets.iter().map(|id| *id as usize).collect();
    let index = index_tensor(&targets, &hidden);
    let parts = hidden.split(lanes, 0).into_iter();
    let sums = parts.map(|part| softmax(model.logits(part), 1).select(1, index.clone()).sum());
    sums.reduce(|sum, part| sum + part).expect("there are lanes")
}
