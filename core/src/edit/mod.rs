//! Editors: from a model and facts to changes of its weights. **plan → regularise → apply → measure.**
//!
//! [`plan`] asks the editor that a spec names for [`WeightDelta`]s; [`regularize()`] maps each to one that changes less;
//! [`crate::model::Model::apply`] gives the edited model. Which method made a delta never reaches a regularizer.
//!
//! ROME, MEMIT, EMMET and AlphaEdit look for the same values ([`value`]) and write them differently; the last three
//! share [`memit`]'s walk through the layers. KN, MEND and fine-tuning have ways of their own.

mod adam;
pub mod alphaedit;
mod change;
pub mod contexts;
pub mod emmet;
pub mod ft;
pub mod keys;
pub mod kn;
pub mod memit;
pub mod mend;
pub mod moments;
mod plan;
mod prune;
mod rank;
mod regularize;
pub mod rome;
pub mod value;

use std::collections::BTreeMap;

pub use change::weight_change;
pub use keys::history_keys;
pub(crate) use plan::moment_of;
pub use plan::{Input, LayerKeys, Plan};
pub use prune::prune;
pub use rank::{Factors, low_rank, pca};
use rectify_protocol::{EditorSpec, Fact, Progress, bounds};
pub(crate) use regularize::seed_of_matrix;
pub use regularize::{n_kept, random, rect, regularize};

pub use crate::model::{Delta, WeightDelta};
use crate::{Error, Result};

/// The changes that `editor` would make for `facts`. Its layers must be filled in.
///
/// # Errors
///
/// When a fact or a setting cannot be used, what the editor needs is missing, or a number leaves the finite ones.
pub async fn plan(
    input: &Input<'_>,
    facts: &[Fact],
    editor: &EditorSpec,
    watch: &mut dyn FnMut(Progress),
) -> Result<Plan> {
    let layers = editor.layers().unwrap_or_default();
    layers.iter().try_for_each(|layer| input.model.check_layer(*layer))?;
    match editor {
        EditorSpec::Rome(spec) => rome::plan(input, &facts[0], spec, watch).await,
        EditorSpec::Memit(spec) => memit::plan(input, facts, spec, watch).await,
        EditorSpec::Emmet(spec) => emmet::plan(input, facts, spec, watch).await,
        EditorSpec::AlphaEdit(spec) => alphaedit::plan(input, facts, spec, watch).await,
        EditorSpec::Kn(spec) => kn::plan(input, &facts[0], spec, watch).await,
        EditorSpec::Mend(spec) => mend::plan(input, facts, spec).await,
        EditorSpec::Ft(spec) => ft::plan(input, facts, spec, watch).await,
    }
}

/// Complains about facts that this editor cannot write in one operation.
pub(crate) fn check_facts(facts: &[Fact], editor: &EditorSpec) -> Result<()> {
    if facts.is_empty() {
        return Err(Error::bad_input("there is no fact to edit"));
    }
    bounds::entries("the batch of facts", facts, bounds::FACTS)?;
    if facts.len() > 1 && !editor.writes_batches() {
        return Err(Error::bad_input(format!(
            "{} writes one fact per operation, not {}; edit them one after the other (mode sequential)",
            editor.method(),
            facts.len()
        )));
    }
    let mut seen = BTreeMap::new();
    for (i, fact) in facts.iter().enumerate() {
        fact.validate()?;
        if let Some(first) = seen.insert((&fact.prompt, &fact.subject), i) {
            let same = facts[first].target_new == fact.target_new;
            return Err(Error::bad_input(format!(
                "facts {first} and {i} of the batch have the same prompt {:?} and {}; keep one of them",
                fact.prompt,
                if same { "the same target" } else { "different targets" }
            )));
        }
    }
    Ok(())
}
