//! The rows of one cell: edits made, models measured, what is there already left alone.

use std::{slice, sync::Arc};

use rectify_core::{
    Error, Session, fluency, metrics,
    model::{LoadedModel, Model},
    task::{Question, Records, Task},
};
use rectify_protocol::{
    Cell, Command, EditMode, EditSpec, Event, Fact, Failure, Guards, Judgement, Key, Kind, Measured, Over, Regularizer,
    Row, TextScores, WeightChange,
};

use super::{Rows, Sweep, Unedited, Wanted, Watch, first};
use crate::{
    engine::{self, Cancel},
    tasks,
};

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
pub(super) struct Work<'a> {
    pub(super) sweep: &'a Sweep,
    pub(super) cell: &'a Cell,
    /// The number of its first unit, among those of all cells.
    pub(super) first: usize,
    pub(super) rows: Rows,
    pub(super) unedited: &'a mut Unedited,
    pub(super) cancel: &'a Cancel,
    pub(super) watch: &'a mut dyn Watch,
    /// How many rows were there that are another share's.
    pub(super) others: usize,
    /// How many rows were said to be done.
    pub(super) told: usize,
}

impl Work<'_> {
    /// Everything that is missing.
    pub(super) fn run(mut self, session: &mut Session) -> Result<(), Failure> {
        let mine = |id| self.sweep.unit(id).is_some_and(|unit| self.has(unit));
        self.others = self.rows.have().iter().filter(|id| !mine(id)).count();
        self.tell(0);
        match self.cell.mode {
            EditMode::Single => self.single(session),
            EditMode::Sequential => self.sequential(session),
            EditMode::Batch => self.batch(session),
        }
    }

    /// Whether a unit of this cell is this process's to do.
    fn has(&self, unit: usize) -> bool {
        self.sweep.share.has(self.first + unit)
    }

    /// Each fact edits the untouched model once; every regularizer is laid on that one update.
    fn single(&mut self, session: &mut Session) -> Result<(), Failure> {
        for (unit, (item, fact)) in self.sweep.facts.iter().enumerate() {
            if self.has(unit) {
                self.one_update(session, &[(*item, fact)])?;
            }
        }
        Ok(())
    }

    /// So many facts in one operation; every regularizer is laid on that one update.
    fn batch(&mut self, session: &mut Session) -> Result<(), Failure> {
        let order = self.sweep.facts(self.cell);
        for (unit, &edits) in self.sweep.spec.edits.iter().enumerate() {
            if !self.has(unit) {
                continue;
            }
            if edits == 0 {
                let variants: Vec<Variant> = self.sweep.regularizers.iter().map(|r| Variant::of(session, *r)).collect();
                self.measure(of(session), &variants, 0, &[])?;
            } else {
                self.one_update(session, &first(&order, edits))?;
            }
        }
        Ok(())
    }

    fn one_update(&mut self, session: &mut Session, facts: &[(usize, &Fact)]) -> Result<(), Failure> {
        let edits = facts.len();
        let regularizers = self.sweep.regularizers.iter().copied();
        let missing: Vec<Regularizer> =
            regularizers.filter(|regularizer| !self.complete(*regularizer, edits, facts)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.sample(session)?;
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
    fn sequential(&mut self, session: &mut Session) -> Result<(), Failure> {
        let order = self.sweep.facts(self.cell);
        let stops = &self.sweep.spec.edits;
        let batch = self.cell.batch;
        let written = |edits: usize| first(&order, edits * batch);
        let mut sequences = Vec::new();
        for (unit, &regularizer) in self.sweep.regularizers.iter().enumerate() {
            if !self.has(unit) {
                continue;
            }
            let missing = stops.iter().rev().find(|edits| !self.complete(regularizer, **edits, &written(**edits)));
            if let Some(&last) = missing {
                self.sample(session)?;
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
                let unedited = self.drive(unedited)?.remove(0);
                self.unedited.facts.insert(item, unedited);
            }
            let after = self.drive(metrics::predict(&models(&missing), &of.tokenizer, fact))?;
            for (variant, after) in missing.iter().zip(after) {
                let scores = metrics::scores(&self.unedited.facts[&item], &after);
                self.add(variant.regularizer, edits, Measured::Fact { item, scores })?;
            }
        }
        for &(item, fact) in facts {
            if !self.sweep.writes(fact) {
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
        loaded: &Records,
        records: &[(usize, Arc<dyn Question>)],
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
        records: &[(usize, Arc<dyn Question>)],
        rows: usize,
    ) -> Result<Vec<Vec<Option<Judgement>>>, Failure> {
        let questions: Vec<&dyn Question> = records.iter().map(|(_, question)| question.as_ref()).collect();
        let prompts: usize = questions.iter().map(|question| question.prompts().len()).sum();
        let cancel = self.cancel;
        let mut watch = |done: usize| self.tell(done * rows / prompts.max(1));
        Ok(drive(tasks::judge(of, models, task, &questions, &mut watch), cancel)?.judgements)
    }

    /// The variants of which a row is missing.
    fn missing<'v>(&self, variants: &'v [Variant], edits: usize, keys: &[Key]) -> Vec<&'v Variant> {
        let lacks = |variant: &&Variant| keys.iter().any(|key| !self.rows.has(variant.regularizer, edits, key));
        variants.iter().filter(lacks).collect()
    }

    /// Lets a model write, and scores its texts.
    fn text(&self, of: &LoadedModel, model: &Model, fact: &Fact) -> Result<TextScores, Failure> {
        let texts = self.drive(fluency::texts(of, model, &fact.generation_prompts, self.cell.seed))?;
        let entropy = texts.iter().map(|text| fluency::n_gram_entropy(text)).sum::<f64>() / texts.len() as f64;
        let words = self.sweep.words.as_ref().filter(|_| !fact.references.is_empty());
        let consistency = words.map(|words| words.similarity(&texts.join(" "), &fact.references.join(" ")));
        Ok(TextScores { entropy, consistency })
    }

    /// Whether everything is there that is measured after so many edits.
    fn complete(&self, regularizer: Regularizer, edits: usize, facts: &[(usize, &Fact)]) -> bool {
        Wanted { sweep: self.sweep, cell: self.cell, have: self.rows.have() }.is_complete(regularizer, edits, facts)
    }

    /// How this cell edits: with no guard but that numbers are finite, for damage is what is measured.
    fn spec(&self, regularizer: Regularizer) -> EditSpec {
        EditSpec { editor: self.cell.editor.clone(), regularizer, seed: self.cell.seed, guards: Guards::NONE }
    }

    /// The context texts of this cell's edits, sampled once, so that every fork of the session has them.
    fn sample(&self, session: &mut Session) -> Result<(), Failure> {
        let spec = self.spec(Regularizer::None);
        self.drive(session.sample_contexts(&spec, &mut |_| {}))
    }

    /// One operation.
    fn write(&mut self, session: &mut Session, facts: &[Fact], regularizer: Regularizer) -> Result<f64, Refusal> {
        let spec = self.spec(regularizer);
        // That an edit cannot be made of these facts is a result; everything else is not, and can be tried again.
        let ran = self.drive(async {
            match session.write(facts, spec, &mut |_| {}).await {
                Ok(report) => Ok(Ok(report.seconds)),
                Err(error @ (Error::BadInput(_) | Error::NotFinite { .. })) => Ok(Err(error.to_string())),
                Err(error) => Err(error),
            }
        });
        ran.map_err(Refusal::Stop)?.map_err(Refusal::Edit)
    }

    fn drive<T>(&self, work: impl Future<Output = rectify_core::Result<T>>) -> Result<T, Failure> {
        drive(work, self.cancel)
    }

    fn changed(&self, session: &mut Session, command: Command) -> Result<Vec<WeightChange>, Failure> {
        match self.drive(session.handle(command, &mut |_| {}))? {
            Event::Changed(weights) => Ok(weights),
            other => Err(crate::io::internal(format!("the session answered out of turn: {other:?}"))),
        }
    }

    /// Adds a row unless it is there: the edits of a sequence are made again to go on with it.
    fn add_new(&mut self, regularizer: Regularizer, edits: usize, measured: Measured) -> Result<(), Failure> {
        if self.rows.has(regularizer, edits, &measured.key()) {
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
        let done = self.told.max(self.rows.have().len() - self.others + in_work);
        self.told = done;
        self.watch.rows(&super::name(self.cell), done, self.sweep.expected(self.first).max(done));
    }
}

/// Runs a session's work to its end, unless it is interrupted.
fn drive<T>(work: impl Future<Output = rectify_core::Result<T>>, cancel: &Cancel) -> Result<T, Failure> {
    let interrupted = "interrupted; what was measured is kept, and the same command goes on";
    let ended = engine::drive(work, cancel).ok_or_else(|| Failure::new(Kind::Unfinished, interrupted))?;
    Ok(ended?)
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
