use leptos::prelude::*;
use rectify_protocol::Probe;

use crate::{
    desk::Desk,
    view::{self, Verdict},
};

/// Whether the edit held, asked another way, and what else moved.
#[component]
pub fn Probes(
    /// What it shows.
    desk: Desk,
) -> impl IntoView {
    let entry = Memo::new(move |_| desk.shown_entry());
    let body = move || {
        let report = entry.get()?.outcome()?.clone();
        Some(view! {
            <section class="card" aria-labelledby="probes-heading">
                <h2 id="probes-heading">"Did it hold, and what else moved?"</h2>
                <ul class="chips">
                    <Chip score=Some(report.reliability) name="Reliability" meaning="the prompt gives the new answer" />
                    <Chip score=report.generalization name="Generalization" meaning="so do its rephrasings" />
                    <Chip score=report.locality name="Locality" meaning="neighbours stay as they were" />
                </ul>
                <Table heading="Asked another way" probes=report.paraphrases verdict=view::paraphrase_verdict />
                <Table heading="Asked about others" probes=report.neighbors verdict=view::neighbor_verdict />
            </section>
        })
    };
    view! { {body} }
}

/// A score in [0, 1] with its name and what it means.
#[component]
fn Chip(score: Option<f64>, name: &'static str, meaning: &'static str) -> impl IntoView {
    let text = score.map_or_else(|| "–".into(), |score| format!("{score:.2}"));
    let meaning = if score.is_some() { meaning } else { "nothing to ask" };
    view! {
        <li class:low=score.is_some_and(|score| score < 0.995)>
            <b>{text}</b>
            <span>{name}</span>
            <small>{meaning}</small>
        </li>
    }
}

/// Prompts with their answers before and now.
#[component]
fn Table(heading: &'static str, probes: Vec<Probe>, verdict: fn(&Probe) -> Verdict) -> impl IntoView {
    let rows = probes.iter().map(|probe| {
        let Verdict { good, words, sign } = verdict(probe);
        view! {
            <tr>
                <th scope="row">{probe.prompt.clone()}</th>
                <td class=if good { "good" } else { "bad" }>
                    <span aria-hidden="true">{sign}" "</span>{words}
                </td>
                <td data-name="before">{view::first_sentence(&probe.before)}</td>
                <td data-name="now">{view::first_sentence(&probe.after)}</td>
            </tr>
        }
    });
    (!probes.is_empty()).then(|| view! {
        <table>
            <thead>
                <tr><th scope="col">{heading}</th><th scope="col"><span class="unseen">"verdict"</span></th><th scope="col">"before"</th><th scope="col">"now"</th></tr>
            </thead>
            <tbody>{rows.collect_view()}</tbody>
        </table>
    })
}
