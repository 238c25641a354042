//! MEND, Fast Model Editing at Scale, <https://arxiv.org/abs/2110.11309>: a hypernetwork that learnt how the gradient of
//! an edit should be changed so that following it writes the fact and moves nothing else.
//!
//! Begin reading at [`plan`]. [`gradients`] finds what each matrix reads and the gradient of what it makes, token by
//! token; [`statistics`] brings both to one scale; [`network`] transforms them; [`train`] learns how; [`file`] keeps
//! what was learnt. Where we differ from the released code, and why, is in `docs/papers.md`.

pub mod gradients;
pub mod network;
mod parameter;
pub mod statistics;
pub mod train;

mod file;
mod state;

use rectify_protocol::{Fact, MendSpec};

use self::gradients::{Text, Tokens, fill_labels};
pub use self::network::{Hypernetwork, Origin};
pub use self::parameter::Parameter;
use super::{Input, Plan};
use crate::{Error, Result};

/// The change that the hypernetwork makes of the facts' gradients.
///
/// `ΔW = lr_scale · α · Σ x̃ d̃ᵀ`, over the tokens of all facts: a sum, so that a batch moves a matrix further than one
/// fact does.
///
/// # Errors
///
/// When there is no hypernetwork, a fact does not fit the model, or no token has a gradient.
pub async fn plan(input: &Input<'_>, facts: &[Fact], spec: &MendSpec) -> Result<Plan> {
    let network = input.hypernetwork.ok_or_else(no_hypernetwork)?;
    let texts = texts(input, facts, spec.released)?;
    let tokens = Tokens::of(input.model, &network.sites(), &texts).await?;

    // As released, the hypernetwork is still in training when it edits, and has no statistics to begin with.
    let (normal, _) = if spec.released {
        statistics::learn_and_normalize(
            network.blank_statistics(),
            network.parameters(),
            &tokens,
            &input.model.device(),
        )?
    } else {
        let statistics = network.statistics.clone();
        (statistics::normalize(&statistics, network.parameters(), &tokens, &input.model.device())?, statistics)
    };
    let order = if spec.released { network.order_of_definition() } else { network.order_of_list() };
    let deltas = network.changes(&normal, &order, spec.lr_scale);
    if deltas.is_empty() {
        return Err(Error::bad_input("there is no gradient to follow: the model answers every target already"));
    }
    Ok(Plan { notes: vec![network.note()], ..Plan::new(deltas, Vec::new()) })
}

/// The facts as tokens, with what each is asked for.
fn texts(input: &Input<'_>, facts: &[Fact], released: bool) -> Result<Vec<Text>> {
    let text = |fact: &Fact| {
        if released {
            Text::released(input.tokenizer, input.model, &fact.prompt, &fact.target_new)
        } else {
            Text::new(input.tokenizer, input.model, &fact.prompt, &fact.target_new)
        }
    };
    let texts: Vec<Text> = facts.iter().map(text).collect::<Result<_>>()?;
    if released { fill_labels(texts, input.tokenizer.end_of_text()) } else { Ok(texts) }
}

pub(crate) fn no_hypernetwork() -> Error {
    Error::Missing(
        "MEND edits with what it learnt for this model: train that with `rectify mend train`, and name the file with \
         --hypernetwork or lay it beside the model's weights as mend.safetensors"
            .into(),
    )
}
