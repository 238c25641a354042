use leptos::{prelude::*, task::spawn_local};
use rectify_figures::table;
use rectify_protocol::{Ability, Item};

use crate::{
    desk::{Desk, TASKS},
    ids, view,
};

/// What the edits cost the model: its eight abilities, asked again whenever the weights are others.
#[component]
pub fn Abilities(
    /// What it shows.
    desk: Desk,
) -> impl IntoView {
    let world = Memo::new(move |_| desk.world());
    let known =
        move |task: &str| world.with(|world| world.as_ref().is_some_and(|world| world.tasks.contains_key(task)));
    let rows =
        move || TASKS.into_iter().filter(|task| known(task)).map(|task| view! { <Row desk task /> }).collect_view();
    // The next task to be asked of the weights as they are now.
    let asking = move || TASKS.into_iter().find(|task| known(task) && !desk.costs.with(|costs| costs.is_fresh(task)));
    let loaded = move || desk.engine.model.with(Option::is_some);
    let words = move || match asking() {
        Some(_) if !loaded() => "Asked as soon as the model is ready.".to_owned(),
        Some(_) if desk.busy() => "Asked again as soon as the model is free.".to_owned(),
        Some(task) => format!("Asking the model: {} …", table::words(task)),
        None => "Share answered rightly, by the paper\u{2019}s scorers; ± is one standard error.".to_owned(),
    };
    let sample = move || {
        let of = desk.costs.with(|costs| costs.unedited.values().next().map(|ability| ability.of));
        let records = desk.records.get();
        match of {
            Some(of) if of > records => format!("{records} of {of} questions of each task"),
            Some(of) => format!("all {of} questions of each task"),
            None => format!("{records} questions of each task"),
        }
    };
    let more = move || {
        let of = desk.costs.with(|costs| costs.unedited.values().map(|ability| ability.of).max()).unwrap_or(0);
        (desk.records.get() < of).then(|| {
            view! {
                <button
                    type="button"
                    class="link"
                    id=ids::ASK_MORE
                    prop:disabled=move || desk.busy()
                    on:click=move |_| spawn_local(desk.ask_more(of))
                >
                    "ask all "{of}
                </button>
            }
        })
    };
    view! {
        <section
            class="card"
            aria-labelledby="abilities-heading"
            id=ids::ABILITIES
            data-state=move || if asking().is_some() || !loaded() { "asking" } else { "known" }
            data-edits=move || desk.ledger.with(Vec::len).to_string()
        >
            <h2 id="abilities-heading">"What it costs"</h2>
            <Show
                when=move || world.with(Option::is_some)
                fallback=|| view! { <p class="quiet">"There are no tasks beside the page for this model."</p> }
            >
                <p class="quiet">{sample} " · " {more}</p>
                <div class="abilities">{rows}</div>
                <p class="quiet" role="status">{words}</p>
            </Show>
        </section>
    }
}

/// One ability: its score after each edit, now, and the answers that were lost.
#[component]
fn Row(desk: Desk, task: &'static str) -> impl IntoView {
    let now = Memo::new(move |_| desk.costs.with(|costs| costs.now.get(task).cloned()));
    let unedited = Memo::new(move |_| desk.costs.with(|costs| costs.unedited.get(task).cloned()));
    let score = move || now.with(|now| now.as_ref().and_then(|ability| ability.scores.paper));
    let stale = move || desk.costs.with(|costs| !costs.is_fresh(task));
    let fell = move || {
        let before = unedited.with(|ability| ability.as_ref().and_then(|ability| ability.scores.paper));
        score().zip(before).is_some_and(|(now, before)| now < before)
    };
    let error = move || now.with(|now| now.as_ref().and_then(|ability| ability.error)).filter(|error| *error > 0.0);
    let spark = move || {
        let curve = desk.costs.with(|costs| costs.curves.get(task).cloned().unwrap_or_default());
        let level = unedited.with(|ability| ability.as_ref().and_then(|ability| ability.scores.paper));
        view! { <Spark values=curve.into_values().collect() level /> }
    };
    view! {
        <details
            id=format!("{}-{task}", ids::ABILITIES)
            class:stale=stale
            class:fell=fell
            data-score=move || score().map(|score| score.to_string())
            data-lost=move || lost(now.get().as_ref(), unedited.get().as_ref()).len().to_string()
        >
            <summary>
                <span>{table::words(task)}</span>
                {spark}
                <b>{move || score().map_or_else(|| "–".to_owned(), |score| format!("{score:.2}"))}</b>
                <small>{move || error().map(|error| format!("±{error:.2}"))}</small>
            </summary>
            {move || {
                let (now, before) = (now.get(), unedited.get());
                view! { <Lost items=lost(now.as_ref(), before.as_ref()) known=now.is_some() /> }
            }}
        </details>
    }
}

/// The records that are answered worse than by the unedited model, with their items there.
fn lost(now: Option<&Ability>, unedited: Option<&Ability>) -> Vec<(Item, Item)> {
    let (Some(now), Some(unedited)) = (now, unedited) else { return Vec::new() };
    now.lost(unedited).into_iter().map(|(then, now)| (then.clone(), now.clone())).collect()
}

/// Scores from the unedited model on, in a small box, with the unedited level.
#[component]
fn Spark(values: Vec<f64>, level: Option<f64>) -> impl IntoView {
    const WIDTH: f64 = 64.0;
    const HEIGHT: f64 = 18.0;
    let line = view::curve(&values, values.len(), 1.0, WIDTH, HEIGHT);
    let end = view::points(&values, values.len(), 1.0, WIDTH, HEIGHT).last().copied();
    let level = level.map(|level| HEIGHT * (1.0 - level.clamp(0.0, 1.0)));
    view! {
        <svg class="spark" viewBox=format!("-3 -3 {} {}", WIDTH + 6.0, HEIGHT + 6.0) aria-hidden="true">
            {level.map(|y| view! { <path class="level" d=format!("M0 {y:.1}H{WIDTH}") /> })}
            <path d=line />
            {end.map(|(x, y)| view! { <circle cx=format!("{x:.1}") cy=format!("{y:.1}") r="2.5" /> })}
        </svg>
    }
}

/// Questions that were answered rightly before the edits, or better.
#[component]
fn Lost(items: Vec<(Item, Item)>, known: bool) -> impl IntoView {
    const SHOWN: usize = 8;
    let words = match (known, items.len()) {
        (false, _) => "Not asked yet.".to_owned(),
        (true, 0) => "Every one of these questions is answered as well as before the edits.".to_owned(),
        (true, 1) => "One question was answered better before the edits:".to_owned(),
        (true, n) if n > SHOWN => format!("{n} were answered better before the edits; {SHOWN} of them:"),
        (true, n) => format!("{n} were answered better before the edits:"),
    };
    let shown = items.into_iter().take(SHOWN).map(|(then, now)| {
        // Of a record with several prompts, the first whose reply is another now.
        let at = then.replies.iter().zip(&now.replies).position(|(then, now)| then != now).unwrap_or(0);
        let text = |texts: &[String]| texts.get(at).map(|text| text.trim().to_owned()).unwrap_or_default();
        view! {
            <li>
                <p class="asked-of">{view::end_of(&text(&now.prompts), 160)}</p>
                <p>"right: " <b>{view::end_of(&text(&now.answers), 80)}</b></p>
                <p>"before: " {view::start_of(&text(&then.replies), 80)}</p>
                <p class="bad">"now: " {view::start_of(&text(&now.replies), 80)}</p>
            </li>
        }
    });
    view! {
        <p class="quiet">{words}</p>
        <ol class="lost">{shown.collect_view()}</ol>
    }
}
