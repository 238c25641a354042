//! What the visitor has on the table, and what can be done with it.
//!
//! Components read these signals and call these functions; nothing else talks to the [`Engine`].

use gloo_timers::callback::Timeout;
use leptos::{prelude::*, task::spawn_local};
use rectify_protocol::{
    Answer, ArchitectureKind, Catalog, CatalogModel, Command, EditReport, EditSpec, EditorSpec, Event, Fact,
    FactReport, Failure, Guards, Method, ModelInfo, ModelSource, Neighbor, Over, Regularizer, WeightChange,
};

use crate::{
    engine::{Engine, Place, State},
    ids, methods, surroundings,
};

/// Tokens a page asks for when it shows a continuation.
const TOKENS: usize = 16;
/// Candidates for the next token that are listed.
const TOP: usize = 5;
/// From this many bytes on, a graphics card is worth its larger download.
const LARGE: u64 = 600_000_000;
/// How long a slider rests before its edits are regularised anew.
const REST_MILLISECONDS: u32 = 150;

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
    /// What could not be done.
    pub failure: RwSignal<Option<Failure>>,
    examples: RwSignal<Vec<Fact>>,
    example: RwSignal<usize>,
    /// Set by `?device=`: the page then does not choose by itself.
    forced: RwSignal<bool>,
    quiet: StoredValue<Quiet, LocalStorage>,
}

/// What the page asks by itself: see [`Desk::catch_up`].
#[derive(Default)]
struct Quiet {
    /// Whoever asks takes the next number; who finds that it is no longer the latest asks no more.
    turn: u32,
    /// Whether [`Desk::preview`] and [`Desk::changes`] are of the model as it is now.
    previewed: bool,
    compared: bool,
    /// Runs while a slider rests.
    rest: Option<Timeout>,
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
    fn is_stale(&self) -> bool {
        self.again.is_none() && self.regularizer != self.report.spec.regularizer
    }
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
    /// One of [`EditorSpec::METHODS`].
    pub method: RwSignal<&'static str>,
    /// Every method's hyper-parameters, as the visitor left them.
    pub editors: RwSignal<Vec<EditorSpec>>,
    /// One of [`Regularizer::NAMES`].
    pub regularizer: RwSignal<&'static str>,
    /// The share that the regularizer keeps, in percent.
    pub keep_percent: RwSignal<u32>,
    /// PRUNE's base.
    pub base: RwSignal<f64>,
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
            changes: RwSignal::default(),
            wanted_percent: RwSignal::new(None),
            ledger: RwSignal::default(),
            shown: RwSignal::new(None),
            asked: RwSignal::new(None),
            failure: RwSignal::new(None),
            examples: RwSignal::default(),
            example: RwSignal::default(),
            forced: RwSignal::default(),
            quiet: StoredValue::new_local(Quiet::default()),
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

    /// Asks for what is shown and no longer true: how the model completes the form's prompt, what is left of the shown
    /// edit, how far the weights are from the unedited ones. Whatever the visitor asks meanwhile comes first.
    pub async fn catch_up(self) {
        let turn = self.take_turn();
        let ready =
            self.engine.model.with_untracked(Option::is_some) && self.engine.activity.with_untracked(Option::is_none);
        if !ready || self.engine.state.get_untracked() != State::Running {
            return;
        }
        match untrack(|| self.shown_entry()) {
            None => self.preview_again(turn).await,
            Some(entry) => {
                self.measure_again(turn, entry).await;
                self.compare_again(turn).await;
            }
        }
    }

    async fn preview_again(self, turn: u32) {
        let prompt = self.draft.prompt.get_untracked().trim_end().to_owned();
        let known = self.preview.with_untracked(|preview| preview.as_ref().is_some_and(|known| known.prompt == prompt));
        if prompt.is_empty() || (known && self.quiet.with_value(|quiet| quiet.previewed)) {
            return;
        }
        let ask = Command::Ask { prompt, tokens: TOKENS, top: TOP };
        if let Some(Event::Answered(answer)) = self.ask_quietly(turn, ask).await {
            self.preview.set(Some(answer));
            self.quiet.update_value(|quiet| quiet.previewed = true);
        }
    }

    async fn measure_again(self, turn: u32, entry: Entry) {
        if !entry.is_stale() {
            return;
        }
        if let Some(Event::Measured(facts)) = self.ask_quietly(turn, Command::Measure { facts: vec![entry.fact] }).await
        {
            let place = self.shown.get_untracked();
            self.ledger.update(|ledger| {
                if let Some(entry) = place.and_then(|place| ledger.get_mut(place)) {
                    entry.again = facts.into_iter().next();
                }
            });
        }
    }

    async fn compare_again(self, turn: u32) {
        if self.quiet.with_value(|quiet| quiet.compared) {
            return;
        }
        if let Some(Event::Changed(weights)) = self.ask_quietly(turn, Command::Changes).await {
            self.changes.set(weights);
            self.quiet.update_value(|quiet| quiet.compared = true);
        }
    }

    /// Asks without showing that something runs; nothing when it failed or somebody else's turn has come.
    async fn ask_quietly(self, turn: u32, command: Command) -> Option<Event> {
        if !self.has_turn(turn) {
            return None;
        }
        self.engine.send_quietly(command).await.ok().filter(|_| self.has_turn(turn))
    }

    fn take_turn(self) -> u32 {
        self.quiet.update_value(|quiet| quiet.turn += 1);
        self.quiet.with_value(|quiet| quiet.turn)
    }

    fn has_turn(self, turn: u32) -> bool {
        self.quiet.with_value(|quiet| quiet.turn == turn)
    }

    /// Says that the weights are others now than those that were asked about.
    fn outdate(self) {
        self.quiet.update_value(|quiet| (quiet.previewed, quiet.compared) = (false, false));
    }

    /// Keeps another share of every edit, once the slider has rested.
    pub fn keep(self, percent: u32) {
        self.wanted_percent.set(Some(percent));
        let rest = Timeout::new(REST_MILLISECONDS, move || spawn_local(self.keep_now(percent)));
        self.quiet.update_value(|quiet| quiet.rest = Some(rest)); // dropping the earlier one stops it
    }

    /// Regularises the edits anew, from what their editors planned, and asks again what is shown.
    async fn keep_now(self, percent: u32) {
        let Some(entry) = untrack(|| self.shown_entry()).filter(|_| !untrack(|| self.busy())) else {
            return self.wanted_percent.set(None);
        };
        let turn = self.take_turn();
        let regularizer = methods::keeping(entry.regularizer, percent);
        let command = Command::Regularize { regularizer, over: Over::Each, seed: entry.report.spec.seed };
        match self.engine.send_quietly(command).await {
            Ok(Event::Changed(_)) => {
                self.outdate();
                self.ledger.update(|ledger| {
                    for entry in ledger {
                        (entry.regularizer, entry.again) = (regularizer, None);
                    }
                });
                if self.has_turn(turn) {
                    self.catch_up().await;
                }
            }
            Ok(_) => {} // somebody's turn came before it was done; nothing was changed
            Err(failure) => self.failure.set(Some(failure)),
        }
        // Unless the slider has moved on since.
        self.wanted_percent.update(|wanted| {
            wanted.take_if(|wanted| *wanted == percent);
        });
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
        if untrack(|| self.objection().is_some() || self.lacks().is_some() || self.busy()) {
            return;
        }
        if untrack(|| self.replaces()) && !self.undo_once().await {
            return;
        }
        self.shown.set(None);
        surroundings::reveal_on_small_screens(ids::RESULT);
        let command = Command::Edit { facts: vec![fact.clone()], spec: EditSpec { guards, ..self.settings.spec() } };
        if let Some(Event::Edited(report)) = self.run(command).await {
            self.outdate();
            let entry = Entry { fact, regularizer: report.spec.regularizer, report, again: None };
            self.ledger.update(|ledger| ledger.push(entry));
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
            self.outdate();
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
        self.catch_up().await;
    }

    async fn run(self, command: Command) -> Option<Event> {
        self.failure.set(None);
        self.take_turn();
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
        self.changes.set(Vec::new());
        self.asked.set(None);
        self.outdate();
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
            ..Fact::default()
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
        let published = |method: &&str| EditorSpec::published(method, ArchitectureKind::Gpt2);
        Self {
            method: RwSignal::new(Method::ALL[0].name),
            editors: RwSignal::new(EditorSpec::METHODS.iter().filter_map(published).collect()),
            regularizer: RwSignal::new("rect"),
            keep_percent: RwSignal::new(40),
            base: RwSignal::new(std::f64::consts::E),
            seed: RwSignal::new(0),
        }
    }

    /// Every method's settings are another model's and give way to this one's.
    fn suit(self, model: &ModelInfo) {
        self.editors.set(model.editors.clone());
    }

    /// The settings of the chosen method.
    pub fn editor(self) -> EditorSpec {
        let method = self.method.get();
        let own = self.editors.with(|editors| editors.iter().find(|editor| editor.method() == method).cloned());
        own.or_else(|| EditorSpec::published(method, ArchitectureKind::Gpt2)).unwrap_or_else(|| {
            unreachable!("the form offers the methods of protocol's list, and {method:?} is none of them")
        })
    }

    /// Takes these settings for their method.
    pub fn set_editor(self, editor: EditorSpec) {
        self.editors.update(|editors| {
            editors.retain(|other| other.method() != editor.method());
            editors.push(editor);
        });
    }

    /// What is kept of the update.
    pub fn regularizer(self) -> Regularizer {
        let keep = f64::from(self.keep_percent.get()) / 100.0;
        match self.regularizer.get() {
            "rect" => Regularizer::Rect { keep },
            "random" => Regularizer::Random { keep },
            "pca" => Regularizer::Pca { keep },
            "low_rank" => Regularizer::LowRank { keep },
            "prune" => Regularizer::Prune { base: self.base.get() },
            _ => Regularizer::None,
        }
    }

    /// Everything together.
    pub fn spec(self) -> EditSpec {
        untrack(|| EditSpec { regularizer: self.regularizer(), seed: self.seed.get(), ..EditSpec::new(self.editor()) })
    }
}
