//! What each matrix reads, and the gradient of the loss with respect to what it makes.
//!
//! A zero is added to what a matrix makes, and tracked: its gradient is the wanted one, and no weight needs any.

use std::ops::Range;

use burn::tensor::Tensor;

use crate::{
    Error, Result,
    kernels::log_likelihoods,
    model::{
        Cache, Model, Site, Tap, WeightSite,
        generate::{Scored, states_at},
    },
    read::read,
    tokenizer::Tokenizer,
};

/// A row of tokens and what its end should predict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Prompt and target.
    pub ids: Vec<u32>,
    /// What the positions before the last should predict, so many as there are; fewer than `ids`.
    pub labels: Vec<u32>,
}

impl Text {
    /// A prompt with its target, labelled by the target's tokens as they stand in the text.
    ///
    /// # Errors
    ///
    /// When the target adds no token, or the text does not fit the context.
    pub fn new(tokenizer: &Tokenizer, model: &Model, prompt: &str, target: &str) -> Result<Self> {
        let Scored { ids, from } = Scored::new(tokenizer, prompt, target)?;
        model.check_length(ids.len(), "the prompt with its target")?;
        let labels = ids[from..].to_vec();
        Ok(Self { ids, labels })
    }

    /// The same, labelled as in the released code's edits: by the target as a text of its own, LLaMA's first token
    /// included, which the token before the target is then asked for.
    ///
    /// # Errors
    ///
    /// As [`Self::new`], and when there are more labels than tokens that could predict them.
    pub fn released(tokenizer: &Tokenizer, model: &Model, prompt: &str, target: &str) -> Result<Self> {
        let Self { ids, labels } = Self::new(tokenizer, model, prompt, target)?;
        let labels = [tokenizer.begin(), &labels].concat();
        if labels.len() >= ids.len() {
            return Err(Error::bad_input(format!("the prompt {prompt:?} is too short for the target {target:?}")));
        }
        Ok(Self { ids, labels })
    }

    /// The positions that predict the labels.
    pub fn positions(&self) -> Range<usize> {
        let end = self.ids.len() - 1;
        end - self.labels.len()..end
    }
}

/// Labels all of one length, `filler` before the short ones: as in the released code, which asks for the filler too.
/// A row too short for that is asked for as much as it has room for.
///
/// # Errors
///
/// When a row must be filled and there is no filler.
pub fn fill_labels(texts: Vec<Text>, filler: Option<u32>) -> Result<Vec<Text>> {
    let longest = texts.iter().map(|text| text.labels.len()).max().unwrap_or(0);
    let Some(filler) = filler else {
        if texts.iter().all(|text| text.labels.len() == longest) {
            return Ok(texts);
        }
        return Err(Error::bad_input(
            "targets of different lengths are filled with the token that ends a text, which \
            this vocabulary lacks; edit the facts one by one, or use MEND with labels = strict",
        ));
    };
    let fill = |Text { ids, labels }: Text| {
        let missing = longest.min(ids.len() - 1) - labels.len();
        let labels = std::iter::repeat_n(filler, missing).chain(labels).collect();
        Text { ids, labels }
    };
    Ok(texts.into_iter().map(fill).collect())
}

/// Logits of what follows some positions of some rows, row by row: `[positions, vocab]`.
pub(super) fn logits(model: &Model, rows: &[(&[u32], Range<usize>)], tap: &mut dyn Tap) -> Tensor<2> {
    let ids: Vec<&[u32]> = rows.iter().map(|(ids, _)| *ids).collect();
    let mut past = Cache::empty(rows.len(), model.shape().layers);
    let (hidden, frame) = model.extend(&ids, &mut past, tap);
    let rows = rows.iter().enumerate();
    let at = rows.flat_map(|(row, (_, at))| at.clone().map(move |pos| (row, pos)));
    let at: Vec<usize> = at.map(|(row, pos)| frame.flat(row, pos)).collect();
    model.logits(states_at(hidden, &at))
}

/// A loss, and what it says about some matrices.
pub struct Gradients {
    /// `−Σ log p(label) / total`: `[1]`.
    pub nll: Tensor<1>,
    /// For each matrix what it reads, `[tokens, d_in]`, and the gradient of the loss with respect to what it makes,
    /// `[tokens, d_out]`. Tokens of a shorter row are followed by padding, whose gradients are zero.
    pub ends: Vec<(Tensor<2>, Tensor<2>)>,
}

/// One pass and one pass back over a batch. `total` is how many labels the loss is a mean over.
///
/// # Panics
///
/// When `texts` is empty, or has no labels.
pub fn gradients(model: &Model, sites: &[WeightSite], texts: &[Text], total: usize) -> Gradients {
    let rows: Vec<(&[u32], Range<usize>)> = texts.iter().map(|text| (text.ids.as_slice(), text.positions())).collect();
    let mut ends = Ends::new(model, sites);
    let logits = logits(model, &rows, &mut ends);
    let labels: Vec<usize> = texts.iter().flat_map(|text| &text.labels).map(|id| *id as usize).collect();
    let nll = -log_likelihoods(logits, &labels).sum() / total as f64;
    let found = nll.backward();
    let flat = |tensor: Tensor<3>| tensor.flatten::<2>(0, 1);
    let ends = ends.0.into_iter().map(|end| {
        let zero = end.zero.expect("the pass runs through every block");
        let d = zero.grad(&found).expect("the loss depends on every block");
        (flat(end.read.expect("the pass runs through every block")), flat(d))
    });
    Gradients { nll: nll.inner(), ends: ends.collect() }
}

/// Where a matrix reads and where it writes, and what was seen there.
struct End {
    from: Site,
    to: Site,
    read: Option<Tensor<3>>,
    zero: Option<Tensor<3>>,
}

struct Ends(Vec<End>);

impl Ends {
    fn new(model: &Model, sites: &[WeightSite]) -> Self {
        let ends = sites.iter().map(|site| model.ends(*site));
        Self(ends.map(|(from, to)| End { from, to, read: None, zero: None }).collect())
    }
}

impl Tap for Ends {
    fn tap(&mut self, site: Site, value: Tensor<3>) -> Tensor<3> {
        let mut value = value;
        for end in &mut self.0 {
            if end.from == site {
                end.read = Some(value.clone().inner());
            }
            if end.to == site {
                let zero = value.clone().inner().zeros_like().autodiff().require_grad();
                value = value + zero.clone();
                end.zero = Some(zero);
            }
        }
        value
    }

    fn looks_at(&self, site: Site) -> bool {
        self.0.iter().any(|end| end.from == site || end.to == site)
    }
}

/// Tokens of one matrix that have both something read and a gradient, on the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tokens {
    /// How many.
    pub n: usize,
    /// What is read: `[n, d_in]`, row-major.
    pub x: Vec<f32>,
    /// Gradients of what is made: `[n, d_out]`, row-major.
    pub d: Vec<f32>,
}

impl Tokens {
    /// The tokens of each matrix over all texts, in batches that fit a device.
    pub async fn of(model: &Model, sites: &[WeightSite], texts: &[Text]) -> Result<Vec<Self>> {
        /// Padded tokens that are differentiated together.
        const BATCH: usize = 2048;
        let total = texts.iter().map(|text| text.labels.len()).sum();
        let longest = texts.iter().map(|text| text.ids.len()).max().unwrap_or(1);
        let mut all = vec![Self::default(); sites.len()];
        for batch in texts.chunks((BATCH / longest).max(1)) {
            let found = gradients(model, sites, batch, total);
            for (tokens, (x, d)) in all.iter_mut().zip(found.ends) {
                tokens.add(x, d).await?;
            }
        }
        Ok(all)
    }

    /// Takes those of `x [tokens, d_in]` and `d [tokens, d_out]` that are not all zero in either.
    pub async fn add(&mut self, x: Tensor<2>, d: Tensor<2>) -> Result<()> {
        let widths = [x.dims()[1], d.dims()[1]];
        let (x, d) = (read(x).await?, read(d).await?);
        let says_something = |row: &[f32]| row.iter().any(|value| *value != 0.0);
        for (x, d) in x.chunks(widths[0]).zip(d.chunks(widths[1])) {
            if says_something(x) && says_something(d) {
                self.n += 1;
                self.x.extend(x);
                self.d.extend(d);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_labels_are_filled_up_as_far_as_there_is_room() {
        let text = |ids: &[u32], labels: &[u32]| Text { ids: ids.to_vec(), labels: labels.to_vec() };
        let texts = vec![text(&[1, 2, 3, 4, 5], &[3, 4, 5]), text(&[1, 2, 3, 4, 5], &[5]), text(&[1, 2, 3], &[3])];
        let filled = fill_labels(texts, Some(0)).expect("a filler");
        assert_eq!(filled[0].labels, [3, 4, 5]);
        assert_eq!(filled[1].labels, [0, 0, 5]);
        assert_eq!((&filled[2].labels[..], filled[2].positions()), (&[0, 3][..], 0..2));
    }
}
