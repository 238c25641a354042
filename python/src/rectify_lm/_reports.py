"""What the program reports, field by field as in its JSON documents. Each keeps its whole JSON object in `raw`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True, kw_only=True)
class _Document:
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """The JSON object, with fields that this version of the package does not know."""


class Candidate(NamedTuple):
    """A token that may come next."""

    token: str
    p: float


@dataclass(frozen=True, kw_only=True)
class ModelInfo(_Document):
    """What a model is."""

    id: str
    """The id, folder or Hub name it was loaded by."""
    architecture: str
    hash: str
    """SHA-256 of the weights' file, or of its shards' hashes in order; hexadecimal."""
    layers: int
    d_model: int
    """Width of the residual stream."""
    d_mlp: int
    """Width of the MLP, which is the length of a key."""
    vocab: int
    """Tokens in the vocabulary."""
    context: int
    """Tokens that fit the context."""
    editors: tuple[Mapping[str, Any], ...]
    """Each method's settings for this model."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The file that a method's settings were read from; where there is none, a rule for the family made them."""
    ignored: tuple[str, ...] = ()
    """Keys of ``config.json`` and tensors that were left out of account, because someone said so."""
    precision: str = "f32"
    """How its matrices were stored while it computed."""
    device: str
    """What computed: ``flex`` (the processor), ``wgpu``, ``vulkan``, ``cuda``."""


@dataclass(frozen=True, kw_only=True)
class Answer(_Document):
    """How a model completes a prompt."""

    model: ModelInfo
    edits: str | None
    """The change that was applied."""
    prompt: str
    top: tuple[Candidate, ...]
    """The most likely next tokens, best first."""
    text: str
    """The greedy continuation."""


@dataclass(frozen=True, kw_only=True)
class Measure(_Document):
    """A prompt asked of one model."""

    p_new: float
    """Probability of the whole new target after the prompt."""
    p_true: float | None
    """Probability of the whole true target, where one is given."""
    top: tuple[Candidate, ...]
    text: str
    """The greedy continuation."""


@dataclass(frozen=True, kw_only=True)
class Probe(_Document):
    """A paraphrase, neighbour or consequence before and after an edit."""

    prompt: str
    before: str
    """Greedy continuation before."""
    after: str
    """Greedy continuation after."""
    score: float
    """A paraphrase's or consequence's token accuracy after the edit; of a neighbour, the share of predictions that
    stayed."""


@dataclass(frozen=True, kw_only=True)
class ProbabilityScores(_Document):
    """New and true target compared by their probabilities per token, as ROME's CounterFact evaluation does."""

    es: float
    """Efficacy score: 1 where the new target is likelier than the true one after the prompt."""
    em: float
    """Efficacy magnitude: ``p(new) - p(true)``."""
    ps: float | None
    """Paraphrase score."""
    pm: float | None
    """Paraphrase magnitude."""
    ns: float | None
    """Neighbourhood score."""
    nm: float | None
    """Neighbourhood magnitude."""


@dataclass(frozen=True, kw_only=True)
class ProbabilityMeans(ProbabilityScores):
    """Means over facts, and their harmonic mean."""

    s: float | None
    """Score S: the harmonic mean of ES, PS and NS."""


@dataclass(frozen=True, kw_only=True)
class FactReport(_Document):
    """One fact before and after an edit. Scores are token accuracies under teacher forcing, in [0, 1]."""

    subject: str
    prompt: str
    target_new: str
    target_true: str | None
    before: Measure
    after: Measure
    reliability: float
    """Share of the new target's tokens that the edited model predicts after the prompt."""
    generalization: float | None
    """The same over the paraphrases; `None` without any."""
    locality: float | None
    """Share of predictions along the neighbours' targets that stayed; `None` without any."""
    portability: float | None = None
    """Token accuracy of what follows from the fact; `None` without any."""
    probability: ProbabilityScores | None = None
    """New and true target compared, where a true target is given."""
    paraphrases: tuple[Probe, ...]
    neighbors: tuple[Probe, ...]
    consequences: tuple[Probe, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Step(_Document):
    """One evaluation of the loss by which a value is found."""

    fact: int
    step: int
    nll: float
    """Negative log-likelihood of the target, nats."""
    kl: float
    weight_decay: float
    p_target: float
    delta_norm: float


@dataclass(frozen=True, kw_only=True)
class Percentile(_Document):
    """A share of the entries of a matrix, and the relative change that they stay below."""

    share: float
    value: float


@dataclass(frozen=True, kw_only=True)
class Above(_Document):
    """A relative change, and the share of the entries above it."""

    threshold: float
    share: float


@dataclass(frozen=True, kw_only=True)
class WeightChange(_Document):
    """What an edit did to one matrix, after regularisation."""

    name: str
    """The matrix's name in the checkpoint."""
    entries: int
    kept: int
    """Entries that the regularizer let through."""
    frobenius: float
    """Frobenius norm of the change."""
    manhattan: float
    """Sum of absolute changes."""
    percentiles: tuple[Percentile, ...]
    above: tuple[Above, ...]
    blocks: Mapping[str, Any] | None = None
    """A picture of the relative change, where it was asked for."""


@dataclass(frozen=True, kw_only=True)
class Operation(_Document):
    """One editing operation, with everything needed to run it again."""

    schema: int
    model_hash: str
    spec: Mapping[str, Any]
    """Settings in full: defaults and layers are filled in."""
    device: str
    facts: tuple[FactReport, ...]
    seconds: float
    """From the key to the applied update; measuring is not in it."""
    steps: int
    delta_norm: float
    """Frobenius norm of all changes together."""
    manhattan: float
    kept: int
    weights: tuple[WeightChange, ...]
    trace: tuple[Step, ...]
    perplexity: tuple[float, float] | None = None
    """Of a text that the unedited model wrote, before and after, where a guard looked."""
    notes: tuple[str, ...]
    edits: int
    """How many edits the model carried then."""


@dataclass(frozen=True, kw_only=True)
class RunCommand(_Document):
    """What was asked for, with everything filled in."""

    program: str
    """The program, its version and commit."""
    facts: str
    format: str
    index: tuple[int, int]
    mode: str
    skip_bad: bool = False
    covariance: str | None
    spec: Mapping[str, Any]
    device: str


@dataclass(frozen=True, kw_only=True)
class Failure(_Document):
    """What went wrong with a record."""

    kind: str
    message: str
    field: str | None = None


@dataclass(frozen=True, kw_only=True)
class FailedRecord(_Document):
    """A record that was not edited."""

    record: int
    failure: Failure


@dataclass(frozen=True, kw_only=True)
class Summary(_Document):
    """Means over facts. A score that no fact has is `None`."""

    n: int
    reliability: float | None
    generalization: float | None
    locality: float | None
    portability: float | None = None
    probability: ProbabilityMeans | None = None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RunReport(_Document):
    """What an edit did, as in its ``report.json``."""

    schema: int
    command: RunCommand
    model: ModelInfo
    """The unedited model."""
    operations: tuple[Operation, ...]
    failed: tuple[FailedRecord, ...] = ()
    summary: Summary
    """Means over the operations' facts, right after each."""
    final_measure: tuple[FactReport, ...] | None = None
    """Sequential mode: every fact once more, asked of the model that carries all edits."""
    final_weights: tuple[WeightChange, ...] | None = None
    """Sequential mode: how far all edits together moved each matrix."""
    final_summary: Summary | None = None
    """Means over `final_measure`."""


class Tally(NamedTuple):
    """So many of so many."""

    hits: float
    total: float


@dataclass(frozen=True, kw_only=True)
class Verdict(_Document):
    """One reading of the replies: a count for each part that the score is the mean of."""

    parts: Mapping[str, Tally]
    unparsed: int
    """Replies that nobody can read as an answer. They count as wrong."""


@dataclass(frozen=True, kw_only=True)
class Judgement(_Document):
    """How records were answered, read in two ways."""

    paper: Verdict
    strict: Verdict
    also: Mapping[str, Tally] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TaskScores(_Document):
    """A task's scores over many records."""

    n: int
    paper: float | None
    """As the paper's figures have it."""
    strict: float | None
    """As the metric's name promises."""
    sum: Judgement


@dataclass(frozen=True, kw_only=True)
class TaskReport(_Document):
    """A task's scores on one model, and how fast they were found."""

    task: str
    name: str
    file: tuple[str, str]
    """The file of records, and its SHA-256."""
    skipped: int
    """Records that do not fit the model's context."""
    scores: TaskScores
    seconds: float
    tokens: int


@dataclass(frozen=True, kw_only=True)
class EvalReport(_Document):
    """What tasks found."""

    schema: int
    program: str
    model: str
    model_hash: str
    edits: str | None
    ignored: tuple[str, ...] = ()
    precision: str = "f32"
    tasks: tuple[TaskReport, ...]


@dataclass(frozen=True, kw_only=True)
class WrittenTensor(_Document):
    """A tensor of an edited model as it was stored."""

    name: str
    dtype: str
    rounding: float
    """What rounding did to the change, as a share of it."""


@dataclass(frozen=True, kw_only=True)
class AdaptedModule(_Document):
    """What an adapter holds of one matrix."""

    module: str
    rank: int
    error: float
    """What it leaves out, as a share of the change."""


@dataclass(frozen=True, kw_only=True)
class MergeReport(_Document):
    """What was written of an edited model."""

    schema: int
    out: str
    format: str
    tensors: tuple[WrittenTensor, ...]
    modules: tuple[AdaptedModule, ...]
