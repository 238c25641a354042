use leptos::prelude::*;

use super::{
    copy::CopyLink,
    fields::{Segment, Segments},
};
use crate::{
    desk::Desk,
    engine::{Place, State},
    ids,
    pages::Page,
    surroundings, view,
};

/// Name, where the session runs, a link to all this, light or dark.
#[component]
pub fn Header(
    /// What it changes.
    desk: Desk,
    /// The page that is seen.
    page: RwSignal<Page>,
) -> impl IntoView {
    let on_server = Signal::derive(move || desk.engine.place.get() == Place::Server);
    let no_server = Signal::derive(move || desk.server.with(Option::is_none));
    let why = move || {
        if no_server.get() {
            "This page was not served by a Rectify server, so models run in your browser."
        } else {
            ""
        }
    };
    view! {
        <header class="top">
            <p class="logo">"Rect"<span>"ify"</span></p>
            <nav aria-label="Pages">
                {Page::ALL
                    .map(|(this, name, end)| {
                        let current = move || (page.get() == this).then_some("page");
                        view! { <a href=end id=format!("{}-{}", ids::PAGE, &end[1..]) aria-current=current>{name}</a> }
                    })}
            </nav>
            <p class="tagline">"Edit one fact inside a language model. See what else moved."</p>
            <Status desk />
            <div title=why><Segments legend="Where the model runs">
                <Segment
                    name="place"
                    id=ids::PLACE_BROWSER
                    label="This browser"
                    checked=Signal::derive(move || !on_server.get())
                    choose=move || desk.move_to(Place::Cpu)
                />
                <Segment
                    name="place"
                    id=ids::PLACE_SERVER
                    label="Server"
                    checked=on_server
                    disabled=no_server
                    choose=move || desk.move_to(Place::Server)
                />
            </Segments></div>
            <CopyLink desk page />
            <ThemeButton />
        </header>
    }
}

/// Turns light to dark and back.
#[component]
fn ThemeButton() -> impl IntoView {
    let theme = RwSignal::new(surroundings::theme());
    let other = move || if theme.get() == "dark" { "light" } else { "dark" };
    let turn = move |_| {
        let next = untrack(other);
        surroundings::set_theme(next);
        theme.set(next.into());
    };
    view! {
        <button
            type="button"
            class="round"
            id=ids::THEME_BUTTON
            aria-label=move || format!("Switch to the {} theme", other())
            title=move || format!("Switch to the {} theme", other())
            on:click=turn
        >
            <svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true">
                <circle cx="10" cy="10" r="7.2" fill="none" stroke="currentColor" stroke-width="1.6" />
                <path d="M10 2.8a7.2 7.2 0 0 1 0 14.4z" fill="currentColor" />
            </svg>
        </button>
    }
}

/// What the model is doing, or why there is none.
#[component]
fn Status(desk: Desk) -> impl IntoView {
    let engine = desk.engine;
    let state = move || match (engine.state.get(), engine.model.with(Option::is_some)) {
        (State::Stopped(_), _) => "stopped",
        (State::Starting, _) => "starting",
        (State::Running, true) => "ready",
        (State::Running, false) if desk.busy() => "loading",
        (State::Running, false) => "empty",
    };
    let status = move || match (engine.state.get(), engine.model.get()) {
        (State::Stopped(reason), _) => view::sentence(&rectify_protocol::Failure::bad_input(reason)),
        (State::Starting, _) => match engine.place.get() {
            Place::Cpu => "Fetching the program that runs the model".into(),
            Place::WebGpu => "Fetching the WebGPU program, which is larger; your browser keeps it".into(),
            Place::Server => "Asking the server for a session".into(),
        },
        (State::Running, Some(model)) => {
            let device = view::device(&model.device);
            let edits = match desk.ledger.with(Vec::len) {
                0 => "no edits".to_owned(),
                1 => "1 edit".to_owned(),
                n => format!("{n} edits"),
            };
            format!("Ready on {device} · {} layers · {edits}", model.layers)
        }
        (State::Running, None) => engine.activity.with(|activity| match activity {
            Some(activity) => view::progress_words(activity.doing, activity.progress.as_ref()),
            None => "No model is loaded".into(),
        }),
    };
    view! {
            <p
                class="status"
                id=ids::MODEL_STATUS
                role="status"
                data-state=state
                data-model=move || engine.model.get().map(|model| model.id)
                data-hash=move || engine.model.get().map(|model| model.hash)
                data-device=move || engine.model.get().map(|model| model.device)
                data-edits=move || desk.ledger.with(Vec::len).to_string()
            >
                {status}
            </p>
    }
}
