//! The questions one can put to a model: what comes next, and how likely is this.

use burn::tensor::Tensor;
use rectify_protocol::Candidate;

use super::{
    Cache, Frame, Model, NoTap, Trunk,
    rows::{batches, index_tensor},
};
use crate::{
    Error, Result,
    kernels::{largest, log_likelihoods},
    read::{read, read_ids},
    tokenizer::{Followed, Tokenizer},
};

/// A row of tokens of which those from `from` on are to be predicted.
pub struct Scored {
    /// Prompt and target together.
    pub ids: Vec<u32>,
    /// Where the target begins; at least 1.
    pub from: usize,
}

impl Scored {
    /// A prompt and the target behind it.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::followed`].
    pub fn new(tokenizer: &Tokenizer, prompt: &str, target: &str) -> Result<Self> {
        let Followed { prompt, target } = tokenizer.followed(prompt, target)?;
        Ok(Self { from: prompt.len(), ids: [prompt, target].concat() })
    }
}

/// How a model does on one target token, given all true tokens before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenScore {
    /// Log-probability of the token, nats.
    pub log_p: f64,
    /// The token the model would have chosen.
    pub predicted: u32,
}

/// The last state of each row's last token: `[rows, d_model]`.
pub(crate) fn last_states(hidden: Tensor<3>, frame: &Frame, rows: &[&[u32]]) -> Tensor<2> {
    let at: Vec<usize> = rows.iter().enumerate().map(|(i, row)| frame.flat(i, row.len() - 1)).collect();
    states_at(hidden, &at)
}

/// The states at flat indices (see [`Frame::flat`]): `[indices, d_model]`.
pub(crate) fn states_at(hidden: Tensor<3>, at: &[usize]) -> Tensor<2> {
    let index = index_tensor(at, &hidden);
    hidden.flatten::<2>(0, 1).select(0, index)
}

impl Model {
    /// Logits of what follows each row, host side: one vector of `vocab` per row. Also the cache to go on with.
    pub(crate) async fn next_logits(&self, rows: &[&[u32]], past: &mut Cache) -> Result<Vec<Vec<f32>>> {
        let (hidden, frame) = self.extend(rows, past, &mut NoTap);
        let logits = read(self.logits(last_states(hidden, &frame, rows))).await?;
        Ok(logits.chunks(self.shape().vocab).map(<[f32]>::to_vec).collect())
    }

    /// Continues every prompt greedily by `tokens` tokens, or to one of `ends`, which is not part of it; in batches of a few
    /// thousand.
    ///
    /// # Errors
    ///
    /// When a prompt is empty, or a prompt and its continuation do not fit the context.
    pub async fn greedy(&self, prompts: &[Vec<u32>], tokens: usize, ends: &[u32]) -> Result<Vec<Vec<u32>>> {
        for prompt in prompts {
            self.check_prompt(prompt, tokens)?;
        }
        if prompts.is_empty() || tokens == 0 {
            return Ok(vec![Vec::new(); prompts.len()]);
        }
        let lens: Vec<usize> = prompts.iter().map(|prompt| prompt.len() + tokens).collect();
        let mut texts = Vec::new();
        for batch in batches(&lens) {
            let rows: Vec<&[u32]> = prompts[batch].iter().map(Vec::as_slice).collect();
            let mut past = Cache::empty(rows.len(), self.shape().layers);
            let (hidden, frame) = self.extend(&rows, &mut past, &mut NoTap);
            let continued = self.continued(last_states(hidden, &frame, &rows), past, tokens, ends).await?;
            texts.extend(continued.into_iter().map(|(ids, _)| ids));
        }
        Ok(texts)
    }

    /// The greedy continuation of each row of a pass, by up to `tokens` tokens or to one of `ends`, which is not part of
    /// it; and whether it ended so. `states` are those of the rows' last tokens, `[rows, d_model]`.
    pub(crate) async fn continued(
        &self,
        states: Tensor<2>,
        past: Cache,
        tokens: usize,
        ends: &[u32],
    ) -> Result<Vec<(Vec<u32>, bool)>> {
        let (mut states, mut past) = (states, past);
        let [n_rows, _] = states.dims();
        let mut texts = vec![(Vec::new(), false); n_rows];
        // The rows that have not ended yet.
        let mut live: Vec<usize> = (0..n_rows).collect();
        for step in 1..=tokens {
            let next = read_ids(largest(self.logits(states))).await?;
            let mut going_on = Vec::with_capacity(live.len());
            for (place, (id, row)) in next.iter().zip(&live).enumerate() {
                if ends.contains(id) {
                    texts[*row].1 = true;
                } else {
                    texts[*row].0.push(*id);
                    going_on.push(place);
                }
            }
            if going_on.is_empty() || step == tokens {
                break;
            }
            if going_on.len() < live.len() {
                past = past.only(&going_on);
                live = going_on.iter().map(|place| live[*place]).collect();
            }
            let new: Vec<&[u32]> = going_on.iter().map(|place| std::slice::from_ref(&next[*place])).collect();
            let (hidden, frame) = self.extend(&new, &mut past, &mut NoTap);
            states = last_states(hidden, &frame, &new);
        }
        Ok(texts)
    }

    /// The `top` likeliest tokens after a prompt, best first.
    pub async fn candidates(&self, tokenizer: &Tokenizer, prompt: &[u32], top: usize) -> Result<Vec<Candidate>> {
        self.check_prompt(prompt, 0)?;
        let mut past = Cache::empty(1, self.shape().layers);
        let logits = self.next_logits(&[prompt], &mut past).await?.remove(0);
        let total: f64 = {
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            logits.iter().map(|logit| f64::from(logit - max).exp()).sum::<f64>().ln() + f64::from(max)
        };
        if !total.is_finite() {
            let hint = "; the model's weights, or a change, lead out of what f32 holds".into();
            return Err(Error::NotFinite { what: "what the model says after this prompt".into(), hint });
        }
        best(&logits, top)
            .into_iter()
            .map(|id| Ok(Candidate(tokenizer.decode(&[id])?, (f64::from(logits[id as usize]) - total).exp())))
            .collect()
    }

    /// Scores the targets of several rows under teacher forcing, in batches of a few thousand tokens. Only target
    /// positions reach the head.
    ///
    /// # Errors
    ///
    /// When a row does not fit the context or its target has no token before it.
    ///
    /// # Panics
    ///
    /// When a target begins behind the end of its row.
    pub async fn score(&self, rows: &[Scored]) -> Result<Vec<Vec<TokenScore>>> {
        Ok(Self::score_each(std::slice::from_ref(self), rows).await?.remove(0))
    }

    /// The same for each of several variants of one model, `[model][row][token]`; what no edit changed is computed once.
    ///
    /// # Errors
    ///
    /// As [`Model::score`].
    ///
    /// # Panics
    ///
    /// As [`Model::score`].
    pub async fn score_each(models: &[Self], rows: &[Scored]) -> Result<Vec<Vec<Vec<TokenScore>>>> {
        let Some(first) = models.first() else { return Ok(Vec::new()) };
        for row in rows {
            assert!(row.from <= row.ids.len(), "a target begins within its row");
            first.check_prompt(&row.ids[..row.from], row.ids.len() - row.from)?;
        }
        let lens: Vec<usize> = rows.iter().map(|row| row.ids.len()).collect();
        let mut all = vec![Vec::new(); models.len()];
        for batch in batches(&lens) {
            for (all, scores) in all.iter_mut().zip(Self::score_batch(models, first, &rows[batch]).await?) {
                all.extend(scores);
            }
        }
        Ok(all)
    }

    async fn score_batch(models: &[Self], first: &Self, rows: &[Scored]) -> Result<Vec<Vec<Vec<TokenScore>>>> {
        let n_targets: usize = rows.iter().map(|row| row.ids.len() - row.from).sum();
        if n_targets == 0 {
            return Ok(models.iter().map(|_| rows.iter().map(|_| Vec::new()).collect()).collect());
        }
        let ids: Vec<&[u32]> = rows.iter().map(|row| row.ids.as_slice()).collect();
        let nothing = Cache::empty(rows.len(), first.shape().layers);
        let trunk = Trunk::new(models, &ids, &nothing);
        let (mut at, mut targets) = (Vec::with_capacity(n_targets), Vec::with_capacity(n_targets));
        for (i, row) in rows.iter().enumerate() {
            for pos in row.from..row.ids.len() {
                at.push(trunk.frame.flat(i, pos - 1));
                targets.push(row.ids[pos] as usize);
            }
        }
        let mut all = Vec::with_capacity(models.len());
        for model in models {
            let hidden = trunk.finish(model, &mut nothing.clone());
            let logits = model.logits(states_at(hidden, &at)); // [n_targets, vocab]
            let predicted = read_ids(largest(logits.clone())).await?;
            let log_p = read(log_likelihoods(logits, &targets)).await?;
            let mut scores = log_p.into_iter().zip(predicted);
            let mut take = |n| {
                let scores = scores.by_ref().take(n);
                // A ruined model whose logits are no numbers gives a token no probability.
                let log_p = |log_p: f32| if log_p.is_nan() { f64::NEG_INFINITY } else { f64::from(log_p) };
                scores.map(|(found, predicted)| TokenScore { log_p: log_p(found), predicted }).collect()
            };
            all.push(rows.iter().map(|row| take(row.ids.len() - row.from)).collect());
        }
        Ok(all)
    }

    fn check_prompt(&self, prompt: &[u32], new: usize) -> Result<()> {
        if prompt.is_empty() {
            return Err(Error::bad_input("the prompt is empty"));
        }
        let what = if new == 0 { "the prompt".into() } else { format!("the prompt with {new} more tokens") };
        self.check_length(prompt.len().saturating_add(new), &what)
    }
}

/// Indices of the `n` largest values, largest first; of equal ones the earlier first.
pub(crate) fn best(values: &[f32], n: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..values.len() as u32).collect();
    let by_value = |a: &u32, b: &u32| values[*b as usize].total_cmp(&values[*a as usize]).then(a.cmp(b));
    let n = n.min(order.len());
    if n == 0 {
        return Vec::new();
    }
    order.select_nth_unstable_by(n - 1, by_value);
    order.truncate(n);
    order.sort_unstable_by(by_value);
    order
}
