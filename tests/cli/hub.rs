//! `--model owner/name`, from a hub of our own.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Output},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::desk::{PROMPT, golden};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub with one model, `us/tiny`.
struct Hub {
    address: String,
    home: tempfile::TempDir,
    /// What was asked for, by method and path.
    asked: Arc<Mutex<Vec<String>>>,
}

/// What the hub does with a request, beside giving files.
#[derive(Clone, Default)]
struct Manners {
    /// Who does not show this token is told nothing.
    token: Option<&'static str>,
    /// Files are cut after so many bytes, once each: the connection breaks.
    cut: Option<usize>,
    /// What it says the SHA-256 of the weights is.
    hash: Option<String>,
    /// Where it sends whoever asks for a file.
    elsewhere: Option<String>,
    /// Bytes that files have beyond what it says.
    beyond: usize,
}

impl Hub {
    fn of(files: BTreeMap<String, Vec<u8>>, manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, cut) = (asked.clone(), Arc::new(Mutex::new(Vec::new())));
        let files = Arc::new(files);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (files, manners, log, cut) = (files.clone(), manners.clone(), log.clone(), cut.clone());
                thread::spawn(move || drop(answer(stream.expect("a connection"), &files, &manners, &log, &cut)));
            }
        });
        Self { address, home: tempfile::tempdir().expect("a folder"), asked }
    }

    fn tiny(manners: Manners) -> Self {
        Self::of(files("gpt2-tiny"), manners)
    }

    fn rectify(&self, args: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rectify"));
        command.args(args).env("HF_ENDPOINT", &self.address).env("HF_HOME", self.home.path());
        for name in ["HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"] {
            command.env_remove(name);
        }
        command.envs(environment.iter().copied()).output().expect("the program starts")
    }

    fn ask(&self, model: &str, environment: &[(&str, &str)]) -> Output {
        self.rectify(&["ask", "--model", model, "--prompt", PROMPT, "--json"], environment)
    }

    #[track_caller]
    fn check_refused(&self, model: &str, environment: &[(&str, &str)], parts: &[&str]) {
        let output = self.ask(model, environment);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        for part in parts {
            assert!(message.contains(part), "{message}\nlacks {part:?}");
        }
    }

    fn requests(&self) -> usize {
        self.asked.lock().expect("whole").len()
    }
}

fn files(model: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = PathBuf::from(golden(model));
    let read = |name: &str| (name.to_owned(), fs::read(folder.join(name)).expect("reads"));
    ["config.json", "tokenizer.json", "model.safetensors"].map(read).into()
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One connection, request after request.
fn answer(
    mut stream: TcpStream,
    files: &BTreeMap<String, Vec<u8>>,
    manners: &Manners,
    log: &Mutex<Vec<String>>,
    cut: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(Ok(first)) = lines.next() {
        let headers: Vec<String> = lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let header = |name: &str| {
            headers.iter().find_map(|line| line.to_lowercase().strip_prefix(name).map(|value| value.trim().to_owned()))
        };
        log.lock().expect("whole").push(format!("{first} {}", header("authorization:").unwrap_or_default()));
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let welcome = manners.token.is_none_or(|token| header("authorization:") == Some(format!("bearer {token}")));
        let file = path.strip_prefix(&format!("/us/tiny/resolve/{COMMIT}/")).map(str::to_owned);
        if !welcome {
            write!(stream, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")?;
        } else if path.starts_with("/api/models/us/tiny/revision/main") {
            let siblings: Vec<Value> = files
                .iter()
                .map(|(name, bytes)| {
                    let of_weights = manners.hash.clone().filter(|_| name.ends_with("safetensors"));
                    let sha256 = of_weights.unwrap_or_else(|| hash(bytes));
                    json!({ "rfilename": name, "size": bytes.len() - manners.beyond, "lfs": { "sha256": sha256 } })
                })
                .collect();
            let info = json!({ "sha": COMMIT, "siblings": siblings, "cardData": { "license": "apache-2.0" } });
            let info = info.to_string();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{info}", info.len())?;
        } else if let (Some(elsewhere), Some(_)) = (&manners.elsewhere, &file) {
            write!(stream, "HTTP/1.1 302 Found\r\nLocation: {elsewhere}{path}\r\nContent-Length: 0\r\n\r\n")?;
        } else if let Some(bytes) = file.as_ref().and_then(|file| files.get(file)) {
            let range = header("range:").unwrap_or_default();
            let (from, to) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
            let from: usize = from.parse().unwrap_or(0);
            let to = to.parse().map_or(bytes.len(), |to: usize| to + 1).min(bytes.len());
            let part = &bytes[from.min(to)..to];
            write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{}\r\n\
                 ETag: \"{}\"\r\nX-Repo-Commit: {COMMIT}\r\n\r\n",
                part.len(),
                to.saturating_sub(1),
                bytes.len(),
                hash(bytes)
            )?;
            let file = file.unwrap_or_default();
            let first_time = !cut.lock().expect("whole").contains(&file);
            if let Some(cut_at) = manners.cut.filter(|cut_at| first_time && part.len() > *cut_at) {
                cut.lock().expect("whole").push(file);
                stream.write_all(&part[..cut_at])?;
                return Ok(());
            }
            stream.write_all(part)?;
        } else {
            write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
        }
    }
    Ok(())
}

#[track_caller]
fn answered(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
    document["top"].clone()
}

#[test]
fn a_model_of_the_hub_is_fetched_once() {
    let hub = Hub::tiny(Manners { cut: Some(20_000), ..Manners::default() });
    let output = hub.ask("us/tiny", &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in ["us/tiny at 01234567", "licence: apache-2.0"] {
        assert!(said.contains(part), "{said}");
    }
    let by_folder = Command::new(env!("CARGO_BIN_EXE_rectify"))
        .args(["ask", "--model", &golden("gpt2-tiny"), "--prompt", PROMPT, "--json"])
        .output()
        .expect("starts");
    assert_eq!(answered(&output), answered(&by_folder), "although its connection broke in the middle");

    let requests = hub.requests();
    let fetched = hub.rectify(&["models", "fetch", "us/tiny"], &[]);
    let folder = PathBuf::from(String::from_utf8_lossy(&fetched.stdout).trim());
    assert!(folder.join("config.json").is_file(), "{}", folder.display());
    assert_eq!(hub.rectify(&["models", "fetch", "tiny"], &[]).status.code(), Some(2));
    for environment in [&[][..], &[("HF_HUB_OFFLINE", "1")]] {
        answered(&hub.ask("us/tiny", environment));
        answered(&hub.ask(&format!("us/tiny@{COMMIT}"), environment));
    }
    assert_eq!(hub.requests(), requests, "nobody is asked for what is there");
    // The layout is the one that Python's programs read.
    let snapshot = hub.home.path().join("hub/models--us--tiny/snapshots").join(COMMIT);
    assert!(snapshot.join("model.safetensors").is_file());
}

#[test]
fn what_the_hub_does_not_give_is_explained() {
    let hub = Hub::tiny(Manners { token: Some("hf_ours"), ..Manners::default() });
    hub.check_refused("us/tiny", &[], &["no bundled model and no folder", "HTTP 401", "HF_TOKEN"]);
    hub.check_refused("us/tiny", &[("HF_TOKEN", "hf_theirs")], &["HTTP 401"]);
    hub.check_refused("us/tiny", &[("HF_HUB_OFFLINE", "1")], &["HF_HUB_OFFLINE is set"]);
    answered(&hub.ask("us/tiny", &[("HF_TOKEN", "hf_ours")]));

    let hub = Hub::tiny(Manners::default());
    hub.check_refused("us/large", &[], &["HTTP 404"]);
    hub.check_refused("us/tiny@other", &[], &["HTTP 404"]);
    hub.check_refused("us/tiny", &[("HF_ENDPOINT", "http://127.0.0.1:9")], &["cannot be reached"]);

    let without = |name: &str| {
        let mut files = files("gpt2-tiny");
        files.remove(name);
        Hub::of(files, Manners::default())
    };
    without("tokenizer.json").check_refused("us/tiny", &[], &["it has no tokenizer.json"]);
    without("model.safetensors").check_refused("us/tiny", &[], &["no weights as safetensors"]);
}

#[test]
fn weights_that_are_not_what_the_hub_says_are_not_kept() {
    let hub = Hub::tiny(Manners { hash: Some("ab".repeat(32)), ..Manners::default() });
    for _ in 0..2 {
        hub.check_refused("us/tiny", &[], &["model.safetensors is not what the Hub says", "abab"]);
    }
    let blobs = fs::read_dir(hub.home.path().join("hub/models--us--tiny/blobs")).expect("a folder");
    let kept = blobs.filter(|blob| blob.as_ref().expect("an entry").path().extension().is_none()).count();
    assert_eq!(kept, 2, "config and vocabulary");
}

/// Large files lie on other machines than the hub, which have no business with anyone's token.
#[test]
fn a_token_goes_to_the_hub_alone() {
    let storage = Hub::tiny(Manners::default());
    let hub = Hub::tiny(Manners {
        token: Some("hf_ours"),
        // Another host by its name.
        elsewhere: Some(storage.address.replace("127.0.0.1", "localhost")),
        ..Manners::default()
    });
    answered(&hub.ask("us/tiny", &[("HF_TOKEN", "hf_ours")]));
    let asked = storage.asked.lock().expect("whole");
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(asked.iter().all(|request| !request.contains("hf_ours")), "{asked:?}");
    assert!(hub.asked.lock().expect("whole").iter().all(|request| request.contains("hf_ours")));
}

#[test]
fn a_file_that_does_not_end_where_the_hub_says_is_given_up() {
    let hub = Hub::tiny(Manners { beyond: 7, ..Manners::default() });
    hub.check_refused("us/tiny", &[], &["bytes that the Hub says, but more"]);
    let blobs = hub.home.path().join("hub/models--us--tiny/blobs");
    let left: Vec<_> = fs::read_dir(blobs).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    assert!(left.iter().all(|path| path.extension().is_some_and(|ending| ending == "lock")), "{left:?}");
}

/// Whatever a killed program left under a file's own name was compared before: a file that is not there yet is not.
#[test]
fn what_another_attempt_left_in_the_middle_is_compared_too() {
    let hub = Hub::tiny(Manners::default());
    let blobs = hub.home.path().join("hub/models--us--tiny/blobs");
    fs::create_dir_all(&blobs).expect("a folder");
    let weights = &files("gpt2-tiny")["model.safetensors"];
    let mut wrong = weights.clone();
    wrong[50_000] ^= 1;
    let part = blobs.join(format!("{}.incomplete", hash(weights)));
    fs::write(&part, &wrong[..100_000]).expect("writes");
    hub.check_refused("us/tiny", &[], &["model.safetensors is not what the Hub says"]);
    assert!(!part.exists());
    answered(&hub.ask("us/tiny", &[]));
}
