//! What the visitor has on the table, and what can be done with it.
//!
//! Components read these signals and call these functions; nothing else talks to the [`Engine`].

mod costs;
mod draft;
mod links;
mod quiet;
mod settings;

pub use costs::{Costs, EDITS, Played, RECORDS, Recipe, TASKS};
pub use draft::{Draft, Line};
use leptos::{prelude::*, task::spawn_local};
use quiet::Quiet;
use rectify_protocol::{
    Answer, Catalog, CatalogModel, Command, EditReport, EditSpec, Event, Fact, FactReport, Failure, Guards,
    ModelSource, Progress, Regularizer, WeightChange,
};
pub use settings::Settings;

use crate::{
    engine::{Engine, Place},
    ids,
    link::Setup,
    methods, surroundings,
};

/// Tokens a page asks for when it shows a continuation.
const TOKENS: usize = 16;
/// Candidates for the next token that are listed.
const TOP: usize = 5;
/// From this many bytes on, a graphics card is worth its larger download.
const LARGE: u64 = 600_000_000;
/// From this many bytes on, an embedded demonstration asks before it fetches a model.
const ASK_ABOVE: u64 = 10_000_000;

/// See the module. Copied freely: it is a handle to signals.
#[derive(Clone, Copy)]
pub struct Desk {
    /// Talks to the session.
    pub engine: Engine,
    /// The models there are.
    pub catalog: RwSignal<Catalog>,
    /// The id of the model that is loaded or being loaded.
    pub chosen: RwSignal<String>,
    /// Whether WebGPU can be used; if not, why. `None` until it is known.
    pub webgpu: RwSignal<Option<Result<(), String>>>,
    /// The server's models, if the page came from one that runs sessions.
    pub server: RwSignal<Option<Catalog>>,
    /// The fact form.
    pub draft: Draft,
    /// How to edit.
    pub settings: Settings,
    /// How the model completes the form's prompt as it is now.
    pub preview: RwSignal<Option<Answer>>,
    /// How far the model is from the unedited one, with pictures; outdated until the page has asked again.
    pub changes: RwSignal<Vec<WeightChange>>,
    /// The share, in percent, that the visitor has asked to keep of the edits and that is not yet what is shown.
    pub wanted_percent: RwSignal<Option<u32>>,
    /// The edits the model carries, newest last.
    pub ledger: RwSignal<Vec<Entry>>,
    /// The edit that is drawn: a place in the ledger.
    pub shown: RwSignal<Option<usize>>,
    /// The visitor's own question and its answer, with the number of edits the model carried.
    pub asked: RwSignal<Option<(Answer, usize)>>,
    /// How the model does at its tasks.
    pub costs: RwSignal<Costs>,
    /// How many records of each task are asked.
    pub records: RwSignal<usize>,
    /// Many facts written one after another, beside the edits of the ledger.
    pub played: RwSignal<Option<Played>>,
    /// What could not be done.
    pub failure: RwSignal<Option<Failure>>,
    /// What is wrong with the link that the page was opened by.
    pub link_problem: RwSignal<Option<Failure>>,
    /// Whether this is an embedded demonstration: the model is fetched when something is wanted of it, and nothing is
    /// asked but what is shown there.
    pub embedded: bool,
    /// The bytes that the visitor is asked to agree to, and whether they have.
    pub agreement: RwSignal<Option<(u64, bool)>>,
    /// What a link asked for, until the model it speaks of is there.
    linked: RwSignal<Option<Setup>>,
    examples: RwSignal<Vec<Fact>>,
    example: RwSignal<usize>,
    /// Set by `?device=`: the page then does not choose by itself.
    forced: RwSignal<bool>,
    quiet: StoredValue<Quiet, LocalStorage>,
}

/// An edit that the model carries.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The fact that was written.
    pub fact: Fact,
    /// What came of it.
    pub report: EditReport,
    /// What is kept of it now.
    pub regularizer: Regularizer,
    /// The fact asked again, if something else is kept now than when it was reported.
    pub again: Option<FactReport>,
}

impl Entry {
    /// What is known of the fact as the model is now.
    pub fn outcome(&self) -> Option<&FactReport> {
        self.again.as_ref().or(self.report.facts.first())
    }

    /// Whether the fact must be asked again.
    pub fn is_stale(&self) -> bool {
        self.again.is_none() && self.regularizer != self.report.spec.regularizer
    }
}

impl Desk {
    /// Lays the table and begins to fetch what belongs on it.
    pub fn new() -> Self {
        let desk = Self::laid(false);
        let place = match surroundings::parameter("device").as_deref() {
            Some("webgpu") => Some(Place::WebGpu),
            Some("server") => Some(Place::Server),
            Some(_) => Some(Place::Cpu),
            None => None,
        };
        desk.forced.set(place.is_some());
        desk.engine.start(place.unwrap_or(Place::Cpu)); // its code arrives while the catalog does
        spawn_local(async move { desk.webgpu.set(Some(surroundings::webgpu().await)) });
        spawn_local(async move { desk.server.set(surroundings::server_catalog().await) });
        spawn_local(async move {
            if let Some(id) = desk.begin().await {
                desk.load(id).await;
            }
        });
        desk
    }

    /// Lays the table of an embedded demonstration, for which no model is fetched yet. Calls `ready` when there is one to
    /// fetch.
    pub fn embedded(setup: &Setup, ready: impl FnOnce(Self) + 'static) -> Self {
        let desk = Self::laid(true);
        desk.fill(setup);
        spawn_local(async move { desk.webgpu.set(Some(surroundings::webgpu().await)) });
        spawn_local(async move {
            if let Some(id) = desk.begin().await {
                desk.chosen.set(id);
                ready(desk);
            }
        });
        desk
    }

    fn laid(embedded: bool) -> Self {
        Self {
            engine: Engine::new(),
            catalog: RwSignal::default(),
            chosen: RwSignal::default(),
            webgpu: RwSignal::new(None),
            server: RwSignal::new(None),
            draft: Draft::new(),
            settings: Settings::new(),
            preview: RwSignal::new(None),
            changes: RwSignal::default(),
            wanted_percent: RwSignal::new(None),
            ledger: RwSignal::default(),
            shown: RwSignal::new(None),
            asked: RwSignal::new(None),
            costs: RwSignal::default(),
            records: RwSignal::new(RECORDS),
            played: RwSignal::new(None),
            failure: RwSignal::new(None),
            link_problem: RwSignal::new(None),
            embedded,
            agreement: RwSignal::new(None),
            linked: RwSignal::new(None),
            examples: RwSignal::default(),
            example: RwSignal::default(),
            forced: RwSignal::default(),
            quiet: StoredValue::new_local(Quiet::default()),
        }
    }

    /// Fetches the examples and the catalog. The id of the model to begin with, if there is any.
    async fn begin(self) -> Option<String> {
        match surroundings::examples().await {
            Ok(examples) => {
                let linked =
                    self.linked.with_untracked(|setup| setup.as_ref().is_some_and(|setup| setup.fact.is_some()));
                if let Some(first) = examples.first().filter(|_| !linked) {
                    self.draft.fill(first);
                }
                self.examples.set(examples);
            }
            Err(reason) => self.failure.set(Some(Failure::bad_input(reason))),
        }
        match surroundings::catalog().await {
            Ok(catalog) => self.catalog.set(catalog),
            Err(reason) => {
                self.failure.set(Some(Failure::bad_input(reason)));
                return None;
            }
        }
        let linked = self.linked_model();
        if linked.is_none() && self.embedded && self.link_problem.with_untracked(Option::is_some) {
            return None;
        }
        let wanted = linked.or_else(|| surroundings::parameter("model").filter(|_| !self.embedded));
        let models = untrack(|| self.models());
        let model = models.iter().find(|model| Some(&model.id) == wanted.as_ref()).or(models.first());
        if model.is_none() {
            self.failure.set(Some(Failure::bad_input("models.json lists no models")));
        }
        model.map(|model| model.id.clone())
    }

    /// The models that can be loaded where the session runs.
    pub fn models(self) -> Vec<CatalogModel> {
        self.catalog_here().models
    }

    fn catalog_here(self) -> Catalog {
        match (self.engine.place.get(), self.server.get()) {
            (Place::Server, Some(server)) => server,
            _ => self.catalog.get(),
        }
    }

    /// The catalog's entry of the chosen model.
    pub fn chosen_model(self) -> Option<CatalogModel> {
        let id = self.chosen.get();
        self.models().into_iter().find(|model| model.id == id)
    }

    /// The edit that is drawn.
    pub fn shown_entry(self) -> Option<Entry> {
        let place = self.shown.get()?;
        self.ledger.with(|ledger| ledger.get(place).cloned())
    }

    /// Whether a command of the visitor's runs.
    pub fn busy(self) -> bool {
        self.engine.activity.with(Option::is_some)
    }

    /// What the chosen method needs and the chosen model comes without, as a sentence.
    pub fn lacks(self) -> Option<String> {
        methods::missing(&self.settings.editor(), &self.chosen_model()?)
    }

    /// What is wrong with the form, if anything.
    pub fn objection(self) -> Option<Failure> {
        self.draft.fact().validate().err()
    }

    /// Whether the newest edit wrote the fact in the form, so that editing again replaces it.
    pub fn replaces(self) -> bool {
        let fact = self.draft.fact();
        self.ledger.with(|ledger| {
            ledger
                .last()
                .is_some_and(|entry| (&entry.fact.subject, &entry.fact.prompt) == (&fact.subject, &fact.prompt))
        })
    }

    /// Takes up the model called `id`, on the graphics card where it is large and there is one.
    pub async fn load(self, id: String) {
        self.chosen.set(id.clone());
        let large = untrack(|| self.chosen_model()).is_some_and(|model| model.memory_edit > LARGE);
        let can = self.webgpu.with_untracked(|webgpu| matches!(webgpu, Some(Ok(()))));
        if large && can && !self.forced.get_untracked() && self.engine.place.get_untracked() == Place::Cpu {
            self.engine.start(Place::WebGpu);
        }
        self.clear();
        if let Some(Event::Loaded(model)) = self.run(Command::Load(ModelSource::Bundled { id })).await {
            self.settings.suit(&model);
            self.set_linked(&model);
            self.catch_up().await;
        }
    }

    /// Moves the session to another place; the model is loaded anew and edits are gone.
    pub fn move_to(self, place: Place) {
        self.forced.set(true);
        self.engine.start(place);
        let models = untrack(|| self.models());
        let chosen = self.chosen.get_untracked();
        let model = models.iter().find(|model| model.id == chosen).or(models.first());
        if let Some(model) = model {
            spawn_local(self.load(model.id.clone()));
        }
    }

    /// Shows one of the edits.
    pub fn show(self, place: usize) {
        self.shown.set(Some(place));
        spawn_local(self.catch_up());
    }

    /// Fills the form with the next ready fact.
    pub fn next_example(self) {
        let next = self.examples.with_untracked(|examples| {
            let next = (self.example.get_untracked() + 1) % examples.len().max(1);
            examples.get(next).cloned().map(|fact| (next, fact))
        });
        if let Some((next, fact)) = next {
            self.example.set(next);
            self.draft.fill(&fact);
            self.shown.set(None);
            self.failure.set(None);
            spawn_local(self.catch_up());
        }
    }

    /// Whether there are ready facts.
    pub fn has_examples(self) -> bool {
        self.examples.with(|examples| examples.len() > 1)
    }

    /// Edits the fact in the form. An edit of the same fact is taken back first, so that settings can be compared.
    pub async fn edit(self, guards: Guards) {
        let fact = self.draft.fact();
        if untrack(|| self.objection().is_some() || self.lacks().is_some() || self.busy()) || !self.wake().await {
            return;
        }
        if untrack(|| self.replaces()) && !self.undo_once().await {
            return;
        }
        self.shown.set(None);
        if !self.embedded {
            surroundings::reveal_on_small_screens(ids::RESULT); // which would move the page around a demonstration
        }
        let command = Command::Edit { facts: vec![fact.clone()], spec: EditSpec { guards, ..self.settings.spec() } };
        if let Some(Event::Edited(report)) = self.run(command).await {
            let entry = Entry { fact, regularizer: report.spec.regularizer, report, again: None };
            self.ledger.update(|ledger| ledger.push(entry));
            self.outdate();
            self.shown.set(Some(self.ledger.with_untracked(Vec::len) - 1));
        }
        self.catch_up().await;
    }

    /// Takes back the newest edit.
    pub async fn undo(self) {
        if self.undo_once().await {
            self.catch_up().await;
        }
    }

    async fn undo_once(self) -> bool {
        let undone = matches!(self.run(Command::Undo).await, Some(Event::Undone { .. }));
        if undone {
            self.ledger.update(|ledger| {
                ledger.pop();
            });
            self.outdate();
            self.shown.set(None);
        }
        undone
    }

    /// Puts a prompt of the visitor's own to the model as it is now.
    pub async fn ask(self, prompt: String) {
        let edits = self.ledger.with_untracked(Vec::len);
        if let Some(Event::Answered(answer)) = self.run(Command::Ask { prompt, tokens: TOKENS, top: TOP }).await {
            self.asked.set(Some((answer, edits)));
        }
        self.catch_up().await;
    }

    async fn run(self, command: Command) -> Option<Event> {
        self.run_and_hear(command, |_| {}).await
    }

    async fn run_and_hear(self, command: Command, hear: impl Fn(&Progress) + 'static) -> Option<Event> {
        self.failure.set(None);
        self.take_turn();
        match self.engine.send(command, hear).await {
            Ok(event) => Some(event),
            Err(failure) => {
                self.failure.set(Some(failure));
                None
            }
        }
    }

    fn clear(self) {
        self.ledger.set(Vec::new());
        self.shown.set(None);
        self.preview.set(None);
        self.changes.set(Vec::new());
        self.asked.set(None);
        self.costs.set(Costs::default());
        self.played.set(None);
        self.outdate();
    }
}
