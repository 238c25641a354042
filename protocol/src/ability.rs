use serde::{Deserialize, Serialize};

use crate::{Cell, EditSpec, Fact, Failure, Judgement, Regularizer, Row, TaskScores, bounds};

/// How a model does on a sample of one task's records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ability {
    /// The task's id.
    pub task: String,
    /// What a person reads.
    pub name: String,
    /// How many edits the model carried.
    pub edits: usize,
    /// How many records the task's file has; the sample lies evenly spaced in it.
    pub of: usize,
    /// The scores over the sample.
    pub scores: TaskScores,
    /// The standard error of the paper's score, by the jackknife: see [`TaskScores::error`].
    pub error: Option<f64>,
    /// Each record of the sample that fits the model's context.
    pub items: Vec<Item>,
}

/// One record, and how it was answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// The record's number in the file.
    pub number: usize,
    /// What was asked; of records with several prompts, each.
    pub prompts: Vec<String>,
    /// A right answer to each.
    pub answers: Vec<String>,
    /// What the model said to each.
    pub replies: Vec<String>,
    /// How right that was.
    pub judgement: Judgement,
}

impl Ability {
    /// The records that the model answered better when it was `before`, with their items there, worst first.
    pub fn lost<'a>(&'a self, before: &'a Self) -> Vec<(&'a Item, &'a Item)> {
        let right = |item: &Item| item.judgement.paper.score().unwrap_or(0.0);
        let pair = |now: &'a Item| before.items.iter().find(|then| then.number == now.number).map(|then| (then, now));
        let mut lost: Vec<_> =
            self.items.iter().filter_map(pair).filter(|(then, now)| right(now) < right(then)).collect();
        lost.sort_by(|a, b| (right(b.0) - right(b.1)).total_cmp(&(right(a.0) - right(a.1))));
        lost
    }
}

/// The paper's Figure 8 in small: the same facts written one after another under several regularizers, each in a
/// sequence of its own, and abilities measured on the way. The session's own model and history stay as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Play {
    /// What to write, in this order.
    pub facts: Vec<Fact>,
    /// How; its regularizer is not used, and a play has no guard but that numbers are finite, for damage is what is
    /// measured.
    pub spec: EditSpec,
    /// What is kept of each edit, one sequence for each.
    pub regularizers: Vec<Regularizer>,
    /// After how many edits to measure, ascending; 0 is the unedited model.
    pub edits: Vec<usize>,
    /// What to ask then, by the tasks' ids.
    pub tasks: Vec<String>,
    /// At most so many records of each, evenly spaced.
    pub records: usize,
}

impl Play {
    /// # Errors
    ///
    /// When something is empty, too much, or out of order.
    pub fn validate(&self) -> Result<(), Failure> {
        bounds::entries("facts", &self.facts, bounds::FACTS)?;
        bounds::entries("regularizers", &self.regularizers, bounds::POINTS)?;
        bounds::entries("edits", &self.edits, bounds::POINTS)?;
        bounds::entries("tasks", &self.tasks, bounds::POINTS)?;
        bounds::within("records", self.records, 1..=bounds::RECORDS)?;
        for (name, empty) in [("regularizers", self.regularizers.is_empty()), ("edits", self.edits.is_empty())] {
            if empty {
                return Err(Failure::bad_field(name, "is empty; a play needs at least one"));
            }
        }
        if !self.edits.is_sorted_by(|a, b| a < b) {
            return Err(Failure::bad_field("edits", "must rise, each number once"));
        }
        bounds::within("edits", self.edits.last().copied().unwrap_or(0), 0..=self.facts.len())?;
        self.regularizers.iter().try_for_each(Regularizer::validate)
    }
}

/// What was played: the same rows as `rectify sweep` makes of the same facts in the same order, so that the same
/// figures are drawn of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlayReport {
    /// What everything is about.
    pub cell: Cell,
    /// Every measurement.
    pub rows: Vec<Row>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ArchitectureKind, EditorSpec, Tally, Verdict};

    fn play() -> Play {
        let editor = EditorSpec::published("rome", ArchitectureKind::Gpt2).unwrap();
        Play {
            facts: vec![Fact::default(); 3],
            spec: EditSpec::new(editor),
            regularizers: vec![Regularizer::None],
            edits: vec![0, 3],
            tasks: vec!["nli".into()],
            records: 24,
        }
    }

    #[track_caller]
    fn check_refused(change: impl FnOnce(&mut Play), complaint: &str) {
        let mut play = play();
        change(&mut play);
        let failure = play.validate().unwrap_err();
        assert!(failure.message.contains(complaint), "{failure}");
    }

    #[test]
    fn what_cannot_be_played_is_named() {
        play().validate().unwrap();
        check_refused(|play| play.regularizers.clear(), "regularizers is empty");
        check_refused(|play| play.regularizers = vec![Regularizer::Rect { keep: 0.0 }], "keep is 0");
        check_refused(|play| play.edits.clear(), "edits is empty");
        check_refused(|play| play.edits = vec![3, 0], "edits must rise");
        check_refused(|play| play.edits = vec![4], "edits is 4");
        check_refused(|play| play.records = 0, "records is 0");
        check_refused(|play| play.regularizers = vec![Regularizer::None; 2000], "2000 entries");
    }

    #[test]
    fn what_was_lost_comes_worst_first() {
        let ability = |shares: &[f64]| Ability {
            task: "nli".into(),
            name: String::new(),
            edits: 0,
            of: 3,
            scores: TaskScores::of([]),
            error: None,
            items: (0..)
                .zip(shares)
                .map(|(number, share)| Item {
                    number,
                    prompts: vec![],
                    answers: vec![],
                    replies: vec![],
                    judgement: Judgement {
                        paper: Verdict { parts: [("a".into(), Tally(*share, 1.0))].into(), unparsed: 0 },
                        ..Judgement::default()
                    },
                })
                .collect(),
        };
        let (before, now) = (ability(&[1.0, 1.0, 0.0, 1.0]), ability(&[0.5, 1.0, 1.0, 0.0]));
        let lost: Vec<usize> = now.lost(&before).iter().map(|(_, item)| item.number).collect();
        assert_eq!(lost, [3, 0]);
    }
}
