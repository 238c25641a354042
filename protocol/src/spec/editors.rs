use serde::{Deserialize, Serialize};

use super::{ValueSpec, at_least_zero, finite_above_zero};
use crate::{ArchitectureKind, Failure, bounds};

/// Hyper-parameters of ROME, <https://arxiv.org/abs/2202.05262>. The defaults are the published ones of GPT-2 XL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RomeSpec {
    /// The layer whose down projection is edited; the model's default when absent.
    pub layers: Option<Vec<usize>>,
    /// Which token's key is edited.
    pub fact_token: FactToken,
    /// Whether the key is whitened by the inverse second moment of the layer's keys.
    pub mom2_adjustment: bool,
    /// Which key the update is made for.
    pub key: KeyChoice,
    /// How the value is found.
    pub value: ValueSpec,
}

impl Default for RomeSpec {
    fn default() -> Self {
        Self {
            layers: None,
            fact_token: FactToken::SubjectLast,
            mom2_adjustment: false,
            key: KeyChoice::Mixed,
            value: ValueSpec::default(),
        }
    }
}

impl RomeSpec {
    pub(super) fn published(architecture: ArchitectureKind) -> Self {
        let value = match architecture {
            ArchitectureKind::Gpt2 | ArchitectureKind::GptJ => ValueSpec::default(),
            _ => ValueSpec { v_num_grad_steps: 25, v_weight_decay: 1e-3, ..ValueSpec::default() },
        };
        Self { value, ..Self::default() }
    }
}

/// Which token of the prompt an edit reads its key at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactToken {
    /// The last token of the subject, as published.
    SubjectLast,
    /// The last token of the prompt.
    Last,
}

/// Which key ROME whitens (`u`) and which it divides by: the published pair differs, which is why edits explode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyChoice {
    /// As published: the mean over contexts in `u`, the bare prompt's key in the denominator.
    Mixed,
    /// r-ROME: the mean key in both, <https://arxiv.org/abs/2403.07175>.
    Mean,
    /// p-ROME: the bare prompt's key in both.
    Prompt,
}

/// Hyper-parameters of MEMIT, <https://arxiv.org/abs/2210.07229>. The defaults are the published ones of GPT-2 XL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemitSpec {
    /// The layers that share an update, ascending; the model's default when absent.
    pub layers: Option<Vec<usize>>,
    /// λ: weight of the second moment against the batch's own keys.
    pub mom2_update_weight: f64,
    /// Whether the keys of earlier edits are held as well (MEMIT-seq).
    pub history: bool,
    /// How the values are found.
    pub value: ValueSpec,
}

impl Default for MemitSpec {
    fn default() -> Self {
        let value = ValueSpec { clamp_norm_factor: 0.75, ..ValueSpec::default() };
        Self { layers: None, mom2_update_weight: 20_000.0, history: false, value }
    }
}

impl MemitSpec {
    pub(super) fn published(architecture: ArchitectureKind) -> Self {
        match architecture {
            ArchitectureKind::Gpt2 | ArchitectureKind::GptJ => Self::default(),
            _ => {
                Self { mom2_update_weight: 15_000.0, value: RomeSpec::published(architecture).value, ..Self::default() }
            }
        }
    }
}

/// Hyper-parameters of EMMET, <https://arxiv.org/abs/2403.14236>: as MEMIT, but the facts are a constraint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmmetSpec {
    /// The layer that is edited; the model's default for ROME when absent.
    pub layers: Option<Vec<usize>>,
    /// Weight of the second moment.
    pub mom2_update_weight: f64,
    /// How far a batch of more than one fact may miss its values.
    pub emmet_lambda: f64,
    /// How the values are found.
    pub value: ValueSpec,
}

impl Default for EmmetSpec {
    fn default() -> Self {
        let value = ValueSpec { clamp_norm_factor: 0.75, ..ValueSpec::default() };
        Self { layers: None, mom2_update_weight: 1_000.0, emmet_lambda: 0.1, value }
    }
}

impl EmmetSpec {
    pub(super) fn published(architecture: ArchitectureKind) -> Self {
        match architecture {
            ArchitectureKind::Gpt2 | ArchitectureKind::GptJ => Self::default(),
            _ => Self { mom2_update_weight: 1.0, value: RomeSpec::published(architecture).value, ..Self::default() },
        }
    }
}

/// Hyper-parameters of AlphaEdit, <https://arxiv.org/abs/2410.02355>: MEMIT within the directions that keys leave free.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlphaEditSpec {
    /// The layers that share an update, ascending; MEMIT's default when absent.
    pub layers: Option<Vec<usize>>,
    /// Eigenvalues of the second moment below this count as free.
    pub nullspace_threshold: f64,
    /// Ridge of the solution.
    #[serde(rename = "L2")]
    pub l2: f64,
    /// How the values are found.
    pub value: ValueSpec,
}

impl Default for AlphaEditSpec {
    fn default() -> Self {
        let value = ValueSpec { clamp_norm_factor: 0.75, ..ValueSpec::default() };
        Self { layers: None, nullspace_threshold: 2e-2, l2: 10.0, value }
    }
}

impl AlphaEditSpec {
    pub(super) fn published(architecture: ArchitectureKind) -> Self {
        match architecture {
            ArchitectureKind::Gpt2 | ArchitectureKind::GptJ => Self::default(),
            // Llama-3-8B's, the only LLaMA its authors ran.
            _ => {
                let value = ValueSpec { v_num_grad_steps: 25, v_lr: 0.1, ..Self::default().value };
                Self { value, ..Self::default() }
            }
        }
    }
}

/// Hyper-parameters of KN, knowledge neurons, <https://arxiv.org/abs/2104.08696>. The defaults are the published ones
/// of GPT-2 XL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KnSpec {
    /// Points of the integral from a silent neuron to its activation.
    pub steps: usize,
    /// Points that are computed together; it divides `steps`.
    pub batch_size: usize,
    /// A neuron is chosen when its share exceeds this × the largest share.
    pub adaptive_threshold: f64,
    /// Which tokens neurons are held responsible for, and what is written into them.
    pub variant: KnVariant,
    /// What a neuron is.
    pub neuron: KnNeuron,
}

/// Which value of the MLP is taken for a neuron's activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KnNeuron {
    /// As released: before the nonlinearity; LLaMA's gate.
    PreActivation,
    /// As in the paper: what the down projection reads.
    PostActivation,
}

/// How KN reads a fact, and how much it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KnVariant {
    /// As published: objects have no space before them and keep a BOS; GPT-2 is asked for each token of the true object
    /// after the bare prompt, LLaMA after what it says itself; of an object of one token, what the model says now is
    /// taken out twice and the new object put in once.
    Released,
    /// Objects are tokenized as they follow a prompt, each true token is asked for after the true tokens before it, and
    /// what is taken out and what is put in weigh the same.
    Strict,
}

impl Default for KnSpec {
    fn default() -> Self {
        Self {
            steps: 20,
            batch_size: 20,
            adaptive_threshold: 0.2,
            variant: KnVariant::Released,
            neuron: KnNeuron::PreActivation,
        }
    }
}

impl KnSpec {
    pub(super) fn published(architecture: ArchitectureKind) -> Self {
        match architecture {
            ArchitectureKind::Gpt2 | ArchitectureKind::GptJ => Self::default(),
            _ => Self { steps: 1, batch_size: 1, ..Self::default() },
        }
    }
}

/// How MEND's hypernetwork is used, <https://arxiv.org/abs/2110.11309>. What it learnt is in its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MendSpec {
    /// The update is multiplied by this.
    pub lr_scale: f64,
    /// Whether the hypernetwork is used as in the code that RECT was released with, which differs in four ways from
    /// how it was trained: the learnt step sizes go to the matrices in the order in which the model defines them; the
    /// learnt statistics are thrown away and taken from the facts alone; labels are tokenised by themselves, LLaMA's
    /// first token included; and what fills shorter labels up is asked for too.
    pub released: bool,
}

impl Default for MendSpec {
    fn default() -> Self {
        Self { lr_scale: 1.0, released: false }
    }
}

/// Hyper-parameters of fine-tuning one matrix, FT-L and FT-M. The defaults are FT-L's for GPT-2 XL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FtSpec {
    /// The layers whose down projections are trained; the model's default when absent.
    pub layers: Option<Vec<usize>>,
    /// What is asked for.
    pub objective: FtObjective,
    /// Passes over the facts, at most.
    pub num_steps: usize,
    /// Adam's learning rate.
    pub lr: f64,
    /// No entry moves further than this; unbounded when absent.
    pub norm_constraint: Option<f64>,
}

/// What fine-tuning asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FtObjective {
    /// FT-L: every token of the target at the prompt's last position, as a bag.
    PromptLast,
    /// FT-M: the target after the prompt, token by token.
    TargetNew,
}

impl Default for FtSpec {
    fn default() -> Self {
        Self { layers: None, objective: FtObjective::PromptLast, num_steps: 25, lr: 5e-4, norm_constraint: Some(5e-4) }
    }
}

impl FtSpec {
    pub(super) fn published(architecture: ArchitectureKind) -> Self {
        match architecture {
            ArchitectureKind::Gpt2 | ArchitectureKind::GptJ => Self::default(),
            _ => Self { norm_constraint: None, ..Self::default() },
        }
    }
}

/// Which editor, with its hyper-parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase")]
pub enum EditorSpec {
    /// One fact as a rank-one change of one matrix.
    Rome(RomeSpec),
    /// Many facts at once, spread over several layers.
    Memit(MemitSpec),
    /// Many facts at once as constraints, in one layer.
    Emmet(EmmetSpec),
    /// Many facts at once, within what other keys leave free.
    AlphaEdit(AlphaEditSpec),
    /// Knowledge neurons, rewritten.
    Kn(KnSpec),
    /// A learnt map from gradients to updates.
    Mend(MendSpec),
    /// Fine-tuning of one matrix.
    Ft(FtSpec),
}

impl EditorSpec {
    /// Every method's name, as the command line and the page write it.
    pub const METHODS: &[&str] = &["rome", "memit", "emmet", "alphaedit", "kn", "mend", "ft"];

    /// The published settings of one of [`Self::METHODS`] for a model family.
    pub fn published(method: &str, family: ArchitectureKind) -> Option<Self> {
        Some(match method {
            "rome" => Self::Rome(RomeSpec::published(family)),
            "memit" => Self::Memit(MemitSpec::published(family)),
            "emmet" => Self::Emmet(EmmetSpec::published(family)),
            "alphaedit" => Self::AlphaEdit(AlphaEditSpec::published(family)),
            "kn" => Self::Kn(KnSpec::published(family)),
            "mend" => Self::Mend(MendSpec::default()),
            "ft" => Self::Ft(FtSpec::published(family)),
            _ => return None,
        })
    }

    /// The method's name.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Rome(_) => "rome",
            Self::Memit(_) => "memit",
            Self::Emmet(_) => "emmet",
            Self::AlphaEdit(_) => "alphaedit",
            Self::Kn(_) => "kn",
            Self::Mend(_) => "mend",
            Self::Ft(_) => "ft",
        }
    }

    /// The method as its paper writes it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Rome(_) => "ROME",
            Self::Memit(_) => "MEMIT",
            Self::Emmet(_) => "EMMET",
            Self::AlphaEdit(_) => "AlphaEdit",
            Self::Kn(_) => "KN",
            Self::Mend(_) => "MEND",
            Self::Ft(_) => "Fine-tuning",
        }
    }

    /// The layers to edit, for the methods that are told any; absent where it is left to the model.
    pub fn layers(&self) -> Option<&[usize]> {
        match self {
            Self::Rome(spec) => spec.layers.as_deref(),
            Self::Memit(spec) => spec.layers.as_deref(),
            Self::Emmet(spec) => spec.layers.as_deref(),
            Self::AlphaEdit(spec) => spec.layers.as_deref(),
            Self::Ft(spec) => spec.layers.as_deref(),
            Self::Kn(_) | Self::Mend(_) => None,
        }
    }

    /// Where [`Self::layers`] stands, for the methods that are told any.
    pub fn layers_mut(&mut self) -> Option<&mut Option<Vec<usize>>> {
        match self {
            Self::Rome(spec) => Some(&mut spec.layers),
            Self::Memit(spec) => Some(&mut spec.layers),
            Self::Emmet(spec) => Some(&mut spec.layers),
            Self::AlphaEdit(spec) => Some(&mut spec.layers),
            Self::Ft(spec) => Some(&mut spec.layers),
            Self::Kn(_) | Self::Mend(_) => None,
        }
    }

    /// How values are found, for the methods that look for any.
    pub fn value(&self) -> Option<&ValueSpec> {
        match self {
            Self::Rome(spec) => Some(&spec.value),
            Self::Memit(spec) => Some(&spec.value),
            Self::Emmet(spec) => Some(&spec.value),
            Self::AlphaEdit(spec) => Some(&spec.value),
            Self::Kn(_) | Self::Mend(_) | Self::Ft(_) => None,
        }
    }

    /// The same, to be changed.
    pub fn value_mut(&mut self) -> Option<&mut ValueSpec> {
        match self {
            Self::Rome(spec) => Some(&mut spec.value),
            Self::Memit(spec) => Some(&mut spec.value),
            Self::Emmet(spec) => Some(&mut spec.value),
            Self::AlphaEdit(spec) => Some(&mut spec.value),
            Self::Kn(_) | Self::Mend(_) | Self::Ft(_) => None,
        }
    }

    /// Whether one operation may write several facts.
    pub fn writes_batches(&self) -> bool {
        !matches!(self, Self::Rome(_) | Self::Kn(_))
    }

    /// Whether the second moment of the edited layers' keys is needed.
    pub fn needs_moments(&self) -> bool {
        match self {
            Self::Rome(spec) => spec.mom2_adjustment,
            Self::Memit(_) | Self::Emmet(_) | Self::AlphaEdit(_) => true,
            Self::Kn(_) | Self::Mend(_) | Self::Ft(_) => false,
        }
    }

    /// Says which setting is impossible, by its name. Whether the model has such a layer, only the model knows.
    ///
    /// # Errors
    ///
    /// When a hyper-parameter is outside its range, or there are too many layers or none.
    pub fn validate(&self) -> Result<(), Failure> {
        let one_layer = matches!(self, Self::Rome(_) | Self::Emmet(_));
        if let Some(layers) = self.layers() {
            bounds::entries("layers", layers, bounds::LAYERS)?;
            if one_layer && layers.len() != 1 {
                let method = self.method().to_uppercase();
                return Err(Failure::bad_input(format!("layers is {layers:?}; {method} edits exactly one layer")));
            }
            if layers.is_empty() || !layers.is_sorted_by(|a, b| a < b) {
                return Err(Failure::bad_input(format!(
                    "layers is {layers:?}; list at least one, ascending, each once"
                )));
            }
        }
        if let Some(value) = self.value() {
            value.validate()?;
        }
        match self {
            Self::Rome(_) => Ok(()),
            Self::Memit(spec) => finite_above_zero(&[("mom2_update_weight", spec.mom2_update_weight)]),
            Self::Emmet(spec) => {
                at_least_zero(&[("emmet_lambda", spec.emmet_lambda)])?;
                finite_above_zero(&[("mom2_update_weight", spec.mom2_update_weight)])
            }
            Self::AlphaEdit(spec) => {
                finite_above_zero(&[("nullspace_threshold", spec.nullspace_threshold), ("L2", spec.l2)])
            }
            Self::Kn(spec) => {
                bounds::within("steps", spec.steps, 1..=bounds::STEPS)?;
                bounds::within("batch_size", spec.batch_size, 1..=spec.steps)?;
                if !spec.steps.is_multiple_of(spec.batch_size) {
                    let (steps, size) = (spec.steps, spec.batch_size);
                    let problem = format!("steps is {steps} and batch_size {size}; batch_size divides steps");
                    return Err(Failure::bad_input(problem));
                }
                finite_above_zero(&[("adaptive_threshold", spec.adaptive_threshold)])?;
                if spec.adaptive_threshold < 1.0 {
                    return Ok(());
                }
                let threshold = spec.adaptive_threshold;
                Err(Failure::bad_input(format!(
                    "adaptive_threshold is {threshold}; at 1 or above it chooses no neuron"
                )))
            }
            Self::Mend(spec) => finite_above_zero(&[("lr_scale", spec.lr_scale)]),
            Self::Ft(spec) => {
                bounds::within("num_steps", spec.num_steps, 1..=bounds::STEPS)?;
                finite_above_zero(&[("lr", spec.lr), ("norm_constraint", spec.norm_constraint.unwrap_or(1.0))])
            }
        }
    }
}
