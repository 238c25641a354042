use leptos::{prelude::*, task::spawn_local};
use rectify_figures::{Study, findings::findings, html::charts};

use super::fields::{Segment, Segments};
use crate::{
    desk::{Desk, EDITS, Played, Recipe},
    ids, methods, surroundings,
};

/// The paper's Figure 8, drawn while the visitor watches: many facts written one after another, and what is left of the
/// model's abilities when all of each edit is kept, or only what RECT keeps.
#[component]
pub fn PlayCard(
    /// What it shows and changes.
    desk: Desk,
) -> impl IntoView {
    let recipe = RwSignal::new(Recipe::Published);
    let own_facts = RwSignal::new(false);
    let world = Memo::new(move |_| desk.world().is_some());
    let ready = move || (desk.embedded || desk.engine.model.with(Option::is_some)) && world.get() && !desk.busy();
    let running = Memo::new(move |_| {
        desk.engine.activity.with(|activity| activity.as_ref().is_some_and(|activity| activity.doing == "play"))
    });
    let state = move || match (running.get(), desk.played.with(Option::is_some)) {
        (true, _) => "running",
        (false, true) => "done",
        (false, false) => "empty",
    };
    view! {
        <Show when=move || world.get()>
            <section class="card" aria-labelledby="play-heading" id=ids::PLAY data-state=state>
                <h2 id="play-heading">"What do many edits cost?"</h2>
                <p>
                    "An edit that looks perfect can still cost the model what it was able to do before. Watch it happen: "
                    {EDITS} " facts are written one after another, three times over, keeping all of each edit, or the \
                    40% or 20% that RECT keeps. On the way the model is asked four of its tasks. Keeping less disturbs \
                    what the edits did not mean to change; keeping too little loses the edits. On the bundled GPT-2, \
                    40% hardly differs from keeping all, so compare with 20%. Your own edits stay as they are."
                </p>
                <Choices desk recipe own_facts />
                <button
                    type="button"
                    class="second"
                    id=ids::PLAY_BUTTON
                    prop:disabled=move || !ready()
                    on:click=move |_| spawn_local(desk.play(recipe.get_untracked(), own_facts.get_untracked()))
                >
                    "Make " {EDITS} " edits"
                </button>
                <Show when=move || running.get()><Running desk /></Show>
                <Drawn desk running />
            </section>
        </Show>
    }
}

/// Which facts are written, and how.
#[component]
fn Choices(desk: Desk, recipe: RwSignal<Recipe>, own_facts: RwSignal<bool>) -> impl IntoView {
    view! {
        <details>
            <summary>"What is written, and how"</summary>
            <Segments legend="Facts" wide=true>
                <Segment name="play-facts" id="play-facts-set".to_owned() label="the edit set\u{2019}s first"
                    checked=Signal::derive(move || !own_facts.get()) choose=move || own_facts.set(false) />
                <Segment name="play-facts" id="play-facts-examples".to_owned() label="the form\u{2019}s examples"
                    checked=own_facts choose=move || own_facts.set(true) />
            </Segments>
            <Segments legend="Editor" wide=true>
                <Segment name="play-recipe" id="play-recipe-published".to_owned() label="ROME as published"
                    checked=Signal::derive(move || recipe.get() == Recipe::Published)
                    choose=move || recipe.set(Recipe::Published) />
                <Segment name="play-recipe" id="play-recipe-form".to_owned() label="the form\u{2019}s method"
                    checked=Signal::derive(move || recipe.get() == Recipe::Form)
                    choose=move || recipe.set(Recipe::Form) />
            </Segments>
            <p class="quiet under">
                {move || match recipe.get() {
                    Recipe::Published => "ROME as in the code behind the paper\u{2019}s figures: its key is not \
                        whitened. Settings that whiten it, as the form\u{2019}s may, do far less harm."
                        .to_owned(),
                    Recipe::Form => {
                        let method = methods::method(desk.settings.method.get()).label;
                        format!("{method} with the settings of the form.")
                    }
                }}
            </p>
        </details>
    }
}

/// How far it is, and a way out.
#[component]
fn Running(desk: Desk) -> impl IntoView {
    let (made, all) = (
        move || desk.played.with(|played| played.as_ref().map_or(0, Played::made)),
        move || desk.played.with(|played| played.as_ref().map_or(1, |played| played.sequences * EDITS)),
    );
    view! {
        <div class="waiting under">
            <p role="status">"Edit " {made} " of " {all}</p>
            <button type="button" class="link" on:click=move |_| desk.engine.cancel()>"cancel"</button>
        </div>
        <div class="thin" aria-hidden="true">
            <i style=move || format!("width: {:.1}%", made() as f64 / all() as f64 * 100.0)></i>
        </div>
    }
}

/// What was measured so far: drawn again when a measurement of all sequences is whole.
#[component]
fn Drawn(desk: Desk, running: Memo<bool>) -> impl IntoView {
    let turn = Memo::new(move |_| (desk.played.with(|played| played.as_ref().map(Played::made)), running.get()));
    let drawn = Memo::new(move |_| {
        let (_, running) = turn.get();
        let study = Study::of(&desk.played.with_untracked(|played| played.as_ref()?.sweep())?)?;
        let found = if running { String::new() } else { findings(&study).into_string() };
        Some(format!("{found}{}", charts(&study).into_string()))
    });
    let keep = move |_| {
        if let Some(rows) = desk.played.with_untracked(|played| played.as_ref()?.file()) {
            surroundings::download("rectify-20-edits.jsonl", &rows);
        }
    };
    view! {
        <Show when=move || drawn.with(Option::is_some)>
            <div class="study" inner_html=move || drawn.get()></div>
            <Show when=move || !running.get()>
                <p class="quiet">
                    "One order of one set of facts, 24 questions of each task: differences of a tenth or two may be \
                    chance, and on the bundled GPT-2 RECT at 40% hardly differs from keeping everything. "
                    <a href="examples/report.html" target="_blank" rel="noopener">"The full grids"</a>
                    " have more seeds, settings and questions. "
                    // Other sites' frames are not allowed to.
                    <Show when=move || !desk.embedded>
                        <button type="button" class="link" id=ids::PLAY_ROWS on:click=keep>"Keep the rows"</button>
                        " to draw them again under Sweeps."
                    </Show>
                </p>
            </Show>
        </Show>
    }
}
