//! Files, with the path in every complaint.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use memmap2::Mmap;
use rectify_protocol::{Failure, Kind};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// A failure to read what the asker named: theirs to mend.
pub fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    let kind = if error.kind() == io::ErrorKind::NotFound { Kind::NotFound } else { Kind::BadInput };
    Failure::new(kind, format!("cannot read {}: {}", path.display(), reason(error)))
}

/// A failure to write, which is the machine's: a full disk, a missing permission.
pub fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Kind::Internal, format!("cannot write {}: {}", path.display(), reason(error)))
}

/// Writes a file whole or not at all, whoever else writes it at the same time.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    write_with(path, |file| io::Write::write_all(file, bytes))
}

/// The same where somebody else has the bytes.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut fs::File) -> io::Result<()>) -> Result<(), Failure> {
    let part = path.with_added_extension(format!("{}.part", nobody_else_s()?));
    let write = || {
        let mut file = fs::File::create(&part)?;
        fill(&mut file)?;
        file.sync_all()?; // A full disk may show only here.
        fs::rename(&part, path)
    };
    write().map_err(|error| {
        // What is half-written would be in the way of whoever lists the folder; if it cannot go, the error is told anyway.
        let _ = fs::remove_file(&part);
        cannot_write(path, &error)
    })
}

/// Writes a file that only its owner can read, where there is none.
pub fn write_secret(path: &Path, text: &str) -> Result<(), Failure> {
    let write = || {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder)?;
        }
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        io::Write::write_all(&mut options.open(path)?, text.as_bytes())
    };
    write().map_err(|error| cannot_write(path, &error))
}

/// Letters for a temporary name that no other process chooses, on this machine or on another that shares the folder.
pub fn nobody_else_s() -> Result<String, Failure> {
    let drawn = getrandom::u64().map_err(|error| internal(format!("the system gives no random numbers: {error}")))?;
    Ok(format!("{drawn:016x}"))
}

/// A failure that is nobody's fault but ours or the machine's.
pub fn internal(message: impl Into<String>) -> Failure {
    Failure::new(Kind::Internal, message)
}

/// The system's words in our style: lower case, no error number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// What an earlier run of another kind keeps, and this one would overwrite; `of` says what it is.
pub fn another_s(file: &str, of: &str) -> Failure {
    Failure::bad_input(format!("{file} {of}; move it away to begin anew here, or name another --out"))
}

/// A whole text file, which must be UTF-8.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    text(&path.display().to_string(), read_bytes(path)?)
}

/// The text of a file of this name, which must be UTF-8.
pub fn text(name: &str, bytes: Vec<u8>) -> Result<String, Failure> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        // The hub has many data sets in this form alone.
        let parquet = error.as_bytes().starts_with(b"PAR1");
        let hint = if parquet { "; it is a Parquet file, whose rows are wanted as JSON Lines" } else { "" };
        Failure::bad_input(format!("{name} is not UTF-8 text: byte {at}{hint}"))
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// The last bytes of a file that a person may want to read; nothing where it cannot be read.
pub fn tail(path: &Path, bytes: u64) -> String {
    let tail = || {
        let mut file = fs::File::open(path)?;
        let size = file.metadata()?.len();
        io::Seek::seek(&mut file, io::SeekFrom::Start(size.saturating_sub(bytes)))?;
        let mut tail = Vec::new();
        file.take(bytes).read_to_end(&mut tail)?;
        io::Result::Ok(String::from_utf8_lossy(&tail).into_owned())
    };
    tail().unwrap_or_default()
}

/// All that comes through standard input, which must be UTF-8.
pub fn read_stdin() -> Result<String, Failure> {
    let name = Path::new("standard input");
    let mut bytes = Vec::new();
    let read = io::stdin().take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| cannot_read(name, &error))?;
    if read as u64 > LARGEST {
        return Err(endless(name));
    }
    text("standard input", bytes)
}

/// Bytes of whatever has no size of its own.
const LARGEST: u64 = 1 << 28;

fn endless(path: &Path) -> Failure {
    Failure::bad_input(format!("{} does not end within {} MiB", path.display(), LARGEST >> 20))
}

/// A whole file, or what comes through a pipe: whatever has no size of its own must end.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    let read = || {
        let file = fs::File::open(path)?;
        if file.metadata()?.is_file() {
            return fs::read(path).map(Some);
        }
        let mut bytes = Vec::new();
        let read = file.take(LARGEST + 1).read_to_end(&mut bytes)?;
        Ok((read as u64 <= LARGEST).then_some(bytes))
    };
    read().map_err(|error: io::Error| cannot_read(path, &error))?.ok_or_else(|| endless(path))
}

/// A file as memory, read as it is touched.
pub fn map(path: &Path) -> Result<Mmap, Failure> {
    let file = fs::File::open(path).map_err(|error| cannot_read(path, &error))?;
    if file.metadata().map_err(|error| cannot_read(path, &error))?.is_dir() {
        return Err(Failure::bad_input(format!("cannot read {}: it is a folder", path.display())));
    }
    // SAFETY: the mapping is read-only and its file is a checkpoint that nobody rewrites while we read it;
    // a program that truncates it meanwhile ends this one with SIGBUS, and no wrong value is read.
    unsafe { Mmap::map(&file) }.map_err(|error| cannot_read(path, &error))
}

/// SHA-256 of a file, hexadecimal, and its size.
pub fn sha256(path: &Path) -> Result<(String, u64), Failure> {
    let mut file = fs::File::open(path).map_err(|error| cannot_read(path, &error))?;
    let mut hasher = Sha256::new();
    let size = io::copy(&mut file, &mut hasher).map_err(|error| cannot_read(path, &error))?;
    Ok((hexadecimal(&hasher.finalize()), size))
}

/// SHA-256 of some bytes, hexadecimal.
pub fn sha256_of(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A value as an indented JSON document with a final newline.
pub fn to_json<T: Serialize>(value: &T) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| internal(format!("cannot write JSON: {error}")))?;
    Ok(text + "\n")
}

/// Writes what a command answers. A reader that has gone away (`| head`) is not an error.
pub fn print(out: &mut dyn io::Write, text: &str) -> Result<(), Failure> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(cannot_write(Path::new("stdout"), &error)),
        _ => Ok(()),
    }
}

/// How stderr is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Messages {
    /// For people.
    #[default]
    Text,
    /// For programs: each line is an object with one field, which says what it is.
    Json,
}

/// Whether stderr is for programs. Said once, by the command line.
static FOR_PROGRAMS: AtomicBool = AtomicBool::new(false);

impl Messages {
    /// Writes stderr so from now on.
    pub fn speak(self) {
        FOR_PROGRAMS.store(self == Self::Json, Ordering::Relaxed);
    }

    /// How stderr is written.
    pub fn spoken() -> Self {
        if FOR_PROGRAMS.load(Ordering::Relaxed) { Self::Json } else { Self::Text }
    }
}

/// A line on stderr; when nobody reads it any more, nobody is left to tell.
fn tell<T: Serialize>(kind: &str, value: T, text: &str) {
    let line = match Messages::spoken() {
        Messages::Text => format!("{text}\n"),
        Messages::Json => format!("{}\n", serde_json::json!({ kind: value })),
    };
    let _ = io::Write::write_all(&mut io::stderr(), line.as_bytes());
}

/// A line for the person at the terminal; never on stdout.
pub fn say(message: &str) {
    tell("say", message, message);
}

/// Says what a command failed of.
pub fn fail(failure: &Failure) {
    tell("failure", failure, &format!("error: {failure}"));
}

/// Says how far a command is, where no terminal shows it.
pub fn say_progress(text: &str, done: u64, total: u64) {
    let progress = serde_json::json!({ "text": text, "done": done, "total": total });
    tell("progress", progress, &format!("{text}: {done} of {total}"));
}

/// Whether a prompt is another text than it seems: what models say next begins with the space.
pub fn ends_in_space(prompt: &str) -> bool {
    prompt.ends_with(char::is_whitespace)
}

/// Warns of such a prompt.
pub fn warn_of_space(what: &str) {
    warn(&format!("{what} ends in a space; answers begin with one, so a model was seldom trained on such a text"));
}

/// A warning for the person at the terminal; never on stdout.
pub fn warn(message: &str) {
    tell("warning", message, &format!("warning: {message}"));
}
