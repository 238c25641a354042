//! The steps that locate-and-edit methods share: a fact as rows of tokens, the keys and outputs at the token that is
//! edited, and the optimisation of the value that should stand there, for many facts in one batch.
//!
//! δ enters the residual stream at one token of one layer. Everything before that token, and everything below that
//! layer, never changes during an optimisation: it is computed once, and each step runs only the later tokens of the
//! upper layers. This is exact, because attention is causal.

use burn::tensor::{Device, Tensor, TensorData, activation::log_softmax};
use rectify_protocol::{Fact, FactToken, Progress, Step, ValueSpec};

use super::{adam::Adam, contexts::SLOT};
use crate::{
    Error, Result,
    model::{
        At, Cache, Capture, Frame, Model, NoTap, Site,
        generate::{picked, states_at},
        index_tensor, padded,
    },
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
        let lengths: Vec<f64> = read(lengths(anchors.clone())).await?.into_iter().map(f64::from).collect();
        let mut traces = vec![Vec::new(); n_facts];
        let mut found: Vec<Option<Tensor<2>>> = vec![None; n_facts];

        // The facts that still run: what is left of the batch, and their state of Adam, one row each.
        let mut live: Vec<usize> = (0..n_facts).collect();
        let mut now = Asked::new(self.clone(), &model.device());
        let mut initial = None;
        let mut delta = anchors.zeros_like();
        let mut adam = Adam::new(&delta);
        for step in 0..spec.v_num_grad_steps {
            let tracked = delta.clone().autodiff().require_grad();
            let losses = now.losses(model, tracked.clone(), &mut initial, spec.kl_factor);
            let numbers = losses.read(&delta).await?;
            let last = step + 1 == spec.v_num_grad_steps;
            let mut going_on = Vec::with_capacity(live.len());
            for (row, ([nll, kl, p_target, delta_norm], fact)) in numbers.iter().copied().zip(&live).enumerate() {
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

            let gradients = losses.total().backward();
            let mut gradient = tracked.grad(&gradients).expect("δ is tracked");
            if going_on.len() < live.len() {
                let of = |tensor: Tensor<2>| {
                    let index = index_tensor(&going_on, &tensor);
                    tensor.select(0, index)
                };
                (delta, gradient) = (of(delta), of(gradient));
                adam = adam.only(&going_on);
                initial = initial.map(of);
                now = Asked::new(now.prepared.only(&going_on), &model.device());
                live = going_on.iter().map(|row| live[*row]).collect();
            }
            // The gradient of ‖δ‖ is δ/‖δ‖, and 0 at 0, where an automatic one would be NaN.
            let pull = going_on.iter().zip(&live).map(|(row, fact)| {
                let norm = numbers[*row][3];
                if norm > 0.0 { spec.v_weight_decay / lengths[*fact].powi(2) / norm } else { 0.0 }
            });
            gradient = gradient + delta.clone() * column(pull, &delta);

            delta = delta - adam.step(gradient, spec.v_lr);
            let radius = column(live.iter().map(|fact| spec.clamp_norm_factor * lengths[*fact]), &delta);
            let shrink = (radius / self::lengths(delta.clone())).clamp_max(1.0);
            delta = delta * shrink;
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
    /// Averages over a target's tokens: `[facts * contexts, target tokens]`.
    average: Tensor<2>,
}

/// One evaluation, fact by fact, each `[facts, 1]`.
struct Losses {
    nll: Tensor<2>,
    kl: Tensor<2>,
    p_target: Tensor<2>,
}

impl Asked {
    fn new(prepared: Prepared, device: &Device) -> Self {
        let frame = Frame::new(&prepared.past, &prepared.suffixes, device);
        let n_contexts = prepared.n_contexts;
        let (mut at, mut targets, mut subjects) = (Vec::new(), Vec::new(), Vec::new());
        for (fact, target) in prepared.targets.iter().enumerate() {
            let first = fact * (n_contexts + 1);
            for row in first..first + n_contexts {
                let len = prepared.suffixes[row];
                at.extend((len - target.len()..len).map(|pos| frame.flat(row, pos)));
                targets.extend(target.iter().map(|id| *id as usize));
            }
            subjects.push(frame.flat(first + n_contexts, prepared.suffixes[first + n_contexts] - 1));
        }
        at.extend(subjects);
        let lens = prepared.targets.iter().flat_map(|target| std::iter::repeat_n(target.len(), n_contexts));
        let average = averages(&lens.collect::<Vec<_>>(), device);
        Self { prepared, frame, at, targets, average }
    }

    /// Shapes: `delta [facts, d_model]`; `initial` is what the first evaluation finds after each subject,
    /// `[facts, vocab]`.
    fn losses(&self, model: &Model, delta: Tensor<2>, initial: &mut Option<Tensor<2>>, kl_factor: f64) -> Losses {
        let (n_facts, n_targets) = (self.prepared.targets.len(), self.targets.len());
        let log_p = self.log_probabilities(model, delta);
        let picked = picked(&log_p.clone().narrow(0, 0, n_targets), &self.targets); // [target tokens, 1]
        let per_context = -self.average.clone().matmul(picked).reshape([n_facts, self.prepared.n_contexts]);
        let current = log_p.narrow(0, n_targets, n_facts); // [facts, vocab]
        let initial = initial.get_or_insert_with(|| current.clone().inner()).clone();
        Losses {
            nll: per_context.clone().mean_dim(1),
            kl: (current.clone().exp() * (current - initial)).sum_dim(1) * kl_factor,
            p_target: (-per_context).exp().mean_dim(1),
        }
    }

    /// `[target tokens + facts, vocab]`: of each target token, then of what follows each subject alone.
    fn log_probabilities(&self, model: &Model, delta: Tensor<2>) -> Tensor<2> {
        let Prepared { hidden, layer, past, targets, n_contexts, .. } = &self.prepared;
        let [rows, width, d] = hidden.dims();
        let first = hidden.clone().narrow(1, 0, 1).reshape([targets.len(), n_contexts + 1, d]);
        let edited = (first + delta.unsqueeze_dim(1)).reshape([rows, 1, d]);
        let hidden =
            if width == 1 { edited } else { Tensor::cat(vec![edited, hidden.clone().narrow(1, 1, width - 1)], 1) };
        let hidden = model.run(layer + 1..model.shape().layers, hidden, &self.frame, &mut past.clone(), &mut NoTap);
        log_softmax(model.logits(states_at(hidden, &self.at)), 1)
    }
}

impl Losses {
    /// Each fact's negative log-likelihood, divergence, probability of the target, and `‖δ‖`.
    async fn read(&self, delta: &Tensor<2>) -> Result<Vec<[f64; 4]>> {
        let columns = [&self.nll, &self.kl, &self.p_target].map(|column| column.clone().inner());
        let [nll, kl, p_target] = columns;
        let rows = read(Tensor::cat(vec![nll, kl, p_target, lengths(delta.clone())], 1)).await?;
        Ok(rows.as_chunks::<4>().0.iter().map(|row| row.map(f64::from)).collect())
    }

    /// What is differentiated: facts do not share any variable, so the sum has each fact's own gradient.
    fn total(&self) -> Tensor<1> {
        (self.nll.clone() + self.kl.clone()).sum()
    }
}

/// What averages runs of a column, each over the next `lens[i]` entries: `[runs, entries]`.
pub(super) fn averages(lens: &[usize], device: &Device) -> Tensor<2> {
    let columns = lens.iter().sum();
    let mut average = vec![0.0f32; lens.len() * columns];
    let mut column = 0;
    for (row, len) in lens.iter().enumerate() {
        average[row * columns + column..][..*len].fill(1.0 / *len as f32);
        column += len;
    }
    Tensor::from_data(TensorData::new(average, [lens.len(), columns]), device)
}

/// `‖x‖` of each row: `[rows, 1]`.
fn lengths(x: Tensor<2>) -> Tensor<2> {
    (x.clone() * x).sum_dim(1).sqrt()
}

/// Numbers as a column beside `on`.
fn column(values: impl Iterator<Item = f64>, on: &Tensor<2>) -> Tensor<2> {
    let values: Vec<f32> = values.map(|value| value as f32).collect();
    let shape = [values.len(), 1];
    Tensor::from_data(TensorData::new(values, shape), &on.device())
}
