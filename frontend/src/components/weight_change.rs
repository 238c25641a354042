use leptos::prelude::*;

use super::loss_curve::LossCurve;
use crate::{desk::Desk, view};

/// What the edit that is shown did to the weights, and how its value was found.
#[component]
pub fn WeightChangeCard(
    /// What it shows.
    desk: Desk,
) -> impl IntoView {
    let entry = Memo::new(move |_| desk.shown_entry());
    let body = move || {
        let report = entry.get()?.report;
        let matrices = report.weights.iter().map(|weight| {
            let name = weight.name.split_inclusive('.').map(|part| view! { {part.to_owned()} <wbr /> });
            let share = weight.kept as f64 / weight.entries.max(1) as f64;
            view! {
                <p class="matrix"><code>{name.collect_view()}</code></p>
                <div class="thin" aria-hidden="true"><i style=format!("width: {:.1}%", share * 100.0)></i></div>
                <p class="quiet">
                    {view::thousands(weight.kept)} " of " {view::thousands(weight.entries)} " entries changed"
                </p>
                <dl>
                    <div><dt>"Sum of changes"</dt><dd>{view::figures(weight.manhattan)}</dd></div>
                    <div><dt>"Norm"</dt><dd>{view::figures(weight.frobenius)}</dd></div>
                </dl>
            }
        });
        let notes = report.notes.iter().map(|note| view! { <p class="note">{note.clone()}</p> });
        let steps = report.trace.len();
        let trace = report.trace.clone();
        Some(view! {
            <section class="card" aria-labelledby="change-heading">
                <h2 id="change-heading">"What changed"</h2>
                {matrices.collect_view()}
                {notes.collect_view()}
            </section>
            <section class="card" aria-labelledby="curve-heading">
                <h2 id="curve-heading">"How the value was found"</h2>
                <LossCurve trace=Signal::stored(trace) steps=Signal::stored(steps) />
                <p class="quiet">
                    {steps} " steps in " {view::duration(report.seconds)} " on "
                    {match report.device.as_str() { "flex" => "the CPU".to_owned(), "webgpu" => "WebGPU".to_owned(), other => other.to_owned() }}
                </p>
            </section>
        })
    };
    view! { {body} }
}
