//! The page that draws rows of sweeps, from a folder of the visitor's or of the server's.

use leptos::{prelude::*, task::spawn_local};
use rectify_figures::{Sweep, html::body};
use rectify_protocol::Failure;
use web_sys::{File, HtmlInputElement};

use super::Page;
use crate::{desk::Desk, ids, surroundings, view};

/// What is on the page.
#[derive(Clone, PartialEq, Eq)]
enum Shown {
    Nothing,
    Reading,
    Drawn(String),
    Failed(String),
}

/// Where rows come from, and what they show.
#[component]
pub fn SweepsPage(
    /// Knows whether there is a server.
    desk: Desk,
    /// Nothing is fetched before this one is seen.
    page: RwSignal<Page>,
) -> impl IntoView {
    let shown = RwSignal::new(Shown::Nothing);
    let served = RwSignal::new(Vec::<String>::new());
    Effect::new(move |_| {
        if page.get() == Page::Sweeps && desk.server.with(Option::is_some) {
            spawn_local(async move {
                match surroundings::sweeps().await {
                    Ok(names) => served.set(names),
                    Err(problem) => shown.set(Shown::Failed(problem)),
                }
            });
        }
    });
    let view = View { shown, latest: StoredValue::new(0) };
    let state = move || match shown.get() {
        Shown::Nothing => "empty",
        Shown::Reading => "reading",
        Shown::Drawn(_) => "drawn",
        Shown::Failed(_) => "failed",
    };
    view! {
        <main class="wide">
            <h1 class="unseen">"Rectify: results of sweeps"</h1>
            <section class="card" aria-labelledby="sweeps-heading">
                <h2 id="sweeps-heading">"Rows of a sweep"</h2>
                <div class="sources">
                    {chooser(ids::SWEEP_FOLDER, "Open a folder", true, move |input| view.open_files(&input))}
                    {chooser(ids::SWEEP_FILES, "Open files", false, move |input| view.open_files(&input))}
                    <Show when=move || served.with(|names| !names.is_empty())>
                        {chooser_of_served(served, move |name| view.open_served(name))}
                    </Show>
                </div>
                <p class="quiet">
                    "Files stay on this machine: they are read here and sent nowhere."
                    <Show when=move || desk.server.with(Option::is_none)>
                        " This page was not served by a Rectify server, which could list its own sweeps."
                    </Show>
                </p>
            </section>
            <section class="card" id=ids::SWEEP_VIEW data-state=state aria-live="polite">
                {move || contents(shown.get())}
            </section>
        </main>
    }
}

/// Reads rows and shows them.
#[derive(Clone, Copy)]
struct View {
    shown: RwSignal<Shown>,
    /// Who asks for something later is not shown what comes late of something earlier.
    latest: StoredValue<u32>,
}

impl View {
    fn begin(self) -> u32 {
        self.shown.set(Shown::Reading);
        self.latest.update_value(|turn| *turn += 1);
        self.latest.get_value()
    }

    fn show(self, turn: u32, drawn: Result<String, String>) {
        if turn == self.latest.get_value() {
            self.shown.set(drawn.map_or_else(Shown::Failed, Shown::Drawn));
        }
    }

    /// The files that were chosen, or those of the folder.
    fn open_files(self, input: &HtmlInputElement) {
        let files: Vec<File> =
            input.files().map(|list| (0..list.length()).filter_map(|i| list.get(i)).collect()).unwrap_or_default();
        // The same folder can be chosen again, when it has more rows.
        input.set_value("");
        if files.is_empty() {
            return;
        }
        let turn = self.begin();
        spawn_local(async move {
            let drawn = read(files.into_iter().filter(|file| file.name().ends_with(".jsonl")).collect()).await;
            self.show(turn, drawn.and_then(draw));
        });
    }

    /// A sweep of the server's.
    fn open_served(self, name: String) {
        let turn = self.begin();
        spawn_local(async move {
            let files = surroundings::sweep(&name).await;
            let files =
                files.map(|files| files.into_iter().map(|(file, text)| (format!("{name}/{file}"), text)).collect());
            self.show(turn, files.and_then(draw));
        });
    }
}

/// What is shown, or how to get something.
fn contents(shown: Shown) -> AnyView {
    match shown {
        Shown::Nothing => view! {
            <p class="hint">
                "A sweep measures a grid of editors, regularizers and seeds: "
                <code>"rectify sweep SPEC.toml --out DIR"</code>
                " writes its rows into a folder. They are drawn here as in the paper, even while the sweep still runs."
            </p>
            <p class="hint">
                "No rows at hand? "
                <a id=ids::SWEEP_EXAMPLE href="examples/report.html" target="_blank" rel="noopener">
                    "The results on the bundled model"
                </a>
                " are a report on four grids: the paper\u{2019}s Figures 3, 4, 5, 7 and 8 and its Table 1."
            </p>
        }
        .into_any(),
        Shown::Reading => view! { <p class="hint">"Reading rows \u{2026}"</p> }.into_any(),
        Shown::Drawn(html) => view! { <div inner_html=html></div> }.into_any(),
        Shown::Failed(problem) => view! { <p class="problem" role="alert">{problem}</p> }.into_any(),
    }
}

/// A list of the server's sweeps.
fn chooser_of_served(served: RwSignal<Vec<String>>, chosen: impl Fn(String) + Copy + 'static) -> impl IntoView {
    view! {
        <label>
            "On the server "
            <select id=ids::SWEEP_NAME on:change:target=move |event| {
                let name = event.target().value();
                // The same one can be chosen again, when it has more rows.
                event.target().set_value("");
                if !name.is_empty() {
                    chosen(name);
                }
            }>
                <option value="">"choose \u{2026}"</option>
                {move || served.get().into_iter().map(|name| {
                    view! { <option value=name.clone()>{name.clone()}</option> }
                }).collect_view()}
            </select>
        </label>
    }
}

/// A button that lets the visitor choose a folder, or several files.
fn chooser(
    id: &'static str,
    words: &'static str,
    folder: bool,
    chosen: impl Fn(HtmlInputElement) + 'static,
) -> impl IntoView {
    view! {
        <label class="button" for=id>
            {words}
            <input
                class="unseen"
                type="file"
                id=id
                prop:webkitdirectory=folder
                multiple=!folder
                accept=".jsonl"
                on:change:target=move |event| chosen(event.target())
            />
        </label>
    }
}

/// The texts of files.
async fn read(files: Vec<File>) -> Result<Vec<(String, String)>, String> {
    let mut texts = Vec::new();
    for file in &files {
        texts.push(surroundings::chosen_file(file).await?);
    }
    Ok(texts)
}

/// Files of rows as the figures of the sweeps they are of: files of one folder are one sweep.
pub(super) fn draw(mut files: Vec<(String, String)>) -> Result<String, String> {
    fn folder(path: &str) -> &str {
        path.rsplit_once('/').map_or("sweep", |(folder, _)| folder)
    }
    files.sort_by(|(a, _), (b, _)| (folder(a), a).cmp(&(folder(b), b)));
    let mut sweeps: Vec<Sweep> = Vec::new();
    for (path, text) in &files {
        let folder = folder(path);
        if sweeps.last().is_none_or(|sweep| sweep.name != folder) {
            sweeps.push(Sweep::new(folder));
        }
        let sweep = sweeps.last_mut().expect("there is one by now");
        sweep.add_file(path, text);
    }
    if !sweeps.iter().any(|sweep| sweep.cells.iter().any(|(_, rows)| !rows.is_empty())) {
        let nothing = "there are no rows of a sweep here; rows are in files that end in .jsonl";
        let problem = sweeps.iter().flat_map(|sweep| &sweep.problems).next().map_or(nothing, String::as_str);
        return Err(view::sentence(&Failure::bad_input(problem)));
    }
    Ok(body(&sweeps).into_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_sweep_is_said() {
        assert!(draw(vec![]).unwrap_err().contains("no rows of a sweep"));
        let broken = draw(vec![("sweep/rome.jsonl".into(), "{}\n".into())]).unwrap_err();
        assert!(broken.contains("sweep/rome.jsonl line 1"), "{broken}");
    }
}
