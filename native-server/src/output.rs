//! Folders of results: complete, or not there at all.
//!
//! Files are written to a temporary folder and moved when all of them are complete. Where the target does not
//! exist yet, that is one rename of the whole folder; an existing target (perhaps a mounted disk of its own)
//! receives file by file, `report.json` last. A full disk or Ctrl-C leaves the target as it was.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use rectify_protocol::Failure;

use crate::io::{cannot_read, cannot_write, nobody_else_s};

/// What a folder of results may hold, which decides what may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `report.json` and `delta*.safetensors`. A new result replaces an old one.
    Edit,
    /// `moment.LAYER.safetensors`, and beside them the factors that edits have made of them: other layers' files stay.
    Moments,
    /// `report.json` and `samples.TASK.jsonl`; until then what was measured so far. A new result replaces an old one.
    Eval,
    /// `trace.json`, `trace.svg` and `traces.jsonl`. A new result replaces an old one.
    Trace,
    /// A model: only into a new or empty folder.
    Model,
}

impl Kind {
    fn is_own(self, name: &str) -> bool {
        // What was on its way when a run was killed is of the same kind as what it was to become.
        let name = name.strip_suffix(".part").and_then(|name| name.rsplit_once('.')).map_or(name, |(name, _)| name);
        match self {
            Self::Edit => name == REPORT || name.starts_with("delta.") && name.ends_with(".safetensors"),
            Self::Eval => [REPORT, PARTIAL].contains(&name) || name.starts_with("samples.") && name.ends_with(".jsonl"),
            Self::Trace => [TRACE, "trace.svg", "traces.jsonl"].contains(&name),
            Self::Moments => {
                (name.starts_with("moment.") || name.starts_with("factor.")) && name.ends_with(".safetensors")
            }
            Self::Model => false,
        }
    }
}

/// The file that says what an edit did; a folder with it is an earlier result.
pub const REPORT: &str = "report.json";

/// What a stopped evaluation has measured.
pub const PARTIAL: &str = "report.partial.json";

/// What was traced.
pub const TRACE: &str = "trace.json";

/// A folder of results that is being written. Dropping it without [`OutDir::commit`] leaves no trace.
#[derive(Debug)]
pub struct OutDir {
    kind: Kind,
    target: PathBuf,
    temporary: PathBuf,
}

impl OutDir {
    /// Checks that results may go to `target`, before any work is done for them.
    pub fn prepare(target: &Path, kind: Kind) -> Result<Self, Failure> {
        let target_exists = match fs::read_dir(target) {
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                return Err(Failure::bad_input(format!("{} is a file; --out names a folder", target.display())));
            }
            Err(error) => return Err(cannot_read(target, &error)),
            Ok(entries) => {
                for entry in entries {
                    let name = entry.map_err(|error| cannot_read(target, &error))?.file_name();
                    let name = name.to_string_lossy();
                    if !kind.is_own(&name) && !name.starts_with(TEMPORARY) && name != "lost+found" {
                        return Err(Failure::bad_input(format!(
                            "{} holds {name:?}, which is no result of this command; name a new or empty folder",
                            target.display()
                        )));
                    }
                }
                true
            }
        };
        let name = format!("{TEMPORARY}{}", nobody_else_s()?);
        let temporary = match target_exists {
            true => target.join(name),
            false => {
                let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(Path::new("."));
                fs::create_dir_all(parent).map_err(|error| cannot_write(target, &error))?;
                parent.join(name)
            }
        };
        fs::create_dir(&temporary).map_err(|error| cannot_write(target, &error))?;
        Ok(Self { kind, target: target.to_owned(), temporary })
    }

    /// Where a file is to be written by somebody else.
    pub fn path(&self, name: &str) -> PathBuf {
        self.temporary.join(name)
    }

    /// Writes one file.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let write = || {
            let mut file = fs::File::create(self.path(name))?;
            std::io::Write::write_all(&mut file, bytes)?;
            file.sync_all() // A full disk may show only here.
        };
        write().map_err(|error| self.cannot_write(name, &error))
    }

    /// Gives a file that somebody else wrote the permissions that ours have: some libraries make files for one user alone.
    pub fn publish(&self, name: &str) -> Result<(), Failure> {
        let publish = || {
            let ours = self.path(".permissions");
            let permissions = fs::File::create(&ours)?.metadata()?.permissions();
            fs::remove_file(&ours)?;
            fs::set_permissions(self.path(name), permissions)
        };
        publish().map_err(|error| self.cannot_write(name, &error))
    }

    /// A failure to write a file, by the name it was going to have.
    pub fn cannot_write(&self, name: &str, error: &std::io::Error) -> Failure {
        cannot_write(&self.target.join(name), error)
    }

    /// Puts everything in its place.
    pub fn commit(self) -> Result<(), Failure> {
        // A long run may have made the folder meanwhile, to note how far it is.
        let result = if self.target.is_dir() { self.move_files() } else { fs::rename(&self.temporary, &self.target) };
        result.map_err(|error| cannot_write(&self.target, &error))
    }

    fn move_files(&self) -> std::io::Result<()> {
        if matches!(self.kind, Kind::Edit | Kind::Eval | Kind::Trace) {
            // The report goes first, so that no old report ever lies beside new deltas.
            let old = names(&self.target)?.into_iter().filter(|name| self.kind.is_own(name) && name != PARTIAL);
            let mut old: Vec<_> = old.collect();
            old.sort_by_key(|name| name != REPORT);
            old.iter().try_for_each(|name| fs::remove_file(self.target.join(name)))?;
        }
        let mut new = names(&self.temporary)?;
        new.sort_by_key(|name| name == REPORT);
        new.iter().try_for_each(|name| fs::rename(self.temporary.join(name), self.target.join(name)))?;
        // It is needed until everything else is in its place.
        match fs::remove_file(self.target.join(PARTIAL)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for OutDir {
    fn drop(&mut self) {
        // It is not there any more when it became the target; and what cannot be removed harms nobody.
        let _ = fs::remove_dir_all(&self.temporary);
    }
}

/// How temporary folders begin; one that a killed process left is no obstacle.
const TEMPORARY: &str = ".rectify-unfinished-";

fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(folder: &Path, expected: &[&str]) {
        let mut found = names(folder).unwrap();
        found.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn nothing_is_there_until_everything_is() {
        let here = tempfile::tempdir().unwrap();
        let target = here.path().join("deep/out");
        let out = OutDir::prepare(&target, Kind::Edit).unwrap();
        out.write("delta.safetensors", b"new").unwrap();
        assert!(!target.exists());
        out.write(REPORT, b"{}").unwrap();
        out.commit().unwrap();
        check(&target, &["delta.safetensors", "report.json"]);
        check(&here.path().join("deep"), &["out"]);
    }

    #[test]
    fn what_is_not_finished_leaves_no_trace() {
        let here = tempfile::tempdir().unwrap();
        OutDir::prepare(&here.path().join("out"), Kind::Edit).unwrap().write(REPORT, b"{}").unwrap();
        check(here.path(), &[]);
        fs::write(here.path().join(REPORT), "old").unwrap();
        OutDir::prepare(here.path(), Kind::Edit).unwrap().write(REPORT, b"{}").unwrap();
        check(here.path(), &[REPORT]);
        assert_eq!(fs::read(here.path().join(REPORT)).unwrap(), b"old");
    }

    #[test]
    fn an_earlier_result_is_replaced_as_a_whole() {
        let here = tempfile::tempdir().unwrap();
        for name in [REPORT, "delta.0.safetensors", "delta.1.safetensors"] {
            fs::write(here.path().join(name), "old").unwrap();
        }
        let out = OutDir::prepare(here.path(), Kind::Edit).unwrap();
        out.write("delta.safetensors", b"new").unwrap();
        out.write(REPORT, b"new").unwrap();
        out.commit().unwrap();
        check(here.path(), &["delta.safetensors", REPORT]);
        assert_eq!(fs::read(here.path().join(REPORT)).unwrap(), b"new");
    }

    #[test]
    fn moments_of_other_layers_stay() {
        let here = tempfile::tempdir().unwrap();
        fs::write(here.path().join("moment.4.safetensors"), "old").unwrap();
        let out = OutDir::prepare(here.path(), Kind::Moments).unwrap();
        out.write("moment.5.safetensors", b"new").unwrap();
        out.commit().unwrap();
        check(here.path(), &["moment.4.safetensors", "moment.5.safetensors"]);
    }

    #[test]
    fn foreign_files_are_never_touched() {
        let here = tempfile::tempdir().unwrap();
        fs::write(here.path().join("thesis.tex"), "x").unwrap();
        for kind in [Kind::Edit, Kind::Moments, Kind::Model] {
            let failure = OutDir::prepare(here.path(), kind).unwrap_err();
            assert!(failure.message.contains("holds \"thesis.tex\""), "{failure}");
        }
        let failure = OutDir::prepare(&here.path().join("thesis.tex"), Kind::Edit).unwrap_err();
        assert!(failure.message.contains("is a file"), "{failure}");
    }

    #[test]
    fn a_disk_that_cannot_be_written_is_named() {
        let failure = OutDir::prepare(Path::new("/proc/nowhere/out"), Kind::Edit).unwrap_err();
        assert!(failure.message.contains("/proc/nowhere/out"), "{failure}");
    }
}
