//! Sequences of edits beside a session's own, measured on the way: the paper's Figure 8 in small.

use std::slice;

use rectify_protocol::{Cell, EditMode, EditSpec, Guards, Measured, Play, PlayReport, Progress, Regularizer, Row};
use sha2::{Digest, Sha256};

use crate::{
    Error, Result, Session, ability, metrics,
    model::{LoadedModel, Model, hex},
    task::Records,
};

/// The same version as all of the workspace.
const PROGRAM: &str = concat!("rectify ", env!("CARGO_PKG_VERSION"));

impl Session {
    /// Plays what is asked and leaves this session as it is, but for the context texts that were sampled.
    ///
    /// The rows are those that a sweep in sequential mode makes of the same facts in the same order. Where an edit cannot
    /// be made, its sequence goes on without it and a row says why.
    pub(crate) async fn play(&mut self, play: Play, watch: &mut dyn FnMut(Progress)) -> Result<PlayReport> {
        play.validate()?;
        let of = self.loaded().ok_or(Error::NoModel)?.clone();
        let spec = self.complete(EditSpec { guards: Guards::NONE, ..play.spec.clone() })?;
        self.check_ready(&spec.editor)?;
        let tasks = play.tasks.iter().map(|task| ability::sample(self.tasks(), task, play.records));
        let tasks = tasks.collect::<Result<Vec<Records>>>()?;
        let cell = self.cell(&play, &spec, &tasks)?;
        watch(Progress::Playing(Box::new(cell.clone())));
        self.sample_contexts(&spec, watch).await?;

        let sequences: Vec<_> = play.regularizers.iter().map(|kept| (*kept, self.fork_without_undo())).collect();
        let mut run = Run { of, play: &play, spec, tasks, sequences, unedited: Vec::new(), rows: Vec::new(), watch };
        for edits in 0..=play.edits.last().copied().unwrap_or(0) {
            if edits > 0 {
                run.write(edits).await?;
            }
            if play.edits.contains(&edits) {
                run.measure(edits).await?;
            }
        }
        Ok(PlayReport { cell, rows: run.rows })
    }

    /// What the rows are about.
    fn cell(&self, play: &Play, spec: &EditSpec, tasks: &[Records]) -> Result<Cell> {
        let info = self.info().ok_or(Error::NoModel)?;
        let [moments, hypernetwork] = self.reads(&spec.editor)?;
        let facts = serde_json::to_vec(&play.facts).expect("facts are plain data, which has a JSON form");
        Ok(Cell {
            schema: Cell::SCHEMA,
            program: PROGRAM.to_owned(),
            device: info.device,
            model: info.id,
            model_hash: info.hash,
            facts: [format!("{} facts in this order", play.facts.len()), hex(&Sha256::digest(facts).into())],
            index: [0, play.facts.len()],
            mode: EditMode::Sequential,
            batch: 1,
            editor: spec.editor.clone(),
            covariance: None,
            tasks: tasks
                .iter()
                .map(|records| [records.task.id.to_owned(), records.file.clone(), records.hash.clone()])
                .collect(),
            limit: Some(play.records),
            snippets: None,
            moments,
            hypernetwork,
            skipped: Vec::new(),
            ignored: info.ignored,
            precision: info.precision,
            seed: spec.seed,
        })
    }
}

/// A play that is under way.
struct Run<'p> {
    of: LoadedModel,
    play: &'p Play,
    spec: EditSpec,
    tasks: Vec<Records>,
    /// Each with the session that carries it.
    sequences: Vec<(Regularizer, Session)>,
    /// What the unedited model predicts of each fact that was asked so far.
    unedited: Vec<metrics::Predictions>,
    rows: Vec<Row>,
    watch: &'p mut dyn FnMut(Progress),
}

impl Run<'_> {
    /// The next fact, in every sequence.
    async fn write(&mut self, edits: usize) -> Result<()> {
        let item = edits - 1;
        for place in 0..self.sequences.len() {
            let (regularizer, session) = &mut self.sequences[place];
            let regularizer = *regularizer;
            let spec = EditSpec { regularizer, ..self.spec.clone() };
            // That an edit cannot be made is a result; everything else is not.
            let written = session.write(slice::from_ref(&self.play.facts[item]), spec, &mut *self.watch).await;
            let measured = match written {
                Ok(report) => {
                    let mut weights = session.changes().await?;
                    // A picture is large, and drawn only of what is measured.
                    if !self.play.edits.contains(&edits) {
                        weights.iter_mut().for_each(|change| change.blocks = None);
                    }
                    Measured::Edit { item, seconds: report.seconds, weights }
                }
                Err(error @ (Error::BadInput(_) | Error::NotFinite { .. })) => {
                    Measured::Refused { item, reason: error.to_string() }
                }
                Err(error) => return Err(error),
            };
            self.add(regularizer, edits, measured);
        }
        Ok(())
    }

    /// Every fact that was written, and every task, by all sequences together.
    async fn measure(&mut self, edits: usize) -> Result<()> {
        let (regularizers, models): (Vec<Regularizer>, Vec<Model>) = self
            .sequences
            .iter()
            .map(|(kept, session)| (*kept, session.model().expect("a fork has a model").clone()))
            .unzip();
        for (item, fact) in self.play.facts[..edits].iter().enumerate() {
            if self.unedited.len() == item {
                let before =
                    metrics::predict(slice::from_ref(&self.of.model), &self.of.tokenizer, fact).await?.remove(0);
                self.unedited.push(before);
            }
            let after = metrics::predict(&models, &self.of.tokenizer, fact).await?;
            for (regularizer, after) in regularizers.iter().zip(after) {
                let scores = metrics::scores(&self.unedited[item], &after);
                self.add(*regularizer, edits, Measured::Fact { item, scores });
            }
        }
        // Before the first edit all sequences have the same model.
        let asked = if edits == 0 { &models[..1] } else { &models };
        for place in 0..self.tasks.len() {
            let records = self.tasks[place].clone();
            let judged = ability::judge(&self.of, asked, &records, &mut *self.watch).await?;
            for (n, regularizer) in regularizers.iter().enumerate() {
                for ((item, _), judgement) in records.questions.iter().zip(&judged[n.min(judged.len() - 1)]) {
                    let measured =
                        Measured::Task { task: records.task.id.to_owned(), item: *item, judgement: judgement.clone() };
                    self.add(*regularizer, edits, measured);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, regularizer: Regularizer, edits: usize, measured: Measured) {
        let row = Row { regularizer, edits, measured };
        (self.watch)(Progress::Row(Box::new(row.clone())));
        self.rows.push(row);
    }
}
