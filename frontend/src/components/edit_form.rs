use leptos::{prelude::*, task::spawn_local};
use rectify_protocol::{Contexts, FactToken, KeyChoice, Kind, RomeSpec};

use super::fields::{NumberField, Segment, Segments};
use crate::{desk::Desk, ids, view};

/// How to edit, the button that does it, and what stands in its way.
#[component]
pub fn EditForm(
    /// What it changes.
    desk: Desk,
) -> impl IntoView {
    let settings = desk.settings;
    let regularized = move || settings.regularizer.get() != "none";
    let explanation = move || match settings.regularizer.get() {
        "rect" => "RECT keeps the entries that change most compared with the weight they change.",
        "random" => "As many entries, but drawn at random: shows what RECT's choice is worth.",
        _ => "The whole update is applied, as ROME was published.",
    };
    let summary = move || {
        let rome = settings.rome.get();
        let layer = rome.layers.as_ref().and_then(|layers| layers.first().copied());
        let layer = layer.or_else(|| desk.engine.model.get().map(|model| model.default_layer));
        let layer = layer.map_or_else(|| "its own layer".into(), |layer| format!("layer {layer}"));
        format!("All settings: {layer}, up to {} steps", rome.v_num_grad_steps)
    };
    let label = move || if desk.replaces() { "Edit again with these settings" } else { "Edit this fact" };
    let ready = move || desk.engine.model.with(Option::is_some);
    let blocked = move || desk.busy() || !ready() || desk.objection().is_some();

    view! {
        <section class="card" aria-labelledby="edit-heading">
            <h2 id="edit-heading">"The edit"</h2>
            <p class="method"><b>"ROME"</b> " writes the fact as one rank-one change of one matrix."</p>
            <Segments legend="How much of that change is applied" named=true wide=true>
                {[("none", "all of it"), ("rect", "RECT"), ("random", "random")]
                    .map(|(name, label)| {
                        view! {
                            <Segment
                                name=ids::REGULARIZER
                                id=format!("{}-{name}", ids::REGULARIZER)
                                label
                                checked=Signal::derive(move || settings.regularizer.get() == name)
                                choose=move || settings.regularizer.set(name)
                            />
                        }
                    })}
            </Segments>
            <p class="quiet">{explanation}</p>
            <Show when=regularized>
                <div class="field">
                    <label for=ids::KEEP>"Keep the top " <output for=ids::KEEP>{settings.keep_percent}" %"</output></label>
                    <input
                        id=ids::KEEP
                        type="range"
                        min="1"
                        max="100"
                        style=move || format!("--share: {}%", settings.keep_percent.get())
                        prop:value=move || settings.keep_percent.get().to_string()
                        on:input=move |event| {
                            if let Ok(percent) = event_target_value(&event).parse() {
                                settings.keep_percent.set(percent);
                            }
                        }
                    />
                </div>
            </Show>
            <details>
                <summary>{summary}</summary>
                <AllSettings desk />
            </details>
            <button
                type="button"
                class="first"
                id=ids::EDIT_BUTTON
                prop:disabled=blocked
                on:click=move |_| spawn_local(desk.edit())
            >
                {label}
            </button>
            <Progress desk />
            <Objection desk />
        </section>
    }
}

/// What is being waited for, and a way out.
#[component]
fn Progress(desk: Desk) -> impl IntoView {
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
                fallback=|| view! { <p class="quiet center">"Undo any time. The original weights are kept."</p> }
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
fn Objection(desk: Desk) -> impl IntoView {
    let problem = Memo::new(move |_| {
        let objection = if desk.draft.is_empty() { None } else { desk.objection() };
        objection.map(|objection| ("fact", view::sentence(&objection))).or_else(|| {
            desk.failure.get().map(|failure| {
                let kind = match failure.kind {
                    Kind::BadInput => "bad_input",
                    Kind::NotFound => "not_found",
                    Kind::Device => "device",
                    Kind::Internal => "internal",
                };
                (kind, view::sentence(&failure))
            })
        })
    });
    view! {
        <p id=ids::ERROR class="error" role="alert" data-kind=move || problem.get().map(|(kind, _)| kind)>
            {move || problem.get().map(|(_, words)| words)}
        </p>
    }
}

/// ROME's hyper-parameters, named as in the field.
#[component]
fn AllSettings(desk: Desk) -> impl IntoView {
    let rome = desk.settings.rome;
    let seed = desk.settings.seed;
    let layer = move || rome.with(|rome| rome.layers.as_ref().and_then(|layers| layers.first().copied()));
    let layers = move || desk.engine.model.get().map_or(0..0, |model| 0..model.layers);
    let default_layer =
        move || desk.engine.model.get().map_or_else(String::new, |model| format!(" ({})", model.default_layer));
    let number = move |read: fn(&RomeSpec) -> f64| Signal::derive(move || rome.with(read));
    let set = move |write: fn(&mut RomeSpec, f64)| move |number: f64| rome.update(|rome| write(rome, number));
    let key = move || match rome.with(|rome| rome.key) {
        KeyChoice::Mixed => "mixed",
        KeyChoice::Mean => "mean",
        KeyChoice::Prompt => "prompt",
    };
    let choose_key = move |name: String| {
        let key = match name.as_str() {
            "mean" => KeyChoice::Mean,
            "prompt" => KeyChoice::Prompt,
            _ => KeyChoice::Mixed,
        };
        rome.update(|rome| rome.key = key);
    };
    let sampled = move || rome.with(|rome| rome.contexts == Contexts::Sampled);
    let choose_contexts = move |name: String| {
        let contexts = if name == "sampled" { Contexts::Sampled } else { Contexts::Given(vec!["{}".into()]) };
        rome.update(|rome| rome.contexts = contexts);
    };
    let at_subject = move || rome.with(|rome| rome.fact_token == FactToken::SubjectLast);
    let choose_token = move |name: String| {
        let token = if name == "last" { FactToken::Last } else { FactToken::SubjectLast };
        rome.update(|rome| rome.fact_token = token);
    };
    view! {
        <div class="settings">
            <div class="field">
                <label for="layer">"Layer " <code>"layers"</code></label>
                <select
                    id="layer"
                    on:change=move |event| {
                        let layer = event_target_value(&event).parse().ok();
                        rome.update(|rome| rome.layers = layer.map(|layer| vec![layer]));
                    }
                >
                    <option value="" prop:selected=move || layer().is_none()>"default" {default_layer}</option>
                    <For each=layers key=|one| *one let:one>
                        <option value=one.to_string() prop:selected=move || layer() == Some(one)>{one.to_string()}</option>
                    </For>
                </select>
            </div>
            <NumberField
                id="steps"
                label="Steps"
                name="v_num_grad_steps"
                value=number(|rome| rome.v_num_grad_steps as f64)
                set=set(|rome, n| rome.v_num_grad_steps = n as usize)
                min=1.0
                max=200.0
                whole=true
            />
            <NumberField
                id="learning-rate"
                label="Learning rate"
                name="v_lr"
                value=number(|rome| rome.v_lr)
                set=set(|rome, n| rome.v_lr = n)
                min=0.0001
                max=10.0
            />
            <NumberField
                id="clamp"
                label="Largest change"
                name="clamp_norm_factor"
                value=number(|rome| rome.clamp_norm_factor)
                set=set(|rome, n| rome.clamp_norm_factor = n)
                min=0.01
                max=100.0
            />
            <NumberField
                id="kl"
                label="Keep essence"
                name="kl_factor"
                value=number(|rome| rome.kl_factor)
                set=set(|rome, n| rome.kl_factor = n)
                min=0.0
                max=100.0
            />
            <NumberField
                id="weight-decay"
                label="Weight decay"
                name="v_weight_decay"
                value=number(|rome| rome.v_weight_decay)
                set=set(|rome, n| rome.v_weight_decay = n)
                min=0.0
                max=100.0
            />
            <div class="field">
                <label for="key">"Key " <code>"key"</code></label>
                <select id="key" prop:value=key on:change=move |event| choose_key(event_target_value(&event))>
                    <option value="mixed">"as published"</option>
                    <option value="mean">"mean, r-ROME"</option>
                    <option value="prompt">"bare prompt"</option>
                </select>
            </div>
            <div class="field">
                <label for="fact-token">"Read at " <code>"fact_token"</code></label>
                <select
                    id="fact-token"
                    prop:value=move || if at_subject() { "subject_last" } else { "last" }
                    on:change=move |event| choose_token(event_target_value(&event))
                >
                    <option value="subject_last">"subject's end"</option>
                    <option value="last">"prompt's end"</option>
                </select>
            </div>
            <div class="field">
                <label for="contexts">"Contexts " <code>"contexts"</code></label>
                <select
                    id="contexts"
                    prop:value=move || if sampled() { "sampled" } else { "bare" }
                    on:change=move |event| choose_contexts(event_target_value(&event))
                >
                    <option value="sampled">"20 samples"</option>
                    <option value="bare">"bare prompt"</option>
                </select>
            </div>
            <NumberField
                id="seed"
                label="Seed"
                name="seed"
                value=Signal::derive(move || seed.get() as f64)
                set=move |n| seed.set(n as u64)
                min=0.0
                max=1e15
                whole=true
            />
            <label class="check">
                <input type="checkbox" disabled prop:checked=move || rome.with(|rome| rome.mom2_adjustment) />
                <span>"Whiten the key by its covariance " <code>"mom2_adjustment"</code></span>
            </label>
            <p class="quiet">"Off: these models come without key statistics. The command line can make and use them."</p>
        </div>
    }
}
