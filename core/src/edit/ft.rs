//! Fine-tuning of down projections: FT-L, as ROME's authors compare with it (<https://arxiv.org/abs/2202.05262>), and
//! EasyEdit's FT-M, with the usual loss of a language model (<https://arxiv.org/abs/2308.07269>).
//!
//! Only the matrix itself is trained; the release's match by name also takes GPT-2's bias. Layers below the first one
//! that is trained never change, so every fact runs them once.

use burn::tensor::Tensor;
use rectify_protocol::{Fact, FtObjective, FtSpec, Progress, Step};

use super::{
    Delta, Input, Plan, WeightDelta,
    adam::{Adam, Held},
    plan::filled,
    value::{column, means},
};
use crate::{
    Error, Result,
    kernels::log_likelihoods,
    model::{Cache, Frame, Matrix, Model, NoTap, Shape, WeightSite, generate::states_at, padded},
    read::read,
    tokenizer::{Followed, Tokenizer},
};

/// Training ends when the mean loss is below this.
const GOOD_ENOUGH: f64 = 1e-2;

/// The change that Adam makes of the down projections of the spec's layers, to make the facts' targets likely.
///
/// Minimises the mean over facts of `−(1/T) Σ_t log p(target_t)`; after each step no entry of `ΔW` is further from 0
/// than `norm_constraint`. A loss below 0.01 ends it, before the next step. All facts are one batch.
///
/// Shapes: each change is dense, `[d_mlp, d_model]`.
///
/// # Errors
///
/// When a fact cannot be used or does not fit the context, or the loss leaves the finite numbers.
pub async fn plan(input: &Input<'_>, facts: &[Fact], spec: &FtSpec, watch: &mut dyn FnMut(Progress)) -> Result<Plan> {
    let layers = filled(spec.layers.as_ref());
    let lessons = facts.iter().map(|fact| Lesson::new(input.tokenizer, fact, spec.objective));
    let lessons = lessons.collect::<Result<Vec<_>>>()?;
    for lesson in &lessons {
        input.model.check_length(lesson.ids.len(), "the prompt with its target")?;
    }
    let batches = batches(input.model, &lessons, layers[0]);
    let mut training = Training::new(input.model, layers);
    let mut trace = Vec::new();
    let mut notes = Vec::new();
    for step in 0..spec.num_steps {
        let (found, gradients) = training.evaluate(input.model, &batches).await?;
        let loss = found.nll.iter().sum::<f64>() / facts.len() as f64;
        if !loss.is_finite() {
            let hint = "; a smaller lr or a norm_constraint may help".into();
            return Err(Error::NotFinite { what: format!("the loss at step {step}"), hint });
        }
        for step in found.steps(step) {
            watch(Progress::Optimizing { step, steps: spec.num_steps });
            trace.push(step);
        }
        if loss < GOOD_ENOUGH {
            if step == 0 {
                notes.push("the model knew the targets already, so nothing was trained".into());
            }
            break;
        }
        training.step(gradients, facts.len(), spec);
    }
    trace.sort_by_key(|step| (step.fact, step.step));
    Ok(Plan { notes, ..Plan::new(training.deltas(), trace) })
}

/// A fact as a row of tokens, with what some of its positions should predict.
struct Lesson {
    ids: Vec<u32>,
    /// Positions in `ids`, one for each token of the target.
    at: Vec<usize>,
    target: Vec<u32>,
}

impl Lesson {
    fn new(tokenizer: &Tokenizer, fact: &Fact, objective: FtObjective) -> Result<Self> {
        fact.validate()?;
        let Followed { prompt: mut ids, target } = tokenizer.followed(&fact.prompt, &fact.target_new)?;
        let last = ids.len() - 1;
        let at = match objective {
            FtObjective::PromptLast => vec![last; target.len()],
            FtObjective::TargetNew => {
                ids.extend(&target[..target.len() - 1]);
                (last..last + target.len()).collect()
            }
        };
        Ok(Self { ids, at, target })
    }
}

/// Some facts in one padded array, with everything computed that training does not change.
struct Batch {
    /// The residual stream before the first trained layer, `[facts, pos, d_model]`.
    hidden: Tensor<3>,
    frame: Frame,
    /// Where the logits of target tokens lie, fact by fact.
    at: Vec<usize>,
    /// The tokens.
    targets: Vec<usize>,
    /// How many of them each fact has.
    lens: Vec<usize>,
    /// What each token's log-likelihood counts in the sum of the facts' losses: `[target tokens, 1]`.
    weights: Tensor<2>,
}

/// Lays out facts in batches that fit a device, and runs what lies below layer `first`.
fn batches(model: &Model, lessons: &[Lesson], first: usize) -> Vec<Batch> {
    /// Tokens of a batch.
    const TOKENS: usize = 1024;
    let longest = lessons.iter().map(|lesson| lesson.ids.len()).max().unwrap_or(1);
    lessons.chunks((TOKENS / longest).max(1)).map(|lessons| Batch::new(model, lessons, first)).collect()
}

impl Batch {
    fn new(model: &Model, lessons: &[Lesson], first: usize) -> Self {
        let device = model.device();
        let rows: Vec<&[u32]> = lessons.iter().map(|lesson| lesson.ids.as_slice()).collect();
        let lens: Vec<usize> = rows.iter().map(|row| row.len()).collect();
        let mut past = Cache::empty(rows.len(), model.shape().layers);
        let frame = Frame::new(&past, &lens, &device);
        let hidden = model.run(0..first, model.embed(&padded(&rows), &frame), &frame, &mut past, &mut NoTap);
        let at: Vec<usize> = lessons
            .iter()
            .enumerate()
            .flat_map(|(i, lesson)| lesson.at.iter().map(move |pos| (i, *pos)))
            .map(|(i, pos)| frame.flat(i, pos))
            .collect();
        let targets = lessons.iter().flat_map(|lesson| lesson.target.iter().map(|id| *id as usize)).collect();
        let lens: Vec<usize> = lessons.iter().map(|lesson| lesson.target.len()).collect();
        let weights = lens.iter().flat_map(|len| std::iter::repeat_n(-1.0 / *len as f64, *len));
        let weights = column(weights, &states_at(hidden.clone(), &[0]));
        Self { hidden, frame, at, targets, lens, weights }
    }

    /// Each target token's log-likelihood, with the layers from `first` on as they are in `model`: `[target tokens, 1]`.
    fn log_likelihoods(&self, model: &Model, first: usize) -> Tensor<2> {
        let shape = model.shape();
        let mut past = Cache::empty(self.frame.dims()[0], shape.layers);
        let hidden = model.run(first..shape.layers, self.hidden.clone(), &self.frame, &mut past, &mut NoTap);
        log_likelihoods(model.logits(states_at(hidden, &self.at)), &self.targets)
    }
}

/// The matrices on their way.
struct Training {
    sites: Vec<WeightSite>,
    /// How far each has moved, `[d_mlp, d_model]`.
    changes: Vec<Adam>,
}

/// What an evaluation found.
struct Found {
    /// Fact by fact.
    nll: Vec<f64>,
    /// Frobenius norm of all changes together.
    change: f64,
}

impl Found {
    /// One entry of the trace for each fact.
    fn steps(&self, step: usize) -> impl Iterator<Item = Step> {
        let delta_norm = self.change;
        self.nll.iter().enumerate().map(move |(fact, nll)| Step {
            fact,
            step,
            nll: *nll,
            kl: 0.0,
            weight_decay: 0.0,
            p_target: (-nll).exp(),
            delta_norm,
        })
    }
}

impl Training {
    fn new(model: &Model, layers: &[usize]) -> Self {
        let sites = layers.iter().map(|layer| WeightSite { layer: *layer, matrix: Matrix::MlpDown });
        let sites: Vec<WeightSite> = sites.collect();
        let Shape { d_mlp, d_model, .. } = model.shape();
        let changes = sites.iter().map(|_| Adam::new([d_mlp, d_model], &model.device())).collect();
        Self { sites, changes }
    }

    /// The loss of every fact, and the gradient of their sum in each matrix.
    async fn evaluate(&self, model: &Model, batches: &[Batch]) -> Result<(Found, Vec<Tensor<2>>)> {
        let changes = self.moved();
        let squares = changes.iter().map(|change| (change.clone() * change.clone()).sum());
        let change = squares.reduce(|sum, square| sum + square).expect("a layer is trained").sqrt();
        let change = f64::from(read(change).await?[0]);
        let mut nll = Vec::new();
        let mut gradients: Vec<Tensor<2>> = changes.iter().map(Tensor::zeros_like).collect();
        for batch in batches {
            // The gradient in the change is the one in the matrix, W = W₀ + ΔW. Backward consumes that sum, so each batch
            // makes its own.
            let tracked: Vec<Tensor<2>> =
                changes.iter().map(|change| change.clone().autodiff().require_grad()).collect();
            let log_p = batch.log_likelihoods(&model.apply(&self.deltas_of(&tracked))?, self.sites[0].layer);
            let read = read(log_p.clone().inner()).await?;
            nll.extend(means(&read, batch.lens.iter().copied()).into_iter().map(|mean| -mean));
            let mut found = (log_p * batch.weights.clone()).backward();
            for (sum, tracked) in gradients.iter_mut().zip(&tracked) {
                *sum = sum.clone() + tracked.grad_remove(&mut found).expect("the change is tracked");
            }
        }
        Ok((Found { nll, change }, gradients))
    }

    /// One step of Adam along the mean gradient of `facts`, and back within the constraint.
    fn step(&mut self, gradients: Vec<Tensor<2>>, facts: usize, spec: &FtSpec) {
        let held = Held { reach: spec.norm_constraint.unwrap_or(Held::FREE.reach), ..Held::FREE };
        for (change, gradient) in self.changes.iter_mut().zip(gradients) {
            let rows = gradient.dims()[0];
            change.step(gradient / facts as f64, spec.lr, std::iter::repeat_n(held, rows));
        }
    }

    /// How far each matrix has moved.
    fn moved(&self) -> Vec<Tensor<2>> {
        self.changes.iter().map(Adam::rows).collect()
    }

    fn deltas(&self) -> Vec<WeightDelta> {
        self.deltas_of(&self.moved())
    }

    fn deltas_of(&self, changes: &[Tensor<2>]) -> Vec<WeightDelta> {
        let pairs = self.sites.iter().zip(changes);
        pairs.map(|(site, change)| WeightDelta { site: *site, delta: Delta::Dense(change.clone()) }).collect()
    }
}
