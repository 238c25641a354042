//! The steps that locate-and-edit methods share: a fact as rows of tokens, the keys and outputs at the token that is
//! edited, and the optimisation of the value that should stand there, for many facts in one batch.
//!
//! δ enters the residual stream at one token of one layer. Everything before that token, and everything below that
//! layer, never changes during an optimisation: it is computed once, and each step runs only the later tokens of the
//! upper layers. This is exact, because attention is causal.

use burn::tensor::{Device, Tensor, TensorData};
use rectify_protocol::{Fact, FactToken, Progress, Step, ValueSpec};

use super::{
    adam::{Adam, Held},
    contexts::SLOT,
};
use crate::{
    Error, Result,
    kernels::{answers, shifted},
    model::{At, Cache, Capture, Frame, Model, NoTap, Site, generate::states_at, index_tensor, padded},
    read::read,
    tokenizer::Tokenizer,
};

/// The loop ends when the loss is below this.
const GOOD_ENOUGH: f64 = 0.05;

/// One fact as rows of tokens: each context with the prompt and all but the last target token, then the subject alone.
#[derive(Clone, Debug, PartialEq)]
pub struct FactRows {
    /// One per context.
    pub contexts: Vec<Row>,
    /// The subject, whose continuation should stay as it is.
    pub subject: Row,
    /// What the contexts' last positions should predict.
    pub target: Vec<u32>,
}

/// Tokens, and the position of the one that is edited.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Token ids, special ones included.
    pub ids: Vec<u32>,
    /// Index into `ids`.
    pub lookup: usize,
}

impl FactRows {
    /// Lays out a fact. `templates` have one `{}` each; the first should be the bare prompt.
    ///
    /// # Errors
    ///
    /// When the fact is not valid, or a row does not fit the context of `model`.
    pub fn new(
        tokenizer: &Tokenizer,
        model: &Model,
        fact: &Fact,
        templates: &[String],
        token: FactToken,
    ) -> Result<Self> {
        fact.validate()?;
        let target = tokenizer.followed(&fact.prompt, &fact.target_new)?.target;
        let subject_end = fact.prompt.find(&fact.subject).expect("validated") + fact.subject.len();
        let mut contexts = Vec::with_capacity(templates.len());
        for template in templates {
            let (before, after) = template.split_once(SLOT).expect("templates have a slot");
            let asked = format!("{before}{}{after}", fact.prompt);
            let read_up_to = match token {
                FactToken::SubjectLast => before.len() + subject_end,
                FactToken::Last => asked.len(),
            };
            let lookup = tokenizer.token_before(&asked, read_up_to)?;
            // Ids, not text: a target may be cut inside a letter.
            let ids = [tokenizer.encode(&asked)?.as_slice(), &target[..target.len() - 1]].concat();
            model.check_length(ids.len(), "the prompt with its context and target")?;
            contexts.push(Row { ids, lookup });
        }
        let alone = match token {
            FactToken::SubjectLast => fact.subject.clone(),
            FactToken::Last => format!("{} is a", fact.subject),
        };
        // The reference appends " is a" here, which under causal attention cannot change what the subject's token says.
        let ids = tokenizer.encode(&alone)?;
        let lookup = ids.len().saturating_sub(1);
        Ok(Self { contexts, subject: Row { ids, lookup }, target })
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.contexts.iter().chain([&self.subject])
    }
}

/// Facts on a model, with everything computed that no δ can change. All have as many contexts.
///
/// Rows lie fact by fact: the contexts of a fact, then its subject alone.
#[derive(Clone)]
pub struct Prepared {
    layer: usize,
    n_contexts: usize,
    /// Keys at the edited token, fact by fact, one row per context: `[facts * contexts, d_mlp]`.
    pub keys: Tensor<2>,
    /// Outputs of the down projection there: `[facts * contexts, d_model]`.
    pub outputs: Tensor<2>,
    /// The residual stream after the layer, of each fact in its first context: `[facts, d_model]`.
    pub states: Tensor<2>,
    /// The residual stream after `layer` from the edited token on: `[rows, pos, d_model]`.
    hidden: Tensor<3>,
    /// How many tokens each row has from there on.
    suffixes: Vec<usize>,
    /// Keys and values of the positions before, in the layers above.
    past: Cache,
    /// Each fact's target.
    targets: Vec<Vec<u32>>,
}

impl Prepared {
    /// Runs the rows of `facts` through `model` once.
    ///
    /// # Panics
    ///
    /// When the facts have different numbers of contexts.
    pub fn new(model: &Model, facts: &[FactRows], layer: usize) -> Result<Self> {
        model.check_layer(layer)?;
        let device = model.device();
        let shape = model.shape();
        let n_contexts = facts.first().map_or(0, |fact| fact.contexts.len());
        assert!(facts.iter().all(|fact| fact.contexts.len() == n_contexts), "every fact has as many contexts");
        let all: Vec<&Row> = facts.iter().flat_map(FactRows::rows).collect();
        let ids: Vec<&[u32]> = all.iter().map(|row| row.ids.as_slice()).collect();
        let lens: Vec<usize> = ids.iter().map(|ids| ids.len()).collect();

        // Everything, up to and including the edited layer.
        let mut past = Cache::empty(all.len(), shape.layers);
        let whole = Frame::new(&past, &lens, &device);
        let (key_at, out_at) = (Site { layer, at: At::MlpKey }, Site { layer, at: At::MlpOut });
        let mut capture = Capture::new(&[key_at, out_at]);
        let hidden = model.embed(&padded(&ids), &whole);
        let hidden = model.run(0..layer + 1, hidden, &whole, &mut past, &mut capture);
        let lookup = |row: usize| whole.flat(row, all[row].lookup);
        let in_context: Vec<usize> =
            (0..all.len()).filter(|row| row % (n_contexts + 1) < n_contexts).map(lookup).collect();
        let first: Vec<usize> = (0..facts.len()).map(|fact| lookup(fact * (n_contexts + 1))).collect();
        let keys = states_at(capture.take(key_at), &in_context);
        let outputs = states_at(capture.take(out_at), &in_context);
        let states = states_at(hidden.clone(), &first);

        // What comes before the edited token, through the layers above.
        let prefixes: Vec<usize> = all.iter().map(|row| row.lookup).collect();
        let longest = prefixes.iter().copied().max().unwrap_or(0);
        let mut past = Cache::empty(all.len(), shape.layers);
        if longest > 0 {
            let frame = Frame::new(&past, &prefixes, &device);
            model.run(layer + 1..shape.layers, hidden.clone().narrow(1, 0, longest), &frame, &mut past, &mut NoTap);
            past.seen_by(&frame);
        }

        // What comes from the edited token on.
        let suffixes: Vec<usize> = all.iter().map(|row| row.ids.len() - row.lookup).collect();
        let width = suffixes.iter().copied().max().unwrap_or(0);
        let at: Vec<usize> = all
            .iter()
            .enumerate()
            .flat_map(|(i, row)| {
                let last = row.ids.len() - 1;
                (0..width).map(move |pos| (i, (row.lookup + pos).min(last)))
            })
            .map(|(i, pos)| whole.flat(i, pos))
            .collect();
        let hidden = states_at(hidden, &at).reshape([all.len(), width, shape.d_model]);
        let targets = facts.iter().map(|fact| fact.target.clone()).collect();
        Ok(Self { layer, n_contexts, keys, outputs, states, hidden, suffixes, past, targets })
    }

    /// What the layer's down projection writes at the edited token of each fact in its first context, before any δ:
    /// ROME's t₀, `[facts, d_model]`.
    pub fn values(&self) -> Tensor<2> {
        let first: Vec<usize> = (0..self.targets.len()).map(|fact| fact * self.n_contexts).collect();
        let index = index_tensor(&first, &self.outputs);
        self.outputs.clone().select(0, index)
    }

    /// Only some of the facts.
    fn only(&self, facts: &[usize]) -> Self {
        let rows =
            |each: usize| -> Vec<usize> { facts.iter().flat_map(|fact| fact * each..(fact + 1) * each).collect() };
        let (all, contexts) = (rows(self.n_contexts + 1), rows(self.n_contexts));
        let of = |tensor: &Tensor<2>, rows: &[usize]| tensor.clone().select(0, index_tensor(rows, tensor));
        let width = all.iter().map(|row| self.suffixes[*row]).max().unwrap_or(0);
        Self {
            keys: of(&self.keys, &contexts),
            outputs: of(&self.outputs, &contexts),
            states: of(&self.states, facts),
            hidden: self.hidden.clone().select(0, index_tensor(&all, &self.hidden)).narrow(1, 0, width),
            suffixes: all.iter().map(|row| self.suffixes[*row]).collect(),
            past: self.past.only(&all),
            targets: facts.iter().map(|fact| self.targets[*fact].clone()).collect(),
            ..*self
        }
    }

    /// The shift δ of each fact's value that makes its target likely in every context: `[facts, d_model]`. Also what
    /// each evaluation found, fact by fact.
    ///
    /// Minimises, for each fact, `−(1/T) Σ log p(target)` (mean over contexts) `+ kl · KL(current ‖ initial)` after
    /// the bare subject `+ wd · ‖δ‖ / ‖t₀‖²` by Adam, projecting δ onto the ball of radius `clamp · ‖t₀‖` after each
    /// update; a fact stops when its loss is below 0.05. ROME eq. 4 and its released code. Facts never influence one
    /// another: that they share a batch changes nothing but the time.
    ///
    /// Shapes: `anchors`, the facts' t₀, `[facts, d_model]`.
    ///
    /// # Errors
    ///
    /// When a loss is not a finite number.
    pub async fn optimize(
        &self,
        model: &Model,
        anchors: &Tensor<2>,
        spec: &ValueSpec,
        watch: &mut dyn FnMut(Step),
    ) -> Result<(Tensor<2>, Vec<Step>)> {
        let n_facts = self.targets.len();
        let lengths: Vec<f64> = host_rows(anchors.clone()).await?.iter().map(|anchor| length(anchor)).collect();
        let mut traces = vec![Vec::new(); n_facts];
        let mut found: Vec<Option<Tensor<2>>> = vec![None; n_facts];

        // The facts that still run: what is left of the batch, and their state of Adam, one row each.
        let mut live: Vec<usize> = (0..n_facts).collect();
        let mut now = Asked::new(self.clone(), &model.device(), spec.kl_factor);
        let mut initial = None;
        let mut adam = Adam::new(anchors.dims(), &model.device());
        for step in 0..spec.v_num_grad_steps {
            let delta = adam.rows();
            let tracked = delta.clone().autodiff().require_grad();
            let answers = now.answers(model, tracked.clone(), &mut initial);
            let found_now = now.read(&answers, &delta).await?;
            let last = step + 1 == spec.v_num_grad_steps;
            let mut going_on = Vec::with_capacity(live.len());
            for (row, (found_now, fact)) in found_now.iter().zip(&live).enumerate() {
                let Found { nll, kl, p_target, delta_norm } = *found_now;
                let decay = spec.v_weight_decay / lengths[*fact].powi(2);
                let evaluation =
                    Step { fact: *fact, step, nll, kl, weight_decay: decay * delta_norm, p_target, delta_norm };
                if !evaluation.loss().is_finite() {
                    return Err(lost(step));
                }
                watch(evaluation);
                traces[*fact].push(evaluation);
                if evaluation.loss() < GOOD_ENOUGH || last {
                    found[*fact] = Some(delta.clone().narrow(0, row, 1));
                } else {
                    going_on.push(row);
                }
            }
            if going_on.is_empty() {
                break;
            }

            let gradients = now.total(&answers).backward();
            let mut gradient = tracked.grad(&gradients).expect("δ is tracked");
            if going_on.len() < live.len() {
                let index = index_tensor(&going_on, &gradient);
                gradient = gradient.select(0, index.clone());
                initial = initial.map(|initial: Tensor<2>| initial.select(0, index));
                adam = adam.only(&going_on);
                now = Asked::new(now.prepared.only(&going_on), &model.device(), spec.kl_factor);
                live = going_on.iter().map(|row| live[*row]).collect();
            }
            // The gradient of ‖δ‖ is δ/‖δ‖, and 0 at 0, where an automatic one would be NaN.
            let held = going_on.iter().zip(&live).map(|(row, fact)| {
                let (norm, length) = (found_now[*row].delta_norm, lengths[*fact]);
                let pull = if norm > 0.0 { spec.v_weight_decay / length.powi(2) / norm } else { 0.0 };
                Held { pull, radius: spec.clamp_norm_factor * length, ..Held::FREE }
            });
            adam.step(gradient, spec.v_lr, held);
        }
        let found = found.into_iter().map(|delta| delta.expect("every fact ends")).collect();
        Ok((Tensor::cat(found, 0), traces.into_iter().flatten().collect()))
    }
}

/// What one says when a loss leaves the finite numbers.
fn lost(step: usize) -> Error {
    let hint = "; a smaller v_lr or clamp_norm_factor may help".into();
    Error::NotFinite { what: format!("the loss at step {step}"), hint }
}

/// The values that several facts should have after `layer`: `[facts, d_model]`, and what each evaluation found.
///
/// As [`Prepared::optimize`] around the residual stream, in batches that fit a device: MEMIT's `z = t₀ + δ`.
pub async fn targets_of_states(
    model: &Model,
    facts: &[FactRows],
    layer: usize,
    spec: &ValueSpec,
    watch: &mut dyn FnMut(Step),
) -> Result<(Tensor<2>, Vec<Step>)> {
    /// Tokens that one evaluation runs through the upper layers.
    const BATCH: usize = 1024;
    let cost = |fact: &FactRows| fact.rows().map(|row| row.ids.len() - row.lookup).sum::<usize>();
    let (mut values, mut traces) = (Vec::new(), Vec::new());
    let mut first = 0;
    while first < facts.len() {
        let mut tokens = 0;
        let fits = facts[first..].iter().take_while(|fact| {
            tokens += cost(fact);
            tokens <= BATCH
        });
        let n = fits.count().max(1);
        let prepared = Prepared::new(model, &facts[first..first + n], layer)?;
        let in_whole = |step: Step| Step { fact: first + step.fact, ..step };
        let anchors = prepared.states.clone();
        let (delta, trace) = prepared.optimize(model, &anchors, spec, &mut |step| watch(in_whole(step))).await?;
        values.push(anchors + delta);
        traces.extend(trace.into_iter().map(in_whole));
        first += n;
    }
    Ok((Tensor::cat(values, 0), traces))
}

/// Tells evaluations as progress.
pub(super) fn steps(spec: &ValueSpec, watch: &mut dyn FnMut(Progress)) -> impl FnMut(Step) {
    let steps = spec.v_num_grad_steps;
    move |step| watch(Progress::Optimizing { step, steps })
}

/// What is asked of a batch in every evaluation.
struct Asked {
    prepared: Prepared,
    frame: Frame,
    /// Where the logits of target tokens, fact by fact and context by context, and of each subject alone lie.
    at: Vec<usize>,
    /// The targets' tokens in that order.
    targets: Vec<usize>,
    /// What the loss multiplies each of these answers with: `[target tokens + facts, 1]`.
    weights: Tensor<2>,
    kl_factor: f64,
}

/// What one evaluation says of a fact.
#[derive(Clone, Copy)]
struct Found {
    nll: f64,
    kl: f64,
    p_target: f64,
    delta_norm: f64,
}

impl Asked {
    fn new(prepared: Prepared, device: &Device, kl_factor: f64) -> Self {
        let frame = Frame::new(&prepared.past, &prepared.suffixes, device);
        let n_contexts = prepared.n_contexts;
        let (mut at, mut targets, mut subjects, mut weights) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (fact, target) in prepared.targets.iter().enumerate() {
            let first = fact * (n_contexts + 1);
            for row in first..first + n_contexts {
                let len = prepared.suffixes[row];
                at.extend((len - target.len()..len).map(|pos| frame.flat(row, pos)));
                targets.extend(target.iter().map(|id| *id as usize));
            }
            weights.extend(std::iter::repeat_n(-1.0 / (target.len() * n_contexts) as f64, target.len() * n_contexts));
            subjects.push(frame.flat(first + n_contexts, prepared.suffixes[first + n_contexts] - 1));
        }
        weights.extend(subjects.iter().map(|_| kl_factor));
        at.extend(subjects);
        let weights = column(weights.into_iter(), &prepared.states);
        Self { prepared, frame, at, targets, weights, kl_factor }
    }

    /// Of each target token `log p`, then of what follows each subject the divergence from `initial`, which are the logits
    /// that the first evaluation finds there, `[facts, vocab]`: `[target tokens + facts, 1]`.
    ///
    /// Shapes: `delta [facts, d_model]`.
    fn answers(&self, model: &Model, delta: Tensor<2>, initial: &mut Option<Tensor<2>>) -> Tensor<2> {
        let logits = self.logits(model, delta);
        let (n_facts, n_targets) = (self.prepared.targets.len(), self.targets.len());
        let found_first = || logits.clone().inner().narrow(0, n_targets, n_facts);
        let initial = initial.get_or_insert_with(found_first).clone();
        answers(logits, &self.targets, Some(initial))
    }

    /// `[target tokens + facts, vocab]`: of each target token, then of what follows each subject alone.
    fn logits(&self, model: &Model, delta: Tensor<2>) -> Tensor<2> {
        let Prepared { hidden, layer, past, n_contexts, .. } = &self.prepared;
        let hidden = shifted(hidden.clone(), delta, n_contexts + 1);
        let hidden = model.run(layer + 1..model.shape().layers, hidden, &self.frame, &mut past.clone(), &mut NoTap);
        model.logits(states_at(hidden, &self.at))
    }

    /// What is differentiated: facts do not share any variable, so the sum has each fact's own gradient. The way back
    /// begins with ones, so nobody need add up.
    fn total(&self, answers: &Tensor<2>) -> Tensor<2> {
        answers.clone() * self.weights.clone()
    }

    /// What the answers say of each fact, and how long its δ is.
    async fn read(&self, answers: &Tensor<2>, delta: &Tensor<2>) -> Result<Vec<Found>> {
        let n_contexts = self.prepared.n_contexts;
        // One wait for both: δ is short.
        let [n_facts, d_model] = delta.dims();
        let deltas = delta.clone().reshape([n_facts * d_model, 1]);
        let numbers = read(Tensor::cat(vec![answers.clone().inner(), deltas], 0)).await?;
        let (of_tokens, of_facts) = numbers.split_at(self.targets.len());
        let (divergences, deltas) = of_facts.split_at(n_facts);
        let lens = self.prepared.targets.iter().flat_map(|target| std::iter::repeat_n(target.len(), n_contexts));
        let log_p = means(of_tokens, lens);
        let facts = log_p.chunks(n_contexts).zip(divergences).zip(deltas.chunks(d_model));
        let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / n_contexts as f64;
        let found = facts.map(|((log_p, divergence), delta)| Found {
            nll: -mean(&mut log_p.iter().copied()),
            kl: f64::from(*divergence) * self.kl_factor,
            p_target: mean(&mut log_p.iter().map(|log_p| log_p.exp())),
            delta_norm: length(&delta.iter().copied().map(f64::from).collect::<Vec<f64>>()),
        });
        Ok(found.collect())
    }
}

/// The mean of each run of a column: of the first `lens[0]` entries, of the next `lens[1]`, and so on.
pub(super) fn means(column: &[f32], lens: impl Iterator<Item = usize>) -> Vec<f64> {
    let mut left = column.iter().copied().map(f64::from);
    lens.map(|len| left.by_ref().take(len).sum::<f64>() / len as f64).collect()
}

/// `‖x‖`
fn length(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The rows of a tensor on the host.
pub(super) async fn host_rows(tensor: Tensor<2>) -> Result<Vec<Vec<f64>>> {
    let [_, d] = tensor.dims();
    let values = read(tensor).await?;
    Ok(values.chunks(d).map(|row| row.iter().copied().map(f64::from).collect()).collect())
}

/// Numbers as a column beside `on`.
pub(super) fn column(values: impl Iterator<Item = f64>, on: &Tensor<2>) -> Tensor<2> {
    let values: Vec<f32> = values.map(|value| value as f32).collect();
    let shape = [values.len(), 1];
    Tensor::from_data(TensorData::new(values, shape), &on.device())
}
