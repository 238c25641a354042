use leptos::{prelude::*, task::spawn_local};

use crate::{
    desk::{Desk, Entry},
    ids, methods, view,
};

/// The edits the model carries, newest on top.
#[component]
pub fn Ledger(
    /// What it shows and changes.
    desk: Desk,
) -> impl IntoView {
    let entries = move || {
        let ledger = desk.ledger.get();
        let newest = ledger.len().wrapping_sub(1);
        ledger
            .into_iter()
            .enumerate()
            .rev()
            .map(|(place, entry)| line(desk, place, &entry, place == newest))
            .collect_view()
    };
    let hash = move || desk.engine.model.get().map(|model| view::short_hash(&model.hash).to_owned());
    view! {
        <section class="card" aria-labelledby="ledger-heading">
            <h2 id="ledger-heading">"Ledger"</h2>
            <ol class="ledger">
                {entries}
                <li class="origin">
                    "original weights " <code title="SHA-256 of the weights' file">{hash}</code>
                </li>
            </ol>
        </section>
    }
}

fn line(desk: Desk, place: usize, entry: &Entry, newest: bool) -> impl IntoView + use<> {
    let shown = move || desk.shown.get() == Some(place);
    let undo = newest.then(|| {
        view! {
            <button
                type="button"
                class="link"
                id=ids::UNDO_BUTTON
                prop:disabled=move || desk.busy()
                on:click=move |_| spawn_local(desk.undo())
            >
                "undo"
            </button>
        }
    });
    view! {
        <li class:now=newest>
            <button
                type="button"
                class="title"
                aria-pressed=move || shown().to_string()
                on:click=move |_| desk.show(place)
            >
                {entry.fact.subject.clone()} " → " {entry.fact.target_new.clone()}
            </button>
            <p class="quiet">{methods::edit_words(entry.report.spec.editor.method(), entry.regularizer)}" · "{view::duration(entry.report.seconds)} {newest.then_some(" · ")} {undo}</p>
        </li>
    }
}
