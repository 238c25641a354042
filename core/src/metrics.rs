//! What an edit changed, in the two families of scores there are, and what the model says.
//!
//! Token accuracy under teacher forcing, as EasyEdit defines it: for a prompt q and a target t, ids = encode(q + " " + t)
//! and n = |encode(q)|; it is the share of positions j ≥ n whose token the model predicts from the true tokens before it.
//! Reliability, generalization and portability are that; locality is the share of predictions that stayed.
//!
//! Probabilities of the new target beside the true one, as ROME defines them: see [`ProbabilityScores`].

use rectify_protocol::{Candidate, Fact, FactReport, FactScores, Measure, ProbabilityScores, Probe};

use crate::{
    Error, Result,
    model::{
        LoadedModel, Model,
        generate::{Scored, TokenScore},
    },
    tokenizer::Tokenizer,
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
    /// Token accuracy of each consequence's target.
    consequences: Vec<f64>,
    probability: Option<ProbabilityScores>,
}

/// What one model says to a fact's prompts.
pub struct Answers {
    predictions: Predictions,
    /// The likeliest next tokens after the prompt.
    top: Vec<Candidate>,
    /// Greedy continuations: of the prompt, the paraphrases, the neighbours, the consequences.
    texts: Vec<String>,
}

/// Lets each of several variants of a model predict along every target of a fact, in one batch.
///
/// # Errors
///
/// When the fact is not valid, or a row does not fit the context.
pub async fn predict(models: &[Model], tokenizer: &Tokenizer, fact: &Fact) -> Result<Vec<Predictions>> {
    let targets = Targets::of(tokenizer, fact)?;
    let scores = Model::score_each(models, &targets.rows).await?;
    Ok(scores.iter().map(|scores| targets.predictions(scores)).collect())
}

/// Every target of a fact, as rows of one batch.
struct Targets {
    rows: Vec<Scored>,
    /// The new target after the prompt and, where there is one, the true one; the same after each paraphrase.
    prompt: (usize, Option<usize>),
    paraphrases: Vec<(usize, Option<usize>)>,
    /// Each neighbour's own target.
    neighbors: Vec<usize>,
    /// Of neighbours whose target is the true one: it, and the new one in its place.
    rivals: Vec<(usize, usize)>,
    consequences: Vec<usize>,
}

impl Targets {
    fn of(tokenizer: &Tokenizer, fact: &Fact) -> Result<Self> {
        fact.validate()?;
        let mut rows = Vec::new();
        let mut row = |prompt: &str, target: &str| -> Result<usize> {
            rows.push(Scored::new(tokenizer, prompt, target)?);
            Ok(rows.len() - 1)
        };
        let mut both = |prompt: &str| -> Result<(usize, Option<usize>)> {
            let new = row(prompt, &fact.target_new)?;
            Ok((new, fact.target_true.as_ref().map(|target| row(prompt, target)).transpose()?))
        };
        let prompt = both(&fact.prompt)?;
        let paraphrases = fact.paraphrases.iter().map(|prompt| both(prompt)).collect::<Result<Vec<_>>>()?;
        let mut rivals = Vec::new();
        let mut neighbors = Vec::new();
        for neighbor in &fact.neighbors {
            // Without a target, the token that the prompt's last one predicts is compared: any token may stand behind it.
            let at = row(&neighbor.prompt, neighbor.target.as_deref().unwrap_or("the"))?;
            neighbors.push(at);
            if neighbor.target.is_some() && neighbor.target == fact.target_true {
                rivals.push((at, row(&neighbor.prompt, &fact.target_new)?));
            }
        }
        let consequences = fact.consequences.iter().map(|consequence| row(&consequence.prompt, &consequence.target));
        let consequences = consequences.collect::<Result<Vec<_>>>()?;
        for (at, _) in neighbors.iter().zip(&fact.neighbors).filter(|(_, neighbor)| neighbor.target.is_none()) {
            let row = &mut rows[*at];
            row.ids.truncate(row.from + 1);
        }
        Ok(Self { rows, prompt, paraphrases, neighbors, rivals, consequences })
    }

    /// What a model predicts, by its scores of the rows.
    fn predictions(&self, scores: &[Vec<TokenScore>]) -> Predictions {
        let probability = |row: usize| scores[row].iter().map(|score| score.log_p).sum::<f64>().exp();
        let accuracy = |row: usize| token_accuracy(&self.rows[row], &scores[row]);
        // How often the first is likelier than the second, and by how much in the mean; absent where nothing is compared.
        let contrast = |pairs: &[(usize, usize)]| {
            let compared = pairs.iter().map(|(a, b)| (per_token(&scores[*a]), per_token(&scores[*b])));
            let (wins, gaps): (Vec<f64>, Vec<f64>) =
                compared.map(|(a, b)| (f64::from(u8::from(a > b)), a.exp() - b.exp())).unzip();
            mean(&wins).zip(mean(&gaps))
        };
        let known = |(new, old): &(usize, Option<usize>)| Some((*new, (*old)?));
        let (ps, pm) = contrast(&self.paraphrases.iter().filter_map(known).collect::<Vec<_>>()).unzip();
        let (ns, nm) = contrast(&self.rivals).unzip();
        let asked_both: Vec<_> = known(&self.prompt).into_iter().collect();
        Predictions {
            p_new: probability(self.prompt.0),
            p_true: self.prompt.1.map(probability),
            reliability: accuracy(self.prompt.0),
            paraphrases: self.paraphrases.iter().map(|(new, _)| accuracy(*new)).collect(),
            neighbors: {
                let predicted = |row: &usize| scores[*row].iter().map(|score| score.predicted).collect();
                self.neighbors.iter().map(predicted).collect()
            },
            consequences: self.consequences.iter().map(|row| accuracy(*row)).collect(),
            probability: contrast(&asked_both).map(|(es, em)| ProbabilityScores { es, em, ps, pm, ns, nm }),
        }
    }
}

/// Asks `model` everything a fact wants to know. Two batches: one predicted, one continued, each text to one of `ends`.
///
/// # Errors
///
/// As [`predict`].
pub async fn ask(model: &Model, tokenizer: &Tokenizer, ends: &[u32], fact: &Fact) -> Result<Answers> {
    let predictions = predict(std::slice::from_ref(model), tokenizer, fact).await?.remove(0);
    let prompts: Vec<Vec<u32>> = std::iter::once(&fact.prompt)
        .chain(&fact.paraphrases)
        .chain(fact.neighbors.iter().map(|neighbor| &neighbor.prompt))
        .chain(fact.consequences.iter().map(|consequence| &consequence.prompt))
        .map(|prompt| tokenizer.encode(prompt))
        .collect::<Result<_>>()?;
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let room = model.shape().context.saturating_sub(longest).min(CONTINUATION);
    let texts = model.greedy(&prompts, room, ends).await?;
    let texts = texts.iter().map(|ids| tokenizer.decode(ids)).collect::<Result<Vec<_>>>()?;
    let top = model.candidates(tokenizer, &prompts[0], TOP).await?;
    Ok(Answers { predictions, top, texts })
}

/// An edit's scores on one fact, from what was predicted before and after it.
pub fn scores(before: &Predictions, after: &Predictions) -> FactScores {
    FactScores {
        reliability: after.reliability,
        generalization: mean(&after.paraphrases),
        locality: mean(&unchanged(before, after)),
        portability: mean(&after.consequences),
        p_new: after.p_new,
        p_true: after.p_true,
        probability: after.probability,
    }
}

fn mean(scores: &[f64]) -> Option<f64> {
    (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
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
    let FactScores { reliability, generalization, locality, portability, probability, .. } =
        scores(&before.predictions, &after.predictions);
    let stayed = unchanged(&before.predictions, &after.predictions);
    let asked = (fact.paraphrases.iter())
        .chain(fact.neighbors.iter().map(|neighbor| &neighbor.prompt))
        .chain(fact.consequences.iter().map(|consequence| &consequence.prompt));
    let scored = after.predictions.paraphrases.iter().chain(&stayed).chain(&after.predictions.consequences);
    let texts = before.texts[1..].iter().zip(&after.texts[1..]);
    let mut probes = asked.zip(texts).zip(scored).map(|((prompt, (before, after)), score)| Probe {
        prompt: prompt.clone(),
        before: before.clone(),
        after: after.clone(),
        score: *score,
    });
    let paraphrases = probes.by_ref().take(fact.paraphrases.len()).collect();
    let neighbors = probes.by_ref().take(fact.neighbors.len()).collect();
    let consequences = probes.collect();
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
        portability,
        probability,
        paraphrases,
        neighbors,
        consequences,
    }
}

impl Answers {
    fn measure(self) -> Measure {
        let Predictions { p_new, p_true, .. } = self.predictions;
        let text = self.texts.into_iter().next().expect("the prompt is always continued");
        Measure { p_new, p_true, top: self.top, text }
    }
}

/// The mean of the tokens' log-probabilities.
fn per_token(scores: &[TokenScore]) -> f64 {
    scores.iter().map(|score| score.log_p).sum::<f64>() / scores.len() as f64
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
