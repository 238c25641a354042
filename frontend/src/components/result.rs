use leptos::{prelude::*, task::spawn_local};
use rectify_protocol::{Answer, Candidate, Fact, FactReport, Measure, Progress};

use super::{bars::Bars, loss_curve::LossCurve};
use crate::{desk::Desk, ids, methods, view};

/// The fact as a sentence, and what the model says before and after.
#[component]
pub fn ResultCard(
    /// What it shows.
    desk: Desk,
) -> impl IntoView {
    let entry = Memo::new(move |_| desk.shown_entry());
    let running = Memo::new(move |_| {
        desk.engine.activity.with(|activity| activity.as_ref().is_some_and(|activity| activity.doing == "edit"))
    });
    let undoable = Memo::new(move |_| {
        let newest = desk.ledger.with(Vec::len).checked_sub(1);
        newest.is_some() && desk.shown.get() == newest && !running.get()
    });
    let state = move || match (running.get(), entry.get().is_some()) {
        (true, _) => "running",
        (false, true) => "done",
        (false, false) => "empty",
    };
    let fact = Memo::new(move |_| entry.get().map_or_else(|| desk.draft.fact(), |entry| entry.fact));
    let report = move || entry.get().and_then(|entry| entry.outcome().cloned());

    let before = move || said_before(desk, &fact.get(), report());
    let after =
        move || if running.get() { view! { <Live desk /> }.into_any() } else { said_after(&fact.get(), report()) };
    let before_heading = move || match (entry.get().is_some(), desk.ledger.with(Vec::len)) {
        (true, _) => "Before",
        (false, 0) => "The model says",
        (false, _) => "The edited model says",
    };
    let after_heading = move || match (running.get(), entry.get()) {
        (true, _) => "Editing …".to_owned(),
        (false, Some(entry)) => {
            format!("After {}", methods::edit_words(entry.report.spec.editor.method(), entry.regularizer))
        }
        (false, None) => "After the edit".to_owned(),
    };
    view! {
        <section
            class="card result"
            id=ids::RESULT
            aria-label="The fact before and after"
            data-state=state
            data-edits=move || entry.get().map(|entry| entry.report.edits.to_string())
        >
            {move || sentence(&fact.get())}
            <div class="pair">
                <div class="before"><h3>{before_heading}</h3>{before}</div>
                <div class="after">
                    <h3>
                        {after_heading}
                        <Show when=move || undoable.get()>
                            <button
                                type="button"
                                class="link"
                                prop:disabled=move || desk.busy()
                                on:click=move |_| spawn_local(desk.undo())
                            >
                                "undo"
                            </button>
                        </Show>
                    </h3>
                    {after}
                </div>
            </div>
        </section>
    }
}

/// A fact with its subject, the old object and the new one marked.
fn sentence(fact: &Fact) -> impl IntoView + use<> {
    let (start, subject, rest) = view::around_subject(&fact.prompt, &fact.subject);
    view! {
        <p class="fact">
            {start.to_owned()} <b>{subject.to_owned()}</b> {rest.to_owned()} " "
            {fact.target_true.clone().map(|old| view! { <s>{old}</s> " " })} <u>{fact.target_new.clone()}</u>
            {(!fact.target_new.is_empty()).then_some(".")}
        </p>
    }
}

/// What the model said before the edit, or says now where there is none.
fn said_before(desk: Desk, fact: &Fact, report: Option<FactReport>) -> AnyView {
    let (old, new) = (fact.target_true.clone(), fact.target_new.clone());
    match (report, desk.preview.get()) {
        (Some(FactReport { before, .. }), _) => {
            view! { <Said measure=before old new id=ids::ANSWER_BEFORE /> }.into_any()
        }
        (None, Some(answer)) if answer.prompt == fact.prompt => view! { <SaidNow answer /> }.into_any(),
        _ if desk.embedded => view! { <p class="hint">"Its answer as it is appears here first."</p> }.into_any(),
        _ => view! { <p class="hint">"Its answer appears here as soon as the model is ready."</p> }.into_any(),
    }
}

/// What the edited model says, or how to make one.
fn said_after(fact: &Fact, report: Option<FactReport>) -> AnyView {
    let (old, new) = (fact.target_true.clone(), fact.target_new.clone());
    match report {
        Some(FactReport { after, .. }) => view! { <Said measure=after old new id=ids::ANSWER_AFTER /> }.into_any(),
        None => view! {
            <p class="hint">
                "Press " <b>"Edit this fact"</b> ": some numbers in one matrix change, and the new answer appears here."
            </p>
        }
        .into_any(),
    }
}

/// How a model answered around an edit.
#[component]
fn Said(measure: Measure, old: Option<String>, new: String, id: &'static str) -> impl IntoView {
    let old = old.zip(measure.p_true).map(|(old, p)| Candidate(old, p));
    let whole = [Some(Candidate(new.clone(), measure.p_new)), old].into_iter().flatten().collect();
    view! {
        <h4>"The whole answer"</h4>
        <Bars candidates=whole wanted=new.clone() />
        <h4>"The next token"</h4>
        <Bars candidates=measure.top wanted=new />
        <p class="said" id=id>{measure.text.trim().to_owned()}</p>
    }
}

/// How the model answers as it is.
#[component]
fn SaidNow(answer: Answer) -> impl IntoView {
    view! {
        <h4>"The next token"</h4>
        <Bars candidates=answer.top />
        <p class="said" id=ids::ANSWER_BEFORE>{answer.text.trim().to_owned()}</p>
    }
}

/// The edit while it runs.
#[component]
fn Live(desk: Desk) -> impl IntoView {
    let activity = desk.engine.activity;
    let trace = Signal::derive(move || activity.get().map(|activity| activity.trace).unwrap_or_default());
    let steps = Signal::derive(move || {
        activity.with(|activity| match activity.as_ref().and_then(|activity| activity.progress.as_ref()) {
            Some(Progress::Optimizing { steps, .. }) => *steps,
            _ => methods::steps(&desk.settings.editor()).unwrap_or(0),
        })
    });
    let words = move || {
        activity.with(|activity| {
            activity.as_ref().map(|activity| view::progress_words(activity.doing, activity.progress.as_ref()))
        })
    };
    view! {
        <Show when=move || steps.get() != 0><LossCurve trace steps /></Show>
        <p class="quiet">
            {words} " · "
            // Where the page is one column, the form and its own cancel button are out of sight.
            <button type="button" class="link" on:click=move |_| desk.engine.cancel()>"cancel"</button>
        </p>
    }
}
