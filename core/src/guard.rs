//! What rejects an edit before it changes anything.

use rectify_protocol::{Guards, WeightChange};

use crate::{
    Error, Result, metrics,
    model::{LoadedModel, Model, generate::Scored},
};

/// Complains about a change that dwarfs the matrix, whose norm is `size`, or is no number.
pub(crate) fn norm(change: &WeightChange, size: f64, guards: &Guards) -> Result<()> {
    if !change.frobenius.is_finite() {
        return Err(Error::NotFinite { what: format!("the update of {}", change.name), hint: String::new() });
    }
    let Some(limit) = guards.max_relative_norm else { return Ok(()) };
    if change.frobenius <= limit * size {
        return Ok(());
    }
    Err(Error::Harmful(format!(
        "the update of {} is {:.1} times as large as the matrix (norms {:.3} and {:.3}); the limit max_relative_norm is \
         {limit}. Nothing was changed",
        change.name,
        change.frobenius / size,
        change.frobenius,
        size
    )))
}

/// Complains about an edited model that no longer speaks: its perplexity on what the unedited one wrote.
pub(crate) async fn perplexity(unedited: &LoadedModel, edited: &Model, before: f64, guards: &Guards) -> Result<f64> {
    let after = own_perplexity(unedited, edited).await?;
    let Some(limit) = guards.max_perplexity_ratio else { return Ok(after) };
    if after <= limit * before {
        return Ok(after);
    }
    Err(Error::Harmful(format!(
        "the edit would make the model forget how to speak: its perplexity on its own text goes from {before:.1} to \
         {after:.3e}, more than {limit} times (max_perplexity_ratio). Nothing was changed"
    )))
}

/// Perplexity of `model` on short texts that `author`, the unedited model, writes: fixed for a model, and in its own
/// language, whatever that is.
pub(crate) async fn own_perplexity(author: &LoadedModel, model: &Model) -> Result<f64> {
    let texts = crate::edit::contexts::own_texts(author).await?;
    let rows: Vec<Scored> = texts.into_iter().map(|ids| Scored { ids, from: 1 }).collect();
    metrics::perplexity_of(model, &rows).await
}
