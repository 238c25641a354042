use leptos::{prelude::*, task::spawn_local};

use super::bars::Bars;
use crate::{desk::Desk, ids};

/// Any prompt, put to the model as it is now.
#[component]
pub fn AskCard(
    /// What it shows and asks.
    desk: Desk,
) -> impl IntoView {
    let prompt = RwSignal::new(String::new());
    let blocked = move || {
        desk.busy() || desk.engine.model.with(Option::is_none) || prompt.with(|prompt| prompt.trim().is_empty())
    };
    let ask = move || {
        if !untrack(blocked) {
            spawn_local(desk.ask(prompt.get_untracked().trim_end().to_owned()));
        }
    };
    let model = move || match desk.ledger.with(Vec::len) {
        0 => "the untouched model".to_owned(),
        1 => "the model with its 1 edit".to_owned(),
        n => format!("the model with its {n} edits"),
    };
    let answer = move || {
        desk.asked.get().map(|(answer, edits)| {
            let top = serde_json::to_string(&answer.top).unwrap_or_default();
            let stale = move || desk.ledger.with(Vec::len) != edits;
            view! {
                <div class="asked" class:stale=stale>
                    <p class="said" id=ids::ASK_ANSWER data-edits=edits.to_string() data-top=top>
                        <span class="prompt">{answer.prompt.clone()}</span>
                        {answer.text.clone()}
                    </p>
                    <Bars candidates=answer.top.clone() />
                    <Show when=stale>
                        <p class="quiet">"Asked before the latest change. Ask again to compare."</p>
                    </Show>
                </div>
            }
        })
    };
    view! {
        <section class="card" aria-labelledby="ask-heading">
            <h2 id="ask-heading">"Ask it anything"</h2>
            <form
                class="ask"
                on:submit=move |event| {
                    event.prevent_default();
                    ask();
                }
            >
                <label for=ids::ASK_INPUT>"Text for " {model} " to continue"</label>
                <div class="row">
                    <input id=ids::ASK_INPUT type="text" autocomplete="off" spellcheck="false" bind:value=prompt />
                    <button type="submit" class="second" id=ids::ASK_BUTTON prop:disabled=blocked>"Ask"</button>
                </div>
            </form>
            <div aria-live="polite">{answer}</div>
        </section>
    }
}
