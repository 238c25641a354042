use leptos::prelude::*;
use rectify_protocol::{EditReport, WeightChange};

use super::{
    heat_map::{HeatMap, HeatScale},
    loss_curve::LossCurve,
};
use crate::{desk::Desk, ids, methods, view};

/// What the edits did to the weights, and how the one that is shown was found.
#[component]
pub fn WeightChangeCard(
    /// What it shows.
    desk: Desk,
) -> impl IntoView {
    let report = Memo::new(move |_| desk.shown_entry().map(|entry| entry.report));
    // The report knows no more than its own edit, and nothing of what is kept of it now; until more is known, it is
    // what there is.
    let changes = Memo::new(move |_| match desk.changes.get() {
        known if known.is_empty() => report.get().map(|report| report.weights).unwrap_or_default(),
        known => known,
    });
    let edits = move || desk.ledger.with(Vec::len);
    let several = move || {
        (edits() > 1).then(|| {
            let words = format!("For {}, compared with the original weights.", view::together(edits()));
            view! { <p class="quiet">{words}</p> }
        })
    };
    let drawn = move || changes.with(|changes| changes.iter().any(|change| change.blocks.is_some()));
    let notes = move || {
        let notes = report.get().map(|report| report.notes).unwrap_or_default();
        notes.into_iter().map(|note| view! { <p class="note">{note}</p> }).collect_view()
    };
    view! {
        <Show when=move || report.with(Option::is_some)>
            <section
                class="card"
                aria-labelledby="change-heading"
                id=ids::CHANGE
                class:waiting=move || desk.wanted_percent.with(Option::is_some)
                data-manhattan=move || changes.with(|changes| view::manhattan(changes)).to_string()
            >
                <h2 id="change-heading">"What changed"</h2>
                {several}
                {move || changes.get().into_iter().map(|change| view! { <Matrix change /> }).collect_view()}
                <Show when=drawn><HeatScale /></Show>
                {notes}
            </section>
            {move || report.get().map(|report| view! { <Search report /> })}
        </Show>
    }
}

/// One matrix that changed.
#[component]
fn Matrix(change: WeightChange) -> impl IntoView {
    let name = change.name.split_inclusive('.').map(|part| view! { {part.to_owned()} <wbr /> });
    let above = change.above.iter().map(|above| {
        let title = "Share of the entries whose |ΔW / W| is larger";
        view! { <div><dt title=title>"Above " {above.threshold}</dt><dd>{view::percent(above.share)}</dd></div> }
    });
    view! {
        <p class="matrix"><code>{name.collect_view()}</code></p>
        {change.blocks.map(|blocks| view! { <HeatMap blocks /> })}
        <p class="quiet">
            {view::thousands(change.kept)} " of " {view::thousands(change.entries)} " entries changed"
        </p>
        <dl>
            <div><dt title="Manhattan distance">"Sum of changes"</dt><dd>{view::figures(change.manhattan)}</dd></div>
            <div><dt title="Frobenius norm">"Norm"</dt><dd>{view::figures(change.frobenius)}</dd></div>
            {above.collect_view()}
        </dl>
    }
}

/// How the change was found, and how long it took.
#[component]
fn Search(report: EditReport) -> impl IntoView {
    let steps = report.trace.len();
    let searched = steps > 0;
    let fluency = report.perplexity.map(|[before, after]| {
        view! {
            <p class="quiet">
                "Perplexity on the unedited model's own text: " {view::figures(before)} " before, " {view::figures(after)} " after"
            </p>
        }
    });
    view! {
        <section class="card" aria-labelledby="curve-heading">
            <h2 id="curve-heading">{methods::search_heading(&report.spec.editor)}</h2>
            {searched
                .then(|| view! { <LossCurve trace=Signal::stored(report.trace) steps=Signal::stored(steps) /> })}
            <p class="quiet">
                {searched.then(|| format!("{steps} steps in "))} {view::duration(report.seconds)} " on "
                {match report.device.as_str() { "flex" => "the CPU", other => view::device(other) }.to_owned()}
            </p>
            {fluency}
        </section>
    }
}
