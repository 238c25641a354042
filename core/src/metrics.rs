//! What an edit changed: reliability, generalization and locality as token accuracy under teacher forcing,
//! probabilities of the targets, and what the model says.
//!
//! For a prompt q and a target t: ids = encode(q + " " + t), n = |encode(q)|; accuracy is the share of positions
//! j ≥ n whose token the model predicts from the true tokens before it. This is EasyEdit's definition.

use rectify_protocol::{Fact, FactReport, Measure, Probe};

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

/// What one model says to a fact's prompts.
pub struct Answers {
    measure: Measure,
    reliability: f64,
    /// Token accuracy of the new target, and continuation.
    paraphrases: Vec<(f64, String)>,
    /// Tokens predicted along the target, and continuation.
    neighbors: Vec<(Vec<u32>, String)>,
}

/// Asks `model` everything a fact wants to know. Two batches: one scored, one continued.
pub async fn ask(model: &Model, tokenizer: &Tokenizer, fact: &Fact) -> Result<Answers> {
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

    let prompts: Vec<Vec<u32>> = std::iter::once(&fact.prompt)
        .chain(&fact.paraphrases)
        .chain(fact.neighbors.iter().map(|neighbor| &neighbor.prompt))
        .map(|prompt| tokenizer.encode(prompt))
        .collect::<Result<_>>()?;
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let room = model.shape().context.saturating_sub(longest).min(CONTINUATION);
    let texts = model.greedy(&prompts, room).await?;
    let mut texts = texts.iter().map(|ids| tokenizer.decode(ids)).collect::<Result<Vec<_>>>()?.into_iter();
    let mut next_text = || texts.next().expect("one text per prompt");

    let probability = |scores: &[TokenScore]| scores.iter().map(|score| score.log_p).sum::<f64>().exp();
    let measure = Measure {
        p_new: probability(&scores[0]),
        p_true: fact.target_true.as_ref().map(|_| probability(&scores[1])),
        top: model.candidates(tokenizer, &prompts[0], TOP).await?,
        text: next_text(),
    };
    let accuracy = |i: usize| token_accuracy(&rows[i], &scores[i]);
    Ok(Answers {
        measure,
        reliability: accuracy(0),
        paraphrases: (first_paraphrase..first_neighbor).map(|i| (accuracy(i), next_text())).collect(),
        neighbors: (first_neighbor..rows.len())
            .map(|i| (scores[i].iter().map(|score| score.predicted).collect(), next_text()))
            .collect(),
    })
}

/// A fact before and after an edit.
pub fn compare(fact: &Fact, before: Answers, after: Answers) -> FactReport {
    let paraphrases: Vec<Probe> = fact
        .paraphrases
        .iter()
        .zip(before.paraphrases.into_iter().zip(after.paraphrases))
        .map(|(prompt, ((_, before), (score, after)))| Probe { prompt: prompt.clone(), before, after, score })
        .collect();
    let neighbors: Vec<Probe> = fact
        .neighbors
        .iter()
        .zip(before.neighbors.into_iter().zip(after.neighbors))
        .map(|(neighbor, ((ids_before, before), (ids_after, after)))| {
            let same = ids_before.iter().zip(&ids_after).filter(|(before, after)| before == after).count();
            let score = same as f64 / ids_before.len().max(1) as f64;
            Probe { prompt: neighbor.prompt.clone(), before, after, score }
        })
        .collect();
    FactReport {
        subject: fact.subject.clone(),
        prompt: fact.prompt.clone(),
        target_new: fact.target_new.clone(),
        target_true: fact.target_true.clone(),
        before: before.measure,
        after: after.measure,
        reliability: after.reliability,
        generalization: mean_score(&paraphrases),
        locality: mean_score(&neighbors),
        paraphrases,
        neighbors,
    }
}

fn token_accuracy(row: &Scored, scores: &[TokenScore]) -> f64 {
    let right = row.ids[row.from..].iter().zip(scores).filter(|(id, score)| **id == score.predicted).count();
    right as f64 / scores.len().max(1) as f64
}

fn mean_score(probes: &[Probe]) -> Option<f64> {
    (!probes.is_empty()).then(|| probes.iter().map(|probe| probe.score).sum::<f64>() / probes.len() as f64)
}

/// `exp` of the mean negative log-likelihood of a text, cut into windows of which each begins anew.
///
/// The first token of a window has nothing before it and is not scored.
pub async fn perplexity(of: &LoadedModel, text: &str, window: usize, windows: usize) -> Result<f64> {
    of.model.check_length(window, "the window")?;
    let ids = of.tokenizer.encode(text)?;
    let (mut log_p, mut tokens) = (0.0, 0);
    for window in ids.chunks_exact(window.max(2)).take(windows) {
        let scores = of.model.score(&[Scored { ids: window.to_vec(), from: 1 }]).await?;
        log_p += scores[0].iter().map(|score| score.log_p).sum::<f64>();
        tokens += scores[0].len();
    }
    if tokens == 0 {
        return Err(Error::bad_input("the text is shorter than one window"));
    }
    Ok((-log_p / f64::from(u32::try_from(tokens).expect("few tokens"))).exp())
}
