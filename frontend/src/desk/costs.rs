//! What editing costs the model: its abilities, asked again whenever the weights are others, and a play of many edits.

use std::collections::BTreeMap;

use leptos::prelude::*;
use rectify_figures::Sweep;
use rectify_protocol::{
    Ability, Cell, Command, EditSpec, EditorSpec, Event, Fact, Failure, Guards, Measured, Play, Progress, Regularizer,
    Row, World,
};

use super::Desk;
use crate::surroundings;

/// The paper's tasks, in its order.
pub const TASKS: [&str; 8] =
    ["reasoning", "nli", "open_qa", "closed_qa", "dialogue", "summarization", "ner", "sentiment"];
/// Records of each that are asked at first.
pub const RECORDS: usize = 24;
/// How many facts a play writes.
pub const EDITS: usize = 20;
/// After how many of them it measures.
const STOPS: [usize; 5] = [0, 5, 10, 15, 20];
/// What it asks then: the four tasks of the paper's Figure 8.
const PLAYED_TASKS: [&str; 4] = ["summarization", "open_qa", "closed_qa", "sentiment"];

/// How the model does at its tasks, as far as they were asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Costs {
    /// The unedited model, by task.
    pub unedited: BTreeMap<String, Ability>,
    /// The model when it was last asked.
    pub now: BTreeMap<String, Ability>,
    /// The paper's score after so many edits.
    pub curves: BTreeMap<String, BTreeMap<usize, f64>>,
    /// The tasks that were asked of the weights as they are now.
    fresh: Vec<&'static str>,
}

impl Costs {
    /// Whether what is known of this task is of the weights as they are now.
    pub fn is_fresh(&self, task: &str) -> bool {
        self.fresh.contains(&task)
    }

    fn take(&mut self, task: &'static str, ability: Ability) {
        if let Some(score) = ability.scores.paper {
            self.curves.entry(task.to_owned()).or_default().insert(ability.edits, score);
        }
        self.now.insert(task.to_owned(), ability);
        self.fresh.push(task);
    }

    /// The weights are others now; what is known of more than so many edits is of weights that are gone.
    pub(super) fn outdate(&mut self, edits: usize) {
        self.fresh.clear();
        for curve in self.curves.values_mut() {
            curve.retain(|at, _| *at <= edits);
        }
    }
}

/// Many facts written one after another, beside the visitor's own edits.
#[derive(Clone, Debug, PartialEq)]
pub struct Played {
    /// What the rows are about, once that is known.
    pub cell: Option<Cell>,
    /// Every measurement so far.
    pub rows: Vec<Row>,
    /// Sequences that are written side by side.
    pub sequences: usize,
}

impl Played {
    /// How many edits of all sequences were made.
    pub fn made(&self) -> usize {
        let made = |row: &&Row| matches!(row.measured, Measured::Edit { .. } | Measured::Refused { .. });
        self.rows.iter().filter(made).count()
    }

    /// The rows as a sweep's, to be drawn and kept like one.
    pub fn sweep(&self) -> Option<Sweep> {
        let mut sweep = Sweep::new("play");
        sweep.cells.push((self.cell.clone()?, self.rows.clone()));
        Some(sweep)
    }

    /// The rows as a sweep's file.
    pub fn file(&self) -> Option<String> {
        let mut text = serde_json::to_string(self.cell.as_ref()?).ok()? + "\n";
        for row in &self.rows {
            text += &(serde_json::to_string(row).ok()? + "\n");
        }
        Some(text)
    }
}

/// How the facts of a play are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// ROME as in the code behind the paper's figures: its key is not whitened.
    Published,
    /// As the form says.
    Form,
}

impl Desk {
    /// What the chosen model can be measured with.
    pub fn world(self) -> Option<World> {
        let catalog = self.catalog_here();
        catalog.world_of(&self.chosen.get()).cloned()
    }

    /// Asks the tasks that were not asked of the weights as they are now. Each is a command of its own, so that whatever
    /// the visitor wants waits for little.
    pub(super) async fn evaluate_again(self, turn: u32) {
        let Some(world) = untrack(|| self.world()) else { return };
        let edits = self.ledger.with_untracked(Vec::len);
        let records = self.records.get_untracked();
        for task in TASKS.into_iter().filter(|task| world.tasks.contains_key(*task)) {
            if !self.costs.with_untracked(|costs| costs.unedited.contains_key(task)) {
                let Some(ability) = self.evaluate(turn, task, records, true).await else { return };
                self.costs.update(|costs| {
                    if let Some(score) = ability.scores.paper {
                        costs.curves.entry(task.to_owned()).or_default().insert(0, score);
                    }
                    costs.unedited.insert(task.to_owned(), ability);
                });
            }
            if self.costs.with_untracked(|costs| costs.is_fresh(task)) {
                continue;
            }
            let ability = match edits {
                0 => self.costs.with_untracked(|costs| costs.unedited.get(task).cloned()),
                _ => self.evaluate(turn, task, records, false).await,
            };
            let Some(ability) = ability else { return };
            self.costs.update(|costs| costs.take(task, ability));
        }
    }

    async fn evaluate(self, turn: u32, task: &str, records: usize, unedited: bool) -> Option<Ability> {
        let command = Command::Evaluate { task: task.to_owned(), records, unedited };
        match self.ask_quietly(turn, command).await {
            Some(Event::Evaluated(ability)) => Some(ability),
            _ => None,
        }
    }

    /// Asks so many records of each task from now on.
    pub async fn ask_more(self, records: usize) {
        self.records.set(records);
        self.costs.set(Costs::default());
        self.catch_up().await;
    }

    /// Writes facts one after another with all of each edit, and with what RECT keeps of it, and measures on the way.
    pub async fn play(self, recipe: Recipe, own_facts: bool) {
        let Some(world) = untrack(|| self.world()) else { return };
        if untrack(|| self.busy()) || !self.wake().await {
            return;
        }
        let facts = match own_facts {
            true => Ok(self.examples.get_untracked()),
            false => surroundings::facts(&world.facts.path).await,
        };
        let facts: Vec<Fact> = match facts {
            Ok(facts) => facts.into_iter().take(EDITS).collect(),
            Err(reason) => return self.failure.set(Some(Failure::bad_input(reason))),
        };
        let spec = match recipe {
            Recipe::Form => self.settings.spec(),
            Recipe::Published => EditSpec::new(untrack(|| published(&self.settings.editors.get()))),
        };
        let regularizers = vec![Regularizer::None, Regularizer::Rect { keep: 0.4 }, Regularizer::Rect { keep: 0.2 }];
        let (sequences, edits) = (regularizers.len(), facts.len());
        let play = Play {
            spec: EditSpec { guards: Guards::NONE, ..spec },
            regularizers,
            edits: STOPS.into_iter().filter(|stop| *stop <= edits).collect(),
            tasks: PLAYED_TASKS.into_iter().filter(|task| world.tasks.contains_key(*task)).map(str::to_owned).collect(),
            records: RECORDS,
            facts,
        };
        self.played.set(Some(Played { cell: None, rows: Vec::new(), sequences }));
        let hear = move |progress: &Progress| match progress {
            Progress::Playing(cell) => self.change_played(|played| played.cell = Some((**cell).clone())),
            Progress::Row(row) => self.change_played(|played| played.rows.push((**row).clone())),
            _ => {}
        };
        match self.run_and_hear(Command::Play(Box::new(play)), hear).await {
            // Progress may be lost on its way from a server; the report is whole.
            Some(Event::Played(report)) => {
                self.played.set(Some(Played { cell: Some(report.cell), rows: report.rows, sequences }));
            }
            _ => self.played.set(None),
        }
        self.catch_up().await;
    }

    fn change_played(self, change: impl FnOnce(&mut Played)) {
        self.played.update(|played| {
            if let Some(played) = played {
                change(played);
            }
        });
    }
}

/// ROME with the model's own layer and the rest as in the code behind the paper's figures.
fn published(editors: &[EditorSpec]) -> EditorSpec {
    let own = editors.iter().find(|editor| editor.method() == "rome").cloned();
    let rome = own.or_else(|| EditorSpec::published("rome", rectify_protocol::ArchitectureKind::Gpt2));
    let mut rome = rome.expect("ROME is published");
    for (name, value) in [
        ("mom2_adjustment", serde_json::Value::from(false)),
        ("v_num_grad_steps", 20.into()),
        ("v_weight_decay", 0.5.into()),
    ] {
        rome = rome.with(name, value).expect("ROME has this setting");
    }
    rome
}

#[cfg(test)]
mod tests {
    use rectify_protocol::{ArchitectureKind, TaskScores};

    use super::*;

    fn ability(edits: usize, paper: f64) -> Ability {
        Ability {
            task: "nli".into(),
            name: String::new(),
            edits,
            of: 240,
            scores: TaskScores { paper: Some(paper), ..TaskScores::of([]) },
            error: None,
            items: Vec::new(),
        }
    }

    #[test]
    fn what_was_measured_of_weights_that_are_gone_is_not_drawn() {
        let mut costs = Costs::default();
        for (edits, score) in [(0, 1.0), (1, 0.9), (2, 0.5)] {
            costs.take("nli", ability(edits, score));
        }
        assert!(costs.is_fresh("nli"));
        costs.outdate(1);
        assert!(!costs.is_fresh("nli"));
        assert_eq!(costs.curves["nli"], [(0, 1.0), (1, 0.9)].into());
    }

    #[test]
    fn a_play_is_rome_as_published() {
        let own = EditorSpec::published("rome", ArchitectureKind::Gpt2).unwrap();
        let own = own.with("layers", serde_json::json!([2])).unwrap().with("mom2_adjustment", true.into()).unwrap();
        let json = serde_json::to_value(published(&[own])).unwrap();
        assert_eq!((&json["mom2_adjustment"], &json["layers"]), (&false.into(), &serde_json::json!([2])));
    }
}
