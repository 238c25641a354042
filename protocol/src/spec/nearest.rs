/// The candidate that a mistyped name most likely meant: at most a third of its letters wrong.
pub fn nearest<'a>(typed: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let (distance, best) = candidates.iter().map(|candidate| (edit_distance(typed, candidate), *candidate)).min()?;
    (distance * 3 <= best.chars().count().max(3)).then_some(best)
}

/// `unknown WHAT "typed"; did you mean …? known: …`
pub fn unknown(what: &str, typed: &str, known: &[&str]) -> String {
    let guess = nearest(typed, known).map(|name| format!("; did you mean {name:?}?")).unwrap_or_default();
    let separator = if guess.is_empty() { ";" } else { "" };
    format!("unknown {what} {typed:?}{guess}{separator} known: {}", known.join(", "))
}

/// Levenshtein's distance, over characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(typed: &str, expected: Option<&str>) {
        assert_eq!(nearest(typed, &["rome", "memit", "mend", "kn"]), expected);
    }

    #[test]
    fn a_mistyped_name_finds_its_neighbor() {
        check("roem", None);
        check("rom", Some("rome"));
        check("mmit", Some("memit"));
        check("alphaedit", None);
    }
}
