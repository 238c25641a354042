//! How the hypernetwork learns: each step edits one fact, asks the edited model, and follows the answer's gradient back
//! through the edit.
//!
//! The model's weights stay as they are. What a step reads and the gradients it transforms count as constants, so a
//! step is three passes and two passes back, and all but the last blocks are untracked in each of them.

use std::ops::Range;

use burn::tensor::{Tensor, activation::log_softmax};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rectify_protocol::{Fact, MendTraining, OuterPrompt};

use super::{
    gradients::{Text, Tokens, logits},
    network::{Hypernetwork, Learnt, Origin},
    statistics::{self, Normal, Statistics},
};
use crate::{
    Error, Result,
    kernels::picked,
    model::{LoadedModel, Model, NoTap},
    read::read,
};

/// A fact as training sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// What is edited.
    pub edit: Text,
    /// What the edited model should answer, at least one.
    pub outer: Vec<Text>,
    /// What should stay as it is, at least one.
    pub locality: Vec<Locality>,
}

/// A row of tokens, and where in it predictions should stay as they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Locality {
    /// Prompt and answer.
    pub ids: Vec<u32>,
    /// The positions that predict the answer.
    pub at: Range<usize>,
}

/// What one step does.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// What is edited.
    pub edit: &'a Text,
    /// What the edited model should answer.
    pub outer: &'a Text,
    /// What should stay as it is.
    pub locality: &'a Locality,
}

/// What the edited model was found to do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    /// Mean negative log-likelihood of the outer prompt's labels.
    pub edit: f64,
    /// Mean `KL(before ‖ after)` over the locality's positions.
    pub locality: f64,
    /// The share of the outer prompt's labels that are the likeliest token.
    pub accuracy: f64,
}

impl Losses {
    /// `cedit · edit + cloc · locality`: MEND eq. 4.
    pub fn total(&self, settings: &MendTraining) -> f64 {
        settings.cedit * self.edit + settings.cloc * self.locality
    }
}

impl Example {
    /// Lays out a fact.
    ///
    /// # Errors
    ///
    /// When it is not valid, does not fit the context, or names nothing that should stay as it is.
    pub fn new(of: &LoadedModel, fact: &Fact, outer: OuterPrompt) -> Result<Self> {
        fact.validate()?;
        let text = |prompt: &str| Text::new(&of.tokenizer, &of.model, prompt, &fact.target_new);
        let edit = text(&fact.prompt)?;
        let outer = match outer {
            OuterPrompt::Rephrase if !fact.paraphrases.is_empty() => {
                fact.paraphrases.iter().map(|prompt| text(prompt)).collect::<Result<_>>()?
            }
            OuterPrompt::Rephrase | OuterPrompt::Prompt => vec![edit.clone()],
        };
        let locality = fact.neighbors.iter().map(|neighbor| {
            // Without an answer there is one place to look at: where it would begin.
            let text =
                Text::new(&of.tokenizer, &of.model, &neighbor.prompt, neighbor.target.as_deref().unwrap_or("the"))?;
            let at = text.positions();
            let at = if neighbor.target.is_some() { at } else { at.start..at.start + 1 };
            Ok(Locality { ids: text.ids, at })
        });
        let locality: Vec<Locality> = locality.collect::<Result<_>>()?;
        if locality.is_empty() {
            return Err(Error::bad_input("the fact names no other question, whose answer training should keep"));
        }
        Ok(Self { edit, outer, locality })
    }

    /// One way to use it: the paraphrases and other questions take turns.
    fn task(&self, turn: usize) -> Task<'_> {
        Task {
            edit: &self.edit,
            outer: &self.outer[turn % self.outer.len()],
            locality: &self.locality[turn % self.locality.len()],
        }
    }
}

/// A hypernetwork that is being trained. A step that is dropped or fails has changed nothing.
#[derive(Clone)]
pub struct Trainer {
    pub(super) model: Model,
    /// As it is now.
    pub(super) network: Hypernetwork,
    pub(super) adam: Adam,
    /// Gradients since the last update, and of how many steps.
    pub(super) sum: Learnt,
    pub(super) summed: usize,
    /// Steps that were left out because a number was not finite.
    pub(super) skipped: usize,
    /// Steps at the last validation.
    pub(super) validated: usize,
    pub(super) best: Option<Best>,
    pub(super) order: Order,
}

/// The hypernetwork that did best on facts it was not trained on.
#[derive(Clone)]
pub struct Best {
    /// As it was then.
    pub network: Hypernetwork,
    /// How it did.
    pub losses: Losses,
}

/// What one step found, before anything is changed.
pub struct Outcome {
    /// What the edited model does.
    pub losses: Losses,
    /// Gradients of the total loss, arranged as what is learnt.
    pub gradients: Learnt,
    /// The statistics with this step's tokens.
    pub statistics: Vec<Statistics>,
    /// Squared norm of all gradients together.
    norm: f64,
}

impl Trainer {
    /// Begins anew on a model, with its own matrices.
    ///
    /// # Errors
    ///
    /// When a setting is impossible.
    pub fn new(of: &LoadedModel, origin: Origin) -> Result<Self> {
        origin.settings.validate()?;
        Ok(Self::with(of, Hypernetwork::new(of, &Hypernetwork::sites_of(&of.model), Origin { steps: 0, ..origin })))
    }

    /// Goes on with a hypernetwork, as if it had just been updated for the first time.
    pub fn with(of: &LoadedModel, network: Hypernetwork) -> Self {
        let zeros = network.learnt.map(|tensor| tensor.zeros_like());
        Self {
            model: of.model.clone(),
            adam: Adam { mean: zeros.clone(), variance: zeros.clone(), updates: 0 },
            sum: zeros,
            network,
            summed: 0,
            skipped: 0,
            validated: 0,
            best: None,
            order: Order::default(),
        }
    }

    /// Steps so far.
    pub fn steps(&self) -> usize {
        self.network.origin.steps
    }

    /// Steps that were left out because a number was not finite.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// The hypernetwork as it is now.
    pub fn network(&self) -> &Hypernetwork {
        &self.network
    }

    /// The best one so far, once there was a validation.
    pub fn best(&self) -> Option<&Best> {
        self.best.as_ref()
    }

    fn settings(&self) -> &MendTraining {
        &self.network.origin.settings
    }

    /// Whether [`Self::validate`] is due before the next step, of which `limit` will be made in all.
    pub fn owes_validation(&self, limit: usize) -> bool {
        let steps = self.steps();
        steps > self.validated && (steps.is_multiple_of(self.settings().validate_every) || steps >= limit)
    }

    /// Whether so many steps have been made since the best validation that there is no hope of a better one.
    pub fn has_stalled(&self) -> bool {
        let best = self.best.as_ref().map_or(0, |best| best.network.origin.steps);
        self.best.is_some() && self.validated >= best + self.settings().patience
    }

    /// The task of the next step. All examples pass once in an order of their own before any comes again.
    ///
    /// # Panics
    ///
    /// When there is no example.
    pub fn draw<'a>(&mut self, examples: &'a [Example]) -> Task<'a> {
        let (steps, seed) = (self.steps(), self.settings().seed);
        let epoch = steps / examples.len();
        examples[self.order.of(seed, epoch, examples.len())[steps % examples.len()]].task(epoch)
    }

    /// Edits one fact and learns from it. A step whose numbers are not finite is counted and otherwise left out.
    pub async fn step(&mut self, task: &Task<'_>) -> Result<Losses> {
        let outcome = self.differentiate(task).await?;
        let (accumulate, steps) = (self.settings().accumulate, self.steps() + 1);
        let mut next = self.clone();
        next.network.origin.steps = steps;
        if outcome.norm.is_finite() && outcome.losses.total(self.settings()).is_finite() {
            next.network.statistics = outcome.statistics;
            next.sum = next.sum.zip(&outcome.gradients, |sum, gradient| sum + gradient / accumulate as f64);
            next.summed += 1;
        } else {
            next.skipped += 1;
        }
        if steps.is_multiple_of(accumulate) && next.summed > 0 {
            next.update().await?;
        }
        *self = next;
        Ok(outcome.losses)
    }

    /// What one step finds: `L = cedit · NLL + cloc · KL` of the edited model, and its gradients with respect to
    /// everything that is learnt.
    pub async fn differentiate(&self, task: &Task<'_>) -> Result<Outcome> {
        let network = &self.network;
        let tokens = Tokens::of(&self.model, &network.sites(), std::slice::from_ref(task.edit)).await?;
        let (normal, statistics) = statistics::learn_and_normalize(
            network.statistics.clone(),
            &network.parameters,
            &tokens,
            &self.model.device(),
        )?;
        let tracked = network.learnt.map(|tensor| tensor.autodiff().require_grad());
        let outer = self.outer(&tracked, &normal, task)?;
        let settings = self.settings();
        let total = outer.edit.clone() * settings.cedit + outer.locality.clone() * settings.cloc;
        // Without a token to learn from, nothing of the edited model is tracked.
        let gradients = if normal.iter().all(Option::is_none) {
            network.learnt.map(|tensor| tensor.zeros_like())
        } else {
            let found = total.backward();
            // A network whose matrices had no tokens took no part.
            tracked.map(|tensor| tensor.grad(&found).unwrap_or_else(|| tensor.inner().zeros_like()))
        };
        let numbers = read(Tensor::cat(vec![outer.numbers(), gradients.squared_norm()], 0)).await?;
        let losses = Losses::of(&numbers);
        Ok(Outcome { losses, gradients, statistics, norm: f64::from(numbers[3]) })
    }

    /// Asks the edited model. `learnt` may be tracked.
    fn outer(&self, learnt: &Learnt, normal: &[Option<Normal>], task: &Task<'_>) -> Result<Outer> {
        let alphas = self.network.order_of_list();
        let deltas = learnt.changes(&self.network.parameters, normal, &alphas, 1.0);
        let edited = self.model.apply(&deltas)?;
        let locality = (task.locality.ids.as_slice(), task.locality.at.clone());
        let before = log_probabilities(&self.model, std::slice::from_ref(&locality)); // [positions, vocab]
        let asked = [(task.outer.ids.as_slice(), task.outer.positions()), locality];
        let log_p = log_probabilities(&edited, &asked); // [labels + positions, vocab]
        let (n, positions) = (task.outer.labels.len(), before.dims()[0]);
        let answers = log_p.clone().narrow(0, 0, n);
        let labels: Vec<usize> = task.outer.labels.iter().map(|id| *id as usize).collect();
        let right = picked(answers.clone(), &labels); // [labels, 1]
        let best = answers.inner().max_dim(1);
        let after = log_p.narrow(0, n, positions);
        Ok(Outer {
            accuracy: right.clone().inner().greater_equal(best).float().mean(),
            edit: -right.mean(),
            locality: (before.clone().exp() * (before - after)).sum() / positions as f64,
        })
    }

    /// One update by Adam, with the gradients scaled down to the norm that `clip` allows.
    async fn update(&mut self) -> Result<()> {
        let norm = read(self.sum.squared_norm().sqrt()).await?[0];
        let scale = (self.settings().clip / (f64::from(norm) + 1e-6)).min(1.0);
        let gradients = self.sum.map(|gradient| gradient * scale);
        let (adam, learnt) = self.adam.update(&self.network.learnt, &gradients, self.settings().lr);
        (self.adam, self.network.learnt) = (adam, learnt);
        self.sum = self.sum.map(|tensor| tensor.zeros_like());
        self.summed = 0;
        Ok(())
    }

    /// How the hypernetwork does on facts it is not trained on, as it will be used: with statistics that stay. `watch`
    /// is told how many are done. Keeps it when it does better than before, in the total loss.
    ///
    /// # Errors
    ///
    /// When there is no example, or no token was seen in training.
    pub async fn validate(&mut self, examples: &[Example], watch: &mut dyn FnMut(usize)) -> Result<Losses> {
        if examples.is_empty() {
            return Err(Error::bad_input("there is no fact to validate with"));
        }
        let mut mean = Losses::default();
        for (done, example) in examples.iter().enumerate() {
            let losses = self.evaluate(&example.task(0)).await?;
            let share = 1.0 / examples.len() as f64;
            mean.edit += share * losses.edit;
            mean.locality += share * losses.locality;
            mean.accuracy += share * losses.accuracy;
            watch(done + 1);
        }
        let score = mean.total(self.settings());
        // What is not a number is not better.
        let better = match &self.best {
            None => score.is_finite(),
            Some(best) => score < best.losses.total(self.settings()),
        };
        if better {
            self.best = Some(Best { network: self.network.clone(), losses: mean });
        }
        self.validated = self.steps();
        Ok(mean)
    }

    async fn evaluate(&self, task: &Task<'_>) -> Result<Losses> {
        let network = &self.network;
        let tokens = Tokens::of(&self.model, &network.sites(), std::slice::from_ref(task.edit)).await?;
        let device = self.model.device();
        let normal = statistics::normalize(&network.statistics, &network.parameters, &tokens, &device)?;
        let outer = self.outer(&network.learnt, &normal, task)?;
        Ok(Losses::of(&read(outer.numbers()).await?))
    }
}

/// What the edited model does, each `[1]`.
struct Outer {
    edit: Tensor<1>,
    locality: Tensor<1>,
    accuracy: Tensor<1>,
}

impl Outer {
    /// As [`Losses::of`] takes them.
    fn numbers(&self) -> Tensor<1> {
        Tensor::cat([&self.edit, &self.locality, &self.accuracy].map(|number| number.clone().inner()).to_vec(), 0)
    }
}

impl Losses {
    fn of(numbers: &[f32]) -> Self {
        let [edit, locality, accuracy] = [0, 1, 2].map(|i| f64::from(numbers[i]));
        Self { edit, locality, accuracy }
    }
}

/// Adam's memory, <https://arxiv.org/abs/1412.6980>.
#[derive(Clone)]
pub(super) struct Adam {
    pub(super) mean: Learnt,
    pub(super) variance: Learnt,
    pub(super) updates: i32,
}

impl Adam {
    /// Its memory after one more update, and what is learnt then.
    fn update(&self, learnt: &Learnt, gradients: &Learnt, lr: f64) -> (Self, Learnt) {
        let (rate_1, rate_2, epsilon) = (0.9, 0.999, 1e-8);
        let updates = self.updates + 1;
        let mean = self.mean.zip(gradients, |mean, gradient| mean * rate_1 + gradient * (1.0 - rate_1));
        let variance = self
            .variance
            .zip(gradients, |variance, gradient| variance * rate_2 + gradient.clone() * gradient * (1.0 - rate_2));
        let (scale_1, scale_2) = (lr / (1.0 - f64::powi(rate_1, updates)), 1.0 / (1.0 - f64::powi(rate_2, updates)));
        let steps = mean.zip(&variance, |mean, variance| mean / ((variance * scale_2).sqrt() + epsilon) * scale_1);
        let learnt = learnt.zip(&steps, |value, step| value - step);
        (Self { mean, variance, updates }, learnt)
    }
}

/// In which order the examples of an epoch pass: a function of seed and epoch, remembered.
#[derive(Clone, Default)]
pub(super) struct Order {
    of: Option<(u64, usize)>,
    places: Vec<usize>,
}

impl Order {
    fn of(&mut self, seed: u64, epoch: usize, n: usize) -> &[usize] {
        if self.of != Some((seed, epoch)) || self.places.len() != n {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            // Stream 0 made the hypernetwork.
            rng.set_stream(epoch as u64 + 1);
            self.places = (0..n).collect();
            for i in (1..n).rev() {
                let other = (u64::from(rng.next_u32()) * (i as u64 + 1)) >> 32;
                self.places.swap(i, other as usize);
            }
            self.of = Some((seed, epoch));
        }
        &self.places
    }
}

/// Log-probabilities of what follows some positions of some rows, row by row: `[positions, vocab]`.
fn log_probabilities(model: &Model, rows: &[(&[u32], Range<usize>)]) -> Tensor<2> {
    log_softmax(logits(model, rows, &mut NoTap), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_passes_once_in_an_epoch() {
        let mut order = Order::default();
        let first = order.of(3, 0, 50).to_vec();
        let second = order.of(3, 1, 50).to_vec();
        assert_ne!(first, second);
        assert_eq!(order.of(3, 0, 50), first);
        for mut places in [first, second] {
            places.sort_unstable();
            assert_eq!(places, (0..50).collect::<Vec<_>>());
        }
    }
}
