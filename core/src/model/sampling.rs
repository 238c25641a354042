//! Texts that a model writes by drawing each token.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{Cache, Model, generate::best};
use crate::Result;

/// Each token is drawn from this many likeliest.
const TOP_K: usize = 5;

/// Goes on with texts until each has so many tokens, all in one batch; each token is drawn from the [`TOP_K`] likeliest.
pub(crate) async fn write_on(
    model: &Model,
    mut texts: Vec<Vec<u32>>,
    length: usize,
    rng: &mut ChaCha8Rng,
    watch: &mut dyn FnMut(),
) -> Result<Vec<Vec<u32>>> {
    let mut past = Cache::empty(texts.len(), model.shape().layers);
    let mut new = texts.clone();
    while texts.iter().any(|text| text.len() < length) {
        let rows: Vec<&[u32]> = new.iter().map(Vec::as_slice).collect();
        let logits = model.next_logits(&rows, &mut past).await?;
        new = logits.iter().map(|logits| vec![draw(logits, rng)]).collect();
        for (text, new) in texts.iter_mut().zip(&new).filter(|(text, _)| text.len() < length) {
            text.extend(new);
        }
        watch();
    }
    Ok(texts)
}

/// One of the [`TOP_K`] likeliest tokens, by their probabilities.
fn draw(logits: &[f32], rng: &mut ChaCha8Rng) -> u32 {
    let best = best(logits, TOP_K);
    let largest = logits[best[0] as usize];
    let weights: Vec<f64> = best.iter().map(|id| f64::from(logits[*id as usize] - largest).exp()).collect();
    let mut left = f64::from(rng.next_u32()) / 2f64.powi(32) * weights.iter().sum::<f64>();
    for (id, weight) in best.iter().zip(weights) {
        if left < weight {
            return *id;
        }
        left -= weight;
    }
    best[best.len() - 1]
}
