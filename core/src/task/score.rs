//! Strings in, numbers out: how an answer is compared with the one expected.

use std::collections::BTreeMap;

/// A short answer with what does not matter taken out: lower case, no ASCII punctuation, no articles, single spaces.
///
/// SQuAD's evaluation, <https://arxiv.org/abs/1606.05250>; the release has the same.
pub(super) fn normalize(text: &str) -> String {
    let plain: Vec<char> = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let runs = plain.chunk_by(|a, b| a.is_alphanumeric() == b.is_alphanumeric()).map(String::from_iter);
    let kept: String = runs.map(|run| if is_article(&run) { " ".to_owned() } else { run }).collect();
    kept.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_article(run: &str) -> bool {
    matches!(run, "a" | "an" | "the")
}

/// Whether both are the same, normalized.
pub(super) fn exact_match(found: &str, expected: &str) -> bool {
    normalize(found) == normalize(expected)
}

/// Whether the words of `expected` occur one after the other in `text`, normalized.
pub(super) fn contains(text: &str, expected: &str) -> bool {
    format!(" {} ", normalize(text)).contains(&format!(" {} ", normalize(expected)))
}

/// F1 of the words that both share, each as often as it occurs, normalized: SQuAD's second measure.
pub(super) fn token_f1(found: &str, expected: &str) -> f64 {
    let (found, expected) = (normalize(found), normalize(expected));
    let words: Vec<&str> = found.split_whitespace().collect();
    let wanted: Vec<&str> = expected.split_whitespace().collect();
    2.0 * shared(&words, &wanted) as f64 / (words.len() + wanted.len()).max(1) as f64
}

/// How many items both have, each as often as it occurs in both.
pub(super) fn shared(found: &[&str], expected: &[&str]) -> usize {
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    for item in expected {
        *left.entry(item).or_default() += 1;
    }
    let matched = found.iter().filter(|item| match left.get_mut(**item) {
        Some(n) if *n > 0 => {
            *n -= 1;
            true
        }
        _ => false,
    });
    matched.count()
}

/// The numbers in a text, in order: digits, commas among them ignored, one decimal point, a sign unless it subtracts.
pub(super) fn numbers(text: &str) -> impl Iterator<Item = f64> {
    let mut from = 0;
    let runs = std::iter::from_fn(move || {
        let start = from + text[from..].find(|c: char| c.is_ascii_digit())?;
        let run = text[start..].split(|c: char| !c.is_ascii_digit() && c != ',' && c != '.').next()?;
        from = start + run.len();
        Some((&text[..start], run))
    });
    runs.filter_map(|(before, run)| {
        let number: f64 = run.replace(',', "").trim_end_matches('.').parse().ok()?;
        let negative = before.strip_suffix('-').is_some_and(|before| !before.ends_with(char::is_alphanumeric));
        Some(if negative { -number } else { number })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_punctuation_articles_and_spaces_do_not_matter() {
        for (text, expected) in [
            (" The  Silver\nThread. ", "silver thread"),
            ("U.S.A.", "usa"),
            ("an apple a day", "apple day"),
            ("theatre anon", "theatre anon"),
            ("May 18 , 2018", "may 18 2018"),
            ("the–end", "–end"),
            ("Röntgen’s", "röntgen’s"),
            ("A+", ""),
        ] {
            assert_eq!(normalize(text), expected, "{text:?}");
        }
        assert!(exact_match(" The Beatles!", "beatles"));
        assert!(!exact_match("Beatle", "Beatles"));
    }

    #[test]
    fn whole_words_are_contained() {
        assert!(contains("It was the Silver Thread, I think", "silver thread"));
        assert!(!contains("silver threads", "silver thread"));
    }

    #[test]
    fn words_count_as_often_as_they_occur() {
        assert_eq!(token_f1("ada lovelace", "Ada Lovelace"), 1.0);
        assert_eq!(token_f1("ada ada ada", "ada lovelace"), 0.4);
        assert_eq!(token_f1("", "ada"), 0.0);
        assert_eq!(token_f1("", "the"), 0.0);
    }

    #[test]
    fn numbers_are_read_with_commas_points_and_signs() {
        for (text, expected) in [
            (" 18.", &[18.0][..]),
            ("18..., or 7,", &[18.0, 7.0]),
            ("$1,080.50, then -3", &[1080.5, -3.0]),
            ("16-3=13", &[16.0, 3.0, 13.0]),
            ("9*2=<<9*2=18>>18", &[9.0, 2.0, 9.0, 2.0, 18.0, 18.0]),
            ("eighteen", &[]),
            ("1.2.3 is a version, 4 is not", &[4.0]),
        ] {
            assert_eq!(numbers(text).collect::<Vec<_>>(), expected, "{text:?}");
        }
    }
}
