use std::ops::Range;

use rectify_protocol::Continuation;

use crate::{
    Error, Result,
    model::{Cache, LoadedModel, Model, Trunk, generate::last_states},
    tokenizer::Tokenizer,
};

/// How the prompts of many questions were answered.
pub struct Answered {
    /// Of each model, one for each prompt, in order; absent where prompt and answer do not fit the context.
    pub continuations: Vec<Vec<Option<Continuation>>>,
    /// Tokens that went through the models, without those that a shared beginning saved.
    pub tokens: usize,
}

/// Continues every prompt greedily by up to `new_tokens` tokens, or to the end of its text, with each of `models`.
///
/// They are `of`'s model or variants of it. `watch` is told of prompts done. See [`Batches`], whose batches are
/// answered here one after another.
///
/// # Errors
///
/// When a prompt has no tokens.
///
/// # Panics
///
/// When there are no models.
pub async fn answer(
    of: &LoadedModel,
    models: &[Model],
    prompts: &[String],
    new_tokens: usize,
    watch: &mut dyn FnMut(usize),
) -> Result<Answered> {
    let batches = Batches::new(of, models, prompts, new_tokens, 1)?;
    let mut replies = Vec::with_capacity(models.len() * prompts.len());
    for batch in 0..batches.count() {
        replies.extend(batches.answer(batch).await?);
        watch(batches.done(&replies));
    }
    batches.finish(replies, &of.tokenizer)
}

/// Prompts sorted into batches, each of which can be answered by itself and at the same time as others.
///
/// Prompts of about equal length go together, so that little is padding; what all prompts begin with is computed once,
/// and so are the blocks that all models have in common; a text that has ended leaves its batch. None of this changes
/// an answer, but where two tokens are equally likely up to rounding.
pub struct Batches {
    models: Vec<Model>,
    /// The tokens that end a text.
    ends: Vec<u32>,
    new_tokens: usize,
    /// The prompts' tokens.
    rows: Vec<Vec<u32>>,
    /// Those that fit the context, the longest first.
    order: Vec<usize>,
    /// How many tokens all of them begin with.
    shared: usize,
    /// What each model knows of these.
    pasts: Vec<Cache>,
    /// Parts of `order`.
    parts: Vec<Range<usize>>,
}

/// The continuation of a prompt.
pub struct Reply {
    /// The model, by its place among all.
    model: usize,
    /// The prompt, by its place among all.
    prompt: usize,
    ids: Vec<u32>,
    /// Whether it ended by itself.
    ended: bool,
}

impl Batches {
    /// Sorts prompts into batches of which `at_once` are meant to be answered at the same time.
    ///
    /// # Errors
    ///
    /// When a prompt has no tokens.
    ///
    /// # Panics
    ///
    /// When there are no models.
    pub fn new(
        of: &LoadedModel,
        models: &[Model],
        prompts: &[String],
        new_tokens: usize,
        at_once: usize,
    ) -> Result<Self> {
        let rows = prompts.iter().map(|prompt| of.tokenizer.encode(prompt)).collect::<Result<Vec<_>>>()?;
        if let Some(empty) = rows.iter().position(Vec::is_empty) {
            return Err(Error::bad_input(format!("prompt {empty} has no tokens")));
        }
        assert!(!models.is_empty(), "somebody answers");
        let shape = of.model.shape();
        let mut order: Vec<usize> =
            (0..rows.len()).filter(|row| rows[*row].len() + new_tokens <= shape.context).collect();
        order.sort_by_key(|row| std::cmp::Reverse(rows[*row].len()));

        let texts: Vec<&[u32]> = order.iter().map(|row| rows[*row].as_slice()).collect();
        let shared = shared_beginning(&texts);
        let mut pasts = vec![Cache::empty(1, shape.layers); models.len()];
        if shared > 0 {
            let trunk = Trunk::new(models, &[&texts[0][..shared]], &pasts[0]);
            for (model, past) in models.iter().zip(&mut pasts) {
                trunk.finish(model, past);
            }
        }
        let lens: Vec<usize> = texts.iter().map(|text| text.len() - shared).collect();
        let parts = parts(&lens, shared, new_tokens, at_once);
        let (models, ends) = (models.to_vec(), of.ends.clone());
        Ok(Self { models, ends, new_tokens, rows, order, shared, pasts, parts })
    }

    /// How many batches there are.
    pub fn count(&self) -> usize {
        self.parts.len()
    }

    /// How many prompts need nothing more when these replies are there.
    pub fn done(&self, replies: &[Reply]) -> usize {
        let skipped = self.rows.len() - self.order.len();
        skipped + replies.len() / self.models.len()
    }

    /// The continuations of one batch, by its number below [`Self::count`]: all of the first model, then the next.
    pub async fn answer(&self, batch: usize) -> Result<Vec<Reply>> {
        let prompts = &self.order[self.parts[batch].clone()];
        let rows: Vec<&[u32]> = prompts.iter().map(|prompt| &self.rows[*prompt][self.shared..]).collect();
        let depth = Trunk::depth(&self.models);
        let spread = |past: &Cache, layers| past.of_layers(layers).only(&vec![0; rows.len()]);
        let trunk = Trunk::new(&self.models, &rows, &spread(&self.pasts[0], 0..depth));
        let mut replies = Vec::with_capacity(self.models.len() * rows.len());
        for (n, (model, past)) in self.models.iter().zip(&self.pasts).enumerate() {
            let mut past = spread(past, depth..model.shape().layers);
            let hidden = trunk.finish(model, &mut past);
            let states = last_states(hidden, &trunk.frame, &rows);
            let continued = model.continued(states, past, self.new_tokens, &self.ends).await?;
            let reply = |(prompt, (ids, ended)): (&usize, _)| Reply { model: n, prompt: *prompt, ids, ended };
            replies.extend(prompts.iter().zip(continued).map(reply));
        }
        Ok(replies)
    }

    /// What the replies of all batches say, in the order of models and prompts.
    ///
    /// # Errors
    ///
    /// When the tokenizer cannot turn them into text.
    pub fn finish(&self, replies: Vec<Reply>, tokenizer: &Tokenizer) -> Result<Answered> {
        let mut continuations = vec![vec![None; self.rows.len()]; self.models.len()];
        let mut tokens = self.models.len() * self.shared;
        for Reply { model, prompt, ids, ended } in replies {
            // A token goes through a model to find what follows it: the last new one does only where the end followed.
            tokens += self.rows[prompt].len() - self.shared + ids.len() - usize::from(!ended && !ids.is_empty());
            continuations[model][prompt] = Some(Continuation { text: tokenizer.decode(&ids)?, ended });
        }
        Ok(Answered { continuations, tokens })
    }
}

/// Cuts rows, the longest first and without the `shared` tokens that all begin with, into batches.
fn parts(lens: &[usize], shared: usize, new_tokens: usize, at_once: usize) -> Vec<Range<usize>> {
    /// Positions that the batches which are answered at once keep in memory, padding included; one of them may have at
    /// least the second number.
    const POSITIONS: [usize; 2] = [4096, 512];
    let at_once = at_once.max(1);
    let most = (POSITIONS[0] / at_once).max(POSITIONS[1]);
    let all = lens.iter().map(|len| len + new_tokens).sum::<usize>();
    // From eight batches for each that answers, of which whoever is done takes the next, to one for two of them.
    let mut sizes: Vec<usize> = (1..=16).map(|eighths| most.min(eighths * all / (8 * at_once))).collect();
    sizes.dedup();
    let fits = |rows: usize, longest: usize, size: usize| {
        let new = longest + new_tokens;
        rows == 1 || rows * new <= size && rows * (shared + new) <= most
    };
    let cuts = sizes.into_iter().map(|size| cut(lens, new_tokens, |rows, longest| fits(rows, longest, size)));
    let longest = |parts: &Vec<Range<usize>>| {
        let mut busy = vec![0; at_once];
        for part in parts {
            let free = busy.iter_mut().min().expect("somebody answers");
            *free += price(lens, part.clone(), new_tokens);
        }
        busy.into_iter().max()
    };
    cuts.min_by_key(longest).unwrap_or_default()
}

/// What a batch costs, in tokens: those it computes, padding included, and for each pass over the model about 32, in
/// whose time its weights are read.
fn price(lens: &[usize], part: Range<usize>, new_tokens: usize) -> usize {
    const PASS: usize = 32;
    part.len() * (lens[part.start] + new_tokens) + PASS * new_tokens
}

/// The cheapest way to cut rows, the longest first, into batches whose number of rows and longest row `fits`; one row does.
fn cut(lens: &[usize], new_tokens: usize, fits: impl Fn(usize, usize) -> bool) -> Vec<Range<usize>> {
    // For each number of rows, the least price of all up to there, and where the last batch begins.
    let mut best = vec![(0, 0)];
    for end in 1..=lens.len() {
        let starts = (0..end).rev().take_while(|start| fits(end - start, lens[*start]));
        let priced = starts.map(|start| (best[start].0 + price(lens, start..end, new_tokens), start));
        best.push(priced.min().expect("one row is a batch"));
    }
    let mut parts = Vec::new();
    let mut end = lens.len();
    while end > 0 {
        let start = best[end].1;
        parts.push(start..end);
        end = start;
    }
    parts.reverse();
    parts
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

    /// Each row is in one batch, and no batch of several rows is larger than it may be.
    #[track_caller]
    fn check_parts(lens: &[usize], new_tokens: usize, at_once: usize, most: usize) -> Vec<Range<usize>> {
        let parts = parts(lens, 0, new_tokens, at_once);
        let rows: Vec<usize> = parts.iter().cloned().flatten().collect();
        assert_eq!(rows, (0..lens.len()).collect::<Vec<_>>(), "{parts:?}");
        for part in &parts {
            assert!(part.len() == 1 || part.len() * (lens[part.start] + new_tokens) <= most, "{parts:?}");
        }
        parts
    }

    /// The parts that end there.
    fn parts_until(ends: &[usize]) -> Vec<Range<usize>> {
        [0].iter().chain(ends).zip(ends).map(|(start, end)| *start..*end).collect()
    }

    #[test]
    fn rows_are_cut_where_little_is_padding() {
        assert!(check_parts(&[], 1, 2, 2048).is_empty());
        assert_eq!(check_parts(&[900], 5, 2, 2048), parts_until(&[1]));
        assert_eq!(
            check_parts(&[5000, 4999], 5, 1, 4096),
            parts_until(&[1, 2]),
            "a row that is too long alone goes alone"
        );
        assert_eq!(check_parts(&[300, 300, 20, 20, 20], 1, 1, 4096), parts_until(&[2, 5]));
        assert_eq!(
            check_parts(&[25, 24, 20, 20, 20], 25, 1, 4096),
            parts_until(&[5]),
            "25 passes cost more than ten tokens"
        );
    }

    #[test]
    fn what_all_rows_begin_with_counts_for_each_where_memory_is_meant() {
        // 32 questions about one passage: 5 rows of 700 + 20 + 20 positions fit.
        let parts = parts(&[20; 32], 700, 20, 1);
        assert!(parts.iter().all(|part| part.len() <= 5), "{parts:?}");
        assert_eq!(parts.last().map(|part| part.end), Some(32));
    }

    #[test]
    fn as_many_batches_as_are_answered_at_once_are_about_equal() {
        let lens: Vec<usize> = (20..60).rev().collect();
        let halves = check_parts(&lens, 1, 2, 2048);
        let work = |part: &Range<usize>| price(&lens, part.clone(), 1) as f64;
        let all: f64 = halves.iter().map(work).sum();
        let mut busy = [0.0; 2];
        for part in &halves {
            let free = usize::from(busy[1] < busy[0]);
            busy[free] += work(part);
        }
        assert!(busy[0].max(busy[1]) < 0.56 * all, "{busy:?} of {all}");
        check_parts(&lens, 1, 100, 512);
    }
}
