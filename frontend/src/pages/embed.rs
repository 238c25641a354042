//! A demonstration for other sites' pages: one fact, one edit, what came of it. `embed.html` shows it.
//!
//! It is told what to show by its address alone. It hears no messages; to the page that holds it, it says how high it is
//! and what the visitor sees anyway: see [`Teller`].

use leptos::{prelude::*, task::spawn_local};
use rectify_protocol::{Failure, Guards, Kind};
use serde_json::{Value, json};

use crate::{
    components::{KeepLess, Objection, PlayCard, Probes, Progress, ResultCard},
    demo::{Demo, Scene},
    desk::{Desk, EDITS, Recipe},
    engine::State,
    ids, methods, surroundings, view,
};

/// The demonstration that the page's address describes, or what is wrong with the address.
#[component]
pub fn EmbedPage() -> impl IntoView {
    surroundings::on_height_change(|height| surroundings::tell_parent("height", &json!(height)));
    match Demo::parse(&surroundings::query()) {
        Ok(demo) => view! { <Shown demo /> }.into_any(),
        Err(problem) => {
            tell_failure(&problem);
            view! {
                <main class="demo" id=ids::DEMO>
                    <p class="error" role="alert" id=ids::DEMO_PROBLEM>
                        "This demonstration cannot be shown. " {view::sentence(&problem)}
                    </p>
                </main>
            }
            .into_any()
        }
    }
}

#[component]
fn Shown(demo: Demo) -> impl IntoView {
    surroundings::show_theme(demo.theme);
    if let Some(height) = demo.height {
        surroundings::set_least_height(height);
    }
    let scene = demo.scene;
    let begin = move |desk: Desk| match scene {
        Scene::Edit => spawn_local(desk.edit(Guards::default())),
        Scene::Abilities => spawn_local(desk.play(Recipe::Published, false)),
    };
    let desk = Desk::embedded(&demo.setup, move |desk| {
        let model = desk.chosen.get_untracked();
        surroundings::tell_parent("ready", &json!({ "model": model, "version": env!("CARGO_PKG_VERSION") }));
        if demo.eager {
            surroundings::once_seen(move || begin(desk));
        }
    });
    Teller { desk, scene }.listen();
    let body = match scene {
        Scene::Edit => view! { <EditScene desk /> }.into_any(),
        Scene::Abilities => view! { <AbilitiesScene desk /> }.into_any(),
    };
    let name = match scene {
        Scene::Edit => "edit",
        Scene::Abilities => "abilities",
    };
    let problem = move || desk.link_problem.get().map(|problem| view::sentence(&problem)).or_else(|| desk.lacks());
    view! {
        <main class="demo" id=ids::DEMO data-scene=name>
            <h1 class="unseen">"Edit a fact inside a language model"</h1>
            {body}
            <p class="error" role="alert" id=ids::DEMO_PROBLEM>{problem}</p>
            <Agreement desk begin=move || begin(desk) />
            <About desk />
        </main>
    }
}

/// A fact before and after an edit, and how much of the edit is kept.
#[component]
fn EditScene(desk: Desk) -> impl IntoView {
    let label = move || if desk.replaces() { "Edit again" } else { "Edit this fact" };
    let blocked = move || {
        let asks = matches!(desk.agreement.get(), Some((_, false)));
        asks || desk.chosen_model().is_none() || desk.objection().is_some() || desk.lacks().is_some()
    };
    let spoken = move || {
        let entry = desk.shown_entry()?;
        Some(format!("The edited model says: {}", view::first_sentence(&entry.outcome()?.after.text)))
    };
    view! {
        <ResultCard desk />
        <p class="unseen" role="status">{spoken}</p>
        <section class="card act" aria-label="The edit">
            <button
                type="button"
                class="first"
                id=ids::EDIT_BUTTON
                prop:disabled=blocked
                // Not disabled: whoever pressed it by the keyboard would lose their place. The desk does not begin twice.
                aria-disabled=move || desk.busy().then_some("true")
                on:click=move |_| spawn_local(desk.edit(Guards::default()))
            >
                {label} " "
                <small>{move || methods::edit_words(desk.settings.method.get(), desk.settings.regularizer())}</small>
            </button>
            <Progress desk idle=idle(desk) />
            <Objection desk />
        </section>
        <KeepLess desk />
        <Show when=move || desk.draft.has_probes()><Probes desk /></Show>
    }
}

/// What many edits cost the model.
#[component]
fn AbilitiesScene(desk: Desk) -> impl IntoView {
    // While it plays, the card says so itself.
    let playing = Memo::new(move |_| {
        desk.engine.activity.with(|activity| activity.as_ref().is_some_and(|activity| activity.doing == "play"))
    });
    view! {
        <PlayCard desk />
        <section class="card act" aria-label="The model">
            <Show when=move || !playing.get()><Progress desk idle=idle(desk) /></Show>
            <Objection desk />
        </section>
    }
}

/// What is said of the model while nothing is waited for.
fn idle(desk: Desk) -> Signal<String> {
    let asleep = move || desk.engine.model.with(Option::is_none);
    Signal::derive(move || match (asleep(), desk.chosen_model()) {
        (true, Some(model)) => format!(
            "Fetches the model ({}) and the program that runs it. Nothing leaves your browser.",
            view::bytes(model.size())
        ),
        (true, None) => "Looking for the model".to_owned(),
        (false, _) => "Computed in your browser. Undo at any time.".to_owned(),
    })
}

/// Asks before much is fetched.
#[component]
fn Agreement(desk: Desk, begin: impl Fn() + Copy + Send + Sync + 'static) -> impl IntoView {
    let asked = move || desk.agreement.get().filter(|(_, agreed)| !agreed).map(|(size, _)| size);
    let agree = move |_| {
        desk.agreement.update(|agreement| {
            if let Some((_, agreed)) = agreement {
                *agreed = true;
            }
        });
        begin();
    };
    let size = move || asked().map(view::bytes);
    view! {
        <Show when=move || asked().is_some()>
            <section class="card act" role="alert">
                <p>"This model is a download of " <b>{size}</b> ", which your browser may keep. Fetch it?"</p>
                <div class="answers">
                    <button type="button" class="second" id=ids::DEMO_AGREE on:click=agree>"Fetch " {size}</button>
                    <button
                        type="button"
                        class="link"
                        id=ids::DEMO_DECLINE
                        on:click=move |_| desk.agreement.set(None)
                    >
                        "not now"
                    </button>
                </div>
            </section>
        </Show>
    }
}

/// What this is, and where there is more of it.
#[component]
fn About(desk: Desk) -> impl IntoView {
    let link = move || {
        let mut setup = desk.setup();
        // What was kept last is what one sees.
        setup.regularizer = desk.shown_entry().map(|entry| entry.regularizer).or(setup.regularizer);
        // One that is too long leads to the playground as it is.
        let end = setup.write().map_or_else(|_| "#edit".to_owned(), |setup| format!("#edit?{setup}"));
        format!("{}{end}", surroundings::base())
    };
    let model = move || desk.chosen_model().map(|model| format!("{}. ", model.name));
    view! {
        <p class="about">
            <span class="logo">"Rect"<span>"ify"</span></span>
            <span class="quiet">{model}</span>
            <a id=ids::DEMO_PLAYGROUND href=link target="_blank" rel="noopener">"Open in the playground"</a>
        </p>
    }
}

/// Tells the page that holds this one what happens: `ready`, `progress`, `edit`, `result`, `error`, and `height` for the
/// element alone. What each says is written in `frontend/embed/index.d.ts`.
#[derive(Clone, Copy)]
struct Teller {
    desk: Desk,
    scene: Scene,
}

impl Teller {
    fn listen(self) {
        let Self { desk, scene } = self;
        let problem = Memo::new(move |_| self.problem());
        Effect::new(move |_| problem.get().iter().for_each(tell_failure));
        Effect::new(move |_| {
            if let Some(detail) = self.progress() {
                surroundings::tell_parent("progress", &detail);
            }
        });
        let editing = Memo::new(move |_| {
            let doing = desk.engine.activity.with(|activity| activity.as_ref().map(|activity| activity.doing));
            matches!(doing, Some("edit" | "play"))
        });
        Effect::new(move |_| {
            if editing.get() {
                surroundings::tell_parent("edit", &untrack(|| self.edit()));
            }
        });
        let result = Memo::new(move |_| match scene {
            Scene::Edit => self.edited(),
            Scene::Abilities => self.played(),
        });
        Effect::new(move |_| {
            if let Some(detail) = result.get() {
                surroundings::tell_parent("result", &detail);
            }
        });
    }

    fn problem(self) -> Option<Failure> {
        let Self { desk, .. } = self;
        let stopped = match desk.engine.state.get() {
            State::Stopped(reason) => Some(Failure::new(Kind::Internal, reason)),
            _ => None,
        };
        let lacks = || desk.lacks().map(Failure::bad_input);
        desk.link_problem.get().or_else(|| desk.failure.get()).or(stopped).or_else(lacks)
    }

    fn progress(self) -> Option<Value> {
        self.desk.engine.activity.with(|activity| {
            let activity = activity.as_ref()?;
            let progress = activity.progress.as_ref();
            Some(json!({
                "doing": activity.doing,
                "words": view::progress_words(activity.doing, progress),
                "share": view::progress_share(progress),
            }))
        })
    }

    /// What is being done.
    fn edit(self) -> Value {
        let Self { desk, scene } = self;
        let spec = desk.settings.spec();
        match scene {
            Scene::Edit => {
                let fact = desk.draft.fact();
                json!({
                    "subject": fact.subject, "prompt": fact.prompt, "target_new": fact.target_new,
                    "method": spec.editor.method(), "regularizer": spec.regularizer.name(),
                    "keep": spec.regularizer.keep(),
                })
            }
            Scene::Abilities => json!({ "edits": EDITS }),
        }
    }

    /// What came of an edit, again whenever another share of it is kept.
    fn edited(self) -> Option<Value> {
        // Until the fact was asked again, nothing is known of another share.
        let entry = self.desk.shown_entry().filter(|entry| !entry.is_stale())?;
        let report = entry.outcome()?;
        Some(json!({
            "subject": entry.fact.subject, "prompt": entry.fact.prompt, "target_new": entry.fact.target_new,
            "method": entry.report.spec.editor.method(), "regularizer": entry.regularizer.name(),
            "keep": entry.regularizer.keep(),
            "before": { "text": report.before.text, "p_new": report.before.p_new, "p_true": report.before.p_true },
            "after": { "text": report.after.text, "p_new": report.after.p_new, "p_true": report.after.p_true },
            "reliability": report.reliability, "generalization": report.generalization, "locality": report.locality,
        }))
    }

    /// What came of many: the rows that were measured, once all are.
    fn played(self) -> Option<Value> {
        let Self { desk, .. } = self;
        let rows = desk.played.get().filter(|_| !desk.busy())?.rows;
        Some(json!({ "rows": rows }))
    }
}

fn tell_failure(failure: &Failure) {
    surroundings::tell_parent("error", &json!({ "kind": failure.kind.name(), "message": failure.message }));
}
