//! `rectify sweep`.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use rectify_core::fluency::TfIdf;
use rectify_figures::{Study, table::Table};
use rectify_protocol::{Cell, Fact, Failure, SweepSpec};

use super::{Desk, edit::add_moments, settings::Covariance};
use crate::{
    device::DeviceKind,
    engine::{self, Cancel},
    facts::{EditSet, Snippets},
    io,
    progress::Line,
    sweep::{Drive, Sweep, Unedited, Watch, beside, read_folder},
    tasks,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Grids, as TOML: static/sweeps has examples
    #[arg(required = true, value_name = "SPEC.toml")]
    specs: Vec<PathBuf>,
    /// Where rows go, and come from again after a stop; of several grids, each to a folder of its name within
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Draw everything into DIR/report.html at the end, as `rectify report DIR` does
    #[arg(long)]
    report: bool,
    /// flex (the CPU), vulkan or cuda
    #[arg(long, default_value = "flex")]
    device: DeviceKind,
}

pub(super) fn run(args: &Args, statics: Option<&Path>, out: &mut dyn Write) -> Result<(), Failure> {
    let stem = |path: &PathBuf| path.file_stem().map(ToOwned::to_owned);
    for (n, path) in args.specs.iter().enumerate() {
        if args.specs[..n].iter().any(|before| stem(before) == stem(path)) {
            let twice = path.display();
            return Err(Failure::bad_input(format!("{twice} would share its folder with a grid of the same name")));
        }
    }
    // What is wrong with the last grid is said before the first one runs.
    let grids = args.specs.iter().map(|path| Grid::read(path, args)).collect::<Result<Vec<_>, _>>()?;
    for grid in &grids {
        grid.run(args.device, statics, out)?;
    }
    if args.report { super::report::write(&args.out, None, out) } else { Ok(()) }
}

/// A grid with everything it reads.
struct Grid<'a> {
    path: &'a Path,
    text: String,
    sweep: Sweep,
    /// What its cells have in common.
    template: Cell,
}

impl<'a> Grid<'a> {
    fn read(path: &'a Path, args: &Args) -> Result<Self, Failure> {
        let text = io::read_text(path)?;
        let spec = SweepSpec::from_toml(&path.display().to_string(), &text)?;
        let folder = match args.specs.len() {
            1 => args.out.clone(),
            _ => args.out.join(path.file_stem().unwrap_or(path.as_os_str())),
        };
        let (sweep, template) = read(path, spec, folder, args.device)?;
        Ok(Self { path, text, sweep, template })
    }

    fn run(&self, device: DeviceKind, statics: Option<&Path>, out: &mut dyn Write) -> Result<(), Failure> {
        let Self { path, sweep, .. } = self;
        fs::create_dir_all(&sweep.folder).map_err(|error| io::cannot_write(&sweep.folder, &error))?;
        io::write(&sweep.folder.join("sweep.toml"), self.text.as_bytes())?;

        let folder = beside(path, &sweep.spec.model);
        let model = if folder.is_dir() { folder.display().to_string() } else { sweep.spec.model.clone() };
        let mut desk = Desk::open(&model, statics, device)?;
        let info = desk.info();
        let template = Cell { model_hash: info.hash, device: info.device, ..self.template.clone() };
        let cells = sweep.cells(&template, &info.editors)?;
        for cell in &cells {
            let folder = sweep.spec.covariance.as_deref().filter(|name| *name != "identity");
            let folder = folder.map(|name| beside(path, name));
            let covariance = match (&sweep.spec.covariance, &folder) {
                (None, _) => Covariance::Bundled,
                (Some(_), Some(folder)) => Covariance::Folder(folder),
                (Some(_), None) => Covariance::Identity,
            };
            add_moments(&mut desk, covariance, &cell.editor)?;
        }
        let (mut elsewhere, mut unedited) = (0, Unedited::default());
        for (done, cell) in cells.iter().enumerate() {
            desk.line.about(&format!("cell {} of {}", done + 1, cells.len()));
            let mut watch = Watcher { line: &desk.line, started: Instant::now(), first: None };
            if !sweep.run(cell, &desk.session, &mut unedited, &Driver(&desk.cancel), &mut watch)? {
                elsewhere += 1;
            }
        }
        drop(desk);
        if elsewhere > 0 {
            io::warn(&format!("{elsewhere} of {} cells are being worked on by another process", cells.len()));
        }
        let table =
            Study::of(&read_folder(&sweep.folder)?).map(|study| Table::of(&study).markdown()).unwrap_or_default();
        io::write(&sweep.folder.join("table.md"), table.as_bytes())?;
        io::print(out, &table)
    }
}

/// Everything that the spec names, and what cells have in common.
fn read(grid: &Path, spec: SweepSpec, folder: PathBuf, device: DeviceKind) -> Result<(Sweep, Cell), Failure> {
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
    let facts: Vec<(usize, Fact)> = (from..).zip(set.facts(from..to)?).collect();
    if spec.texts && facts.iter().all(|(_, fact)| fact.generation_prompts.is_empty()) {
        let file = path.display();
        return Err(Failure::bad_input(format!("texts are asked for, and no fact of {file} has generation_prompts")));
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
        program: super::program(),
        device: device.name().into(),
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
        seed: 0,
    };
    let regularizers = spec.regularizers()?;
    Ok((Sweep { spec, regularizers, facts, tasks: loaded, words, folder }, template))
}

struct Driver<'a>(&'a Cancel);

impl Drive for Driver<'_> {
    fn drive<T>(&self, work: impl Future<Output = rectify_core::Result<T>>) -> Result<T, Failure> {
        let interrupted = || io::internal("interrupted; what was measured is kept, and the same command goes on");
        Ok(engine::drive(work, self.0).ok_or_else(interrupted)??)
    }
}

struct Watcher<'a> {
    line: &'a Line,
    started: Instant,
    /// Rows that were there when this run began.
    first: Option<usize>,
}

impl Watch for Watcher<'_> {
    fn rows(&mut self, cell: &str, done: usize, total: usize) {
        let new = done - *self.first.get_or_insert(done);
        let mut text = format!("{cell}: rows");
        if new > 0 {
            let left = self.started.elapsed().as_secs_f64() / new as f64 * (total - done) as f64;
            text +=
                &if left < 120.0 { format!(", {left:.0} s left") } else { format!(", {:.0} min left", left / 60.0) };
        }
        self.line.show_count(&text, done as u64, total as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a cell said of its progress.
    #[derive(Default)]
    struct Record(Vec<(usize, usize)>);

    impl Watch for Record {
        fn rows(&mut self, _: &str, done: usize, total: usize) {
            self.0.push((done, total));
        }
    }

    #[test]
    fn progress_goes_from_what_is_there_to_the_end_and_never_back() {
        let statics = Path::new(env!("CARGO_MANIFEST_DIR")).join("../static");
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "model = \"demo-nano\"\nfacts = {:?}\nindex = [0, 2]\nmode = \"sequential\"\nedits = [0, 2]\n\
             regularizers = [\"none\", \"rect 40%\"]\ntasks = [\"nli\", \"ner\"]\ndata = {:?}\nlimit = 40\n\
             editors = [{{ method = \"rome\", v_num_grad_steps = 2, contexts = {{ given = [\"{{}}\"] }} }}]\n",
            statics.join("facts/demo_counterfact.json"),
            statics.join("tasks/demo")
        );
        let grid = folder.path().join("sweep.toml");
        let spec = SweepSpec::from_toml("sweep.toml", &text).unwrap();
        let (sweep, template) = read(&grid, spec, folder.path().to_owned(), DeviceKind::Flex).unwrap();
        let cancel = Cancel::default();
        let source = crate::models::Static::open(&statics).unwrap().bundled("demo-nano").unwrap();
        let session = engine::open(&source, DeviceKind::Flex, &cancel, &mut |_| {}).unwrap().unwrap();
        let cells = sweep.cells(&template, &session.info().unwrap().editors).unwrap();

        let run = || {
            let mut record = Record::default();
            let (mut unedited, driver) = (Unedited::default(), Driver(&cancel));
            assert!(sweep.run(&cells[0], &session, &mut unedited, &driver, &mut record).unwrap());
            record.0
        };
        let told = run();
        // For each regularizer two edits, two facts, and 80 records before and after.
        let total = 2 * (2 + 2 + 2 * 80);
        assert_eq!((told[0], told.last()), ((0, total), Some(&(total, total))));
        assert!(told.is_sorted(), "{told:?}");
        assert!(told.len() > total, "batches are told as well as rows: {} times", told.len());
        assert_eq!(run(), [(total, total)], "nothing is missing");
    }
}
