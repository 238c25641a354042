use std::{
    collections::HashSet,
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
};

use rectify_figures::Sweep;
use rectify_protocol::{Cell, Failure, Key, Kind, Regularizer, Row};

use crate::io;

/// What is measured of a cell, by [`Row::id`].
pub type Have = HashSet<(String, usize, Key)>;

/// Which part of a grid's work is this process's: of all units, those whose number leaves `part` when divided by `of`.
/// A unit is what can be done by itself: a fact in single mode, an operation in batch mode, a sequence otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which one, from 0.
    pub part: usize,
    /// Of how many.
    pub of: usize,
}

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self { part: 0, of: 1 };
    /// As many parts as a job may have.
    pub const MOST: usize = 10_000;
    /// Where job arrays say which of their tasks a process is: Slurm's, Kubernetes' indexed jobs', HyperQueue's.
    const ARRAYS: [&str; 3] = ["SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "HQ_TASK_ID"];

    /// Whether a unit is part of it.
    pub fn has(self, unit: usize) -> bool {
        unit % self.of == self.part
    }

    fn read(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let wrong = |problem: String| Failure::bad_input(format!("part {text:?}: {problem}"));
        let form = || wrong("write N/OF, N from 0, or auto/OF where a job array says N".into());
        let (part, of) = text.split_once('/').ok_or_else(form)?;
        let of: usize = of.parse().map_err(|_| form())?;
        let part = match part {
            "auto" => {
                let found = Self::ARRAYS.iter().find_map(|name| Some((name, variable(name)?)));
                let (name, value) =
                    found.ok_or_else(|| wrong(format!("none of {} is set here", Self::ARRAYS.join(", "))))?;
                value.parse().map_err(|_| wrong(format!("{name} is {value:?}, which is no number of a part")))?
            }
            part => part.parse().map_err(|_| form())?,
        };
        if of == 0 || of > Self::MOST || part >= of {
            return Err(wrong(format!(
                "parts are numbered from 0 to one less than OF, which is at most {}",
                Self::MOST
            )));
        }
        Ok(Self { part, of })
    }
}

impl FromStr for Share {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        Self::read(text, |name| std::env::var(name).ok())
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

/// The rows of a cell that are there, and a file of this process's own for those it adds.
///
/// What a cell is about stands on the first line of each of its files, one row on each further line. A file is written by
/// one process only, so that nothing depends on locks: where several work on the same rows, the first file's counts.
pub struct Rows {
    path: PathBuf,
    /// Locked while it is written, so that others on this machine find something else to do.
    file: File,
    /// What is measured already.
    have: Have,
    /// Whether this process wrote a row.
    added: bool,
}

impl Rows {
    /// Reads what files in `folder` have of a cell, and begins a new one. `None` when another process on this machine
    /// works on the same share.
    ///
    /// A last line that was cut in the middle is no row. With `repair`, other lines that are no rows are set aside, into
    /// a file beside their own.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written, or has a line that is no row.
    pub fn open(folder: &Path, cell: &Cell, share: Share, repair: bool) -> Result<Option<Self>, Failure> {
        fs::create_dir_all(folder).map_err(|error| io::cannot_write(folder, &error))?;
        let identity = cell.identity();
        let (path, file) = begin(folder, cell, &identity, share)?;
        // Who looks whether it is locked holds it for a moment.
        file.lock().map_err(|error| io::cannot_write(&path, &error))?;
        let mut rows = Self { path, file, have: Have::new(), added: false };
        for path in files(folder).map_err(|error| io::cannot_read(folder, &error))? {
            if path == rows.path || head_of(&path)?.is_none_or(|head| head.identity() != identity) {
                continue;
            }
            // Of two that begin at once, the first goes on.
            if share_of(&path) == share && path < rows.path && is_locked(&path)? {
                return Ok(None);
            }
            match read(&path, repair, &mut rows.have) {
                // Another process has found nothing to add.
                Err(failure) if failure.kind == Kind::NotFound => {}
                read => read?,
            }
        }
        rows.append(&line(cell)?)?;
        Ok(Some(rows))
    }

    /// What is measured.
    pub fn have(&self) -> &Have {
        &self.have
    }

    /// Whether this is measured.
    pub fn has(&self, regularizer: Regularizer, edits: usize, key: &Key) -> bool {
        self.have.contains(&(regularizer.to_string(), edits, key.clone()))
    }

    /// Adds a row; it is on its way to the disk when this returns.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn add(&mut self, row: Row) -> Result<(), Failure> {
        self.append(&line(&row)?)?;
        self.added = true;
        self.have.insert(row.id());
        Ok(())
    }

    /// One write for one line: another reader sees all of it or nothing but its beginning.
    fn append(&mut self, line: &str) -> Result<(), Failure> {
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.flush());
        written.map_err(|error| io::cannot_write(&self.path, &error))
    }
}

impl Drop for Rows {
    /// A file without rows would only be in the way; if it cannot go, it does no harm.
    fn drop(&mut self) {
        if !self.added {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Begins a file that nobody has: of the next attempt at a share of a cell.
fn begin(folder: &Path, cell: &Cell, identity: &Cell, share: Share) -> Result<(PathBuf, File), Failure> {
    let hash = io::sha256_of(line(identity)?.as_bytes());
    let part = if share == Share::WHOLE { String::new() } else { format!(".{}-of-{}", share.part, share.of) };
    let stem = format!("{}-{}-{}{part}", cell.editor.method(), cell.seed, &hash[..12]);
    let attempt = |path: &PathBuf| -> Option<usize> {
        let name = path.file_name()?.to_str()?.strip_prefix(&stem)?;
        name.strip_prefix('.')?.strip_suffix(".jsonl")?.parse().ok()
    };
    let before = files(folder).map_err(|error| io::cannot_read(folder, &error))?;
    let next = before.iter().filter_map(attempt).max().map_or(0, |last| last + 1);
    for attempt in next..ATTEMPTS {
        let path = folder.join(format!("{stem}.{attempt:04}.jsonl"));
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io::cannot_write(&path, &error)),
        }
    }
    let folder = folder.display();
    Err(Failure::bad_input(format!("{folder} has {ATTEMPTS} files of one cell; something begins it again and again")))
}

/// As many attempts as a cell may have.
const ATTEMPTS: usize = 10_000;

/// Which share a file's rows are of, by its name.
fn share_of(path: &Path) -> Share {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let numbers = name.split('.').find_map(|part| {
        let (part, of) = part.split_once("-of-")?;
        Some(Share { part: part.parse().ok()?, of: of.parse().ok()? })
    });
    numbers.unwrap_or(Share::WHOLE)
}

/// As many bytes as a first line may have.
const LONGEST_HEAD: u64 = 1 << 20;

/// What a file of rows is about. `None` where its first line does not say so, which a report names.
fn head_of(path: &Path) -> Result<Option<Cell>, Failure> {
    let mut head = Vec::new();
    match File::open(path).and_then(|file| BufReader::new(file.take(LONGEST_HEAD)).read_until(b'\n', &mut head)) {
        Ok(_) => Ok(head.strip_suffix(b"\n").and_then(|head| serde_json::from_slice(head).ok())),
        // Another process has found nothing to add.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::cannot_read(path, &error)),
    }
}

fn is_locked(path: &Path) -> Result<bool, Failure> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        opened => opened.map_err(|error| io::cannot_read(path, &error))?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(io::cannot_read(path, &error)),
    }
}

/// Adds what a file has to `have`.
fn read(path: &Path, repair: bool, have: &mut Have) -> Result<(), Failure> {
    let bytes = io::read_bytes(path)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let (mut at, mut bad) = (0, Vec::new());
    for (number, line) in (1..).zip(bytes[..whole].split_inclusive(|byte| *byte == b'\n')) {
        let place = at..at + line.len() - 1;
        at += line.len();
        // The first says what the others are about; an empty one was set aside earlier.
        if number == 1 || line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice::<Row>(line) {
            Ok(row) => drop(have.insert(row.id())),
            Err(_) if repair => bad.push(place),
            Err(error) => {
                return Err(Failure::bad_input(format!(
                    "{} line {number} is no row: {error}; `rectify sweep … --repair` sets such lines aside and measures \
                     again what they stood for",
                    path.display()
                )));
            }
        }
    }
    if bad.is_empty() { Ok(()) } else { set_aside(path, &bytes, &bad) }
}

/// Moves lines to a file of their own. Spaces take their place: no other line moves, so that whoever reads meanwhile, or
/// a stop in the middle, finds every row whole.
fn set_aside(path: &Path, bytes: &[u8], lines: &[Range<usize>]) -> Result<(), Failure> {
    let aside = path.with_extension("jsonl.bad");
    let move_lines = || {
        let mut kept = OpenOptions::new().create(true).append(true).open(&aside)?;
        for line in lines {
            kept.write_all(&bytes[line.clone()])?;
            kept.write_all(b"\n")?;
        }
        kept.sync_all()?;
        let mut file = OpenOptions::new().write(true).open(path)?;
        for line in lines {
            file.seek(SeekFrom::Start(line.start as u64))?;
            file.write_all(&vec![b' '; line.len()])?;
        }
        Ok(())
    };
    move_lines().map_err(|error| io::cannot_write(&aside, &error))?;
    io::warn(&format!("{} lines of {} are set aside in {}", lines.len(), path.display(), aside.display()));
    Ok(())
}

/// The files of rows in a folder, in a fixed order.
///
/// # Errors
///
/// When the folder cannot be listed.
pub fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let has_rows = |path: &PathBuf| path.is_file() && path.extension().is_some_and(|extension| extension == "jsonl");
    let mut files: Vec<PathBuf> = paths.filter(has_rows).collect();
    files.sort();
    Ok(files)
}

/// A file's text as far as its lines are whole: the last one may be on its way, and cut in the middle of a letter. A line
/// that is not UTF-8 is replaced by words that say so and are no row.
///
/// # Errors
///
/// When it cannot be read.
pub fn whole_lines(path: &Path) -> Result<String, Failure> {
    let mut bytes = io::read_bytes(path)?;
    bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| {
        let lines = error.as_bytes().split_inclusive(|byte| *byte == b'\n');
        lines.map(|line| std::str::from_utf8(line).unwrap_or("not UTF-8\n")).collect()
    }))
}

/// The sweep whose rows are in a folder; its files in a fixed order.
///
/// # Errors
///
/// When a file cannot be read.
pub fn read_folder(folder: &Path) -> Result<Sweep, Failure> {
    let paths = files(folder).map_err(|error| io::cannot_read(folder, &error))?;
    let mut sweep = Sweep::new(folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy());
    for path in paths {
        match whole_lines(&path) {
            Ok(text) => sweep.add_file(&path.display().to_string(), &text),
            // A process that works here has found nothing to add.
            Err(failure) if failure.kind == Kind::NotFound => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(sweep)
}

/// JSON on one line.
fn line(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map(|json| json + "\n").map_err(|error| io::internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use rectify_protocol::{ArchitectureKind, EditMode, EditorSpec, Measured};

    use super::*;

    fn cell(seed: u64) -> Cell {
        Cell {
            schema: Cell::SCHEMA,
            program: "rectify".into(),
            device: "flex".into(),
            model: "m".into(),
            model_hash: "h".into(),
            facts: ["f".into(), "h".into()],
            index: [0, 2],
            mode: EditMode::Single,
            batch: 1,
            editor: EditorSpec::published("rome", ArchitectureKind::Gpt2).unwrap(),
            covariance: None,
            tasks: vec![],
            limit: None,
            snippets: None,
            moments: None,
            hypernetwork: None,
            ignored: vec![],
            precision: rectify_protocol::Precision::F32,
            skipped: vec![],
            seed,
        }
    }

    fn row(item: usize) -> Row {
        let measured = Measured::Refused { item, reason: "no".into() };
        Row { regularizer: Regularizer::Rect { keep: 0.4 }, edits: 1, measured }
    }

    fn only_file(folder: &Path) -> PathBuf {
        fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()
    }

    fn open(folder: &Path, cell: &Cell) -> Rows {
        Rows::open(folder, cell, Share::WHOLE, false).unwrap().expect("nobody else works on it")
    }

    #[test]
    fn parts_are_written_as_numbers_or_said_by_an_array() {
        let set =
            |name: &'static str, value: &'static str| move |asked: &str| (asked == name).then(|| value.to_owned());
        let nothing = |_: &str| None;
        assert_eq!(Share::read("2/5", nothing).unwrap(), Share { part: 2, of: 5 });
        for array in Share::ARRAYS {
            assert_eq!(Share::read("auto/5", set(array, "3")).unwrap(), Share { part: 3, of: 5 });
        }
        for (text, part) in [
            ("3", "N/OF"),
            ("5/5", "from 0"),
            ("0/0", "from 0"),
            ("-1/2", "N/OF"),
            ("0/20000", "at most 10000"),
            ("auto/5", "none of SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX, HQ_TASK_ID is set"),
        ] {
            let failure = Share::read(text, nothing).unwrap_err();
            assert!(failure.message.contains(part) && failure.message.contains(text), "{failure}");
        }
        let failure = Share::read("auto/5", set("HQ_TASK_ID", "5")).unwrap_err();
        assert!(failure.message.contains("from 0"), "{failure}");
        let failure = Share::read("auto/5", set("HQ_TASK_ID", "x")).unwrap_err();
        assert!(failure.message.contains("HQ_TASK_ID is \"x\""), "{failure}");
        // Every unit is in one part.
        for unit in 0..20 {
            assert_eq!((0..7).filter(|part| Share { part: *part, of: 7 }.has(unit)).count(), 1);
        }
    }

    #[test]
    fn a_file_that_says_nothing_of_a_cell_is_left_as_it_is_and_named() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), &cell(0)).add(row(0)).unwrap();
        let path = only_file(folder.path());
        let whole = fs::read_to_string(&path).unwrap();
        for text in ["what somebody wrote\n".to_owned(), whole.replacen("{\"schema\"", "{\"shema\"", 1), "{}\n".into()]
        {
            fs::write(&path, &text).unwrap();
            let mut rows = open(folder.path(), &cell(0));
            assert!(rows.have().is_empty());
            rows.add(row(1)).unwrap();
            drop(rows);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            let read = read_folder(folder.path()).unwrap();
            assert_eq!(read.cells[0].1, [row(1)]);
            assert!(read.problems[0].contains("line 1 does not begin"), "{:?}", read.problems);
            fs::remove_file(folder.path().join(path.file_name().unwrap().to_str().unwrap().replace("0000", "0001")))
                .unwrap();
        }
    }

    #[test]
    fn rows_are_there_again_and_half_a_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut rows = open(folder.path(), &cell(0));
        rows.add(row(0)).unwrap();
        rows.add(row(1)).unwrap();
        drop(rows);
        let path = only_file(folder.path());
        let whole = fs::read(&path).unwrap();
        for cut in 1..40 {
            fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            assert_eq!(read_folder(folder.path()).unwrap().cells[0].1, [row(0)], "a reader sees whole rows only");
            let mut rows = open(folder.path(), &cell(0));
            assert!(rows.has(row(0).regularizer, 1, &Key::Refused(0)));
            assert!(!rows.has(row(0).regularizer, 1, &Key::Refused(1)), "cut by {cut}");
            rows.add(row(1)).unwrap();
            let added = rows.path.clone();
            drop(rows);
            let read = read_folder(folder.path()).unwrap();
            assert_eq!((&read.cells[0].1[..], read.problems.len()), (&[row(0), row(1)][..], 0));
            fs::remove_file(added).unwrap();
        }
    }

    #[test]
    fn who_finds_nothing_to_add_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path(), &cell(0)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_share_of_a_cell_is_worked_on_by_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let other = |cell: &Cell, share| Rows::open(folder.path(), cell, share, false).unwrap();
        let first = open(folder.path(), &cell(0));
        assert!(other(&cell(0), Share::WHOLE).is_none());
        assert!(other(&cell(1), Share::WHOLE).is_some(), "another cell has other files");
        assert!(other(&cell(0), Share { part: 1, of: 2 }).is_some(), "and so has a part");
        drop(first);
        assert!(other(&cell(0), Share::WHOLE).is_some());
    }

    /// Two processes that did not see each other, a program of before files had parts, another machine: one cell.
    #[test]
    fn rows_of_every_attempt_are_one_cell_s_and_count_once() {
        let folder = tempfile::tempdir().unwrap();
        let share = |part| Share { part, of: 2 };
        let elsewhere = Cell { program: "older".into(), device: "cuda".into(), model: "/there/m".into(), ..cell(0) };
        let mut rows = Rows::open(folder.path(), &elsewhere, share(0), false).unwrap().unwrap();
        rows.add(row(0)).unwrap();
        rows.add(row(1)).unwrap();
        drop(rows);
        fs::rename(only_file(folder.path()), folder.path().join("rome-0-0123456789ab.jsonl")).unwrap();
        let mut zombie = Rows::open(folder.path(), &cell(0), share(1), false).unwrap().unwrap();
        let mut next = open(folder.path(), &cell(0));
        assert_eq!((zombie.have().len(), next.have().len()), (2, 2));
        next.add(row(2)).unwrap();
        zombie.add(row(2)).unwrap();
        drop((zombie, next));
        let read = read_folder(folder.path()).unwrap();
        let [(_, found)] = &read.cells[..] else { panic!("{} cells", read.cells.len()) };
        assert_eq!(found.len(), 3);
        assert_eq!(found.iter().filter(|found| **found == row(2)).count(), 1);
        let problems = read.problems.join("\n");
        assert!(problems.contains("measured already, and counted once"), "{problems}");
        assert!(problems.contains("by older on cuda"), "{problems}");
    }

    #[test]
    fn a_line_that_is_no_row_is_named_and_set_aside_where_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut rows = open(folder.path(), &cell(0));
        rows.add(row(0)).unwrap();
        rows.add(row(1)).unwrap();
        drop(rows);
        let path = only_file(folder.path());
        let whole = fs::read(&path).unwrap();
        let damaged = String::from_utf8(whole).unwrap().replacen("{\"regularizer\"", "{\"regulXrizer\"", 1);
        let damaged = [damaged.as_bytes(), b"\xff\xfe\n"].concat();
        fs::write(&path, &damaged).unwrap();

        let failure = Rows::open(folder.path(), &cell(0), Share::WHOLE, false).err().unwrap();
        assert!(failure.message.contains("line 2 is no row") && failure.message.contains("--repair"), "{failure}");
        let read = read_folder(folder.path()).unwrap();
        assert_eq!(read.cells[0].1, [row(1)], "a report goes on");
        assert_eq!(read.problems.len(), 2, "{:?}", read.problems);

        let mut rows = Rows::open(folder.path(), &cell(0), Share::WHOLE, true).unwrap().unwrap();
        assert!(!rows.has(row(0).regularizer, 1, &Key::Refused(0)));
        assert!(rows.has(row(1).regularizer, 1, &Key::Refused(1)));
        rows.add(row(0)).unwrap();
        drop(rows);
        let read = read_folder(folder.path()).unwrap();
        assert_eq!((&read.cells[0].1[..], read.problems.len()), (&[row(0), row(1)][..], 0));
        let aside = fs::read(path.with_extension("jsonl.bad")).unwrap();
        assert_eq!(aside.split(|byte| *byte == b'\n').count(), 3, "both lines are kept");
        drop(open(folder.path(), &cell(0)));
    }

    #[test]
    fn what_a_cell_reads_is_part_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let cells = [
            cell(0),
            Cell { moments: Some("a".into()), ..cell(0) },
            Cell { moments: Some("b".into()), ..cell(0) },
            Cell { hypernetwork: Some("a".into()), ..cell(0) },
            Cell { mode: EditMode::Sequential, ..cell(0) },
            Cell { mode: EditMode::Sequential, skipped: vec![1], ..cell(0) },
        ];
        let names: HashSet<PathBuf> = cells.iter().map(|cell| open(folder.path(), cell).path.clone()).collect();
        assert_eq!(names.len(), cells.len(), "by their hashes");
    }
}
