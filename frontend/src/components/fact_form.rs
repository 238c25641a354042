use leptos::{prelude::*, task::spawn_local};

use crate::{
    desk::{Desk, Line},
    ids,
};

/// The fact to write, and what else is asked before and after.
#[allow(clippy::too_many_lines, reason = "one card, from its top to its bottom")]
#[component]
pub fn FactForm(
    /// What it changes.
    desk: Desk,
) -> impl IntoView {
    let draft = desk.draft;
    let look = move |_| {
        desk.shown.set(None);
        spawn_local(desk.catch_up());
    };
    let counts = move || {
        let counted = |n: usize, one: &str, many: &str| match n {
            0 => format!("no {many}"),
            1 => format!("1 {one}"),
            n => format!("{n} {many}"),
        };
        let paraphrases = counted(draft.paraphrases.with(Vec::len), "rephrasing", "rephrasings");
        let neighbors = counted(draft.neighbors.with(Vec::len), "neighbour", "neighbours");
        format!("Also asked: {paraphrases}, {neighbors}")
    };
    view! {
        <section class="card" aria-labelledby="fact-heading">
            <div class="heading">
                <h2 id="fact-heading">"The fact"</h2>
                <Show when=move || desk.has_examples()>
                    <button
                        type="button"
                        class="link"
                        id=ids::EXAMPLE_BUTTON
                        prop:disabled=move || desk.busy()
                        on:click=move |_| desk.next_example()
                    >
                        "another example"
                    </button>
                </Show>
            </div>
            <div class="field">
                <label for=ids::SUBJECT>"Subject"</label>
                <input id=ids::SUBJECT type="text" autocomplete="off" spellcheck="false" bind:value=draft.subject />
            </div>
            <div class="field">
                <label for=ids::PROMPT>"Prompt, up to the answer"</label>
                <textarea
                    id=ids::PROMPT
                    rows="2"
                    autocomplete="off"
                    spellcheck="false"
                    bind:value=draft.prompt
                    on:change=look
                ></textarea>
            </div>
            <div class="row">
                <div class="field">
                    <label for=ids::TARGET_TRUE>"Now says"</label>
                    <input
                        id=ids::TARGET_TRUE
                        type="text"
                        autocomplete="off"
                        spellcheck="false"
                        placeholder="if known"
                        bind:value=draft.target_true
                    />
                </div>
                <div class="field">
                    <label for=ids::TARGET_NEW>"Should say"</label>
                    <input id=ids::TARGET_NEW type="text" autocomplete="off" spellcheck="false" bind:value=draft.target_new />
                </div>
            </div>
            <details>
                <summary>{counts}</summary>
                <p class="quiet">"The edit should hold however the question is put …"</p>
                <Lines lines=draft.paraphrases name="Rephrasing" desk />
                <p class="quiet">"… and leave other facts alone."</p>
                <Lines lines=draft.neighbors name="Neighbour" with_target=true desk />
            </details>
        </section>
    }
}

/// Prompts that can be changed, added and removed.
#[component]
fn Lines(
    /// The prompts.
    lines: RwSignal<Vec<Line>>,
    /// What one of them is called.
    name: &'static str,
    /// Whether each has an answer of its own.
    #[prop(default = false)]
    with_target: bool,
    /// Makes new lines.
    desk: Desk,
) -> impl IntoView {
    let add = move |_| lines.update(|lines| lines.push(desk.draft.line("", "")));
    let one = move |line: Line| {
        let place = move || lines.with(|lines| lines.iter().position(|other| other.key == line.key).unwrap_or(0) + 1);
        let remove = move |_| lines.update(|lines| lines.retain(|other| other.key != line.key));
        view! {
            <li class:pair=with_target>
                <textarea
                    rows="2"
                    aria-label=move || format!("{name} {}", place())
                    spellcheck="false"
                    bind:value=line.prompt
                ></textarea>
                {with_target
                    .then(|| {
                        view! {
                            <input
                                type="text"
                                aria-label=move || format!("{name} {}: its answer", place())
                                placeholder="its answer"
                                spellcheck="false"
                                bind:value=line.target
                            />
                        }
                    })}
                <button type="button" class="remove" aria-label=move || format!("Remove {name} {}", place()) on:click=remove>
                    "×"
                </button>
            </li>
        }
    };
    view! {
        <ul class="lines">
            <For each=move || lines.get() key=|line| line.key children=one />
        </ul>
        <button type="button" class="link" on:click=add>{format!("add a {}", name.to_lowercase())}</button>
    }
}
