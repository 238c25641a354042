//! Data sets from the network to a folder: whole and readable, or not at all.
//!
//! A file is held in memory until our own reader has read it; only then is it written, under the name that says whose
//! it is. What cannot be had ends in [`by_hand`], which says what to place where.

use std::{
    io::{Cursor, Read},
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    time::Duration,
};

use rectify_core::task::Task;
use rectify_protocol::Failure;
use zip::ZipArchive;

use super::sets::{DataSet, Reader, Source};
use crate::{facts::EditSet, io, progress::Line, tasks};

/// A data set that is in its folder.
#[derive(Debug)]
pub struct Placed {
    /// The file.
    pub path: PathBuf,
    /// Records our reader found, and how many of them can be used.
    pub records: usize,
    /// Fewer than `records` only for edit sets, which may hold facts that nobody can edit.
    pub usable: usize,
    /// Whether it was there before.
    pub found: bool,
}

/// Gets a data set into `folder`, unless it is there.
///
/// # Errors
///
/// What went wrong, as one sentence; the folder is as it was.
pub fn fetch(set: &DataSet, folder: &Path, line: &Line) -> Result<Placed, String> {
    let path = folder.join(set.file);
    let name = path.display().to_string();
    if path.exists() {
        let (records, usable) = io::read_text(&path).and_then(|text| count(set, &name, &text)).map_err(text_of)?;
        return Ok(Placed { path, records, usable, found: true });
    }
    if let Reader::Task(id) = set.reader
        && folder.exists()
        && let Some(other) = tasks::files(task(id), folder).map_err(text_of)?.first()
    {
        // Two files for a task would leave `eval` with a choice that is not its to make.
        return Err(format!("{} is there for this task already", other.display()));
    }
    let bytes = match set.source {
        Source::Hub { repository, file } => from_web(&of_hub(repository, file), line)?,
        Source::Web(address) => from_web(address, line)?,
        Source::Archive { address, member } => member_of(&from_web(address, line)?, member)?,
    };
    let hash = io::sha256_of(&bytes);
    if let Some(known) = set.sha256
        && known != hash
    {
        return Err(format!("what came is not the file that was expected: its SHA-256 is {hash}, not {known}"));
    }
    let text = io::text(&name, bytes).map_err(text_of)?;
    let (records, usable) =
        count(set, &name, &text).map_err(|failure| format!("what came cannot be read: {failure}"))?;
    std::fs::create_dir_all(folder).map_err(|error| text_of(io::cannot_write(folder, &error)))?;
    io::write(&path, text.as_bytes()).map_err(text_of)?;
    Ok(Placed { path, records, usable, found: false })
}

/// What to do by hand, because of `reason`.
pub fn by_hand(set: &DataSet, folder: &Path, reason: &str) -> String {
    let mut text = format!(
        "{} was not fetched: {reason}\nTo place it by hand:\n  get      {}\n  licence  {}\n  as       {}\n  format   {}",
        set.id,
        set.place(),
        set.licence,
        folder.join(set.file).display(),
        set.format
    );
    if let Some(elsewhere) = set.elsewhere {
        text += &format!("\n  or       {elsewhere}");
    }
    text
}

/// How many records a file holds, and how many can be used.
fn count(set: &DataSet, name: &str, text: &str) -> Result<(usize, usize), Failure> {
    match set.reader {
        Reader::Task(id) => {
            let n = (task(id).read)(name, text)?.len();
            Ok((n, n))
        }
        Reader::Facts => {
            let facts = EditSet::read(name, text)?;
            let usable = (0..facts.len()).filter(|i| facts.facts(*i..i + 1).is_ok()).count();
            if usable == 0 {
                facts.facts(0..1)?; // Says what is wrong with it.
            }
            Ok((facts.len(), usable))
        }
    }
}

fn task(id: &str) -> &'static Task {
    Task::find(id).expect("the table names tasks that exist")
}

fn text_of(failure: Failure) -> String {
    failure.message
}

/// How long a server may say nothing.
pub(super) const SILENCE: Duration = Duration::from_secs(60);

/// Bytes that have come, of how many.
pub(super) type Told = mpsc::Sender<(u64, u64)>;

/// Shows how far a download is, and gives it up when nothing comes any more: its client would wait for ever.
pub(super) fn watched<T: Send + 'static>(
    file: &str,
    line: &Line,
    silence: Duration,
    download: impl FnOnce(Told) -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (told, news) = mpsc::channel();
    let download = std::thread::spawn(move || download(told));
    loop {
        match news.recv_timeout(silence) {
            Ok((done, total)) => line.show_count(&format!("fetching {file}"), done, total),
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("the server has sent nothing for {} s", silence.as_secs_f64()));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return download.join().unwrap_or_else(|_| Err("the download ended in the middle".into()));
            }
        }
    }
}

/// No data set here is near as large; what is larger is not one.
const LARGEST: u64 = 1 << 30;

/// The address of a file in a repository of data. `HF_ENDPOINT` says which hub is asked.
fn of_hub(repository: &str, file: &str) -> String {
    format!("{}/datasets/{repository}/resolve/main/{file}", super::endpoint())
}

/// What asks servers.
pub(super) fn agent() -> ureq::Agent {
    let settings = ureq::Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(60)));
    settings.build().into()
}

fn from_web(address: &str, line: &Line) -> Result<Vec<u8>, String> {
    let file = address.rsplit('/').next().unwrap_or(address);
    let address = address.to_owned();
    watched(file, line, SILENCE, move |told| read_web(&address, &told))
}

fn read_web(address: &str, told: &Told) -> Result<Vec<u8>, String> {
    let mut response = agent().get(address).call().map_err(|error| reason(&error))?;
    let total = response.body().content_length().unwrap_or(0);
    let mut body = response.body_mut().with_config().limit(LARGEST).reader();
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        match body.read(&mut piece).map_err(|error| format!("the download broke off: {error}"))? {
            0 => return Ok(bytes),
            n => bytes.extend_from_slice(&piece[..n]),
        }
        let _ = told.send((bytes.len() as u64, total.max(bytes.len() as u64)));
    }
}

/// One file of a ZIP archive; of a folder every file, as a line each, in the order of the numbers in their names.
fn member_of(archive: &[u8], member: &str) -> Result<Vec<u8>, String> {
    let broken = |error: &dyn std::fmt::Display| format!("what came is not the archive that was expected: {error}");
    let mut archive = ZipArchive::new(Cursor::new(archive)).map_err(|error| broken(&error))?;
    let mut names: Vec<String> = if member.ends_with('/') {
        let names = archive.file_names().filter_map(|name| name.ok().map(std::borrow::Cow::into_owned));
        names.filter(|name| name.starts_with(member) && name != member).collect()
    } else {
        vec![member.to_owned()]
    };
    if names.is_empty() {
        return Err(broken(&format!("there is no {member} in it")));
    }
    names.sort_by_key(|name| (name.len(), name.clone()));
    let mut bytes = Vec::new();
    for name in &names {
        let file = archive.by_name(name).map_err(|error| broken(&format!("{name}: {error}")))?;
        // What a small archive unpacks to may be of any size.
        file.take(LARGEST).read_to_end(&mut bytes).map_err(|error| broken(&format!("{name}: {error}")))?;
        if bytes.len() as u64 >= LARGEST {
            return Err(broken(&format!("{name} is larger than any data set")));
        }
        if member.ends_with('/') && !bytes.ends_with(b"\n") {
            bytes.push(b'\n');
        }
    }
    Ok(bytes)
}

/// Why a server did not give a file.
pub(super) fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::StatusCode(status @ (401 | 403)) => {
            format!("it is not given without a login or an agreement, or is not there (HTTP {status})")
        }
        ureq::Error::StatusCode(status @ (404 | 410)) => format!("it is not there (HTTP {status})"),
        ureq::Error::StatusCode(status) => format!("the server refused (HTTP {status})"),
        other => format!("the server cannot be reached: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        net::TcpListener,
    };

    use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

    use super::*;
    use crate::hub::sets::SETS;

    /// An address where this is, for one request.
    fn served(status: &str, body: &[u8]) -> &'static str {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/file", listener.local_addr().unwrap());
        let mut reply = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        reply.extend(body);
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                if line.unwrap().is_empty() {
                    break;
                }
            }
            stream.write_all(&reply).unwrap();
        });
        address.leak()
    }

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, text) in files {
            let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
            writer.start_file(*name, options).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn known(id: &str) -> &'static DataSet {
        SETS.iter().find(|set| set.id == id).unwrap()
    }

    fn set(id: &str, source: Source) -> DataSet {
        DataSet { source, sha256: None, ..*known(id) }
    }

    fn names(folder: &Path) -> Vec<String> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Refused, for this reason, and nothing is left behind.
    #[track_caller]
    fn check_refused(set: &DataSet, parts: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let reason = fetch(set, folder.path(), &Line::new()).unwrap_err();
        for part in parts {
            assert!(reason.contains(part), "{reason}\nlacks {part:?}");
        }
        assert!(names(folder.path()).is_empty());
    }

    const BOOLQ: &str = "{\"question\": \"is ice cold\", \"passage\": \"Ice -- Ice is cold.\", \"label\": true}\n";

    #[test]
    fn a_file_of_an_archive_is_kept_under_the_name_that_eval_looks_for() {
        let folder = tempfile::tempdir().unwrap();
        let zip = archive(&[("BoolQ/train.jsonl", "{}"), ("BoolQ/val.jsonl", BOOLQ)]);
        let source = Source::Archive { address: served("200 OK", &zip), member: "BoolQ/val.jsonl" };
        let boolq = set("boolq", source);
        let placed = fetch(&boolq, &folder.path().join("deep"), &Line::new()).unwrap();
        assert_eq!((placed.records, placed.found), (1, false));
        let loaded = tasks::load(task("closed_qa"), &folder.path().join("deep"), None).unwrap();
        assert_eq!(loaded.questions.len(), 1);
        // Once it is there, nobody is asked again: the address has answered its one request.
        assert!(fetch(&boolq, &folder.path().join("deep"), &Line::new()).unwrap().found);
    }

    #[test]
    fn the_files_of_a_folder_become_lines_in_the_order_of_their_numbers() {
        let zip = archive(&[("m/dev/dev_10.txt", "ten"), ("m/dev/dev_2.txt", "two\n"), ("m/train/x.txt", "x")]);
        assert_eq!(member_of(&zip, "m/dev/").unwrap(), b"two\nten\n");
        for (archive, member) in [(zip.as_slice(), "m/test/"), (&zip, "m/dev"), (b"<html>", "m/dev/")] {
            let reason = member_of(archive, member).unwrap_err();
            assert!(reason.contains("not the archive that was expected"), "{reason}");
        }
    }

    #[test]
    fn what_a_server_says_is_passed_on() {
        let web = |address| set("gsm8k", Source::Web(address));
        check_refused(&web(served("404 Not Found", b"")), &["not there (HTTP 404)"]);
        check_refused(&web(served("401 Unauthorized", b"")), &["login", "HTTP 401"]);
        check_refused(&web(served("500 Oops", b"")), &["HTTP 500"]);
        check_refused(&web("http://127.0.0.1:9/file"), &["cannot be reached"]);
    }

    #[test]
    fn a_server_that_falls_silent_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/file", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").unwrap();
            std::thread::park(); // It keeps the connection and says no more.
        });
        let silence = Duration::from_millis(300);
        let reason = watched("file", &Line::new(), silence, move |told| read_web(&address, &told)).unwrap_err();
        assert_eq!(reason, "the server has sent nothing for 0.3 s");
    }

    #[test]
    fn what_our_readers_cannot_read_is_not_kept() {
        let web = |id, body: &[u8]| set(id, Source::Web(served("200 OK", body)));
        check_refused(&web("gsm8k", b"{\"q\": \"x\", \"answer\": \"9 #### 9\"}"), &["\"question\"", "answer, q"]);
        check_refused(&web("gsm8k", b"PAR1\xff"), &["gsm8k_test.jsonl is not UTF-8", "Parquet"]);
        check_refused(&web("counterfact", b"[{\"name\": \"x\"}]"), &["none of the known formats' fields"]);
        check_refused(&web("zsre", b"[{\"alt\": \"x\"}]"), &["taken for zsRE", "\"subject\" is missing"]);
        let changed = DataSet { sha256: Some("00"), ..web("boolq", BOOLQ.as_bytes()) };
        check_refused(&changed, &["not the file that was expected", "not 00"]);
    }

    #[test]
    fn facts_that_nobody_can_edit_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let record = |alt: &str| {
            format!(r#"{{"subject": "Ada", "src": "Ada was born in", "alt": "{alt}", "answers": ["Leeds"]}}"#)
        };
        let body = format!("[{}, {}]", record("Oslo"), record(""));
        let zsre = set("zsre", Source::Web(served("200 OK", body.as_bytes())));
        let placed = fetch(&zsre, folder.path(), &Line::new()).unwrap();
        assert_eq!((placed.records, placed.usable), (2, 1));
    }

    #[test]
    fn a_file_that_somebody_placed_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("boolq_dev.jsonl"), BOOLQ).unwrap();
        let boolq = set("boolq", Source::Web("http://127.0.0.1:9/never"));
        let reason = fetch(&boolq, folder.path(), &Line::new()).unwrap_err();
        assert!(reason.contains("boolq_dev.jsonl is there for this task already"), "{reason}");
        std::fs::rename(folder.path().join("boolq_dev.jsonl"), folder.path().join("boolq_val.jsonl")).unwrap();
        assert!(fetch(&boolq, folder.path(), &Line::new()).unwrap().found);
        std::fs::write(folder.path().join("boolq_val.jsonl"), "{}").unwrap();
        let reason = fetch(&boolq, folder.path(), &Line::new()).unwrap_err();
        assert!(reason.contains("boolq_val.jsonl: line 1"), "{reason}");
        assert_eq!(names(folder.path()), ["boolq_val.jsonl"]);
    }

    #[test]
    fn what_to_do_by_hand_is_said_in_full() {
        let text = by_hand(known("boolq"), Path::new("data"), "the server cannot be reached");
        let parts =
            ["cannot be reached", "BoolQ.zip, BoolQ/val.jsonl", "CC BY-SA 3.0", "data/boolq_val.jsonl", "passage"];
        for part in parts.iter().chain(&["Parquet"]) {
            assert!(text.contains(part), "{text}\nlacks {part:?}");
        }
    }
}
