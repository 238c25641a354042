use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a model said to one prompt of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continuation {
    /// The greedy continuation, without the prompt and without the mark that ends a text.
    pub text: String,
    /// Whether the model ended the text itself, before the task's tokens ran out.
    pub ended: bool,
}

/// How one record was answered, read in two ways. Judgements of many records add up, so that scores can always be
/// made anew from stored rows: see [`TaskScores::of`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// As the scorer released with the paper has it, quirks included. Empty where it has none.
    pub paper: Verdict,
    /// As the metric's name promises.
    pub strict: Verdict,
    /// What is worth knowing beside the two and part of neither.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub also: BTreeMap<String, Tally>,
}

/// One reading of one record, or of many: a count for each part that the score is the mean of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Mostly one part; three of ROUGE, four types of entities.
    pub parts: BTreeMap<String, Tally>,
    /// Replies that nobody can read as an answer. They count as wrong.
    pub unparsed: usize,
}

/// So many of so many: the pair `[hits, total]` in JSON.
///
/// A right answer is `1 of 1`. An F1 over all records is a tally too: `2·matches of predicted + gold`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally(
    /// What was got.
    pub f64,
    /// What there was to get.
    pub f64,
);

/// A task's scores over many records. A score that nothing was counted for is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskScores {
    /// How many records were judged.
    pub n: usize,
    /// The score as the paper's figures have it.
    pub paper: Option<f64>,
    /// The score as the metric's name promises.
    pub strict: Option<f64>,
    /// The judgements' sum: where the scores come from, and how many replies were unparsed.
    pub sum: Judgement,
}

impl TaskScores {
    /// The scores of these records.
    pub fn of<'a>(judgements: impl IntoIterator<Item = &'a Judgement>) -> Self {
        let (mut n, mut sum) = (0, Judgement::default());
        for judgement in judgements {
            n += 1;
            sum.paper.add(&judgement.paper);
            sum.strict.add(&judgement.strict);
            add(&mut sum.also, &judgement.also);
        }
        Self { n, paper: sum.paper.score(), strict: sum.strict.score(), sum }
    }
}

impl TaskScores {
    /// The standard error of the paper's score over a sample, by the jackknife: `√((n−1)/n · Σ(θᵢ − θ̄)²)`, where θᵢ is
    /// the score without record i. For a share p of right answers this is `√(p(1−p)/(n−1))`. `None` for fewer than two
    /// records, or where leaving one out leaves nothing to score.
    pub fn error<'a>(judgements: impl IntoIterator<Item = &'a Judgement>) -> Option<f64> {
        let judgements: Vec<&Judgement> = judgements.into_iter().collect();
        let n = judgements.len() as f64;
        if judgements.len() < 2 {
            return None;
        }
        let sum = Self::of(judgements.iter().copied()).sum.paper;
        let without = judgements.iter().map(|judgement| sum.without(&judgement.paper).score());
        let without = without.collect::<Option<Vec<f64>>>()?;
        let mean = without.iter().sum::<f64>() / n;
        let spread: f64 = without.iter().map(|score| (score - mean).powi(2)).sum();
        Some(((n - 1.0) / n * spread).sqrt())
    }
}

impl Verdict {
    fn without(&self, other: &Self) -> Self {
        let mut left = self.clone();
        for (name, tally) in &other.parts {
            if let Some(part) = left.parts.get_mut(name) {
                *part = Tally(part.0 - tally.0, part.1 - tally.1);
            }
        }
        left
    }

    /// The mean over parts of hits per total. A part without anything to count is left out.
    pub fn score(&self) -> Option<f64> {
        let shares: Vec<f64> = self.parts.values().filter_map(|tally| tally.share()).collect();
        (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
    }

    fn add(&mut self, other: &Self) {
        add(&mut self.parts, &other.parts);
        self.unparsed += other.unparsed;
    }
}

impl Tally {
    /// One of one, or none.
    pub fn one(right: bool) -> Self {
        Self(f64::from(u8::from(right)), 1.0)
    }

    /// Hits per total, where there is a total.
    pub fn share(self) -> Option<f64> {
        (self.1 > 0.0).then(|| self.0 / self.1)
    }
}

fn add(sum: &mut BTreeMap<String, Tally>, parts: &BTreeMap<String, Tally>) {
    for (name, tally) in parts {
        let part = sum.entry(name.clone()).or_default();
        *part = Tally(part.0 + tally.0, part.1 + tally.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(parts: &[(&str, f64, f64)], unparsed: usize) -> Verdict {
        let parts = parts.iter().map(|(name, hits, total)| (name.to_string(), Tally(*hits, *total))).collect();
        Verdict { parts, unparsed }
    }

    fn judgement(paper: Verdict, strict: Verdict) -> Judgement {
        Judgement { paper, strict, also: BTreeMap::new() }
    }

    #[test]
    fn counts_are_added_before_they_are_divided() {
        let rows = [
            judgement(verdict(&[("PER", 1.0, 1.0), ("LOC", 0.0, 2.0)], 0), verdict(&[("F1", 2.0, 4.0)], 0)),
            judgement(verdict(&[("PER", 0.0, 3.0), ("LOC", 1.0, 2.0)], 1), verdict(&[("F1", 0.0, 4.0)], 2)),
        ];
        let scores = TaskScores::of(&rows);
        assert_eq!((scores.n, scores.paper, scores.strict), (2, Some(0.25), Some(0.25)));
        assert_eq!((scores.sum.paper.unparsed, scores.sum.strict.unparsed), (1, 2));
    }

    #[test]
    fn a_score_that_nothing_was_counted_for_is_absent() {
        let scores = TaskScores::of(&[judgement(Verdict::default(), verdict(&[("ORG", 0.0, 0.0)], 0))]);
        assert_eq!((scores.paper, scores.strict), (None, None));
        assert_eq!(verdict(&[("ORG", 0.0, 0.0), ("PER", 1.0, 2.0)], 0).score(), Some(0.5));
    }

    #[test]
    fn the_error_of_a_share_is_that_of_a_binomial() {
        let answer =
            |right| judgement(verdict(&[("accuracy", f64::from(u8::from(right)), 1.0)], 0), Verdict::default());
        let rows: Vec<Judgement> = (0..24).map(|i| answer(i % 4 != 0)).collect();
        let error = TaskScores::error(&rows).unwrap();
        assert!((error - (0.75f64 * 0.25 / 23.0).sqrt()).abs() < 1e-12, "{error}");
        assert_eq!(TaskScores::error(&rows[..1]), None);
        assert_eq!(TaskScores::error(&rows[1..3]), Some(0.0));
    }

    #[test]
    fn a_stored_row_comes_back_as_it_was() {
        let row = judgement(verdict(&[("accuracy", 1.0, 1.0)], 0), verdict(&[("accuracy", 0.0, 1.0)], 1));
        let json = serde_json::to_string(&row).unwrap();
        assert!(json.contains(r#""accuracy":[1.0,1.0]"#), "{json}");
        assert_eq!(serde_json::from_str::<Judgement>(&json).unwrap(), row);
    }
}
