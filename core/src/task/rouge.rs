//! ROUGE-1, ROUGE-2 and ROUGE-L, <https://aclanthology.org/W04-1013>, in the two implementations that papers use: F1s
//! of shared n-grams and of the longest common subsequence.

use std::collections::{BTreeMap, BTreeSet};

/// The Python package `rouge` 1.0.1, which the release scores with: case matters, punctuation belongs to words, n-grams
/// and words are counted once each, and ROUGE-L joins the common subsequences of every pair of sentences.
///
/// None where the package raises: when a text has nothing but periods.
pub(super) fn released(hypothesis: &str, reference: &str) -> Option<[f64; 3]> {
    let (hypothesis, reference) = (sentences(hypothesis), sentences(reference));
    if hypothesis.is_empty() || reference.is_empty() {
        return None;
    }
    let (words, wanted) = (hypothesis.concat(), reference.concat());
    let once = |n| {
        let (found, wanted) = (ngrams(&words, n), ngrams(&wanted, n));
        let shared = found.keys().filter(|ngram| wanted.contains_key(*ngram)).count();
        f1(shared, found.len(), wanted.len(), 1e-8)
    };
    let pairs = reference.iter().flat_map(|wanted| hypothesis.iter().map(move |said| (wanted, said)));
    let common: BTreeSet<&str> = pairs.flat_map(|(wanted, said)| common_words(wanted, said)).collect();
    let distinct = |words: &[&str]| words.iter().collect::<BTreeSet<_>>().len();
    Some([once(1), once(2), f1(common.len(), distinct(&words), distinct(&wanted), 1e-8)])
}

/// Google's `rouge_score` 0.1.2 without stemming, which reproduces the original Perl script: lower-case letters and
/// digits, n-grams as often as they occur, ROUGE-L over the whole text.
pub(super) fn google(hypothesis: &str, reference: &str) -> [f64; 3] {
    let (hypothesis, reference) = (hypothesis.to_lowercase(), reference.to_lowercase());
    let [words, wanted] = [&hypothesis, &reference].map(|text| {
        let pieces = text.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit());
        pieces.filter(|piece| !piece.is_empty()).collect::<Vec<&str>>()
    });
    let counted = |n| {
        let (found, wanted) = (ngrams(&words, n), ngrams(&wanted, n));
        let shared = found.iter().map(|(ngram, count)| count.min(wanted.get(ngram).unwrap_or(&0))).sum();
        f1(shared, found.values().sum(), wanted.values().sum(), 0.0)
    };
    [counted(1), counted(2), f1(lengths(&wanted, &words)[wanted.len()][words.len()], words.len(), wanted.len(), 0.0)]
}

/// Words of each sentence, as the package splits them: at periods, then at runs of white space. What is empty between
/// two periods is dropped; what is blank is a sentence whose only word is empty.
fn sentences(text: &str) -> Vec<Vec<&str>> {
    let sentences = text.split('.').filter(|sentence| !sentence.is_empty());
    sentences
        .map(|sentence| {
            let words: Vec<&str> = sentence.split_whitespace().collect();
            if words.is_empty() { vec![""] } else { words }
        })
        .collect()
}

/// Each n-gram and how often it occurs.
fn ngrams<'a>(words: &'a [&'a str], n: usize) -> BTreeMap<&'a [&'a str], usize> {
    let mut counts = BTreeMap::new();
    for ngram in words.windows(n) {
        *counts.entry(ngram).or_default() += 1;
    }
    counts
}

/// `2PR / (P + R + ε)` with precision `P = shared / found` and recall `R = shared / wanted`, or 0 where one of them is
/// 0 of 0.
fn f1(shared: usize, found: usize, wanted: usize, epsilon: f64) -> f64 {
    if shared == 0 {
        return 0.0;
    }
    let (precision, recall) = (shared as f64 / found as f64, shared as f64 / wanted as f64);
    2.0 * precision * recall / (precision + recall + epsilon)
}

/// Lengths of the longest common subsequences of the first `i` and `j` words, at `[i][j]`.
fn lengths(a: &[&str], b: &[&str]) -> Vec<Vec<usize>> {
    let mut lengths = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            lengths[i][j] =
                if a[i - 1] == b[j - 1] { lengths[i - 1][j - 1] + 1 } else { lengths[i - 1][j].max(lengths[i][j - 1]) };
        }
    }
    lengths
}

/// The words of one longest common subsequence. There may be several: this is the package's, found from the end, by
/// leaving out a word of `b` wherever leaving out one of `a` is no better.
fn common_words<'a>(a: &[&'a str], b: &[&'a str]) -> Vec<&'a str> {
    let lengths = lengths(a, b);
    let (mut i, mut j, mut words) = (a.len(), b.len(), Vec::new());
    while i > 0 && j > 0 {
        if a[i - 1] == b[j - 1] {
            words.push(a[i - 1]);
            (i, j) = (i - 1, j - 1);
        } else if lengths[i - 1][j] > lengths[i][j - 1] {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected to five places, as both packages print them.
    #[track_caller]
    fn check(found: [f64; 3], expected: [f64; 3]) {
        assert_eq!(found.map(|score| (score * 1e5).round() / 1e5), expected);
    }

    #[test]
    fn the_package_s_numbers_come_out() {
        let scores = |hypothesis, reference| released(hypothesis, reference).unwrap();
        check(scores("a b c", "a x c"), [0.66667, 0.0, 0.66667]);
        check(scores("the cat sat.on a mat the cat", "the cat on mat.a dog sat"), [0.92308, 0.16667, 0.92308]);
    }

    #[test]
    fn the_package_counts_an_ngram_once() {
        check(released("the the the the", "the cat").unwrap(), [0.66667, 0.0, 0.66667]);
    }

    #[test]
    fn the_package_knows_case_and_punctuation() {
        check(released("Ada, left", "ada left").unwrap(), [0.5, 0.0, 0.5]);
    }

    #[test]
    fn the_package_raises_for_periods_alone_and_not_for_blanks() {
        assert_eq!(released("...", "a b"), None);
        assert_eq!(released("a b", "."), None);
        check(released(" . ", "a b").unwrap(), [0.0, 0.0, 0.0]);
        check(released("a. b", "a.  .c").unwrap(), [0.4, 0.0, 0.4]);
    }

    #[test]
    fn a_tie_between_subsequences_is_broken_as_in_the_package() {
        assert_eq!(common_words(&["x", "y"], &["y", "x"]), ["y"]);
        assert_eq!(common_words(&["a", "b", "c", "d"], &["c", "d", "a", "b"]), ["d", "c"]);
    }

    #[test]
    fn google_counts_ngrams_and_ignores_case_and_punctuation() {
        check(google("Ada, left", "ada left"), [1.0, 1.0, 1.0]);
        check(google("the the the the", "the cat"), [0.33333, 0.0, 0.33333]);
        check(google("the cat sat.on a mat the cat", "the cat on mat.a dog sat"), [0.8, 0.15385, 0.53333]);
        check(google("…", "a b"), [0.0, 0.0, 0.0]);
        check(google("a", "a"), [1.0, 0.0, 1.0]);
    }
}
