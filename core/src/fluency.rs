//! How a model writes on: ROME's two scores of generated text, <https://arxiv.org/abs/2202.05262>, section 3.4.
//!
//! *Fluency* is the entropy of word pairs and triples: it falls when a damaged model repeats itself. *Consistency* is
//! how much the text has in common with texts about what the new object is true of.

use std::collections::{HashMap, HashSet};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use unicode_normalization::UnicodeNormalization;

use crate::{
    Result,
    model::{LoadedModel, Model, sampling::write_on},
};

/// Tokens of a text in all, its prompt included, as in ROME's evaluation.
const LENGTH: usize = 100;

/// How `model`, which is `of`'s or an edited one, goes on from each prompt: drawn from the five likeliest tokens at each
/// step, until prompt and text have 100 tokens or fill the context. Normalised by NFKD, as in the released code.
///
/// # Errors
///
/// When a prompt has no tokens or does not fit.
pub async fn texts(of: &LoadedModel, model: &Model, prompts: &[String], seed: u64) -> Result<Vec<String>> {
    let rows = prompts.iter().map(|prompt| of.tokenizer.encode(prompt)).collect::<Result<Vec<_>>>()?;
    for row in &rows {
        model.check_length(row.len(), "the prompt")?;
    }
    let lengths = rows.iter().map(Vec::len);
    // All go on until the shortest is complete, so that the longest gets as much ahead of it as it is longer.
    let ahead = lengths.clone().max().unwrap_or(0) - lengths.min().unwrap_or(0);
    let length = (model.shape().context - ahead).min(LENGTH);
    let rows = write_on(model, rows, length, &mut ChaCha8Rng::seed_from_u64(seed), &mut || {}).await?;
    rows.iter().map(|ids| Ok(of.tokenizer.decode(ids)?.nfkd().collect())).collect()
}

/// The mean of ⅔ of the entropy of a text's word pairs and 4⁄3 of that of its triples, in bits.
///
/// Words are runs of letters, digits and `_`; every other sign but space is a word of its own. ROME's words are NLTK's,
/// which also cut `don't` into `do` and `n't`.
pub fn n_gram_entropy(text: &str) -> f64 {
    let words = words(text);
    let entropy = |n: usize| {
        let mut counts: HashMap<&[&str], usize> = HashMap::new();
        for gram in words.windows(n) {
            *counts.entry(gram).or_default() += 1;
        }
        let total = words.windows(n).len() as f64;
        // In a fixed order, so that the same text has the same score to the last digit.
        let mut counts: Vec<usize> = counts.into_values().collect();
        counts.sort_unstable();
        let shares = counts.into_iter().map(|count| count as f64 / total);
        shares.map(|share| -share * share.log2()).sum::<f64>()
    };
    (entropy(2) * 2.0 / 3.0 + entropy(3) * 4.0 / 3.0) / 2.0
}

fn words(text: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = if is_word(first) { rest.find(|c| !is_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        words.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    words
}

/// How much words say, by how few texts of a corpus have them: scikit-learn's `TfidfVectorizer` with its defaults.
///
/// `idf = ln((1 + n) / (1 + df)) + 1`, over lower-case words of at least two letters.
#[derive(Clone, Debug)]
pub struct TfIdf(HashMap<String, f64>);

impl TfIdf {
    /// Learns from a corpus.
    pub fn of<'t>(corpus: impl IntoIterator<Item = &'t str>) -> Self {
        let (mut n, mut having) = (0, HashMap::<String, usize>::new());
        for text in corpus {
            n += 1;
            for term in terms(text).into_iter().collect::<HashSet<_>>() {
                *having.entry(term).or_default() += 1;
            }
        }
        let idf = |df: usize| ((1 + n) as f64 / (1 + df) as f64).ln() + 1.0;
        Self(having.into_iter().map(|(term, df)| (term, idf(df))).collect())
    }

    /// The cosine of two texts' vectors, over the corpus' words; 0 where a text has none of them.
    pub fn similarity(&self, a: &str, b: &str) -> f64 {
        let (a, b) = (self.vector(a), self.vector(b));
        let dot = |a: &[(String, f64)], b: &[(String, f64)]| {
            let b: HashMap<&str, f64> = b.iter().map(|(term, weight)| (term.as_str(), *weight)).collect();
            a.iter().map(|(term, weight)| weight * b.get(term.as_str()).unwrap_or(&0.0)).sum::<f64>()
        };
        let cosine = dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
        if cosine.is_nan() { 0.0 } else { cosine }
    }

    /// In alphabetical order, so that sums are the same to the last digit.
    fn vector(&self, text: &str) -> Vec<(String, f64)> {
        let mut counts: HashMap<String, f64> = HashMap::new();
        for term in terms(text) {
            *counts.entry(term).or_default() += 1.0;
        }
        let weigh = |(term, count): (String, f64)| self.0.get(&term).map(|idf| (term.clone(), count * idf));
        let mut vector: Vec<(String, f64)> = counts.into_iter().filter_map(weigh).collect();
        vector.sort_by(|a, b| a.0.cmp(&b.0));
        vector
    }
}

fn terms(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let words = words(&text).into_iter();
    words.filter(|word| word.chars().count() > 1).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }

    #[test]
    fn entropy_is_nltk_s_where_the_words_are() {
        check(n_gram_entropy("the cat sat on the mat and the cat sat on the dog"), 2.915_416_660_139_998);
        check(n_gram_entropy("a a a a a a"), 0.0);
        check(n_gram_entropy("a"), 0.0);
        check(n_gram_entropy(""), 0.0);
    }

    #[test]
    fn signs_are_words_of_their_own() {
        assert_eq!(words(" Paris, old_town:\n«3.5»!"), ["Paris", ",", "old_town", ":", "«", "3", ".", "5", "»", "!"]);
    }

    #[test]
    fn similarity_is_scikit_learn_s() {
        let corpus =
            ["Ada Bell was born in Oslo", "Oslo is the capital of Norway", "Leeds lies in England, a land of rain"];
        let by = TfIdf::of(corpus);
        check(
            by.similarity("Ada lived in Oslo and Oslo is large", "Oslo is the capital of Norway in the north"),
            0.418_417_017_174_695_7,
        );
        check(by.similarity(corpus[0], corpus[0]), 1.0);
        check(by.similarity("unheard words", corpus[0]), 0.0);
    }
}
