//! Heavy runs: ask the server for one, close the page, come back to its results.

use leptos::{prelude::*, task::spawn_local};
use rectify_protocol::{
    Job, JobOffer, JobPart, JobRequest, JobState, JobWork, Machine, Precision, Regularizer, SweepChange,
};

use super::{Page, sweeps};
use crate::{
    desk::Desk,
    ids,
    runs::{Connection, Runs},
    surroundings, view,
};

/// What can be asked for, the jobs there are, and the one that is watched.
#[component]
pub fn RunsPage(
    /// What the visitor does on the page for edits, which can be run on many facts.
    desk: Desk,
    /// Nothing is asked before this one is seen.
    page: RwSignal<Page>,
    /// The id at the end of the page's address.
    watched: Signal<Option<String>>,
) -> impl IntoView {
    let runs = Runs::new();
    Effect::new(move |_| {
        if page.get() == Page::Runs {
            runs.follow(move || page.get_untracked() == Page::Runs);
        }
    });
    Effect::new(move |_| runs.watch(watched.get()));
    view! {
        <main class="wide">
            <h1 class="unseen">"Rectify: heavy runs"</h1>
            <section class="card" id=ids::RUNS aria-labelledby="runs-heading" data-state=move || state(&runs.connection.get())>
                <h2 id="runs-heading">"Heavy runs"</h2>
                {move || match runs.connection.get() {
                    Connection::Asking => view! { <p class="hint">"Asking the server \u{2026}"</p> }.into_any(),
                    Connection::None => view! { <Nobody /> }.into_any(),
                    Connection::Away => view! {
                        <p class="hint" role="status">"The server does not answer; the page asks again every two seconds. A run goes on by itself when it is back."</p>
                    }.into_any(),
                    Connection::Locked => view! { <Lock runs /> }.into_any(),
                    Connection::Open(machine) => match machine.offer.clone() {
                        Some(offer) => view! { <Order desk runs machine=*machine offer /> }.into_any(),
                        None => view! { <p class="hint">"This server takes no heavy runs. It was started without a folder for them: "<code>"rectify serve --jobs DIR"</code></p> }.into_any(),
                    },
                }}
                <p class="problem" role="alert" id=ids::RUNS_ERROR>{move || runs.failure.get()}</p>
            </section>
            <Show when=move || runs.jobs.with(|jobs| !jobs.is_empty())>
                <section class="card" aria-labelledby="jobs-heading">
                    <h2 id="jobs-heading">"Runs on this server"</h2>
                    <Jobs runs />
                </section>
            </Show>
            <Show when=move || runs.watched.with(Option::is_some)><Watched runs /></Show>
        </main>
    }
}

fn state(connection: &Connection) -> &'static str {
    match connection {
        Connection::Asking => "asking",
        Connection::None => "none",
        Connection::Away => "away",
        Connection::Locked => "locked",
        Connection::Open(_) => "open",
    }
}

/// How to get a server.
#[component]
fn Nobody() -> impl IntoView {
    let address = RwSignal::new(String::new());
    let open = move |event: leptos::ev::SubmitEvent| {
        event.prevent_default();
        let address = address.get_untracked();
        let address = address.trim().trim_end_matches('/');
        if address.starts_with("http://") || address.starts_with("https://") {
            surroundings::leave_for(&format!("{address}/#runs"));
        }
    };
    view! {
        <p class="hint">
            "A grid of edits on a large model outgrows a browser\u{2019}s tab. A server runs it while you are away: "
            <code>"rectify serve"</code> " on a machine with memory or a graphics card, with " <code>"--slurm"</code>
            " on a cluster. This page came from a plain host; open the one that your server shows."
        </p>
        <form class="sources" on:submit=open>
            <label>"Your server\u{2019}s address "
                <input type="url" placeholder="http://127.0.0.1:8080" required=true prop:value=address
                    on:input=move |event| address.set(event_target_value(&event)) />
            </label>
            <button type="submit" class="button">"Open"</button>
        </form>
    }
}

/// Asks for the server's token.
#[component]
fn Lock(runs: Runs) -> impl IntoView {
    let token = RwSignal::new(String::new());
    let show = move |event: leptos::ev::SubmitEvent| {
        event.prevent_default();
        spawn_local(runs.unlock(token.get_untracked()));
    };
    view! {
        <p class="hint">"This server can be reached from other machines, so it asks for its token. It said it when it was started. Your browser keeps it until it is closed."</p>
        <form class="sources" on:submit=show>
            <label>"Token "
                <input type="password" id=ids::RUNS_TOKEN autocomplete="off" required=true prop:value=token
                    on:input=move |event| token.set(event_target_value(&event)) />
            </label>
            <button type="submit" class="button">"Show it"</button>
        </form>
    }
}

/// What the visitor asks for.
#[component]
fn Order(desk: Desk, runs: Runs, machine: Machine, offer: JobOffer) -> impl IntoView {
    let first = offer.templates.iter().find(|template| template.missing.is_none()).map(|template| template.id.clone());
    let template = RwSignal::new(first.unwrap_or_default());
    let (model, facts, seeds) =
        (RwSignal::new(String::new()), RwSignal::new(String::new()), RwSignal::new(String::new()));
    let (mine, parts) = (RwSignal::new(false), RwSignal::new(1_usize));
    let offer = StoredValue::new(offer);
    let chosen = move || {
        let id = template.get();
        offer.with_value(|offer| offer.templates.iter().find(|template| template.id == id).cloned())
    };
    let of_model = move || {
        let chosen_model = model.get();
        if chosen_model.is_empty() { chosen().map(|template| template.model).unwrap_or_default() } else { chosen_model }
    };
    let needs = {
        let free = machine.memory_free;
        move || {
            let id = of_model();
            let needed = offer.with_value(|offer| offer.models.iter().find(|model| model.id == id)?.memory_edit);
            match (needed, free) {
                (Some(needed), Some(free)) => format!(
                    "A process needs about {} of memory; {} are free there.",
                    view::bytes(needed),
                    view::bytes(free)
                ),
                (Some(needed), None) => format!("A process needs about {} of memory.", view::bytes(needed)),
                (None, _) => "How much memory this model needs has not been measured.".into(),
            }
        }
    };
    let before = move || runs.jobs.with(|jobs| view::rate_words(jobs, &template.get()));
    let request = move || -> Result<JobRequest, String> {
        let number = |text: &str, what: &str| {
            text.trim().parse::<u64>().map_err(|_| format!("{what} {text:?} is no whole number"))
        };
        let mut change =
            SweepChange { model: Some(model.get_untracked()).filter(|id| !id.is_empty()), ..SweepChange::default() };
        let facts = facts.get_untracked();
        if !facts.trim().is_empty() {
            change.index = Some([0, number(&facts, "the number of facts")? as usize]);
        }
        let seeds = seeds.get_untracked();
        if !seeds.trim().is_empty() {
            change.seeds = Some(seeds.split(',').map(|seed| number(seed, "the seed")).collect::<Result<_, _>>()?);
        }
        if mine.get_untracked() {
            let spec = untrack(|| desk.settings.spec());
            change.editors = Some(vec![spec.editor.settings()]);
            let kept = [Regularizer::None, spec.regularizer];
            let kept = if kept[0] == kept[1] { &kept[..1] } else { &kept[..] };
            change.regularizers = Some(kept.iter().map(ToString::to_string).collect());
        }
        let work = JobWork::Sweep { template: template.get_untracked(), change };
        Ok(JobRequest { work, parts: parts.get_untracked(), precision: Precision::default() })
    };
    let submit = move |event: leptos::ev::SubmitEvent| {
        event.prevent_default();
        match request() {
            Ok(request) => spawn_local(runs.submit(request)),
            Err(problem) => runs.failure.set(Some(format!("{problem}."))),
        }
    };
    let memory = machine.memory.map_or_else(String::new, |bytes| format!(", {} of memory", view::bytes(bytes)));
    let place = format!(
        "{} on {}, {} processors{memory}; runs are started by {}.",
        machine.program,
        view::device(&machine.device),
        machine.processors,
        offer.with_value(|offer| match offer.dispatcher.as_str() {
            "slurm" => "Slurm".to_owned(),
            _ => format!("the server, {} at a time", offer.at_once.unwrap_or(1)),
        })
    );
    view! {
        <p class="quiet">{place}</p>
        <form class="order" on:submit=submit>
            <div class="field">
                <label for=ids::RUN_TEMPLATE>"What to measure"</label>
                <select id=ids::RUN_TEMPLATE on:change:target=move |event| template.set(event.target().value()) prop:value=template>
                    {offer.with_value(|offer| offer.templates.clone()).into_iter().map(|template| {
                        let lacks = template.missing.is_some();
                        view! { <option value=template.id.clone() disabled=lacks>{template.id.clone()}</option> }
                    }).collect_view()}
                </select>
                <p class="quiet">{move || chosen().map(|template| template.title)}</p>
            </div>
            <div class="field">
                <label for=ids::RUN_MODEL>"Model"</label>
                <select id=ids::RUN_MODEL on:change:target=move |event| model.set(event.target().value())>
                    <option value="">{move || format!("the grid\u{2019}s own: {}", chosen().map(|template| template.model).unwrap_or_default())}</option>
                    {offer.with_value(|offer| offer.models.clone()).into_iter().map(|model| {
                        view! { <option value=model.id.clone()>{model.name.clone()}</option> }
                    }).collect_view()}
                </select>
                <p class="quiet" id=ids::RUN_MEMORY>{needs}</p>
            </div>
            <div class="field">
                <label for=ids::RUN_FACTS>"Facts, the first so many"</label>
                <input id=ids::RUN_FACTS type="text" inputmode="numeric" placeholder="as in the grid" prop:value=facts
                    on:input=move |event| facts.set(event_target_value(&event)) />
            </div>
            <div class="field">
                <label for=ids::RUN_SEEDS>"Seeds"</label>
                <input id=ids::RUN_SEEDS type="text" placeholder="as in the grid: 0, 1" prop:value=seeds
                    on:input=move |event| seeds.set(event_target_value(&event)) />
            </div>
            <div class="field">
                <label for=ids::RUN_PARTS>"Processes that share it"</label>
                <input id=ids::RUN_PARTS type="number" min="1" max="10000" prop:value=parts
                    on:change=move |event| parts.set(event_target_value(&event).parse().unwrap_or(1)) />
            </div>
            <label class="check">
                <input type="checkbox" id=ids::RUN_MINE prop:checked=mine on:change:target=move |event| mine.set(event.target().checked()) />
                " With the method, the settings and the regularizer of the Edit page"
            </label>
            <p class="quiet" id=ids::RUN_RATE>{before}</p>
            <button type="submit" class="button" id=ids::RUN_BUTTON>"Dispatch"</button>
        </form>
    }
}

/// Every job as a row.
#[component]
fn Jobs(runs: Runs) -> impl IntoView {
    view! {
        <table class="jobs" id=ids::JOBS>
            <thead><tr><th scope="col">"Run"</th><th scope="col">"State"</th><th scope="col">"Rows"</th><th scope="col"></th></tr></thead>
            <tbody>
                <For each=move || runs.jobs.get() key=|job| job.id.clone() let(job)>
                    <Row runs id=job.id />
                </For>
            </tbody>
        </table>
    }
}

#[component]
fn Row(runs: Runs, id: String) -> impl IntoView {
    let known = id.clone();
    let job = Memo::new(move |_| runs.jobs.with(|jobs| jobs.iter().find(|job| job.id == known).cloned()));
    let sure = RwSignal::new(false);
    let (stop, go_on, delete) = (id.clone(), id.clone(), id.clone());
    let (shown, named) = (id.clone(), id.clone());
    let is_shown = move || runs.watched.with(|watched| watched.as_ref() == Some(&shown));
    let in_state =
        move |wanted: fn(JobState) -> bool| job.with(|job| job.as_ref().is_some_and(|job| wanted(job.state)));
    view! {
        <tr aria-current=move || is_shown().then_some("true") data-job=named data-state=move || job.with(|job| job.as_ref().map(|job| job.state.name()))>
            <th scope="row"><a href=format!("#runs/{id}")>{move || job.with(|job| job.as_ref().map(|job| job.request.work.title()))}</a>" "<code>{id}</code></th>
            <td>{move || job.with(|job| job.as_ref().map(|job| job.state.name()))}</td>
            <td class="number">{move || job.with(|job| job.as_ref().map(view::rows_words))}</td>
            <td class="acts">
                <Show when=move || in_state(|state| !state.has_ended())>
                    <button type="button" class="button" on:click={ let id = stop.clone(); move |_| spawn_local(runs.tell(id.clone(), "cancel")) }>"Cancel"</button>
                </Show>
                <Show when=move || in_state(|state| matches!(state, JobState::Failed | JobState::Cancelled))>
                    <button type="button" class="button" on:click={ let id = go_on.clone(); move |_| spawn_local(runs.tell(id.clone(), "resume")) }>"Resume"</button>
                </Show>
                <Show when=move || in_state(JobState::has_ended)>
                    <button type="button" class="button" on:click={
                        let id = delete.clone();
                        move |_| if sure.get_untracked() { spawn_local(runs.delete(id.clone())) } else { sure.set(true) }
                    }>{move || if sure.get() { "Delete it with its results?" } else { "Delete" }}</button>
                </Show>
            </td>
        </tr>
    }
}

/// The job that is watched, drawn as a sweep is.
#[component]
fn Watched(runs: Runs) -> impl IntoView {
    let drawn = Memo::new(move |_| {
        let name = runs.job.with(|job| job.as_ref().map(|job| job.request.work.name().to_owned())).unwrap_or_default();
        runs.rows.with(|rows| {
            if rows.values().all(String::is_empty) {
                return None;
            }
            let files = rows.iter().map(|(file, text)| (format!("{name}/{file}"), text.clone()));
            Some(sweeps::draw(files.collect()).unwrap_or_else(|problem| problem))
        })
    });
    let with = move |say: fn(&Job) -> String| runs.job.with(|job| job.as_ref().map(say));
    let id = move || runs.watched.get().unwrap_or_default();
    let address = move |form: &str| format!("{}api/jobs/{}/{form}", surroundings::base(), id());
    let state = move || runs.job.with(|job| job.as_ref().map_or("asking", |job| job.state.name()));
    let is_grid = move || runs.job.with(|job| job.as_ref().is_some_and(Job::has_rows));
    view! {
        <section class="card" id=ids::RUN_VIEW aria-labelledby="run-heading" data-state=state data-rows=move || with(|job| job.rows.to_string())>
            <h2 id="run-heading">{move || with(|job| job.request.work.title())}" "<code>{id}</code></h2>
            <p role="status">{move || with(view::job_words)}</p>
            <progress max=move || with(|job| job.expected.to_string()) value=move || with(|job| job.rows.to_string()) aria-label="Results that are there"></progress>
            <p class="quiet">{move || with(parts_words)}</p>
            <p class="quiet">
                "You can close this page: its address shows the run again, wherever the server can be reached. "
                <Show when=is_grid>
                    <a href=move || address("report.html") target="_blank" rel="noopener">"Report"</a>", "
                    <a href=move || address("report.csv") download="">"table"</a>", "
                    <a href=move || address("report.json") target="_blank" rel="noopener">"scores"</a>", "
                </Show>
                <a href=move || address("log") target="_blank" rel="noopener">"log"</a>"; files: "
                {move || runs.rows.with(|rows| rows.keys().map(|file| {
                    view! { <a href=address(&format!("rows/{file}")) download=file.clone()>{file.clone()}</a>" " }
                }).collect_view())}
            </p>
            {move || drawn.get().map(|html| view! { <div inner_html=html></div> })}
        </section>
    }
}

fn parts_words(job: &Job) -> String {
    let count = |wanted| job.parts.iter().filter(|part| **part == wanted).count();
    let (queued, running, done) = (count(JobPart::Queued), count(JobPart::Running), count(JobPart::Done));
    let attempt = if job.attempt > 1 { format!("; attempt {}", job.attempt) } else { String::new() };
    format!("Parts: {running} running, {queued} waiting, {done} done{attempt}.")
}
