//! Grids of edits, measured row by row into files that survive anything.
//!
//! Each editor and seed has a file of rows, [`Rows`]: one line says what it is about, then one line a measurement,
//! flushed as it is made. Whatever stops the program, the next run reads the rows, drops a line that was cut in the
//! middle, and goes on with what is missing. A file is locked by whoever works on it, so that several processes share a
//! folder. Scores are always made of rows, by `rectify-figures`.

pub mod rows;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    slice,
};

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rectify_core::{
    Session,
    fluency::{self, TfIdf},
    metrics,
    model::{LoadedModel, Model},
    task::{Question, Task},
};
use rectify_protocol::{
    Cell, Command, EditMode, EditSpec, EditorSpec, Event, Fact, Failure, Guards, Judgement, Measured, Over,
    Regularizer, Row, SweepSpec, TextScores, WeightChange,
};
pub use rows::{Rows, read_folder};

use crate::tasks::{self, LoadedTask};

/// A sweep with everything it reads.
pub struct Sweep {
    /// The spec.
    pub spec: SweepSpec,
    /// What is kept of updates.
    pub regularizers: Vec<Regularizer>,
    /// The facts, with their numbers in the file.
    pub facts: Vec<(usize, Fact)>,
    /// The tasks.
    pub tasks: Vec<LoadedTask>,
    /// How much words say, where there are snippets to tell it by.
    pub words: Option<TfIdf>,
    /// Where rows go.
    pub folder: PathBuf,
}

/// What a person may want to know while it runs.
pub trait Watch {
    /// Measurements done, those in work by their share, and in all, of the cell that runs. The first call says how many
    /// were there before.
    fn rows(&mut self, cell: &str, done: usize, total: usize);
}

/// What the unedited model says: the same in every cell.
#[derive(Default)]
pub struct Unedited {
    /// What it predicts of each fact that was measured.
    facts: HashMap<usize, metrics::Predictions>,
    /// How it answers the tasks.
    tasks: HashMap<Key, Option<Judgement>>,
    /// What its texts are like, by fact and seed.
    texts: HashMap<(usize, u64), TextScores>,
}

/// What runs a session's work to its end, or is interrupted.
pub trait Drive {
    /// Runs it.
    ///
    /// # Errors
    ///
    /// When the work fails or is interrupted.
    fn drive<T>(&self, work: impl Future<Output = rectify_core::Result<T>>) -> Result<T, Failure>;
}

impl Sweep {
    /// The cells: each editor with each seed.
    ///
    /// # Errors
    ///
    /// When an editor's settings are impossible.
    pub fn cells(&self, template: &Cell, presets: &[EditorSpec]) -> Result<Vec<Cell>, Failure> {
        let most = self.spec.edits.last().unwrap_or(&0) * self.spec.batch;
        if most > self.facts.len() {
            return Err(Failure::bad_input(format!("edits asks for {most} facts; there are {}", self.facts.len())));
        }
        let mut cells = Vec::new();
        for settings in &self.spec.editors {
            let editor = editor(settings, presets)?;
            if (self.spec.mode == EditMode::Batch || self.spec.batch > 1) && !editor.writes_batches() {
                let method = editor.method();
                return Err(Failure::bad_input(format!("{method} writes one fact at a time; batches are not for it")));
            }
            cells.extend(self.spec.seeds.iter().map(|seed| Cell {
                editor: editor.clone(),
                seed: *seed,
                ..template.clone()
            }));
        }
        Ok(cells)
    }

    /// Makes every row of a cell that is not there yet. `false` when another process works on it.
    ///
    /// # Errors
    ///
    /// When a row cannot be written, or the work is interrupted: what is written stays.
    pub fn run(
        &self,
        cell: &Cell,
        session: &Session,
        unedited: &mut Unedited,
        drive: &impl Drive,
        watch: &mut dyn Watch,
    ) -> Result<bool, Failure> {
        let Some(rows) = Rows::open(&self.folder, cell)? else { return Ok(false) };
        let mut work = Work { sweep: self, cell, rows, unedited, drive, watch, told: 0 };
        work.tell(0);
        match cell.mode {
            EditMode::Single => work.single(session)?,
            EditMode::Sequential => work.sequential(session)?,
            EditMode::Batch => work.batch(session)?,
        }
        Ok(true)
    }

    /// The facts in the order of a seed; in single mode the file's own.
    fn facts(&self, cell: &Cell) -> Vec<&(usize, Fact)> {
        let mut facts: Vec<_> = self.facts.iter().collect();
        if cell.mode != EditMode::Single {
            facts.shuffle(&mut ChaCha8Rng::seed_from_u64(cell.seed));
        }
        facts
    }

    /// How many rows a cell has in the end, refusals aside.
    fn expected(&self, mode: EditMode) -> usize {
        let tasks: usize = self.tasks.iter().map(|task| task.questions.len()).sum();
        let of_a_fact = 1 + usize::from(self.spec.texts);
        let measured = |edits: &usize| edits * self.spec.batch * of_a_fact + tasks;
        let stops = &self.spec.edits;
        let of_one = match mode {
            EditMode::Single => (of_a_fact + 1) * self.facts.len(),
            EditMode::Sequential => stops.iter().map(measured).sum::<usize>() + stops.last().unwrap_or(&0),
            EditMode::Batch => stops.iter().map(|edits| measured(edits) + usize::from(*edits > 0)).sum(),
        };
        of_one * self.regularizers.len()
    }
}

/// An editor's settings: the model's own, changed where the spec says so.
fn editor(
    settings: &serde_json::Map<String, serde_json::Value>,
    presets: &[EditorSpec],
) -> Result<EditorSpec, Failure> {
    let method = settings.get("method").and_then(serde_json::Value::as_str);
    let method = method.ok_or_else(|| Failure::bad_input("an editor has no \"method\""))?;
    let preset = presets.iter().find(|preset| preset.method() == method);
    let unknown = || Failure::bad_input(rectify_protocol::unknown("method", method, EditorSpec::METHODS));
    let mut editor = preset.cloned().ok_or_else(unknown)?;
    for (name, value) in settings.iter().filter(|(name, _)| *name != "method") {
        editor = editor.with(name, value.clone())?;
    }
    editor.validate()?;
    Ok(editor)
}

/// An edited model, as one regularizer leaves it.
struct Variant {
    regularizer: Regularizer,
    model: Model,
}

impl Variant {
    /// A session's model as it is now.
    fn of(session: &Session, regularizer: Regularizer) -> Self {
        Self { regularizer, model: session.model().expect("a cell runs on a model").clone() }
    }
}

fn models(variants: &[&Variant]) -> Vec<Model> {
    variants.iter().map(|variant| variant.model.clone()).collect()
}

/// The model that a cell edits, as it was loaded.
fn of(session: &Session) -> &LoadedModel {
    session.loaded().expect("a cell runs on a model")
}

/// A cell that is being worked on.
struct Work<'a, D: Drive> {
    sweep: &'a Sweep,
    cell: &'a Cell,
    rows: Rows,
    unedited: &'a mut Unedited,
    drive: &'a D,
    watch: &'a mut dyn Watch,
    /// How many rows were said to be done.
    told: usize,
}

impl<D: Drive> Work<'_, D> {
    /// Each fact edits the untouched model once; every regularizer is laid on that one update.
    fn single(&mut self, session: &Session) -> Result<(), Failure> {
        for (item, fact) in &self.sweep.facts {
            self.one_update(session, &[(*item, fact)])?;
        }
        Ok(())
    }

    /// So many facts in one operation; every regularizer is laid on that one update.
    fn batch(&mut self, session: &Session) -> Result<(), Failure> {
        let order = self.sweep.facts(self.cell);
        for &edits in &self.sweep.spec.edits {
            if edits == 0 {
                let variants: Vec<Variant> = self.sweep.regularizers.iter().map(|r| Variant::of(session, *r)).collect();
                self.measure(of(session), &variants, 0, &[])?;
            } else {
                self.one_update(session, &first(&order, edits))?;
            }
        }
        Ok(())
    }

    fn one_update(&mut self, session: &Session, facts: &[(usize, &Fact)]) -> Result<(), Failure> {
        let edits = facts.len();
        let regularizers = self.sweep.regularizers.iter().copied();
        let missing: Vec<Regularizer> =
            regularizers.filter(|regularizer| !self.complete(*regularizer, edits, facts)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut session = session.fork();
        let written: Vec<Fact> = facts.iter().map(|(_, fact)| (*fact).clone()).collect();
        match self.write(&mut session, &written, Regularizer::None) {
            Ok(seconds) => self.regularize_each(&mut session, &missing, facts, seconds),
            Err(Refusal::Stop(failure)) => Err(failure),
            Err(Refusal::Edit(reason)) => missing.into_iter().try_for_each(|regularizer| {
                let measured = Measured::Refused { item: facts[0].0, reason: reason.clone() };
                self.add(regularizer, edits, measured)
            }),
        }
    }

    /// One fact on top of the other; each regularizer has a sequence of its own, for what it keeps decides what the next
    /// edit meets. All of them go on side by side, so that they are measured together; whoever goes on after a stop makes
    /// the edits of all that lack something again.
    fn sequential(&mut self, session: &Session) -> Result<(), Failure> {
        let order = self.sweep.facts(self.cell);
        let stops = &self.sweep.spec.edits;
        let batch = self.cell.batch;
        let written = |edits: usize| first(&order, edits * batch);
        let mut sequences = Vec::new();
        for &regularizer in &self.sweep.regularizers {
            let missing = stops.iter().rev().find(|edits| !self.complete(regularizer, **edits, &written(**edits)));
            if let Some(&last) = missing {
                sequences.push((regularizer, session.fork_without_undo(), last));
            }
        }
        let last = sequences.iter().map(|(.., last)| *last).max();
        for edits in last.map_or(0..0, |last| 0..last + 1) {
            sequences.retain(|(.., last)| *last >= edits);
            if edits > 0 {
                for (regularizer, session, _) in &mut sequences {
                    self.operation(session, *regularizer, edits, &written(edits)[(edits - 1) * batch..])?;
                }
            }
            if stops.contains(&edits) {
                let variants: Vec<Variant> = sequences.iter().map(|(r, session, _)| Variant::of(session, *r)).collect();
                self.measure(of(session), &variants, edits, &written(edits))?;
            }
        }
        Ok(())
    }

    /// One operation of a sequence. Where it cannot be made, the sequence goes on without it.
    fn operation(
        &mut self,
        session: &mut Session,
        regularizer: Regularizer,
        edits: usize,
        facts: &[(usize, &Fact)],
    ) -> Result<(), Failure> {
        let item = facts[0].0;
        let facts: Vec<Fact> = facts.iter().map(|(_, fact)| (*fact).clone()).collect();
        match self.write(session, &facts, regularizer) {
            // Made again only to go on from it.
            Ok(_) if self.rows.has(regularizer, edits, &Key::Edit(item)) => Ok(()),
            Ok(seconds) => {
                let mut weights = self.changed(session, Command::Changes)?;
                if !self.sweep.spec.edits.contains(&edits) {
                    without_pictures(&mut weights);
                }
                self.add(regularizer, edits, Measured::Edit { item, seconds, weights })
            }
            Err(Refusal::Stop(failure)) => Err(failure),
            Err(Refusal::Edit(reason)) => self.add_new(regularizer, edits, Measured::Refused { item, reason }),
        }
    }

    fn regularize_each(
        &mut self,
        session: &mut Session,
        regularizers: &[Regularizer],
        facts: &[(usize, &Fact)],
        seconds: f64,
    ) -> Result<(), Failure> {
        let mut variants = Vec::with_capacity(regularizers.len());
        for &regularizer in regularizers {
            let command = Command::Regularize { regularizer, over: Over::Each, seed: self.cell.seed };
            let mut weights = self.changed(session, command)?;
            if self.cell.mode == EditMode::Single {
                without_pictures(&mut weights);
            }
            let edit = Measured::Edit { item: facts[0].0, seconds, weights };
            self.add_new(regularizer, facts.len(), edit)?;
            variants.push(Variant::of(session, regularizer));
        }
        self.measure(of(session), &variants, facts.len(), facts)
    }

    /// Every fact that was written, and every task, by all variants together.
    fn measure(
        &mut self,
        of: &LoadedModel,
        variants: &[Variant],
        edits: usize,
        facts: &[(usize, &Fact)],
    ) -> Result<(), Failure> {
        for &(item, fact) in facts {
            let missing = self.missing(variants, edits, &[Key::Fact(item)]);
            if missing.is_empty() {
                continue;
            }
            if !self.unedited.facts.contains_key(&item) {
                let unedited = metrics::predict(slice::from_ref(&of.model), &of.tokenizer, fact);
                let unedited = self.drive.drive(unedited)?.remove(0);
                self.unedited.facts.insert(item, unedited);
            }
            let after = self.drive.drive(metrics::predict(&models(&missing), &of.tokenizer, fact))?;
            for (variant, after) in missing.iter().zip(after) {
                let scores = metrics::scores(&self.unedited.facts[&item], &after);
                self.add(variant.regularizer, edits, Measured::Fact { item, scores })?;
            }
        }
        for &(item, fact) in facts {
            if !self.writes(fact) {
                continue;
            }
            for variant in self.missing(variants, edits, &[Key::Text(item)]) {
                let key = (item, self.cell.seed);
                if !self.unedited.texts.contains_key(&key) {
                    let unedited = self.text(of, &of.model, fact)?;
                    self.unedited.texts.insert(key, unedited);
                }
                let unedited = self.unedited.texts[&key];
                let scores = self.text(of, &variant.model, fact)?;
                self.add(variant.regularizer, edits, Measured::Text { item, scores, unedited: Some(unedited) })?;
            }
        }
        // Rows are written when all variants have answered a part of the records: so much is lost at most.
        let part = (256 / variants.len().max(1)).max(32);
        for loaded in &self.sweep.tasks {
            for records in loaded.questions.chunks(part) {
                self.records(of, variants, edits, loaded, records)?;
            }
        }
        Ok(())
    }

    /// Some records of a task.
    fn records(
        &mut self,
        of: &LoadedModel,
        variants: &[Variant],
        edits: usize,
        loaded: &LoadedTask,
        records: &[(usize, Box<dyn Question>)],
    ) -> Result<(), Failure> {
        let task = loaded.task.id;
        let keys: Vec<Key> = records.iter().map(|(item, _)| Key::Task(task.to_owned(), *item)).collect();
        let missing = self.missing(variants, edits, &keys);
        if missing.is_empty() {
            return Ok(());
        }
        let rows = missing.len() * records.len();
        let judgements = if edits > 0 {
            self.judge(of, &models(&missing), loaded.task, records, rows)?
        } else {
            if keys.iter().any(|key| !self.unedited.tasks.contains_key(key)) {
                let judged = self.judge(of, slice::from_ref(&of.model), loaded.task, records, rows)?.remove(0);
                self.unedited.tasks.extend(keys.iter().cloned().zip(judged));
            }
            let judged: Vec<_> = keys.iter().map(|key| self.unedited.tasks[key].clone()).collect();
            vec![judged; missing.len()]
        };
        for (variant, judgements) in missing.iter().zip(judgements) {
            for ((item, _), judgement) in records.iter().zip(judgements) {
                let measured = Measured::Task { task: task.to_owned(), item: *item, judgement };
                self.add_new(variant.regularizer, edits, measured)?;
            }
        }
        Ok(())
    }

    /// How each model answers some records, from which so many rows will be made.
    fn judge(
        &mut self,
        of: &LoadedModel,
        models: &[Model],
        task: &Task,
        records: &[(usize, Box<dyn Question>)],
        rows: usize,
    ) -> Result<Vec<Vec<Option<Judgement>>>, Failure> {
        let questions: Vec<&dyn Question> = records.iter().map(|(_, question)| question.as_ref()).collect();
        let prompts: usize = questions.iter().map(|question| question.prompts().len()).sum();
        let drive = self.drive;
        let mut watch = |done: usize| self.tell(done * rows / prompts.max(1));
        Ok(drive.drive(tasks::judge(of, models, task, &questions, &mut watch))?.judgements)
    }

    /// The variants of which a row is missing.
    fn missing<'v>(&self, variants: &'v [Variant], edits: usize, keys: &[Key]) -> Vec<&'v Variant> {
        let lacks = |variant: &&Variant| keys.iter().any(|key| !self.rows.has(variant.regularizer, edits, key));
        variants.iter().filter(lacks).collect()
    }

    /// Whether texts of a fact are asked for.
    fn writes(&self, fact: &Fact) -> bool {
        self.sweep.spec.texts && !fact.generation_prompts.is_empty()
    }

    /// Lets a model write, and scores its texts.
    fn text(&self, of: &LoadedModel, model: &Model, fact: &Fact) -> Result<TextScores, Failure> {
        let texts = self.drive.drive(fluency::texts(of, model, &fact.generation_prompts, self.cell.seed))?;
        let entropy = texts.iter().map(|text| fluency::n_gram_entropy(text)).sum::<f64>() / texts.len() as f64;
        let words = self.sweep.words.as_ref().filter(|_| !fact.references.is_empty());
        let consistency = words.map(|words| words.similarity(&texts.join(" "), &fact.references.join(" ")));
        Ok(TextScores { entropy, consistency })
    }

    /// Whether everything is there that is measured after so many edits.
    fn complete(&self, regularizer: Regularizer, edits: usize, facts: &[(usize, &Fact)]) -> bool {
        let refused = facts.first().is_some_and(|(item, _)| {
            self.cell.mode != EditMode::Sequential && self.rows.has(regularizer, edits, &Key::Refused(*item))
        });
        let has = |key| self.rows.has(regularizer, edits, &key);
        let facts =
            facts.iter().all(|(item, fact)| has(Key::Fact(*item)) && (!self.writes(fact) || has(Key::Text(*item))));
        let tasks =
            self.sweep.tasks.iter().all(|loaded| {
                loaded.questions.iter().all(|(item, _)| has(Key::Task(loaded.task.id.to_owned(), *item)))
            });
        refused || facts && tasks
    }

    /// One operation, with no guard but that numbers are finite: damage is what is measured.
    fn write(&mut self, session: &mut Session, facts: &[Fact], regularizer: Regularizer) -> Result<f64, Refusal> {
        let spec =
            EditSpec { editor: self.cell.editor.clone(), regularizer, seed: self.cell.seed, guards: Guards::NONE };
        // What the editor says is a result; that the work was interrupted is not.
        let ran = self.drive.drive(async {
            match session.write(facts, spec, &mut |_| {}).await {
                Ok(report) => Ok(Ok(report.seconds)),
                Err(error @ rectify_core::Error::Device(_)) => Err(error),
                Err(error) => Ok(Err(error.to_string())),
            }
        });
        ran.map_err(Refusal::Stop)?.map_err(Refusal::Edit)
    }

    fn changed(&self, session: &mut Session, command: Command) -> Result<Vec<WeightChange>, Failure> {
        match self.drive.drive(session.handle(command, &mut |_| {}))? {
            Event::Changed(weights) => Ok(weights),
            other => Err(crate::io::internal(format!("the session answered out of turn: {other:?}"))),
        }
    }

    /// Adds a row unless it is there: the edits of a sequence are made again to go on with it.
    fn add_new(&mut self, regularizer: Regularizer, edits: usize, measured: Measured) -> Result<(), Failure> {
        if self.rows.has(regularizer, edits, &Key::of(&measured)) {
            return Ok(());
        }
        self.add(regularizer, edits, measured)
    }

    fn add(&mut self, regularizer: Regularizer, edits: usize, measured: Measured) -> Result<(), Failure> {
        self.rows.add(Row { regularizer, edits, measured })?;
        self.tell(0);
        Ok(())
    }

    /// Says how far the cell is: the rows that are there, and as many as are in work.
    fn tell(&mut self, in_work: usize) {
        // What was in work is written row by row: it is not counted back.
        let done = self.told.max(self.rows.len() + in_work);
        self.told = done;
        self.watch.rows(&name(self.cell), done, self.sweep.expected(self.cell.mode).max(done));
    }
}

/// A picture is large, and drawn only of what is measured.
fn without_pictures(weights: &mut [WeightChange]) {
    weights.iter_mut().for_each(|change| change.blocks = None);
}

/// Why an operation was not made.
enum Refusal {
    /// The editor cannot: a result, and the sweep goes on.
    Edit(String),
    /// The program cannot go on.
    Stop(Failure),
}

/// The first `n` facts of an order.
fn first<'f>(order: &[&'f (usize, Fact)], n: usize) -> Vec<(usize, &'f Fact)> {
    order[..n].iter().map(|(item, fact)| (*item, fact)).collect()
}

/// What a row measures, apart from the numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A fact.
    Fact(usize),
    /// An operation.
    Edit(usize),
    /// An operation that was not made.
    Refused(usize),
    /// A record of a task.
    Task(String, usize),
    /// A fact's texts.
    Text(usize),
}

impl Key {
    fn of(measured: &Measured) -> Self {
        match measured {
            Measured::Fact { item, .. } => Self::Fact(*item),
            Measured::Edit { item, .. } => Self::Edit(*item),
            Measured::Refused { item, .. } => Self::Refused(*item),
            Measured::Text { item, .. } => Self::Text(*item),
            Measured::Task { task, item, .. } => Self::Task(task.clone(), *item),
        }
    }
}

/// What a person calls a cell.
pub fn name(cell: &Cell) -> String {
    format!("{} seed {}", cell.editor.method(), cell.seed)
}

/// The spec's own file and what it names lie beside one another.
pub fn beside(spec: &Path, name: &str) -> PathBuf {
    spec.parent().unwrap_or_else(|| Path::new("")).join(name)
}

#[cfg(test)]
mod tests {
    use rectify_protocol::ArchitectureKind;

    use super::*;

    #[test]
    fn every_bundled_grid_can_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../static/sweeps");
        let presets: Vec<EditorSpec> = EditorSpec::METHODS
            .iter()
            .map(|method| EditorSpec::published(method, ArchitectureKind::Gpt2).unwrap())
            .collect();
        let mut grids = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let spec = SweepSpec::from_toml(&path.display().to_string(), &text).unwrap();
            spec.editors.iter().for_each(|settings| drop(editor(settings, &presets).unwrap()));
            grids += 1;
        }
        assert!(grids > 30, "{grids} grids");
    }
}
