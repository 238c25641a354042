//! What the visitor has on the table, and what can be done with it.
//!
//! Components read these signals and call these functions; nothing else talks to the [`Engine`].

use leptos::{prelude::*, task::spawn_local};
use rectify_protocol::{
    Answer, ArchitectureKind, Catalog, CatalogModel, Command, EditReport, EditSpec, EditorSpec, Event, Fact, Failure,
    ModelInfo, ModelSource, Neighbor, Regularizer, RomeSpec,
};

use crate::{
    engine::{Engine, Place, State},
    ids, surroundings,
};

/// Tokens a page asks for when it shows a continuation.
const TOKENS: usize = 16;
/// Candidates for the next token that are listed.
const TOP: usize = 5;
/// From this many bytes on, a graphics card is worth its larger download.
const LARGE: u64 = 600_000_000;

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
    /// The edits the model carries, newest last.
    pub ledger: RwSignal<Vec<Entry>>,
    /// The edit that is drawn: a place in the ledger.
    pub shown: RwSignal<Option<usize>>,
    /// The visitor's own question and its answer, with the number of edits the model carried.
    pub asked: RwSignal<Option<(Answer, usize)>>,
    /// What could not be done.
    pub failure: RwSignal<Option<Failure>>,
    examples: RwSignal<Vec<Fact>>,
    example: RwSignal<usize>,
    /// Set by `?device=`: the page then does not choose by itself.
    forced: RwSignal<bool>,
}

/// An edit that the model carries.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The fact that was written.
    pub fact: Fact,
    /// What came of it.
    pub report: EditReport,
}

/// A fact while it is being written.
#[derive(Clone, Copy)]
pub struct Draft {
    /// See [`Fact::subject`].
    pub subject: RwSignal<String>,
    /// See [`Fact::prompt`].
    pub prompt: RwSignal<String>,
    /// See [`Fact::target_new`].
    pub target_new: RwSignal<String>,
    /// See [`Fact::target_true`].
    pub target_true: RwSignal<String>,
    /// Other ways to ask.
    pub paraphrases: RwSignal<Vec<Line>>,
    /// Questions about something else.
    pub neighbors: RwSignal<Vec<Line>>,
    next_key: StoredValue<u32>,
}

/// A paraphrase or neighbour in the form.
#[derive(Clone, Copy)]
pub struct Line {
    /// Tells lines apart while they come and go.
    pub key: u32,
    /// What is asked.
    pub prompt: RwSignal<String>,
    /// A neighbour's right answer, where known.
    pub target: RwSignal<String>,
}

/// How to edit.
#[derive(Clone, Copy)]
pub struct Settings {
    /// The editor's hyper-parameters.
    pub rome: RwSignal<RomeSpec>,
    /// One of [`Regularizer::NAMES`].
    pub regularizer: RwSignal<&'static str>,
    /// The share that RECT keeps, in percent.
    pub keep_percent: RwSignal<u32>,
    /// Seeds whatever is sampled.
    pub seed: RwSignal<u64>,
}

impl Desk {
    /// Lays the table and begins to fetch what belongs on it.
    pub fn new() -> Self {
        let desk = Self {
            engine: Engine::new(),
            catalog: RwSignal::default(),
            chosen: RwSignal::default(),
            webgpu: RwSignal::new(None),
            server: RwSignal::new(None),
            draft: Draft::new(),
            settings: Settings::new(),
            preview: RwSignal::new(None),
            ledger: RwSignal::default(),
            shown: RwSignal::new(None),
            asked: RwSignal::new(None),
            failure: RwSignal::new(None),
            examples: RwSignal::default(),
            example: RwSignal::default(),
            forced: RwSignal::default(),
        };
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
        spawn_local(desk.begin());
        desk
    }

    async fn begin(self) {
        match surroundings::examples().await {
            Ok(examples) => {
                if let Some(first) = examples.first() {
                    self.draft.fill(first);
                }
                self.examples.set(examples);
            }
            Err(reason) => self.failure.set(Some(Failure::bad_input(reason))),
        }
        match surroundings::catalog().await {
            Ok(catalog) => {
                let wanted = surroundings::parameter("model");
                let model = catalog.models.iter().find(|model| Some(&model.id) == wanted.as_ref());
                let id = model.or(catalog.models.first()).map(|model| model.id.clone());
                self.catalog.set(catalog);
                match id {
                    Some(id) => self.load(id).await,
                    None => self.failure.set(Some(Failure::bad_input("models.json lists no model"))),
                }
            }
            Err(reason) => self.failure.set(Some(Failure::bad_input(reason))),
        }
    }

    /// The models that can be loaded where the session runs.
    pub fn models(self) -> Vec<CatalogModel> {
        match (self.engine.place.get(), self.server.get()) {
            (Place::Server, Some(server)) => server.models,
            _ => self.catalog.get().models,
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
            self.look().await;
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

    /// Asks the model for the form's prompt, so that the visitor sees what it says now.
    pub async fn look(self) {
        let prompt = self.draft.prompt.get_untracked().trim_end().to_owned();
        let ready =
            self.engine.model.with_untracked(Option::is_some) && self.engine.activity.with_untracked(Option::is_none);
        if prompt.is_empty() || !ready || self.engine.state.get_untracked() != State::Running {
            return;
        }
        if let Ok(Event::Answered(answer)) =
            self.engine.send_quietly(Command::Ask { prompt, tokens: TOKENS, top: TOP }).await
        {
            self.preview.set(Some(answer));
        }
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
            spawn_local(self.look());
        }
    }

    /// Whether there are ready facts.
    pub fn has_examples(self) -> bool {
        self.examples.with(|examples| examples.len() > 1)
    }

    /// Edits the fact in the form. An edit of the same fact is taken back first, so that settings can be compared.
    pub async fn edit(self) {
        let fact = self.draft.fact();
        if untrack(|| self.objection().is_some() || self.busy()) {
            return;
        }
        if untrack(|| self.replaces()) && !self.undo_once().await {
            return;
        }
        self.shown.set(None);
        surroundings::reveal_on_small_screens(ids::RESULT);
        let command = Command::Edit { facts: vec![fact.clone()], spec: self.settings.spec() };
        if let Some(Event::Edited(report)) = self.run(command).await {
            self.ledger.update(|ledger| ledger.push(Entry { fact, report }));
            self.shown.set(Some(self.ledger.with_untracked(Vec::len) - 1));
        }
    }

    /// Takes back the newest edit.
    pub async fn undo(self) {
        if self.undo_once().await {
            self.shown.set(None);
            self.look().await;
        }
    }

    async fn undo_once(self) -> bool {
        let undone = matches!(self.run(Command::Undo).await, Some(Event::Undone { .. }));
        if undone {
            self.ledger.update(|ledger| {
                ledger.pop();
            });
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
    }

    async fn run(self, command: Command) -> Option<Event> {
        self.failure.set(None);
        match self.engine.send(command).await {
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
        self.asked.set(None);
    }
}

impl Draft {
    fn new() -> Self {
        Self {
            subject: RwSignal::default(),
            prompt: RwSignal::default(),
            target_new: RwSignal::default(),
            target_true: RwSignal::default(),
            paraphrases: RwSignal::default(),
            neighbors: RwSignal::default(),
            next_key: StoredValue::new(0),
        }
    }

    /// Whether nothing has been written yet.
    pub fn is_empty(self) -> bool {
        [self.subject, self.prompt, self.target_new].iter().all(|field| field.with(|text| text.trim().is_empty()))
    }

    /// The form as a fact; empty lines are left out.
    pub fn fact(self) -> Fact {
        let text = |signal: RwSignal<String>| signal.with(|text| text.trim().to_owned());
        let known = |signal: RwSignal<String>| Some(text(signal)).filter(|text| !text.is_empty());
        let prompts = |lines: Vec<Line>| {
            lines.into_iter().filter_map(move |line| known(line.prompt).map(|prompt| (prompt, line)))
        };
        Fact {
            subject: text(self.subject),
            prompt: text(self.prompt),
            target_new: text(self.target_new),
            target_true: known(self.target_true),
            paraphrases: prompts(self.paraphrases.get()).map(|(prompt, _)| prompt).collect(),
            neighbors: prompts(self.neighbors.get())
                .map(|(prompt, line)| Neighbor { prompt, target: known(line.target) })
                .collect(),
        }
    }

    /// Writes a fact into the form.
    pub fn fill(self, fact: &Fact) {
        self.subject.set(fact.subject.clone());
        self.prompt.set(fact.prompt.clone());
        self.target_new.set(fact.target_new.clone());
        self.target_true.set(fact.target_true.clone().unwrap_or_default());
        self.paraphrases.set(fact.paraphrases.iter().map(|prompt| self.line(prompt, "")).collect());
        let neighbors = fact.neighbors.iter();
        self.neighbors.set(
            neighbors.map(|other| self.line(&other.prompt, other.target.as_deref().unwrap_or_default())).collect(),
        );
    }

    /// A new line for either list.
    pub fn line(self, prompt: &str, target: &str) -> Line {
        let key = self.next_key.get_value();
        self.next_key.set_value(key + 1);
        Line { key, prompt: RwSignal::new(prompt.to_owned()), target: RwSignal::new(target.to_owned()) }
    }
}

impl Settings {
    fn new() -> Self {
        Self {
            rome: RwSignal::new(RomeSpec::published(ArchitectureKind::Gpt2)),
            regularizer: RwSignal::new("rect"),
            keep_percent: RwSignal::new(40),
            seed: RwSignal::new(0),
        }
    }

    /// Settings published for another model family, and a layer that this model lacks, give way to its own.
    fn suit(self, model: &ModelInfo) {
        self.rome.update(|rome| {
            let families = [ArchitectureKind::Gpt2, ArchitectureKind::Llama];
            let layers = rome.layers.take().filter(|layers| layers.iter().all(|layer| *layer < model.layers));
            if families.iter().any(|family| RomeSpec::published(*family) == *rome) {
                *rome = RomeSpec::published(model.architecture);
            }
            if layers.is_some() {
                rome.layers = layers;
            }
        });
    }

    /// What is kept of the update.
    pub fn regularizer(self) -> Regularizer {
        let keep = f64::from(self.keep_percent.get()) / 100.0;
        match self.regularizer.get() {
            "rect" => Regularizer::Rect { keep },
            "random" => Regularizer::Random { keep },
            _ => Regularizer::None,
        }
    }

    /// Everything together.
    pub fn spec(self) -> EditSpec {
        untrack(|| EditSpec {
            editor: EditorSpec::Rome(self.rome.get()),
            regularizer: self.regularizer(),
            seed: self.seed.get(),
        })
    }
}
