//! The page on which a fact is edited.

use leptos::prelude::*;

use crate::{
    components::{
        Abilities, AskCard, EditForm, FactForm, HowItWorks, KeepLess, Ledger, ModelCard, PlayCard, Probes, ResultCard,
        WeightChangeCard,
    },
    desk::Desk,
};

/// The whole page: what to do on the left, what came of it in the middle, what it took on the right.
#[component]
pub fn EditPage(
    /// What it shows and changes.
    desk: Desk,
) -> impl IntoView {
    view! {
        <main>
            <h1 class="unseen">"Rectify: edit a fact inside a language model"</h1>
            <div class="column todo">
                <FactForm desk />
                <EditForm desk />
            </div>
            <div class="column seen">
                <ResultCard desk />
                <KeepLess desk />
                <Probes desk />
                <PlayCard desk />
                <HowItWorks desk />
                <AskCard desk />
            </div>
            <div class="column cost">
                <ModelCard desk />
                <Ledger desk />
                <Abilities desk />
                <WeightChangeCard desk />
            </div>
        </main>
    }
}
