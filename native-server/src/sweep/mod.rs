//! Grids of edits, measured row by row into files that survive anything.
//!
//! Each editor and seed has a file of rows, [`Rows`]: one line says what it is about, then one line a measurement,
//! flushed as it is made. Whatever stops the program, the next run reads the rows, drops a line that was cut in the
//! middle, and goes on with what is missing. A file is locked by whoever works on it, so that several processes share a
//! folder. Scores are always made of rows, by `rectify-figures`.
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
use rectify_core::{Session, fluency::TfIdf, metrics};
use rectify_protocol::{Cell, EditMode, EditorSpec, Fact, Failure, Judgement, Key, Regularizer, SweepSpec, TextScores};
pub use rows::{Rows, read_folder};
use work::Work;

use crate::{engine::Cancel, tasks::LoadedTask};

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
    /// Whether lines that are no rows are set aside; otherwise they stop their cell.
    pub repair: bool,
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
        Ok(cells)
    }

    /// Makes every row of a cell that is not there yet. `false` when another process works on it. The session keeps the
    /// context texts that were sampled.
    ///
    /// # Errors
    ///
    /// When a line of its file is no row, something that an edit needs is missing, a row cannot be written, or the work
    /// is interrupted: what is written stays.
    pub fn run(
        &self,
        cell: &Cell,
        session: &mut Session,
        unedited: &mut Unedited,
        cancel: &Cancel,
        watch: &mut dyn Watch,
    ) -> Result<bool, Failure> {
        let Some(rows) = Rows::open(&self.folder, cell, self.repair)? else { return Ok(false) };
        Work { sweep: self, cell, rows, unedited, cancel, watch, told: 0 }.run(session)?;
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
