//! What every editor is given, and what it gives back.

use std::{collections::BTreeMap, sync::Arc};

use burn::tensor::Tensor;
use rectify_protocol::Step;

use super::{WeightDelta, mend::Hypernetwork, moments::Moment};
use crate::{Error, Result, model::Model, tokenizer::Tokenizer};

/// Everything an edit is made from.
pub struct Input<'a> {
    /// The model as it is now.
    pub model: &'a Model,
    /// Its vocabulary.
    pub tokenizer: &'a Tokenizer,
    /// Context templates, the bare prompt first; that alone for an editor that looks for no value.
    pub templates: &'a [String],
    /// Second moments of keys on the unedited model, by layer.
    pub moments: &'a BTreeMap<usize, Arc<Moment>>,
    /// Keys that earlier edits wrote, oldest first.
    pub history: &'a [LayerKeys],
    /// What MEND learnt.
    pub hypernetwork: Option<&'a Hypernetwork>,
}

/// Keys that an edit wrote in one layer.
#[derive(Clone)]
pub struct LayerKeys {
    /// The layer.
    pub layer: usize,
    /// `[facts, d_mlp]`
    pub keys: Tensor<2>,
}

/// What an editor would change.
pub struct Plan {
    /// The changes, each matrix once.
    pub deltas: Vec<WeightDelta>,
    /// What each evaluation of a loss found, fact by fact.
    pub trace: Vec<Step>,
    /// What a reader of the report should know.
    pub notes: Vec<String>,
}

impl Plan {
    pub(super) fn new(deltas: Vec<WeightDelta>, trace: Vec<Step>) -> Self {
        Self { deltas, trace, notes: Vec::new() }
    }
}

/// One layer's second moment.
///
/// # Errors
///
/// When there is none.
pub(crate) fn moment_of(moments: &BTreeMap<usize, Arc<Moment>>, layer: usize) -> Result<&Moment> {
    moments.get(&layer).map(Arc::as_ref).ok_or_else(|| {
        Error::Missing(format!(
            "there are no statistics of layer {layer}'s keys: make them with `rectify stats`, or name \"identity\" as \
             the covariance, a rough substitute"
        ))
    })
}

/// The layers of a spec, which the caller of [`super::plan`] has filled in.
pub(super) fn filled(layers: Option<&Vec<usize>>) -> &[usize] {
    layers.expect("the session fills in which layers to edit")
}
