use gloo_timers::callback::Timeout;
use leptos::{prelude::*, task::spawn_local};

use crate::{desk::Desk, ids, pages::Page, surroundings, view};

/// How long it is said that something was copied.
const SAID_MILLISECONDS: u32 = 4_000;

/// What became of copying.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Copied {
    Nothing,
    Done,
    /// The browser did not let us; the visitor can.
    ByHand(String),
    Failed(String),
}

fn copy_text(text: String, copied: RwSignal<Copied>) {
    spawn_local(async move {
        if !surroundings::copy(&text).await {
            return copied.set(Copied::ByHand(text));
        }
        copied.set(Copied::Done);
        Timeout::new(SAID_MILLISECONDS, move || copied.set(Copied::Nothing)).forget();
    });
}

/// Says what became of it.
#[component]
fn CopyOutcome(copied: RwSignal<Copied>, id: &'static str, done: &'static str) -> impl IntoView {
    let close = move |_| copied.set(Copied::Nothing);
    let state = move || match copied.get() {
        Copied::Nothing => "nothing",
        Copied::Done => "done",
        Copied::ByHand(_) => "by-hand",
        Copied::Failed(_) => "failed",
    };
    let words = move || match copied.get() {
        Copied::Nothing => ().into_any(),
        Copied::Done => done.into_any(),
        Copied::Failed(problem) => {
            view! { {problem} " " <button type="button" class="link" on:click=close>"close"</button> }.into_any()
        }
        Copied::ByHand(text) => view! {
            <label>
                "The browser keeps its clipboard closed; copy from here:"
                <textarea readonly rows="3" on:focus:target=|event| event.target().select() prop:value=text></textarea>
            </label>
            <button type="button" class="link" on:click=close>"close"</button>
        }
        .into_any(),
    };
    view! { <div class="outcome" role="status" id=id data-state=state>{words}</div> }
}

/// Copies a link that shows another person what is set up here.
#[component]
pub fn CopyLink(
    /// What the link is to.
    desk: Desk,
    /// The page that is seen.
    page: RwSignal<Page>,
) -> impl IntoView {
    let copied = RwSignal::new(Copied::Nothing);
    let copy = move |_| match untrack(|| desk.setup().write()) {
        Ok(setup) => {
            let link = format!("{}{}?{setup}", surroundings::base(), page.get_untracked().end());
            copy_text(link, copied);
        }
        Err(failure) => copied.set(Copied::Failed(view::sentence(&failure))),
    };
    view! {
        <div class="copy">
            <button
                type="button"
                class="second small"
                id=ids::LINK_BUTTON
                title="The model, the fact and the settings, as an address. It holds no weights and edits nothing."
                on:click=copy
            >
                "Copy link"
            </button>
            <CopyOutcome copied id=ids::LINK_OUTCOME done="Link copied" />
        </div>
    }
}

/// Copies what to write into a bibliography.
#[component]
pub fn CopyCitation() -> impl IntoView {
    let copied = RwSignal::new(Copied::Nothing);
    view! {
        <div class="copy">
            <button
                type="button"
                class="link"
                id=ids::CITATION_BUTTON
                on:click=move |_| copy_text(view::citation(&surroundings::base()), copied)
            >
                "Copy citation"
            </button>
            <CopyOutcome copied id=ids::CITATION_OUTCOME done="Copied: BibTeX of RECT\u{2019}s paper and of this program" />
        </div>
    }
}
