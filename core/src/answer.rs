use burn::tensor::Tensor;
use rectify_protocol::Continuation;

use crate::{
    Error, Result,
    model::{Cache, LoadedModel, Model, NoTap, generate::last_states},
    read::read_ids,
};

/// How the prompts of many questions were answered.
pub struct Answered {
    /// One for each prompt, in order; absent where prompt and answer do not fit the context.
    pub continuations: Vec<Option<Continuation>>,
    /// Tokens that went through the model, without those that a shared beginning saved.
    pub tokens: usize,
}

/// Continues every prompt greedily by up to `new_tokens` tokens, or to the end of its text.
///
/// `model` is `of`'s or an edited one. Prompts of about equal length go together, so that little is padding; what all
/// prompts of a batch begin with is computed once; a text that has ended leaves its batch. None of this changes an
/// answer. `watch` is told of prompts done.
///
/// # Errors
///
/// When a prompt has no tokens.
pub async fn answer(
    of: &LoadedModel,
    model: &Model,
    prompts: &[String],
    new_tokens: usize,
    watch: &mut dyn FnMut(usize),
) -> Result<Answered> {
    /// Tokens of a batch, padding included.
    const BATCH: usize = 4096;
    let rows = prompts.iter().map(|prompt| of.tokenizer.encode(prompt)).collect::<Result<Vec<_>>>()?;
    if let Some(empty) = rows.iter().position(Vec::is_empty) {
        return Err(Error::bad_input(format!("prompt {empty} has no tokens")));
    }
    let context = model.shape().context;
    let mut order: Vec<usize> = (0..rows.len()).filter(|row| rows[*row].len() + new_tokens <= context).collect();
    let mut done = rows.len() - order.len();
    // The longest first: what does not fit the memory shows at once.
    order.sort_by_key(|row| std::cmp::Reverse(rows[*row].len()));

    let mut answered = Answered { continuations: vec![None; rows.len()], tokens: 0 };
    let mut left = order.as_slice();
    while let Some(longest) = left.first() {
        let n = (BATCH / (rows[*longest].len() + new_tokens)).clamp(1, left.len());
        let (batch, rest) = left.split_at(n);
        let texts: Vec<&[u32]> = batch.iter().map(|row| rows[*row].as_slice()).collect();
        let (replies, tokens) = greedy_batch(of, model, &texts, new_tokens).await?;
        answered.tokens += tokens;
        for (row, (ids, ended)) in batch.iter().zip(replies) {
            answered.continuations[*row] = Some(Continuation { text: of.tokenizer.decode(&ids)?, ended });
        }
        done += n;
        watch(done);
        left = rest;
    }
    Ok(answered)
}

/// The continuation of each row and whether it ended by itself; also the tokens that were computed.
async fn greedy_batch(
    of: &LoadedModel,
    model: &Model,
    rows: &[&[u32]],
    new_tokens: usize,
) -> Result<(Vec<(Vec<u32>, bool)>, usize)> {
    let shared = shared_beginning(rows);
    let mut past = Cache::empty(1, model.shape().layers);
    if shared > 0 {
        model.extend(&[&rows[0][..shared]], &mut past, &mut NoTap);
    }
    let mut past = past.only(&vec![0; rows.len()]);
    let mut tokens = shared + rows.iter().map(|row| row.len() - shared).sum::<usize>();

    let mut replies = vec![(Vec::with_capacity(new_tokens), false); rows.len()];
    // The rows of the batch that have not ended yet, and what they go on with.
    let mut live: Vec<usize> = (0..rows.len()).collect();
    let mut new: Vec<Vec<u32>> = rows.iter().map(|row| row[shared..].to_vec()).collect();
    for step in 0..new_tokens {
        let next = next_tokens(model, &new, &mut past).await?;
        let mut going_on = Vec::with_capacity(live.len());
        for (place, (id, row)) in next.iter().zip(&live).enumerate() {
            if of.ends.contains(id) {
                replies[*row].1 = true;
            } else {
                replies[*row].0.push(*id);
                going_on.push(place);
            }
        }
        if going_on.is_empty() || step + 1 == new_tokens {
            break;
        }
        if going_on.len() < live.len() {
            past = past.only(&going_on);
            live = going_on.iter().map(|place| live[*place]).collect();
        }
        new = going_on.iter().map(|place| vec![next[*place]]).collect();
        tokens += new.len();
    }
    Ok((replies, tokens))
}

/// The likeliest token after each row's new ones.
async fn next_tokens(model: &Model, new: &[Vec<u32>], past: &mut Cache) -> Result<Vec<u32>> {
    let rows: Vec<&[u32]> = new.iter().map(Vec::as_slice).collect();
    let (hidden, frame) = model.extend(&rows, past, &mut NoTap);
    let logits: Tensor<2> = model.logits(last_states(hidden, &frame, &rows));
    read_ids(logits.argmax(1)).await
}

/// How many tokens all rows begin with, leaving each at least one of its own.
fn shared_beginning(rows: &[&[u32]]) -> usize {
    let [first, others @ ..] = rows else { return 0 };
    if others.is_empty() {
        return 0;
    }
    let common = |other: &&[u32]| first.iter().zip(*other).take_while(|(a, b)| a == b).count();
    let shortest = rows.iter().map(|row| row.len()).min().unwrap_or(0);
    others.iter().map(common).min().unwrap_or(0).min(shortest - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_share_what_all_begin_with_and_keep_a_token_each() {
        assert_eq!(shared_beginning(&[&[1, 2, 3], &[1, 2, 4, 5]]), 2);
        assert_eq!(shared_beginning(&[&[1, 2], &[1, 2, 3]]), 1);
        assert_eq!(shared_beginning(&[&[1, 2, 3]]), 0);
        assert_eq!(shared_beginning(&[&[1], &[2]]), 0);
    }
}
