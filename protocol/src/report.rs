use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ArchitectureKind, EditSpec, EditorSpec, Precision};

/// What a model is, as far as a page needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The id or folder it was loaded by.
    pub id: String,
    /// GPT-2 or LLaMA.
    pub architecture: ArchitectureKind,
    /// SHA-256 of the weights' file, or of its shards' hashes in order; hexadecimal.
    pub hash: String,
    /// Number of blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of the MLP, which is the length of a key.
    pub d_mlp: usize,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Tokens that fit the context.
    pub context: usize,
    /// Each method's settings for this model, its layers filled in.
    pub editors: Vec<EditorSpec>,
    /// The file that a method's settings were read from; where there is none, a rule for the family made them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// Keys of `config.json` and tensors that were left out of account, because someone said so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
    /// How its matrices were stored while it computed.
    #[serde(default, skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
    /// What computes: `flex` (CPU), `webgpu`, `vulkan`, `cuda`.
    pub device: String,
}

/// A token that may come next: the pair `[token, p]` in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate(
    /// The token's text.
    pub String,
    /// Its probability.
    pub f64,
);

/// How a model completes a prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The prompt.
    pub prompt: String,
    /// The most likely next tokens, best first.
    pub top: Vec<Candidate>,
    /// The greedy continuation.
    pub text: String,
}

/// A prompt asked of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Probability of the whole new target after the prompt.
    pub p_new: f64,
    /// Probability of the whole true target, where one is given.
    pub p_true: Option<f64>,
    /// The most likely next tokens, best first.
    pub top: Vec<Candidate>,
    /// The greedy continuation.
    pub text: String,
}

/// A paraphrase, neighbour or consequence before and after an edit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// What was asked.
    pub prompt: String,
    /// Greedy continuation before.
    pub before: String,
    /// Greedy continuation after.
    pub after: String,
    /// For a paraphrase or consequence: token accuracy of its target after the edit.
    /// For a neighbour: share of tokens predicted along its target that are the same before and after.
    pub score: f64,
}

/// An edit's scores on one fact: token accuracies under teacher forcing, in [0, 1], as EasyEdit defines them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FactScores {
    /// Share of the new target's tokens that the edited model predicts after the prompt.
    pub reliability: f64,
    /// The same over the paraphrases; absent without any.
    pub generalization: Option<f64>,
    /// Share of predictions along the neighbours' targets that stayed; absent without any.
    pub locality: Option<f64>,
    /// Token accuracy of the answers to what follows from the fact; absent without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub portability: Option<f64>,
    /// Probability of the whole new target after the prompt.
    pub p_new: f64,
    /// Probability of the whole true target, where one is given.
    pub p_true: Option<f64>,
    /// The other family of scores, where a true target is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<ProbabilityScores>,
}

/// Scores that compare the probabilities of the new and the true target after an edit, as ROME's CounterFact evaluation
/// defines them (Meng et al. 2022, section 3.4). A target's probability is per token: `exp` of its mean log-probability.
///
/// A neighbour takes part where its answer is the true target, as all of CounterFact's do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbabilityScores {
    /// Efficacy score ES: 1 where the new target is likelier than the true one after the prompt, else 0.
    pub es: f64,
    /// Efficacy magnitude EM: by how much, `p(new) − p(true)`.
    pub em: f64,
    /// Paraphrase score PS: the share of paraphrases after which the new target is likelier; absent without any.
    pub ps: Option<f64>,
    /// Paraphrase magnitude PM: by how much in the mean.
    pub pm: Option<f64>,
    /// Neighbourhood score NS: the share of neighbours after which the true target is likelier; absent without any.
    pub ns: Option<f64>,
    /// Neighbourhood magnitude NM: by how much in the mean, `p(true) − p(new)`.
    pub nm: Option<f64>,
}

/// Means of [`ProbabilityScores`] over facts, each over those that have it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbabilityMeans {
    /// The mean of each score.
    #[serde(flatten)]
    pub means: ProbabilityScores,
    /// Score S: the harmonic mean of the means of ES, PS and NS.
    pub s: Option<f64>,
}

impl ProbabilityMeans {
    /// The means; `None` for an empty list.
    pub fn of(scores: &[ProbabilityScores]) -> Option<Self> {
        let over = |score: fn(&ProbabilityScores) -> Option<f64>| mean(scores.iter().filter_map(score));
        let means = ProbabilityScores {
            es: over(|scores| Some(scores.es))?,
            em: over(|scores| Some(scores.em))?,
            ps: over(|scores| scores.ps),
            pm: over(|scores| scores.pm),
            ns: over(|scores| scores.ns),
            nm: over(|scores| scores.nm),
        };
        let s = means.ps.zip(means.ns).map(|(ps, ns)| 3.0 / (means.es.recip() + ps.recip() + ns.recip()));
        Some(Self { means, s })
    }
}

/// Absent of nothing.
pub(crate) fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (n, sum) = values.into_iter().fold((0, 0.0), |(n, sum), value| (n + 1, sum + value));
    (n > 0).then(|| sum / f64::from(n))
}

/// One fact before and after an edit. Scores are token accuracies under teacher forcing, in [0, 1].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FactReport {
    /// The fact's subject.
    pub subject: String,
    /// The prompt that was edited.
    pub prompt: String,
    /// The object the edit writes.
    pub target_new: String,
    /// The object it replaces, where known.
    pub target_true: Option<String>,
    /// The prompt asked before the edit.
    pub before: Measure,
    /// The prompt asked after it.
    pub after: Measure,
    /// Share of the new target's tokens that the edited model predicts after the prompt.
    pub reliability: f64,
    /// The same over the paraphrases; absent without any.
    pub generalization: Option<f64>,
    /// Share of predictions along the neighbours' targets that stayed; absent without any.
    pub locality: Option<f64>,
    /// Token accuracy of the answers to what follows from the fact; absent without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub portability: Option<f64>,
    /// Probabilities of new and true target compared, where a true target is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<ProbabilityScores>,
    /// Each paraphrase.
    pub paraphrases: Vec<Probe>,
    /// Each neighbour.
    pub neighbors: Vec<Probe>,
    /// Each consequence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consequences: Vec<Probe>,
}

/// One evaluation of the value's loss: what the reference implementations print each step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Which fact of the operation.
    pub fact: usize,
    /// Counted from zero.
    pub step: usize,
    /// Negative log-likelihood of the target, mean over contexts and tokens, nats.
    pub nll: f64,
    /// Divergence from the untouched model after the bare subject, times its factor.
    pub kl: f64,
    /// The weight decay's share of the loss.
    pub weight_decay: f64,
    /// Mean over contexts of `exp(-nll)`.
    pub p_target: f64,
    /// `‖δ‖` at this evaluation.
    pub delta_norm: f64,
}

impl Step {
    /// The loss that is minimised.
    pub fn loss(&self) -> f64 {
        self.nll + self.kl + self.weight_decay
    }
}

/// What an edit did to one matrix, after regularisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightChange {
    /// The matrix's name in the checkpoint.
    pub name: String,
    /// Entries in the matrix.
    pub entries: usize,
    /// Entries that the regularizer let through.
    pub kept: usize,
    /// Frobenius norm of the change.
    pub frobenius: f64,
    /// Sum of absolute changes.
    pub manhattan: f64,
    /// `|ΔW / W|` below which so many of the entries lie.
    pub percentiles: Vec<Percentile>,
    /// How many of the entries lie above the paper's thresholds.
    pub above: Vec<Above>,
    /// The picture of `|ΔW / W|`, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Blocks>,
}

/// A share of the entries, and the relative change that they stay below.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    /// In [0, 1].
    pub share: f64,
    /// `|ΔW / W|`; at most [`WeightChange::LARGEST`].
    pub value: f64,
}

/// A relative change, and the share of the entries above it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Above {
    /// `|ΔW / W|`
    pub threshold: f64,
    /// In [0, 1].
    pub share: f64,
}

/// `|ΔW / W|`, cut off at 1, of blocks of a matrix, row by row: rows are the key's entries, columns the value's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Blocks {
    /// Blocks from top to bottom.
    pub rows: usize,
    /// Blocks from left to right.
    pub columns: usize,
    /// The largest in each block.
    pub max: Vec<f32>,
    /// The mean of each block.
    pub mean: Vec<f32>,
}

impl WeightChange {
    /// RECT's Table 1 counts entries above these: the 80th and 90th percentile of its single edits.
    pub const THRESHOLDS: [f64; 2] = [0.077, 0.171];
    /// The shares of [`Self::percentiles`].
    pub const SHARES: [f64; 4] = [0.5, 0.8, 0.9, 0.99];
    /// What a change of a zero weight counts as.
    pub const LARGEST: f64 = 1e9;
}

/// One editing operation, with everything needed to run it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EditReport {
    /// Version of this shape.
    pub schema: u32,
    /// SHA-256 of the unedited model's weights.
    pub model_hash: String,
    /// Settings in full: defaults and layers are filled in.
    pub spec: EditSpec,
    /// The device that computed it.
    pub device: String,
    /// Each fact of the operation, before and after it.
    pub facts: Vec<FactReport>,
    /// Wall-clock seconds from the key to the applied update; measuring is not in it.
    pub seconds: f64,
    /// Evaluations of the loss, over all facts.
    pub steps: usize,
    /// Frobenius norm of all changes together.
    pub delta_norm: f64,
    /// Sum of absolute changes, over all matrices.
    pub manhattan: f64,
    /// Entries that the regularizer let through, over all matrices.
    pub kept: usize,
    /// Each matrix that changed.
    pub weights: Vec<WeightChange>,
    /// The loss at each evaluation, fact by fact.
    pub trace: Vec<Step>,
    /// Perplexity of a text that the unedited model wrote, before and after the edit, where a guard looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<[f64; 2]>,
    /// What a reader should know beside the numbers: a warning, an approximation.
    pub notes: Vec<String>,
    /// How many edits the session's model carries now.
    pub edits: usize,
}

impl EditReport {
    /// The version written into [`EditReport::schema`].
    pub const SCHEMA: u32 = 2;
}
