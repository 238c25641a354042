//! `rectify sweep`.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use rectify_figures::{Study, table::Table};
use rectify_protocol::{Cell, Failure, Kind, SweepSpec};

use super::{Desk, Place, edit::add_moments, settings::Covariance};
use crate::{
    device::DeviceKind,
    io,
    progress::Line,
    sweep::{
        self, Share, Sweep, Unedited, Watch, beside,
        grid::{self, Asked},
        read_folder,
    },
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Grids, as TOML: static/sweeps has examples
    #[arg(required = true, value_name = "SPEC.toml")]
    specs: Vec<PathBuf>,
    /// Where rows are written, and read back after a stop; each of several grids gets a folder of its own name inside
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Draw everything into DIR/report.html at the end, as `rectify report DIR` does
    #[arg(long)]
    report: bool,
    /// Leave out records that cannot be used, and say which; otherwise the first such record stops everything
    #[arg(long)]
    skip_bad: bool,
    /// Move lines that are not rows to a file beside their own, and measure again what they stood for
    #[arg(long)]
    repair: bool,
    /// Do one part of many, so that several machines share the work: N/OF with N from 0, or auto/OF where Slurm, a Kubernetes indexed job or HyperQueue says N. All write into one folder
    #[arg(long, value_name = "N/OF", default_value_t = Share::WHOLE)]
    part: Share,
    /// cpu, gpu (the best card this program was built for), auto (gpu or else cpu), wgpu, vulkan or cuda
    #[arg(long, default_value = "cpu")]
    device: DeviceKind,
}

pub(super) fn run(args: &Args, place: &Place, out: &mut dyn Write) -> Result<(), Failure> {
    let stem = |path: &PathBuf| path.file_stem().map(ToOwned::to_owned);
    for (n, path) in args.specs.iter().enumerate() {
        if args.specs[..n].iter().any(|before| stem(before) == stem(path)) {
            let twice = path.display();
            return Err(Failure::bad_input(format!("{twice} would share its folder with a grid of the same name")));
        }
    }
    // What is wrong with the last grid is said before the first one runs.
    let grids = args.specs.iter().map(|path| Grid::read(path, args)).collect::<Result<Vec<_>, _>>()?;
    let mut cells = Cells::default();
    let mut first = 0;
    for grid in &grids {
        cells.add(grid.run(args.device, place, first, out)?);
        first += grid.sweep.all_units();
    }
    if args.report {
        super::report::write(&args.out, None, out)?;
    }
    cells.finished()
}

/// How many cells were worked on, and what kept some from being whole.
#[derive(Default)]
struct Cells {
    all: usize,
    /// Locked by another process.
    elsewhere: usize,
    /// The first failure of those that stopped.
    stopped: Option<Failure>,
}

impl Cells {
    fn add(&mut self, other: Self) {
        self.all += other.all;
        self.elsewhere += other.elsewhere;
        self.stopped = self.stopped.take().or(other.stopped);
    }

    /// Complains unless every row is there.
    fn finished(self) -> Result<(), Failure> {
        if let Some(failure) = self.stopped {
            return Err(failure);
        }
        if self.elsewhere == 0 {
            return Ok(());
        }
        let (n, all) = (self.elsewhere, self.all);
        let verb = if n == 1 { "is" } else { "are" };
        let message = format!(
            "{n} of {all} cells {verb} being worked on by another process; the same command measures what that leaves"
        );
        Err(Failure::new(Kind::Unfinished, message))
    }
}

/// A grid with everything it reads.
struct Grid<'a> {
    path: &'a Path,
    text: String,
    sweep: Sweep,
    /// What its cells have in common.
    template: Cell,
    /// Whether a report follows, which says what was left out.
    drawn: bool,
}

impl<'a> Grid<'a> {
    fn read(path: &'a Path, args: &Args) -> Result<Self, Failure> {
        let text = io::read_text(path)?;
        let spec = SweepSpec::from_toml(&path.display().to_string(), &text)?;
        let folder = match args.specs.len() {
            1 => args.out.clone(),
            _ => args.out.join(path.file_stem().unwrap_or(path.as_os_str())),
        };
        let asked = Asked {
            folder,
            device: args.device.name(),
            skip_bad: args.skip_bad,
            repair: args.repair,
            share: args.part,
        };
        let (sweep, template) = grid::read(path, spec, asked)?;
        if !template.skipped.is_empty() {
            let records: Vec<String> = template.skipped.iter().map(usize::to_string).collect();
            io::warn(&format!("{}: records {} are left out", template.facts[0], records.join(", ")));
        }
        Ok(Self { path, text, sweep, template, drawn: args.report })
    }

    /// `first` is the number of its first unit of work, among those of all grids.
    fn run(&self, device: DeviceKind, place: &Place, first: usize, out: &mut dyn Write) -> Result<Cells, Failure> {
        let Self { path, sweep, .. } = self;
        fs::create_dir_all(&sweep.folder).map_err(|error| io::cannot_write(&sweep.folder, &error))?;
        io::write(&sweep.folder.join("sweep.toml"), self.text.as_bytes())?;

        let folder = beside(path, &sweep.spec.model);
        let model = if folder.is_dir() { folder.display().to_string() } else { sweep.spec.model.clone() };
        let mut desk = Desk::open(&model, place, device)?;
        let cells = self.cells(&mut desk).map_err(|failure| failure.at(path.display()))?;
        let mut methods: Vec<&str> = cells.iter().map(|cell| cell.editor.method()).collect();
        methods.dedup();
        methods.into_iter().for_each(|method| desk.say_settings(method));
        let (mut found, mut unedited) = (Cells { all: cells.len(), ..Cells::default() }, Unedited::default());
        for (done, cell) in cells.iter().enumerate() {
            desk.line.about(&format!("cell {} of {}", done + 1, cells.len()));
            let mut watch = Watcher { line: &desk.line, started: Instant::now(), first: None };
            match sweep.run(
                (cell, first + done * sweep.units()),
                &mut desk.session,
                &mut unedited,
                &desk.cancel,
                &mut watch,
            ) {
                Ok(true) => {}
                Ok(false) => found.elsewhere += 1,
                Err(failure) if failure.kind == Kind::Unfinished => return Err(failure),
                // What stops one cell need not stop the others.
                Err(failure) => {
                    let failure = failure.at(sweep::name(cell));
                    io::warn(&failure.to_string());
                    found.stopped.get_or_insert(failure);
                }
            }
        }
        drop(desk);
        let rows = read_folder(&sweep.folder)?;
        if !self.drawn {
            rows.problems.iter().for_each(|problem| io::warn(problem));
        }
        let table = Study::of(&rows).map(|study| Table::of(&study).markdown()).unwrap_or_default();
        io::write(&sweep.folder.join("table.md"), table.as_bytes())?;
        io::print(out, &table)?;
        Ok(found)
    }

    /// The cells, each with the hashes of what its editor reads beside the model.
    fn cells(&self, desk: &mut Desk) -> Result<Vec<Cell>, Failure> {
        let info = desk.info();
        let template = Cell {
            model_hash: info.hash,
            device: info.device,
            ignored: info.ignored,
            precision: info.precision,
            ..self.template.clone()
        };
        let mut cells = self.sweep.cells(&template, &info.editors)?;
        for cell in &mut cells {
            let folder = self.sweep.spec.covariance.as_deref().filter(|name| *name != "identity");
            let folder = folder.map(|name| beside(self.path, name));
            let covariance = match (&self.sweep.spec.covariance, &folder) {
                (None, _) => Covariance::Bundled,
                (Some(_), Some(folder)) => Covariance::Folder(folder),
                (Some(_), None) => Covariance::Identity,
            };
            add_moments(desk, covariance, &cell.editor)?;
            let reads = desk.session.reads(&cell.editor);
            [cell.moments, cell.hypernetwork] = reads.map_err(|error| Failure::from(error).at(sweep::name(cell)))?;
        }
        Ok(cells)
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
    use crate::engine::{self, Cancel};

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
        let folder = folder.path().to_owned();
        let asked =
            Asked { folder, device: DeviceKind::Flex.name(), skip_bad: false, repair: false, share: Share::WHOLE };
        let (sweep, template) = grid::read(&grid, spec, asked).unwrap();
        let cancel = Cancel::default();
        let source = crate::models::Static::open(&statics).unwrap().bundled("demo-nano").unwrap();
        let mut session = engine::open(&source, DeviceKind::Flex, &cancel, &mut |_| {}).unwrap().unwrap();
        let cells = sweep.cells(&template, &session.info().unwrap().editors).unwrap();

        let mut run = || {
            let (mut record, mut unedited) = (Record::default(), Unedited::default());
            assert!(sweep.run((&cells[0], 0), &mut session, &mut unedited, &cancel, &mut record).unwrap());
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
