//! The steps that locate-and-edit methods share: a fact as rows of tokens, the keys and outputs at the token that is
//! edited, and the optimisation of the value that should stand there.
//!
//! δ enters the residual stream at one token of one layer. Everything before that token, and everything below that
//! layer, never changes during an optimisation: it is computed once, and each step runs only the later tokens of the
//! upper layers. This is exact, because attention is causal.

use burn::tensor::{Tensor, activation::log_softmax};
use rectify_protocol::{Fact, FactToken, Step};

use super::contexts::SLOT;
use crate::{
    Error, Result,
    model::{
        At, Cache, Capture, Frame, Model, NoTap, Site,
        generate::{index_tensor, states_at},
        padded,
    },
    read::read,
    tokenizer::{Tokenizer, spaced},
};

/// Adam's decay rates and guard against division by zero, as in the reference.
const ADAM: (f64, f64, f64) = (0.9, 0.999, 1e-8);
/// The loop ends when the loss is below this.
const GOOD_ENOUGH: f64 = 0.05;

/// Hyper-parameters of the optimisation; see [`rectify_protocol::RomeSpec`] for each.
#[derive(Clone, Copy, Debug)]
pub struct ValueSpec {
    /// Evaluations of the loss, at most.
    pub steps: usize,
    /// Learning rate.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Radius of the ball for δ, in units of `‖t₀‖`.
    pub clamp: f64,
    /// Weight of the divergence.
    pub kl: f64,
}

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
        let target = tokenizer.encode_target(&fact.target_new)?;
        let shown = tokenizer.decode(&target[..target.len() - 1])?;
        let subject_end = fact.prompt.find(&fact.subject).expect("validated") + fact.subject.len();
        let mut contexts = Vec::with_capacity(templates.len());
        for template in templates {
            let (before, after) = template.split_once(SLOT).expect("templates have a slot");
            let asked = format!("{before}{}{after}", fact.prompt);
            // decode() drops the space that a sentence-piece vocabulary keeps inside its first piece.
            let shown = if shown.is_empty() { String::new() } else { spaced(&shown) };
            let ids = tokenizer.encode(&format!("{asked}{shown}"))?;
            let read_up_to = match token {
                FactToken::SubjectLast => format!("{before}{}", &fact.prompt[..subject_end]),
                FactToken::Last => asked.clone(),
            };
            let lookup = tokenizer.encode(&read_up_to)?.len().saturating_sub(1);
            model.check_length(ids.len(), "the prompt with its context and target")?;
            if ids.len() < target.len() + lookup {
                return Err(Error::bad_input(format!(
                    "the target {:?} runs into the subject's tokens in {asked:?}",
                    fact.target_new
                )));
            }
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

/// A fact on a model, with everything computed that no δ can change.
pub struct Prepared {
    layer: usize,
    n_contexts: usize,
    /// Keys at the edited token, one row per context: `[contexts, d_mlp]`.
    pub keys: Tensor<2>,
    /// Outputs of the down projection there: `[contexts, d_model]`.
    pub outputs: Tensor<2>,
    /// The residual stream after `layer` from the edited token on: `[rows, pos, d_model]`.
    hidden: Tensor<3>,
    /// Its geometry.
    frame: Frame,
    /// Keys and values of the positions before, in the layers above.
    past: Cache,
    /// Where the logits of target tokens, context by context, and of the subject alone lie.
    asked: Vec<usize>,
    /// The target's tokens, once per context.
    targets: Vec<usize>,
}

impl Prepared {
    /// Runs `rows` through `model` once.
    pub fn new(model: &Model, rows: &FactRows, layer: usize) -> Result<Self> {
        model.check_layer(layer)?;
        let device = model.device();
        let shape = model.shape();
        let all: Vec<&Row> = rows.rows().collect();
        let ids: Vec<&[u32]> = all.iter().map(|row| row.ids.as_slice()).collect();
        let lens: Vec<usize> = ids.iter().map(|ids| ids.len()).collect();

        // Everything, up to and including the edited layer.
        let mut past = Cache::empty(all.len(), shape.layers);
        let whole = Frame::new(&past, &lens, &device);
        let (key_at, out_at) = (Site { layer, at: At::MlpKey }, Site { layer, at: At::MlpOut });
        let mut capture = Capture::new(&[key_at, out_at]);
        let hidden = model.embed(&padded(&ids), &whole);
        let hidden = model.run(0..layer + 1, hidden, &whole, &mut past, &mut capture);
        let lookups: Vec<usize> = rows.contexts.iter().enumerate().map(|(i, row)| whole.flat(i, row.lookup)).collect();
        let keys = states_at(capture.take(key_at), &lookups);
        let outputs = states_at(capture.take(out_at), &lookups);

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
        let frame = Frame::new(&past, &suffixes, &device);
        let [n_rows, width] = frame.dims();
        let at: Vec<usize> = all
            .iter()
            .enumerate()
            .flat_map(|(i, row)| {
                let last = row.ids.len() - 1;
                (0..width).map(move |pos| (i, (row.lookup + pos).min(last)))
            })
            .map(|(i, pos)| whole.flat(i, pos))
            .collect();
        let hidden = states_at(hidden, &at).reshape([n_rows, width, shape.d_model]);

        let n_target = rows.target.len();
        let mut asked = Vec::with_capacity(rows.contexts.len() * n_target + 1);
        for (i, len) in suffixes[..rows.contexts.len()].iter().enumerate() {
            asked.extend((len - n_target..*len).map(|pos| frame.flat(i, pos)));
        }
        asked.push(frame.flat(rows.contexts.len(), suffixes[rows.contexts.len()] - 1));
        let targets = rows.contexts.iter().flat_map(|_| rows.target.iter().map(|id| *id as usize)).collect();
        Ok(Self { layer, n_contexts: rows.contexts.len(), keys, outputs, hidden, frame, past, asked, targets })
    }

    /// The value at the edited token before any change, `t₀ [1, d_model]`: the bare prompt's.
    pub fn value(&self) -> Tensor<2> {
        self.outputs.clone().narrow(0, 0, 1)
    }

    /// Finds the shift δ that makes the contexts predict the target while the bare subject says what it said.
    ///
    /// Minimises `mean_c(−1/T Σ_j log p(y_j)) + kl · KL(p ‖ p₀) + weight_decay · ‖δ‖ / ‖t₀‖²` with Adam, projecting δ
    /// onto `‖δ‖ ≤ clamp · ‖t₀‖` after each step: ROME eq. 4 and its released code. `p₀` is the distribution at δ = 0.
    ///
    /// Returns δ `[1, d_model]` and what each evaluation found; one number is read from the device in each.
    ///
    /// # Errors
    ///
    /// When the loss leaves the finite numbers.
    pub async fn optimize(
        &self,
        model: &Model,
        spec: ValueSpec,
        watch: &mut dyn FnMut(Step),
    ) -> Result<(Tensor<2>, Vec<Step>)> {
        let t0_norm = f64::from(read(norm(self.value())).await?[0]);
        let radius = spec.clamp * t0_norm;
        let decay = spec.weight_decay / (t0_norm * t0_norm);
        let mut delta = self.value().zeros_like();
        let (mut mean, mut variance) = (delta.clone(), delta.clone());
        let mut initial = None;
        let mut trace = Vec::with_capacity(spec.steps);
        for step in 0..spec.steps {
            let tracked = delta.clone().autodiff().require_grad();
            let log_p = self.log_probabilities(model, tracked.clone());
            let n_targets = self.targets.len();
            let index = index_tensor(&self.targets, &self.keys).reshape([n_targets, 1]);
            let picked = log_p.clone().narrow(0, 0, n_targets).gather(1, index); // [contexts · T, 1]
            let per_context = -picked.reshape([self.n_contexts, n_targets / self.n_contexts]).mean_dim(1);
            let nll = per_context.clone().mean();
            let current = log_p.narrow(0, n_targets, 1); // [1, vocab]
            let initial = initial.get_or_insert_with(|| current.clone().inner()).clone();
            let kl = (current.clone().exp() * (current - initial)).sum() * spec.kl;

            let p_target = (-per_context).exp().mean();
            let found =
                Tensor::cat(vec![nll.clone().inner(), kl.clone().inner(), p_target.inner(), norm(delta.clone())], 0);
            let [nll_now, kl_now, p_target, delta_norm] = read(found).await?[..] else { unreachable!("four numbers") };
            let [nll_now, kl_now, p_target, delta_norm] = [nll_now, kl_now, p_target, delta_norm].map(f64::from);
            let now = Step { step, nll: nll_now, kl: kl_now, weight_decay: decay * delta_norm, p_target, delta_norm };
            if !now.loss().is_finite() {
                return Err(Error::NotFinite {
                    what: format!("the loss at step {step}"),
                    hint: "; a smaller v_lr or clamp_norm_factor may help".into(),
                });
            }
            watch(now);
            trace.push(now);
            if now.loss() < GOOD_ENOUGH || step + 1 == spec.steps {
                break;
            }

            let gradients = (nll + kl).backward();
            let gradient = tracked.grad(&gradients).expect("δ is tracked");
            // The gradient of ‖δ‖ is δ/‖δ‖, and 0 at 0, where an automatic one would be NaN.
            let pull = if delta_norm > 0.0 { decay / delta_norm } else { 0.0 };
            let gradient = gradient + delta.clone() * pull;

            let (rate_1, rate_2, epsilon) = ADAM;
            let t = i32::try_from(step + 1).expect("few steps");
            mean = mean * rate_1 + gradient.clone() * (1.0 - rate_1);
            variance = variance * rate_2 + gradient.clone() * gradient * (1.0 - rate_2);
            let scale = (variance.clone() / (1.0 - rate_2.powi(t))).sqrt() + epsilon;
            delta = delta - mean.clone() / scale * (spec.lr / (1.0 - rate_1.powi(t)));
            let shrink = (norm(delta.clone()).recip() * radius).clamp_max(1.0);
            delta = delta * shrink.unsqueeze();
        }
        Ok((delta, trace))
    }

    /// `[contexts · T + 1, vocab]`: of each target token in each context, then of what follows the subject alone.
    fn log_probabilities(&self, model: &Model, delta: Tensor<2>) -> Tensor<2> {
        let [rows, width, d] = self.hidden.dims();
        let edited = self.hidden.clone().narrow(1, 0, 1) + delta.reshape([1, 1, d]);
        let hidden =
            if width == 1 { edited } else { Tensor::cat(vec![edited, self.hidden.clone().narrow(1, 1, width - 1)], 1) };
        debug_assert_eq!(self.frame.dims(), [rows, width]);
        let mut past = self.past.clone();
        let hidden = model.run(self.layer + 1..model.shape().layers, hidden, &self.frame, &mut past, &mut NoTap);
        log_softmax(model.logits(states_at(hidden, &self.asked)), 1)
    }
}

/// `‖x‖`, one number.
fn norm(x: Tensor<2>) -> Tensor<1> {
    (x.clone() * x).sum().sqrt()
}
