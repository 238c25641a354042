use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use rectify_figures::Sweep;
use rectify_protocol::{Cell, Failure, Regularizer, Row};
use sha2::{Digest, Sha256};

use super::Key;
use crate::io;

/// A cell's file, locked: what it is about on its first line, then one row a line.
pub struct Rows {
    path: PathBuf,
    file: File,
    /// What is measured already. A regularizer is known by its text, for shares are no keys.
    have: HashSet<(String, usize, Key)>,
}

impl Rows {
    /// Opens or begins the file of a cell in `folder`. `None` when another process has it.
    ///
    /// A last line that was cut in the middle is dropped.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or written, or is about something else.
    pub fn open(folder: &Path, cell: &Cell) -> Result<Option<Self>, Failure> {
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
        let text = String::from_utf8(bytes[..whole].to_vec())
            .map_err(|_| Failure::bad_input(format!("{} is not UTF-8", path.display())))?;
        let mut rows = Self { path, file, have: HashSet::new() };
        rows.cut(whole as u64)?;
        match text.split_once('\n') {
            None => rows.append(&head)?,
            Some((first, rest)) => {
                if first.trim_end() != head.trim_end() {
                    return Err(Failure::bad_input(format!("{} is about another sweep", rows.path.display())));
                }
                for (number, row) in (2..).zip(rest.lines()) {
                    let row: Row = serde_json::from_str(row).map_err(|error| {
                        Failure::bad_input(format!("{} line {number} is no row: {error}", rows.path.display()))
                    })?;
                    rows.know(&row);
                }
            }
        }
        Ok(Some(rows))
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
        self.have.insert((row.regularizer.to_string(), row.edits, Key::of(&row.measured)));
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

/// A file's text as far as its lines are whole: the last one may be on its way, and cut in the middle of a letter.
///
/// # Errors
///
/// When it cannot be read, or is not text.
pub fn whole_lines(path: &Path) -> Result<String, Failure> {
    let mut bytes = io::read_bytes(path)?;
    bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
    String::from_utf8(bytes).map_err(|_| Failure::bad_input(format!("{} is not UTF-8", path.display())))
}

/// The sweep whose rows are in a folder; its files in a fixed order.
///
/// # Errors
///
/// When a file cannot be read.
pub fn read_folder(folder: &Path) -> Result<Sweep, Failure> {
    let paths = files(folder).map_err(|error| io::cannot_read(folder, &error))?;
    let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
    let mut sweep = Sweep { name, cells: Vec::new() };
    for path in paths {
        sweep.add_file(&path.display().to_string(), &whole_lines(&path)?)?;
    }
    Ok(sweep)
}

/// JSON on one line.
fn line(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map(|json| json + "\n").map_err(|error| io::internal(error.to_string()))
}

fn file_name(cell: &Cell, head: &str) -> String {
    let hash: String = Sha256::digest(head).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{hash}.jsonl", cell.editor.method(), cell.seed)
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
    fn rows_are_there_again_and_half_a_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut rows = Rows::open(folder.path(), &cell(0)).unwrap().unwrap();
        rows.add(row(0)).unwrap();
        rows.add(row(1)).unwrap();
        drop(rows);
        let path = only_file(folder.path());
        let whole = fs::read(&path).unwrap();
        for cut in 1..40 {
            fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            assert_eq!(read_folder(folder.path()).unwrap().cells[0].1, [row(0)], "a reader sees whole rows only");
            let mut rows = Rows::open(folder.path(), &cell(0)).unwrap().unwrap();
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
        let first = Rows::open(folder.path(), &cell(0)).unwrap();
        assert!(first.is_some());
        assert!(Rows::open(folder.path(), &cell(0)).unwrap().is_none());
        assert!(Rows::open(folder.path(), &cell(1)).unwrap().is_some(), "another cell has another file");
        drop(first);
        assert!(Rows::open(folder.path(), &cell(0)).unwrap().is_some());
    }

    #[test]
    fn a_broken_line_in_the_middle_is_named() {
        let folder = tempfile::tempdir().unwrap();
        Rows::open(folder.path(), &cell(0)).unwrap().unwrap().add(row(0)).unwrap();
        let path = only_file(folder.path());
        fs::write(&path, fs::read_to_string(&path).unwrap() + "{}\n").unwrap();
        let failure = Rows::open(folder.path(), &cell(0)).err().unwrap();
        assert!(failure.message.contains("line 3 is no row"), "{failure}");
    }
}
