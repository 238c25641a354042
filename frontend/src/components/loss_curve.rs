use leptos::prelude::*;
use rectify_protocol::Step;

use crate::view;

const WIDTH: f64 = 280.0;
const HEIGHT: f64 = 84.0;

/// The loss while a value is looked for, and the probability of the new object.
#[component]
pub fn LossCurve(
    /// The evaluations so far.
    #[prop(into)]
    trace: Signal<Vec<Step>>,
    /// At most this many; the curve's full width.
    #[prop(into)]
    steps: Signal<usize>,
) -> impl IntoView {
    let losses = move || trace.with(|trace| trace.iter().map(Step::loss).collect::<Vec<_>>());
    let loss =
        move || view::curve(&losses(), steps.get(), trace.with(|trace| view::highest_loss(trace)), WIDTH, HEIGHT);
    let area = move || {
        let last =
            trace.with(|trace| view::points(&losses(), steps.get(), view::highest_loss(trace), WIDTH, HEIGHT)).pop();
        last.map(|(x, _)| format!("{}L{x:.1} {HEIGHT}L0 {HEIGHT}Z", loss()))
    };
    let probability = move || {
        let values: Vec<f64> = trace.with(|trace| trace.iter().map(|step| step.p_target).collect());
        view::curve(&values, steps.get(), 1.0, WIDTH, HEIGHT)
    };
    let words = move || {
        trace.with(|trace| match (trace.first(), trace.last()) {
            (Some(first), Some(last)) => format!(
                "Loss over {} steps: from {} to {}; probability of the new answer {}",
                trace.len(),
                view::figures(first.loss()),
                view::figures(last.loss()),
                view::percent(last.p_target)
            ),
            _ => "No steps yet".into(),
        })
    };
    let now = move |read: fn(&Step) -> String| trace.with(|trace| trace.last().map(read));
    view! {
        <figure class="curve">
            <svg viewBox=format!("-4 -4 {} {}", WIDTH + 8.0, HEIGHT + 8.0) role="img" aria-label=words>
                <path class="floor" d=format!("M0 {HEIGHT}H{WIDTH}M0 {}H{WIDTH}M0 0H{WIDTH}", HEIGHT / 2.0) />
                <path class="area" d=area />
                <path class="probability" d=probability />
                <path class="loss" d=loss />
            </svg>
            <figcaption>
                <span class="key loss">"loss " <code>{move || now(|step| view::figures(step.loss()))}</code></span>
                <span class="key probability">
                    "new answer " <code>{move || now(|step| view::percent(step.p_target))}</code>
                </span>
            </figcaption>
        </figure>
    }
}
