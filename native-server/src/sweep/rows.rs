use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
};

use rectify_figures::Sweep;
use rectify_protocol::{Cell, Failure, Key, Regularizer, Row};

use crate::io;

/// A cell's file, locked: what it is about on its first line, then one row a line.
pub struct Rows {
    path: PathBuf,
    file: File,
    /// What is measured already, by [`Row::id`].
    have: HashSet<(String, usize, Key)>,
}

impl Rows {
    /// Opens or begins the file of a cell in `folder`. `None` when another process has it.
    ///
    /// A last line that was cut in the middle is dropped. With `repair`, other lines that are no rows are set aside, into
    /// a file of their own beside this one.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or written, is about something else, or has a line that is no row.
    pub fn open(folder: &Path, cell: &Cell, repair: bool) -> Result<Option<Self>, Failure> {
        fs::create_dir_all(folder).map_err(|error| io::cannot_write(folder, &error))?;
        let head = line(cell)?;
        let path = folder.join(file_name(cell, &head));
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(|error| io::cannot_write(&path, &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(io::cannot_write(&path, &error)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| io::cannot_read(&path, &error))?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if whole == 0 && !head.as_bytes().starts_with(&bytes) {
            return Err(Failure::bad_input(format!(
                "{} holds no rows: it has no line that ends; move it away",
                path.display()
            )));
        }
        bytes.truncate(whole);
        let mut rows = Self { path, file, have: HashSet::new() };
        rows.cut(whole as u64)?;
        if bytes.is_empty() {
            rows.append(&head)?;
            return Ok(Some(rows));
        }
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let first = lines.next().unwrap_or_default();
        if first.trim_ascii_end() != head.trim_end().as_bytes() {
            return Err(Failure::bad_input(format!(
                "{} does not begin with what its rows are about; move it away, and its rows are measured again",
                rows.path.display()
            )));
        }
        let (mut at, mut bad) = (first.len(), Vec::new());
        for (number, line) in (2..).zip(lines) {
            let place = at..at + line.len() - 1;
            at += line.len();
            if line.trim_ascii().is_empty() {
                continue; // Set aside earlier.
            }
            match serde_json::from_slice::<Row>(line) {
                Ok(row) => rows.know(&row),
                Err(_) if repair => bad.push(place),
                Err(error) => {
                    return Err(Failure::bad_input(format!(
                        "{} line {number} is no row: {error}; `rectify sweep … --repair` sets such lines aside and \
                         measures again what they stood for",
                        rows.path.display()
                    )));
                }
            }
        }
        rows.set_aside(&bytes, &bad)?;
        Ok(Some(rows))
    }

    /// Moves lines to a file of their own. Spaces take their place: no other line moves, so that whoever reads meanwhile,
    /// or a stop in the middle, finds every row whole.
    fn set_aside(&mut self, bytes: &[u8], lines: &[Range<usize>]) -> Result<(), Failure> {
        if lines.is_empty() {
            return Ok(());
        }
        let aside = self.path.with_extension("jsonl.bad");
        let mut move_lines = || {
            let mut kept = OpenOptions::new().create(true).append(true).open(&aside)?;
            for line in lines {
                kept.write_all(&bytes[line.clone()])?;
                kept.write_all(b"\n")?;
            }
            kept.sync_all()?;
            for line in lines {
                self.file.seek(SeekFrom::Start(line.start as u64))?;
                self.file.write_all(&vec![b' '; line.len()])?;
            }
            self.file.seek(SeekFrom::End(0)).map(drop)
        };
        move_lines().map_err(|error| io::cannot_write(&aside, &error))?;
        io::warn(&format!("{} lines of {} are set aside in {}", lines.len(), self.path.display(), aside.display()));
        Ok(())
    }

    /// Whether this is measured.
    pub fn has(&self, regularizer: Regularizer, edits: usize, key: &Key) -> bool {
        self.have.contains(&(regularizer.to_string(), edits, key.clone()))
    }

    /// How many rows there are.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.have.len()
    }

    /// Adds a row; it is on its way to the disk when this returns.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn add(&mut self, row: Row) -> Result<(), Failure> {
        self.append(&line(&row)?)?;
        self.know(&row);
        Ok(())
    }

    fn know(&mut self, row: &Row) {
        self.have.insert(row.id());
    }

    /// One write for one line: another reader sees all of it or nothing but its beginning.
    fn append(&mut self, line: &str) -> Result<(), Failure> {
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.flush());
        written.map_err(|error| io::cannot_write(&self.path, &error))
    }

    fn cut(&mut self, length: u64) -> Result<(), Failure> {
        let cut = self.file.set_len(length).and_then(|()| self.file.seek(SeekFrom::End(0)));
        cut.map(drop).map_err(|error| io::cannot_write(&self.path, &error))
    }
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
        sweep.add_file(&path.display().to_string(), &whole_lines(&path)?);
    }
    Ok(sweep)
}

/// JSON on one line.
fn line(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map(|json| json + "\n").map_err(|error| io::internal(error.to_string()))
}

fn file_name(cell: &Cell, head: &str) -> String {
    let hash = io::sha256_of(head.as_bytes());
    format!("{}-{}-{}.jsonl", cell.editor.method(), cell.seed, &hash[..12])
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

    #[test]
    fn a_file_that_holds_something_else_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        drop(Rows::open(folder.path(), &cell(0), false).unwrap().unwrap());
        let path = only_file(folder.path());
        let head = fs::read_to_string(&path).unwrap();
        for text in ["what somebody wrote".to_owned(), head.replace('\n', "\r")] {
            fs::write(&path, &text).unwrap();
            let failure = Rows::open(folder.path(), &cell(0), true).map(drop).unwrap_err();
            assert!(failure.message.contains("holds no rows"), "{failure}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        // Unless it is what a stop left of the first line.
        fs::write(&path, &head[..20]).unwrap();
        assert!(Rows::open(folder.path(), &cell(0), false).unwrap().is_some());
    }

    #[test]
    fn rows_are_there_again_and_half_a_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut rows = Rows::open(folder.path(), &cell(0), false).unwrap().unwrap();
        rows.add(row(0)).unwrap();
        rows.add(row(1)).unwrap();
        drop(rows);
        let path = only_file(folder.path());
        let whole = fs::read(&path).unwrap();
        for cut in 1..40 {
            fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            assert_eq!(read_folder(folder.path()).unwrap().cells[0].1, [row(0)], "a reader sees whole rows only");
            let mut rows = Rows::open(folder.path(), &cell(0), false).unwrap().unwrap();
            assert!(rows.has(row(0).regularizer, 1, &Key::Refused(0)));
            assert!(!rows.has(row(0).regularizer, 1, &Key::Refused(1)), "cut by {cut}");
            rows.add(row(1)).unwrap();
            drop(rows);
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn a_cell_is_worked_on_by_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let first = Rows::open(folder.path(), &cell(0), false).unwrap();
        assert!(first.is_some());
        assert!(Rows::open(folder.path(), &cell(0), false).unwrap().is_none());
        assert!(Rows::open(folder.path(), &cell(1), false).unwrap().is_some(), "another cell has another file");
        drop(first);
        assert!(Rows::open(folder.path(), &cell(0), false).unwrap().is_some());
    }

    #[test]
    fn a_line_that_is_no_row_is_named_and_set_aside_where_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut rows = Rows::open(folder.path(), &cell(0), false).unwrap().unwrap();
        rows.add(row(0)).unwrap();
        rows.add(row(1)).unwrap();
        drop(rows);
        let path = only_file(folder.path());
        let whole = fs::read(&path).unwrap();
        let damaged = String::from_utf8(whole.clone()).unwrap().replacen("{\"regularizer\"", "{\"regulXrizer\"", 1);
        let damaged = [damaged.as_bytes(), b"\xff\xfe\n"].concat();
        fs::write(&path, &damaged).unwrap();

        let failure = Rows::open(folder.path(), &cell(0), false).err().unwrap();
        assert!(failure.message.contains("line 2 is no row") && failure.message.contains("--repair"), "{failure}");
        let read = read_folder(folder.path()).unwrap();
        assert_eq!(read.cells[0].1, [row(1)], "a report goes on");
        assert_eq!(read.problems.len(), 2, "{:?}", read.problems);

        let mut rows = Rows::open(folder.path(), &cell(0), true).unwrap().unwrap();
        assert!(!rows.has(row(0).regularizer, 1, &Key::Refused(0)));
        assert!(rows.has(row(1).regularizer, 1, &Key::Refused(1)));
        rows.add(row(0)).unwrap();
        drop(rows);
        let read = read_folder(folder.path()).unwrap();
        assert_eq!((&read.cells[0].1[..], read.problems.len()), (&[row(1), row(0)][..], 0));
        let aside = fs::read(path.with_extension("jsonl.bad")).unwrap();
        assert_eq!(aside.split(|byte| *byte == b'\n').count(), 3, "both lines are kept");
        assert!(Rows::open(folder.path(), &cell(0), false).unwrap().is_some(), "once is enough");
    }

    #[test]
    fn rows_about_something_else_are_named() {
        let folder = tempfile::tempdir().unwrap();
        drop(Rows::open(folder.path(), &cell(0), false).unwrap());
        fs::write(only_file(folder.path()), "{}\n").unwrap();
        let failure = Rows::open(folder.path(), &cell(0), true).err().unwrap();
        assert!(failure.message.contains("move it away"), "{failure}");
    }

    #[test]
    fn what_a_cell_reads_is_part_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let cells = [
            cell(0),
            Cell { moments: Some("a".into()), ..cell(0) },
            Cell { moments: Some("b".into()), ..cell(0) },
            Cell { hypernetwork: Some("a".into()), ..cell(0) },
            Cell { skipped: vec![1], ..cell(0) },
        ];
        let open = cells.iter().map(|cell| Rows::open(folder.path(), cell, false).unwrap().unwrap());
        let names: HashSet<PathBuf> = open.map(|rows| rows.path).collect();
        assert_eq!(names.len(), cells.len());
    }
}
