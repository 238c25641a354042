use leptos::{prelude::*, task::spawn_local};

use super::fields::{Segment, Segments};
use crate::{
    desk::Desk,
    engine::{Place, State},
    ids, view,
};

/// Which model, and what computes it.
#[allow(clippy::too_many_lines, reason = "one card, from its top to its bottom")]
#[component]
pub fn ModelCard(
    /// What it shows and changes.
    desk: Desk,
) -> impl IntoView {
    let engine = desk.engine;
    let share = move || {
        engine.activity.with(|activity| {
            let activity = activity.as_ref().filter(|activity| activity.doing == "load")?;
            view::progress_share(activity.progress.as_ref())
        })
    };
    let about = move || {
        desk.chosen_model().map(|model| {
            view! {
                <p class="quiet">
                    {model.description.clone()} " "
                    <span class="nowrap">{view::bytes(model.size())}", "{model.licence}</span>
                </p>
            }
        })
    };
    let in_browser = move || engine.place.get() != Place::Server;
    let can_webgpu = move || desk.webgpu.with(|webgpu| matches!(webgpu, Some(Ok(()))));
    let where_it_runs = move || match (engine.place.get(), desk.webgpu.get()) {
        (Place::Server, _) => "Runs on the server; your prompts are sent there.".to_owned(),
        (Place::WebGpu, Some(Err(reason))) => format!("WebGPU cannot be used here: {reason}. Choose CPU."),
        (Place::WebGpu, _) => "Runs on your graphics card. Nothing leaves your browser.".to_owned(),
        (Place::Cpu, Some(Err(reason))) => format!("Runs on your CPU, because {reason}. Nothing leaves your browser."),
        (Place::Cpu, _) => "Runs on your CPU. Nothing leaves your browser.".to_owned(),
    };
    let idle_without_model = move || {
        let stopped = engine.state.with(|state| matches!(state, State::Stopped(_)));
        stopped || (desk.failure.with(Option::is_some) && engine.model.with(Option::is_none) && !desk.busy())
    };
    let restart = move |_| desk.move_to(engine.place.get_untracked());

    view! {
        <section class="card" aria-labelledby="model-heading">
            <h2 id="model-heading">"The model"</h2>
            <label for=ids::MODEL class="unseen">"Model"</label>
            <select
                id=ids::MODEL
                prop:disabled=move || desk.busy()
                on:change=move |event| spawn_local(desk.load(event_target_value(&event)))
            >
                <For each=move || desk.models() key=|model| model.id.clone() let:model>
                    {
                        let id = model.id.clone();
                        let selected = move || desk.chosen.with(|chosen| *chosen == id);
                        view! { <option value=model.id.clone() selected=selected>{model.name.clone()}</option> }
                    }
                </For>
            </select>
            {about}
            <Show when=in_browser>
                <Segments legend="Device" wide=true>
                    <Segment
                        name="device"
                        id=ids::DEVICE_CPU
                        label="CPU"
                        checked=Signal::derive(move || engine.place.get() == Place::Cpu)
                        choose=move || desk.move_to(Place::Cpu)
                    />
                    <Segment
                        name="device"
                        id=ids::DEVICE_WEBGPU
                        label="WebGPU"
                        checked=Signal::derive(move || engine.place.get() == Place::WebGpu)
                        disabled=Signal::derive(move || !can_webgpu() && engine.place.get() != Place::WebGpu)
                        choose=move || desk.move_to(Place::WebGpu)
                    />
                </Segments>
            </Show>
            <p class="quiet">{where_it_runs}</p>
            <Show when=move || share().is_some()>
                <progress prop:value=move || share().unwrap_or(0.0) max="1" aria-label="The model's files"></progress>
            </Show>
            <Show when=idle_without_model>
                <button type="button" class="second" id=ids::RESTART_BUTTON on:click=restart>"Try again"</button>
            </Show>
        </section>
    }
}
