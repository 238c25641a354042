//! What a grid's spec names: facts, tasks, snippets.

use std::path::{Path, PathBuf};

use rectify_core::fluency::TfIdf;
use rectify_protocol::{Cell, Failure, Precision, SweepSpec};

use super::{Share, Sweep, beside};
use crate::{
    facts::{EditSet, Snippets},
    io, tasks,
};

/// What a person asked for beside the spec.
pub struct Asked {
    /// Where rows go.
    pub folder: PathBuf,
    /// What computes.
    pub device: &'static str,
    /// Whether records that cannot be used are left out; otherwise the first of them is a failure.
    pub skip_bad: bool,
    /// Whether lines that are no rows are set aside.
    pub repair: bool,
    /// Which part of it to do.
    pub share: Share,
}

/// Everything that the spec in the file `grid` names, and what its cells have in common.
///
/// # Errors
///
/// When a file is missing or is not what it should be.
pub fn read(grid: &Path, spec: SweepSpec, asked: Asked) -> Result<(Sweep, Cell), Failure> {
    let path = beside(grid, &spec.facts);
    let text = io::read_text(&path)?;
    let mut set = EditSet::read(&path.display().to_string(), &text)?;
    let (mut words, mut snippets_file) = (None, None);
    if let Some(name) = &spec.snippets {
        let path = beside(grid, name);
        snippets_file = Some([name.clone(), io::sha256(&path)?.0]);
        let snippets = Snippets::read(&path.display().to_string(), &io::read_text(&path)?)?;
        words = Some(TfIdf::of(snippets.all()));
        set.snippets = Some(snippets);
    }
    let [from, to] = spec.index.unwrap_or([0, set.len()]);
    let (facts, bad) = set.usable(from..to)?;
    if let Some((_, failure)) = bad.first().filter(|_| !asked.skip_bad) {
        let hint = "--skip-bad goes on without such records";
        return Err(Failure { message: format!("{}: {failure}; {hint}", path.display()), ..failure.clone() });
    }
    if spec.texts && facts.iter().all(|(_, fact)| fact.generation_prompts.is_empty()) {
        let file = path.display();
        return Err(Failure::bad_input(format!("texts is true, but no fact of {file} has generation_prompts")));
    }
    let loaded = match &spec.data {
        None => Vec::new(),
        Some(folder) => {
            let folder = beside(grid, folder);
            let load = |task| tasks::load(task, &folder, spec.limit);
            tasks::named(&spec.tasks)?.into_iter().map(load).collect::<Result<_, _>>()?
        }
    };
    let template = Cell {
        schema: Cell::SCHEMA,
        program: crate::PROGRAM.into(),
        device: asked.device.into(),
        model: spec.model.clone(),
        model_hash: String::new(),
        facts: [spec.facts.clone(), io::sha256(&path)?.0],
        index: [from, to],
        mode: spec.mode,
        batch: spec.batch,
        editor: rectify_protocol::EditorSpec::Rome(Default::default()),
        covariance: spec.covariance.clone(),
        tasks: loaded.iter().map(|task| [task.task.id.into(), task.file.clone(), task.hash.clone()]).collect(),
        limit: spec.limit,
        snippets: snippets_file,
        moments: None,
        hypernetwork: None,
        ignored: vec![],
        precision: Precision::F32,
        skipped: bad.into_iter().map(|(record, _)| record).collect(),
        seed: 0,
    };
    let regularizers = spec.regularizers()?;
    let Asked { folder, repair, share, .. } = asked;
    Ok((Sweep { spec, regularizers, facts, tasks: loaded, words, folder, repair, share }, template))
}
