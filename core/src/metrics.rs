//! What an edit changed: reliability, generalization and locality as token accuracy under teacher forcing,
//! probabilities of the targets, and what the model says.
//!
//! For a prompt q and a target t: ids = encode(q + " " + t), n = |encode(q)|; accuracy is the share of positions
//! j ≥ n whose token the model predicts from the true tokens before it. This is EasyEdit's definition.

use rectify_protocol::{Candidate, Fact, FactReport, FactScores, Measure, Probe};

use crate::{
    Error, Result,
    model::{
        LoadedModel, Model,
        generate::{Scored, TokenScore},
    },
    tokenizer::{Tokenizer, spaced},
};

/// Tokens of each greedy continuation in a report.
const CONTINUATION: usize = 16;
/// Candidates for the next token in a report.
const TOP: usize = 5;

/// What one model predicts along a fact's targets: enough for every score.
#[derive(Clone)]
pub struct Predictions {
    /// Probability of the whole new target after the prompt, and of the true one where there is one.
    p_new: f64,
    p_true: Option<f64>,
    /// Token accuracy of the new target after the prompt, and after each paraphrase.
    reliability: f64,
    paraphrases: Vec<f64>,
    /// Tokens predicted along each neighbour's target.
    neighbors: Vec<Vec<u32>>,
}

/// What one model says to a fact's prompts.
pub struct Answers {
    predictions: Predictions,
    /// The likeliest next tokens after the prompt.
    top: Vec<Candidate>,
    /// Greedy continuations: of the prompt, the paraphrases, the neighbours.
    texts: Vec<String>,
}

/// Lets `model` predict along every target of a fact, in one batch.
///
/// # Errors
///
/// When the fact is not valid, or a row does not fit the context.
pub async fn predict(model: &Model, tokenizer: &Tokenizer, fact: &Fact) -> Result<Predictions> {
    fact.validate()?;
    let with_target = |prompt: &str, target: &str| -> Result<Scored> {
        let from = tokenizer.encode(prompt)?.len();
        let ids = tokenizer.encode(&format!("{prompt}{}", spaced(target)))?;
        if ids.len() <= from {
            return Err(Error::bad_input(format!("the target {target:?} adds no token to the prompt {prompt:?}")));
        }
        Ok(Scored { ids, from })
    };
    let mut rows = vec![with_target(&fact.prompt, &fact.target_new)?];
    if let Some(target) = &fact.target_true {
        rows.push(with_target(&fact.prompt, target)?);
    }
    let first_paraphrase = rows.len();
    for prompt in &fact.paraphrases {
        rows.push(with_target(prompt, &fact.target_new)?);
    }
    let first_neighbor = rows.len();
    for neighbor in &fact.neighbors {
        // Without a target, the token that the prompt's last one predicts is compared: any token may stand behind it.
        let target = neighbor.target.as_deref().unwrap_or("the");
        let mut row = with_target(&neighbor.prompt, target)?;
        if neighbor.target.is_none() {
            row.ids.truncate(row.from + 1);
        }
        rows.push(row);
    }
    let scores = model.score(&rows).await?;
    let probability = |scores: &[TokenScore]| scores.iter().map(|score| score.log_p).sum::<f64>().exp();
    let accuracy = |i: usize| token_accuracy(&rows[i], &scores[i]);
    Ok(Predictions {
        p_new: probability(&scores[0]),
        p_true: fact.target_true.as_ref().map(|_| probability(&scores[1])),
        reliability: accuracy(0),
        paraphrases: (first_paraphrase..first_neighbor).map(accuracy).collect(),
        neighbors: scores[first_neighbor..]
            .iter()
            .map(|scores| scores.iter().map(|score| score.predicted).collect())
            .collect(),
    })
}

/// Asks `model` everything a fact wants to know. Two batches: one predicted, one continued.
///
/// # Errors
///
/// As [`predict`].
pub async fn ask(model: &Model, tokenizer: &Tokenizer, fact: &Fact) -> Result<Answers> {
    let predictions = predict(model, tokenizer, fact).await?;
    let prompts: Vec<Vec<u32>> = std::iter::once(&fact.prompt)
        .chain(&fact.paraphrases)
        .chain(fact.neighbors.iter().map(|neighbor| &neighbor.prompt))
        .map(|prompt| tokenizer.encode(prompt))
        .collect::<Result<_>>()?;
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let room = model.shape().context.saturating_sub(longest).min(CONTINUATION);
    let texts = model.greedy(&prompts, room).await?;
    let texts = texts.iter().map(|ids| tokenizer.decode(ids)).collect::<Result<Vec<_>>>()?;
    let top = model.candidates(tokenizer, &prompts[0], TOP).await?;
    Ok(Answers { predictions, top, texts })
}

/// An edit's scores on one fact, from what was predicted before and after it.
pub fn scores(before: &Predictions, after: &Predictions) -> FactScores {
    let mean = |scores: &[f64]| (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64);
    FactScores {
        reliability: after.reliability,
        generalization: mean(&after.paraphrases),
        locality: mean(&unchanged(before, after)),
        p_new: after.p_new,
        p_true: after.p_true,
    }
}

/// For each neighbour, the share of predictions along its target that stayed.
fn unchanged(before: &Predictions, after: &Predictions) -> Vec<f64> {
    let pairs = before.neighbors.iter().zip(&after.neighbors);
    pairs
        .map(|(before, after)| {
            let same = before.iter().zip(after).filter(|(before, after)| before == after).count();
            same as f64 / before.len().max(1) as f64
        })
        .collect()
}

/// A fact before and after an edit.
pub fn compare(fact: &Fact, before: Answers, after: Answers) -> FactReport {
    let FactScores { reliability, generalization, locality, .. } = scores(&before.predictions, &after.predictions);
    let stayed = unchanged(&before.predictions, &after.predictions);
    let asked = fact.paraphrases.iter().chain(fact.neighbors.iter().map(|neighbor| &neighbor.prompt));
    let texts = before.texts[1..].iter().zip(&after.texts[1..]);
    let mut probes = asked.zip(texts).zip(after.predictions.paraphrases.iter().chain(&stayed)).map(
        |((prompt, (before, after)), score)| Probe {
            prompt: prompt.clone(),
            before: before.clone(),
            after: after.clone(),
            score: *score,
        },
    );
    let paraphrases = probes.by_ref().take(fact.paraphrases.len()).collect();
    let neighbors = probes.collect();
    FactReport {
        subject: fact.subject.clone(),
        prompt: fact.prompt.clone(),
        target_new: fact.target_new.clone(),
        target_true: fact.target_true.clone(),
        before: before.measure(),
        after: after.measure(),
        reliability,
        generalization,
        locality,
        paraphrases,
        neighbors,
    }
}

impl Answers {
    fn measure(self) -> Measure {
        let Predictions { p_new, p_true, .. } = self.predictions;
        let text = self.texts.into_iter().next().expect("the prompt is always continued");
        Measure { p_new, p_true, top: self.top, text }
    }
}

fn token_accuracy(row: &Scored, scores: &[TokenScore]) -> f64 {
    let right = row.ids[row.from..].iter().zip(scores).filter(|(id, score)| **id == score.predicted).count();
    right as f64 / scores.len().max(1) as f64
}

/// `exp` of the mean negative log-likelihood of a text, cut into windows of which each begins anew.
///
/// The first token of a window has nothing before it and is not scored.
pub async fn perplexity(of: &LoadedModel, text: &str, window: usize, windows: usize) -> Result<f64> {
    of.model.check_length(window, "the window")?;
    let ids = of.tokenizer.encode(text)?;
    let windows = ids.chunks_exact(window.max(2)).take(windows);
    let rows: Vec<Scored> = windows.map(|window| Scored { ids: window.to_vec(), from: 1 }).collect();
    if rows.is_empty() {
        return Err(Error::bad_input("the text is shorter than one window"));
    }
    perplexity_of(&of.model, &rows).await
}

/// `exp` of the mean negative log-likelihood of the rows' targets, in batches of a few hundred tokens.
pub(crate) async fn perplexity_of(model: &Model, rows: &[Scored]) -> Result<f64> {
    const BATCH: usize = 512;
    let (mut log_p, mut tokens) = (0.0, 0);
    let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or(1);
    for batch in rows.chunks((BATCH / longest).max(1)) {
        for scores in model.score(batch).await? {
            log_p += scores.iter().map(|score| score.log_p).sum::<f64>();
            tokens += scores.len();
        }
    }
    Ok((-log_p / tokens as f64).exp())
}
