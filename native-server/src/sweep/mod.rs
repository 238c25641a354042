//! Grids of edits, measured row by row into files that survive anything.
//!
//! Each attempt at an editor and seed has a file of rows, [`Rows`]: one line says what it is about, then one line a
//! measurement, flushed as it is made. Whatever stops the program, the next run reads the rows of all attempts and goes
//! on with what is missing, in a file of its own. So several processes share a folder, on one machine or on many, and a
//! grid can be divided among them, [`Share`]. Scores are always made of rows, by `rectify-figures`.
//!
//! [`grid`] reads what a spec names, [`Work`] makes the rows of one cell.

pub mod grid;
pub mod rows;
mod work;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rectify_core::{Session, fluency::TfIdf, metrics, task::Records};
use rectify_protocol::{
    Cell, EditMode, EditorSpec, Fact, Failure, Judgement, Key, Regularizer, Row, SweepSpec, TextScores,
};
pub use rows::{Have, Rows, Share, read_folder};
use work::Work;

use crate::engine::Cancel;

/// A sweep with everything it reads.
pub struct Sweep {
    /// The spec.
    pub spec: SweepSpec,
    /// What is kept of updates.
    pub regularizers: Vec<Regularizer>,
    /// The facts, with their numbers in the file.
    pub facts: Vec<(usize, Fact)>,
    /// The tasks.
    pub tasks: Vec<Records>,
    /// How much words say, where there are snippets to tell it by.
    pub words: Option<TfIdf>,
    /// Where rows go.
    pub folder: PathBuf,
    /// Whether lines that are no rows are set aside; otherwise they stop their cell.
    pub repair: bool,
    /// What this process does of it.
    pub share: Share,
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
        for (n, cell) in cells.iter().enumerate() {
            if cells[..n].iter().any(|before| before.editor == cell.editor && before.seed == cell.seed) {
                let name = name(cell);
                return Err(Failure::bad_input(format!("editors has {name} twice, with the same settings")));
            }
        }
        Ok(cells)
    }

    /// Makes every row of a cell's share that is not there yet. `false` when another process works on it. The session
    /// keeps the context texts that were sampled.
    ///
    /// # Errors
    ///
    /// When a line of its file is no row, something that an edit needs is missing, a row cannot be written, or the work
    /// is interrupted: what is written stays.
    pub fn run(
        &self,
        (cell, first): (&Cell, usize),
        session: &mut Session,
        unedited: &mut Unedited,
        cancel: &Cancel,
        watch: &mut dyn Watch,
    ) -> Result<bool, Failure> {
        let Some(rows) = Rows::open(&self.folder, cell, self.share, self.repair)? else { return Ok(false) };
        Work { sweep: self, cell, first, rows, unedited, cancel, watch, others: 0, told: 0 }.run(session)?;
        Ok(true)
    }

    /// How many units of work a cell has: in single mode its facts, in batch mode its operations, else its sequences.
    pub fn units(&self) -> usize {
        match self.spec.mode {
            EditMode::Single => self.facts.len(),
            EditMode::Batch => self.spec.edits.len(),
            EditMode::Sequential => self.regularizers.len(),
        }
    }

    /// The same of all cells together.
    pub fn all_units(&self) -> usize {
        self.spec.editors.len() * self.spec.seeds.len() * self.units()
    }

    /// The unit of a cell that a row belongs to; `None` of rows that this spec does not ask for.
    fn unit(&self, (regularizer, edits, key): &(String, usize, Key)) -> Option<usize> {
        match self.spec.mode {
            EditMode::Single => match key {
                Key::Fact(item) | Key::Edit(item) | Key::Refused(item) | Key::Text(item) => {
                    self.facts.binary_search_by_key(item, |(item, _)| *item).ok()
                }
                Key::Task(..) => None,
            },
            EditMode::Batch => self.spec.edits.iter().position(|asked| asked == edits),
            EditMode::Sequential => self.regularizers.iter().position(|asked| asked.to_string() == *regularizer),
        }
    }

    /// How many units of work there are and how many of them are finished, over all cells and whoever shares them, by the
    /// rows in the folder.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn finished(&self) -> Result<(usize, usize), Failure> {
        let found = read_folder(&self.folder)?;
        let of_cell = |(cell, rows): &(Cell, Vec<Row>)| {
            let have: Have = rows.iter().map(Row::id).collect();
            let wanted = Wanted { sweep: self, cell, have: &have };
            (0..self.units()).filter(|unit| wanted.is_finished(*unit)).count()
        };
        Ok((self.all_units(), found.cells.iter().map(of_cell).sum()))
    }

    /// The facts in the order of a seed; in single mode the file's own.
    fn facts(&self, cell: &Cell) -> Vec<&(usize, Fact)> {
        let mut facts: Vec<_> = self.facts.iter().collect();
        if cell.mode != EditMode::Single {
            facts.shuffle(&mut ChaCha8Rng::seed_from_u64(cell.seed));
        }
        facts
    }

    /// How many rows this share of a cell has in the end, refusals aside; `first` is the number of its first unit.
    fn expected(&self, first: usize) -> usize {
        let tasks: usize = self.tasks.iter().map(|task| task.questions.len()).sum();
        let of_a_fact = 1 + usize::from(self.spec.texts);
        let measured = |edits: &usize| edits * self.spec.batch * of_a_fact + tasks;
        let (stops, regularizers) = (&self.spec.edits, self.regularizers.len());
        let of_unit = |unit: usize| match self.spec.mode {
            EditMode::Single => (of_a_fact + 1) * regularizers,
            EditMode::Sequential => stops.iter().map(measured).sum::<usize>() + stops.last().unwrap_or(&0),
            EditMode::Batch => (measured(&stops[unit]) + usize::from(stops[unit] > 0)) * regularizers,
        };
        (0..self.units()).filter(|unit| self.share.has(first + unit)).map(of_unit).sum()
    }

    /// How many rows this share of all cells has in the end, refusals aside.
    pub fn rows(&self) -> usize {
        let cells = self.spec.editors.len() * self.spec.seeds.len();
        (0..cells).map(|cell| self.expected(cell * self.units())).sum()
    }

    /// Whether texts of a fact are asked for.
    fn writes(&self, fact: &Fact) -> bool {
        self.spec.texts && !fact.generation_prompts.is_empty()
    }
}

/// What a spec asks of a cell, beside what is there.
struct Wanted<'a> {
    sweep: &'a Sweep,
    cell: &'a Cell,
    have: &'a Have,
}

impl Wanted<'_> {
    fn has(&self, regularizer: Regularizer, edits: usize, key: Key) -> bool {
        self.have.contains(&(regularizer.to_string(), edits, key))
    }

    /// Whether every row of a unit is there.
    fn is_finished(&self, unit: usize) -> bool {
        let Sweep { spec, regularizers, .. } = self.sweep;
        let one_update =
            |facts: &[(usize, &Fact)], edits| regularizers.iter().all(|r| self.is_complete(*r, edits, facts));
        match spec.mode {
            EditMode::Single => {
                let (item, fact) = &self.sweep.facts[unit];
                one_update(&[(*item, fact)], 1)
            }
            EditMode::Batch => one_update(&first(&self.sweep.facts(self.cell), spec.edits[unit]), spec.edits[unit]),
            EditMode::Sequential => {
                let order = self.sweep.facts(self.cell);
                let complete = |edits: &usize| {
                    self.is_complete(regularizers[unit], *edits, &first(&order, edits * self.cell.batch))
                };
                spec.edits.iter().all(complete)
            }
        }
    }

    /// Whether everything is there that is measured after so many edits.
    fn is_complete(&self, regularizer: Regularizer, edits: usize, facts: &[(usize, &Fact)]) -> bool {
        let refused = facts.first().is_some_and(|(item, _)| {
            self.cell.mode != EditMode::Sequential && self.has(regularizer, edits, Key::Refused(*item))
        });
        let has = |key| self.has(regularizer, edits, key);
        let measured = facts
            .iter()
            .all(|(item, fact)| has(Key::Fact(*item)) && (!self.sweep.writes(fact) || has(Key::Text(*item))));
        let tasks =
            self.sweep.tasks.iter().all(|loaded| {
                loaded.questions.iter().all(|(item, _)| has(Key::Task(loaded.task.id.to_owned(), *item)))
            });
        refused || self.is_made(regularizer, edits, facts) && measured && tasks
    }

    /// Whether the rows of the operations are there that lead to this measurement.
    fn is_made(&self, regularizer: Regularizer, edits: usize, facts: &[(usize, &Fact)]) -> bool {
        let has = |edits: usize, item: usize| {
            [Key::Edit(item), Key::Refused(item)].into_iter().any(|key| self.has(regularizer, edits, key))
        };
        match self.cell.mode {
            EditMode::Sequential => {
                (1..).zip(facts.chunks(self.cell.batch)).all(|(edits, written)| has(edits, written[0].0))
            }
            EditMode::Single | EditMode::Batch => facts.first().is_none_or(|(item, _)| has(edits, *item)),
        }
    }
}

/// The first `n` facts of an order.
fn first<'f>(order: &[&'f (usize, Fact)], n: usize) -> Vec<(usize, &'f Fact)> {
    order[..n].iter().map(|(item, fact)| (*item, fact)).collect()
}

/// An editor's settings: the model's own, changed where the spec says so.
///
/// # Errors
///
/// When there is no such method or setting, or its value cannot be.
pub fn editor(
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
    use std::{collections::BTreeMap, sync::Arc};

    use rectify_protocol::{ArchitectureKind, Command, EditSpec, Event, Measured, Play};

    use super::*;
    use crate::{device::DeviceKind, engine, models::Static};

    struct Silent;

    impl Watch for Silent {
        fn rows(&mut self, _: &str, _: usize, _: usize) {}
    }

    /// Every number of rows but the seconds, by what was measured; `number` is a fact's in the file.
    fn numbers(rows: &[Row], number: impl Fn(usize) -> usize) -> BTreeMap<String, String> {
        let told = |row: &Row| {
            let mut row = row.clone();
            match &mut row.measured {
                Measured::Edit { item, seconds, .. } => (*item, *seconds) = (number(*item), 0.0),
                Measured::Fact { item, .. } | Measured::Refused { item, .. } => *item = number(*item),
                _ => {}
            }
            (format!("{:?}", row.id()), serde_json::to_string(&row).unwrap())
        };
        rows.iter().map(told).collect()
    }

    /// The page's curves are a sweep's, number for number.
    #[test]
    fn a_play_measures_what_a_sweep_does() {
        let statics = Static::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../static")).unwrap();
        let mut session =
            engine::open(&statics.bundled("demo-nano").unwrap(), DeviceKind::Flex, &Cancel::default(), &mut |_| {})
                .unwrap()
                .unwrap();
        session.set_tasks(Arc::new(statics.tasks("demo-nano").unwrap()));
        let folder = tempfile::tempdir().unwrap();
        let text = "model = \"demo-nano\"\nfacts = \"../facts/demo_zsre.json\"\nindex = [0, 4]\nmode = \"sequential\"\n\
            edits = [0, 1, 3]\nregularizers = [\"none\", \"rect 20%\"]\ntasks = [\"nli\", \"ner\"]\n\
            data = \"../tasks/demo\"\nlimit = 5\nseeds = [3]\n\
            editors = [{ method = \"rome\", v_num_grad_steps = 3, mom2_adjustment = false }]\n";
        let spec = SweepSpec::from_toml("spec.toml", text).unwrap();
        let asked = grid::Asked {
            folder: folder.path().to_owned(),
            device: "flex",
            skip_bad: false,
            repair: false,
            share: Share::WHOLE,
        };
        let (sweep, template) = grid::read(&statics.folder.join("sweeps/spec.toml"), spec.clone(), asked).unwrap();
        let cells = sweep.cells(&template, &session.info().unwrap().editors).unwrap();
        sweep.run((&cells[0], 0), &mut session, &mut Unedited::default(), &Cancel::default(), &mut Silent).unwrap();
        let found = rows::read_folder(folder.path()).unwrap().cells.remove(0).1;

        let order: Vec<(usize, Fact)> = sweep.facts(&cells[0]).into_iter().cloned().collect();
        let play = Play {
            facts: order[..3].iter().map(|(_, fact)| fact.clone()).collect(),
            spec: EditSpec { seed: 3, ..EditSpec::new(cells[0].editor.clone()) },
            regularizers: spec.regularizers().unwrap(),
            edits: spec.edits.clone(),
            tasks: spec.tasks.clone(),
            records: 5,
        };
        let mut silent = |_| {};
        let ran = session.handle(Command::Play(Box::new(play)), &mut silent);
        let Event::Played(report) = engine::drive(ran, &Cancel::default()).unwrap().unwrap() else {
            panic!("another event")
        };
        // Read back as the others were, which may cost a number its last bit.
        let read_back = |row: &Row| serde_json::from_str(&serde_json::to_string(row).unwrap()).unwrap();
        let played: Vec<Row> = report.rows.iter().map(read_back).collect();
        let (played, swept) = (numbers(&played, |item| order[item].0), numbers(&found, |item| item));
        assert_eq!(played.keys().collect::<Vec<_>>(), swept.keys().collect::<Vec<_>>());
        for (what, swept) in &swept {
            assert_eq!(played[what], *swept, "{what}");
        }
        assert_eq!(report.cell.model_hash, session.info().unwrap().hash);
        assert_eq!(report.cell.tasks, template.tasks);
    }

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
