use leptos::{prelude::*, task::spawn_local};
use rectify_protocol::{Guards, Method};

use super::{
    fields::{Segment, Segments, ShareField, TextField},
    settings::AllSettings,
};
use crate::{desk::Desk, ids, methods, view};

/// How to edit, the button that does it, and what stands in its way.
#[component]
pub fn EditForm(
    /// What it changes.
    desk: Desk,
) -> impl IntoView {
    let label = move || if desk.replaces() { "Edit again with these settings" } else { "Edit this fact" };
    let ready = move || desk.engine.model.with(Option::is_some);
    let blocked = move || desk.busy() || !ready() || desk.objection().is_some() || desk.lacks().is_some();

    view! {
        <section class="card" aria-labelledby="edit-heading">
            <h2 id="edit-heading">"The edit"</h2>
            <MethodChoice desk />
            <RegularizerChoice desk />
            <details>
                <summary>{move || methods::summary(&desk.settings.editor())}</summary>
                <AllSettings desk />
            </details>
            <button
                type="button"
                class="first"
                id=ids::EDIT_BUTTON
                prop:disabled=blocked
                on:click=move |_| spawn_local(desk.edit(Guards::default()))
            >
                {label}
            </button>
            <Progress desk idle="Undo at any time. The original weights are kept." />
            <Objection desk />
        </section>
    }
}

/// Which method, what it does, and why this model cannot run it if it cannot.
#[component]
fn MethodChoice(desk: Desk) -> impl IntoView {
    let chosen = desk.settings.method;
    let options = Method::ALL.iter().map(|method| {
        view! {
            <option value=method.name prop:selected=move || chosen.get() == method.name>
                {method.label} ": " {method.gist}
            </option>
        }
    });
    let options = options.collect_view();
    view! {
        <div class="field">
            <label for=ids::METHOD>"Method"</label>
            <select
                id=ids::METHOD
                aria-describedby="method-words"
                on:change=move |event| chosen.set(methods::method(&event_target_value(&event)).name)
            >
                {options}
            </select>
        </div>
        <p class="quiet under" id="method-words">{move || methods::method(chosen.get()).words}</p>
        <p class="note" role="status" id=ids::LACKS>{move || desk.lacks()}</p>
    }
}

/// What is kept of the change.
#[component]
fn RegularizerChoice(desk: Desk) -> impl IntoView {
    let settings = desk.settings;
    let chosen = settings.regularizer;
    let keeps_share = move || settings.regularizer().keep().is_some();
    let more = move || methods::MORE_REGULARIZERS.iter().any(|(name, _)| *name == chosen.get());
    let segment = move |(name, label): (&'static str, &'static str), group: &'static str| {
        view! {
            <Segment
                name=group
                id=format!("{}-{name}", ids::REGULARIZER)
                label
                checked=Signal::derive(move || chosen.get() == name)
                choose=move || chosen.set(name)
            />
        }
    };
    let label = move || match chosen.get() {
        "pca" | "low_rank" => "Keep components:",
        "random" => "Keep at random",
        _ => "Keep the top",
    };
    view! {
        <Segments legend="How much of the change is applied" named=true wide=true>
            {methods::REGULARIZERS.map(|one| segment(one, ids::REGULARIZER))}
            <Segment
                name=ids::REGULARIZER
                id=format!("{}-more", ids::REGULARIZER)
                label="more"
                checked=Signal::derive(more)
                choose=move || chosen.set(methods::MORE_REGULARIZERS[0].0)
            />
        </Segments>
        <Show when=more>
            <Segments legend="Other regularizers" wide=true>
                {methods::MORE_REGULARIZERS.map(|one| segment(one, "regularizer-of-more"))}
            </Segments>
        </Show>
        <p class="quiet under">{move || methods::regularizer_words(chosen.get())}</p>
        <Show when=keeps_share>
            <ShareField
                id=ids::KEEP
                label=Signal::derive(move || label().to_owned())
                percent=settings.keep_percent
                set=move |percent| settings.keep_percent.set(percent)
            />
        </Show>
        <Show when=move || chosen.get() == "prune">
            <TextField
                id="base"
                label="Base of the damping logarithm"
                name="base"
                value=Signal::derive(move || settings.base.get().to_string())
                set=move |typed| methods::base(typed).map(|base| settings.base.set(base))
            />
        </Show>
    }
}

/// What is being waited for, and a way out.
#[component]
pub fn Progress(
    /// What waits.
    desk: Desk,
    /// What is said when nothing does.
    #[prop(into)]
    idle: Signal<String>,
) -> impl IntoView {
    let activity = desk.engine.activity;
    let running = Memo::new(move |_| activity.with(Option::is_some));
    let cancelling = move || activity.with(|activity| activity.as_ref().is_some_and(|activity| activity.cancelling));
    let words = Memo::new(move |_| {
        activity.with(|activity| match activity {
            Some(activity) if activity.cancelling => "Stopping; nothing was changed".to_owned(),
            Some(activity) => view::progress_words(activity.doing, activity.progress.as_ref()),
            None => String::new(),
        })
    });
    // Each step would be too much to listen to: the spoken line goes by tasks, the seen one by steps.
    let spoken = Memo::new(move |_| words.with(|words| words.split(':').next().unwrap_or_default().to_owned()));
    let share = move || activity.with(|activity| view::progress_share(activity.as_ref()?.progress.as_ref()));
    let doing = move || activity.with(|activity| activity.as_ref().map_or("idle", |activity| activity.doing));
    let steps =
        move || activity.with(|activity| activity.as_ref().map_or(0, |activity| activity.trace.len())).to_string();
    view! {
        <div id=ids::PROGRESS class="progress" data-doing=doing data-step=steps>
            <p class="unseen" role="status" aria-live="polite">{spoken}</p>
            <Show
                when=move || running.get()
                fallback=move || view! { <p class="quiet center">{idle}</p> }
            >
                <div class="waiting">
                    <p aria-hidden="true">{words}</p>
                    <button
                        type="button"
                        class="link"
                        id=ids::CANCEL_BUTTON
                        prop:disabled=cancelling
                        on:click=move |_| desk.engine.cancel()
                    >
                        "cancel"
                    </button>
                </div>
                <div class="thin" class:unknown=move || share().is_none() aria-hidden="true">
                    <i style=move || format!("width: {:.1}%", share().unwrap_or(0.0) * 100.0)></i>
                </div>
            </Show>
        </div>
    }
}

/// What is wrong with the form, or what could not be done.
#[component]
pub fn Objection(
    /// What objects.
    desk: Desk,
) -> impl IntoView {
    let problem = Memo::new(move |_| {
        let objection = if desk.draft.is_empty() { None } else { desk.objection() };
        objection
            .map(|objection| ("fact", view::sentence(&objection)))
            .or_else(|| desk.failure.get().map(|failure| (failure.kind.name(), view::sentence(&failure))))
    });
    let refused = move || desk.failure.with(|failure| failure.as_ref().is_some_and(view::refused_by_guard));
    let overrulable = move || refused() && desk.objection().is_none() && !desk.busy();
    view! {
        <p id=ids::ERROR class="error" role="alert" data-kind=move || problem.get().map(|(kind, _)| kind)>
            {move || problem.get().map(|(_, words)| words)}
        </p>
        <Show when=overrulable>
            <button
                type="button"
                class="second"
                id=ids::ANYWAY_BUTTON
                on:click=move |_| spawn_local(desk.edit(Guards::NONE))
            >
                "Edit anyway"
            </button>
        </Show>
    }
}
