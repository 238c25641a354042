use std::{fmt, ops::Range, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    Failure,
    bounds::{self, at_least_zero},
    fact::{check_subject, not_blank},
};

/// Causal tracing: the tokens of a subject are made unrecognisable by noise, and one state at a time is put back as it was
/// without: section 2.1 of ROME, <https://arxiv.org/abs/2202.05262>.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceSpec {
    /// The text whose next token is traced; it contains `subject` exactly once.
    pub prompt: String,
    /// What becomes unrecognisable, exactly as it stands in `prompt`.
    pub subject: String,
    /// Corrupted runs, over which probabilities are averaged.
    pub samples: usize,
    /// How strong the noise is.
    pub noise: Noise,
    /// Whose tokens' embeddings [`Noise::Deviations`] are of; where there are none, those of `subject` alone.
    pub subjects: Vec<String>,
    /// Neighbouring layers whose MLP's or attention's output is put back together.
    pub window: usize,
    /// Seeds the noise, which is the same for every state that is put back.
    pub seed: u64,
}

/// The standard deviation of the noise that is added to each number of an embedding. Written `s3` and `0.1`, as the
/// released code does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Noise {
    /// So many standard deviations of the numbers in subjects' embeddings.
    Deviations(f64),
    /// This number.
    Sigma(f64),
}

/// What putting states back brought back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceReport {
    /// What was asked, in full.
    pub spec: TraceSpec,
    /// How many edits the model carried.
    pub edits: usize,
    /// The standard deviation of the noise.
    pub sigma: f64,
    /// The likeliest next token without noise, and its id.
    pub answer: String,
    /// Its id.
    pub answer_id: u32,
    /// Its probability without noise.
    pub high: f64,
    /// Its mean probability with noise and nothing put back.
    pub low: f64,
    /// The prompt's tokens.
    pub tokens: Vec<String>,
    /// The subject's: from the first number, to before the second.
    pub subject: [usize; 2],
    /// The mean probability with the state behind a block put back, `[token][layer]`.
    pub states: Vec<Vec<f64>>,
    /// The same with the MLPs' outputs in a window of layers around this one.
    pub mlp: Vec<Vec<f64>>,
    /// The same with the attentions' outputs.
    pub attention: Vec<Vec<f64>>,
}

/// Means over the traces of several facts, by what their tokens are to the subject: Figure 2 of ROME.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceAverage {
    /// How many facts.
    pub facts: usize,
    /// Mean of [`TraceReport::high`].
    pub high: f64,
    /// Mean of [`TraceReport::low`].
    pub low: f64,
    /// Each row of the maps that some fact has a token for, of [`TraceAverage::ROWS`].
    pub rows: Vec<String>,
    /// Of how many tokens each row is the mean.
    pub tokens: Vec<usize>,
    /// Means of [`TraceReport::states`], `[row][layer]`.
    pub states: Vec<Vec<f64>>,
    /// Means of [`TraceReport::mlp`].
    pub mlp: Vec<Vec<f64>>,
    /// Means of [`TraceReport::attention`].
    pub attention: Vec<Vec<f64>>,
}

impl Default for TraceSpec {
    /// Of nothing yet, with the numbers of ROME's authors.
    fn default() -> Self {
        Self {
            prompt: String::new(),
            subject: String::new(),
            samples: 10,
            noise: Noise::Deviations(3.0),
            subjects: Vec::new(),
            window: 10,
            seed: 0,
        }
    }
}

impl TraceSpec {
    /// # Errors
    ///
    /// When a text is blank or too long, the subject does not occur exactly once in the prompt, or a number is out of
    /// bounds. How many tokens a prompt has, only a model knows.
    pub fn validate(&self) -> Result<(), Failure> {
        for (field, text) in [("subject", &self.subject), ("prompt", &self.prompt)] {
            not_blank(field, text)?;
            bounds::text(field, text)?;
        }
        check_subject(&self.subject, &self.prompt)?;
        bounds::within("samples", self.samples, 1..=bounds::SAMPLES)?;
        bounds::within("window", self.window, 1..=bounds::LAYERS)?;
        let (Noise::Deviations(noise) | Noise::Sigma(noise)) = self.noise;
        at_least_zero(&[("noise", noise)])?;
        bounds::entries("subjects", &self.subjects, bounds::FACTS)?;
        self.subjects.iter().enumerate().try_for_each(|(i, subject)| {
            let field = format!("subjects[{i}]");
            not_blank(&field, subject)?;
            bounds::text(&field, subject)
        })
    }
}

impl TraceReport {
    /// The prompt's tokens for a person: quoted, with a star behind the subject's.
    pub fn labels(&self) -> Vec<String> {
        let of_subject = self.subject[0]..self.subject[1];
        let star = |i| if of_subject.contains(&i) { "*" } else { "" };
        self.tokens.iter().enumerate().map(|(i, token)| format!("{token:?}{}", star(i))).collect()
    }

    /// The three maps with what was put back in each.
    pub fn maps(&self) -> [(&'static str, &[Vec<f64>]); 3] {
        [("state", &self.states), ("MLP", &self.mlp), ("attention", &self.attention)]
    }

    /// The tokens that belong to each of [`TraceAverage::ROWS`]. As released, a subject of one token is both its first and
    /// its last, and a single token behind it both the first and the last there.
    fn by_row(&self) -> [Range<usize>; 6] {
        let ([start, end], all) = (self.subject, self.tokens.len());
        [
            start..start + 1,
            start + 1..(end - 1).max(start + 1),
            end - 1..end,
            end..all.min(end + 1),
            (end + 1).min(all)..(all - 1).max(end + 1).min(all),
            (all - 1).max(end)..all,
        ]
    }
}

impl TraceAverage {
    /// What a row stands for.
    pub const ROWS: [&str; 6] = [
        "first subject token",
        "middle subject tokens",
        "last subject token",
        "first subsequent token",
        "further tokens",
        "last token",
    ];

    /// The means over traces of one model, of which there must be at least one: each token counts once in its row.
    pub fn of(reports: &[TraceReport]) -> Self {
        let mean = |of: fn(&TraceReport) -> f64| reports.iter().map(of).sum::<f64>() / reports.len() as f64;
        let count = |row: usize| reports.iter().map(|report| report.by_row()[row].len()).sum::<usize>();
        let rows: Vec<usize> = (0..Self::ROWS.len()).filter(|row| count(*row) > 0).collect();
        let map = |of: fn(&TraceReport) -> &Vec<Vec<f64>>| rows.iter().map(|row| mean_of(reports, of, *row)).collect();
        Self {
            facts: reports.len(),
            high: mean(|report| report.high),
            low: mean(|report| report.low),
            rows: rows.iter().map(|row| Self::ROWS[*row].to_owned()).collect(),
            tokens: rows.iter().map(|row| count(*row)).collect(),
            states: map(|report| &report.states),
            mlp: map(|report| &report.mlp),
            attention: map(|report| &report.attention),
        }
    }

    /// The three maps with what was put back in each.
    pub fn maps(&self) -> [(&'static str, &[Vec<f64>]); 3] {
        [("state", &self.states), ("MLP", &self.mlp), ("attention", &self.attention)]
    }
}

/// The mean over all tokens of one row of [`TraceAverage::ROWS`], layer by layer.
fn mean_of(reports: &[TraceReport], of: fn(&TraceReport) -> &Vec<Vec<f64>>, row: usize) -> Vec<f64> {
    let tokens: Vec<&Vec<f64>> = reports.iter().flat_map(|report| &of(report)[report.by_row()[row].clone()]).collect();
    let layers = tokens.first().map_or(0, |token| token.len());
    (0..layers).map(|layer| tokens.iter().map(|token| token[layer]).sum::<f64>() / tokens.len() as f64).collect()
}

impl fmt::Display for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deviations(n) => write!(f, "s{n}"),
            Self::Sigma(sigma) => write!(f, "{sigma}"),
        }
    }
}

impl FromStr for Noise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, noise): (&str, fn(f64) -> Self) = match text.strip_prefix('s') {
            Some(rest) => (rest, Self::Deviations),
            None => (text, Self::Sigma),
        };
        match rest.parse() {
            Ok(number) if number >= 0.0 && f64::is_finite(number) => Ok(noise(number)),
            _ => Err(format!(
                "{text:?} is neither a number, 0 or above, nor one behind s, for that many standard deviations"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> TraceSpec {
        TraceSpec { prompt: "Ada was born in".into(), subject: "Ada".into(), ..TraceSpec::default() }
    }

    #[track_caller]
    fn check_refused(change: impl FnOnce(&mut TraceSpec), complaint: &str) {
        let mut spec = spec();
        change(&mut spec);
        let failure = spec.validate().unwrap_err();
        assert!(failure.message.contains(complaint), "{failure}");
    }

    #[test]
    fn what_cannot_be_traced_is_named() {
        spec().validate().unwrap();
        check_refused(|spec| spec.prompt = " ".into(), "prompt is empty");
        check_refused(|spec| spec.subject = String::new(), "subject is empty");
        check_refused(|spec| spec.subject = "Ida".into(), "does not occur in the prompt");
        check_refused(|spec| spec.subject = "a".into(), "occurs 2 times");
        check_refused(|spec| spec.subject = "Ada ".into(), "begins or ends with a space");
        check_refused(|spec| spec.samples = 0, "samples is 0");
        check_refused(|spec| spec.samples = bounds::SAMPLES + 1, "samples is 1001");
        check_refused(|spec| spec.window = 0, "window is 0");
        check_refused(|spec| spec.noise = Noise::Sigma(-1.0), "noise is -1");
        check_refused(|spec| spec.noise = Noise::Deviations(f64::NAN), "noise is NaN");
        check_refused(|spec| spec.subjects = vec!["Ada".into(), String::new()], "subjects[1] is empty");
    }

    #[test]
    fn noise_is_written_as_the_released_code_does() {
        for (text, noise) in [("s3", Noise::Deviations(3.0)), ("0.1", Noise::Sigma(0.1)), ("0", Noise::Sigma(0.0))] {
            assert_eq!(text.parse(), Ok(noise));
            assert_eq!(noise.to_string(), text);
        }
        for text in ["", "s", "-1", "s-1", "NaN", "inf", "u3", "m"] {
            assert!(text.parse::<Noise>().unwrap_err().contains("neither a number"), "{text}");
        }
    }

    /// Of as many tokens, with the subject's from one to before another; a map holds the tokens' numbers.
    fn report(tokens: usize, subject: [usize; 2]) -> TraceReport {
        let map: Vec<Vec<f64>> = (0..tokens).map(|token| vec![token as f64, 0.5]).collect();
        TraceReport {
            spec: spec(),
            edits: 0,
            sigma: 0.1,
            answer: String::new(),
            answer_id: 0,
            high: 0.9,
            low: tokens as f64 / 100.0,
            tokens: vec![String::new(); tokens],
            subject,
            states: map.clone(),
            mlp: map.clone(),
            attention: map,
        }
    }

    #[track_caller]
    fn check_rows(tokens: usize, subject: [usize; 2], expected: [&[usize]; 6]) {
        let found = report(tokens, subject).by_row().map(Iterator::collect::<Vec<_>>);
        assert_eq!(found, expected.map(<[usize]>::to_vec), "{tokens} {subject:?}");
    }

    #[test]
    fn tokens_are_averaged_by_what_they_are_to_the_subject() {
        check_rows(9, [1, 5], [&[1], &[2, 3], &[4], &[5], &[6, 7], &[8]]);
        check_rows(4, [0, 2], [&[0], &[], &[1], &[2], &[], &[3]]);
        check_rows(3, [1, 2], [&[1], &[], &[1], &[2], &[], &[2]]);
        check_rows(2, [0, 1], [&[0], &[], &[0], &[1], &[], &[1]]);
        check_rows(2, [0, 2], [&[0], &[], &[1], &[], &[], &[]]);
        check_rows(1, [0, 1], [&[0], &[], &[0], &[], &[], &[]]);

        let average = TraceAverage::of(&[report(9, [1, 5]), report(4, [0, 2])]);
        assert_eq!(average.rows, TraceAverage::ROWS);
        assert_eq!(average.tokens, [2, 2, 2, 2, 2, 2]);
        let expected = [0.5, 2.5, 2.5, 3.5, 6.5, 5.5].map(|mean| vec![mean, 0.5]);
        assert_eq!(average.states, expected);
        assert_eq!((average.facts, average.low), (2, 0.065));
        let rows = TraceAverage::of(&[report(2, [0, 1])]).rows;
        assert_eq!(rows, ["first subject token", "last subject token", "first subsequent token", "last token"]);
    }

    #[test]
    fn a_field_that_is_not_known_is_refused() {
        let text = r#"{"prompt": "Ada was born in", "subject": "Ada", "noise": {"sigma": 0.5}}"#;
        assert_eq!(serde_json::from_str::<TraceSpec>(text).unwrap(), TraceSpec { noise: Noise::Sigma(0.5), ..spec() });
        let text = r#"{"prompt": "Ada was born in", "subject": "Ada", "sample": 3}"#;
        assert!(serde_json::from_str::<TraceSpec>(text).unwrap_err().to_string().contains("unknown field `sample`"));
    }
}
