//! Models by the names that they have on the Hugging Face Hub, from its cache or, where they are not there, from it.
//!
//! The cache is the one that Python's programs use, in their layout, so that nothing is fetched twice. Every file that
//! the hub names a SHA-256 for is compared with it.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use rectify_core::model::Loader;
use rectify_protocol::{Failure, Kind};
use serde::Deserialize;
use sha1::{Digest, Sha1};

use super::{
    endpoint,
    fetch::{SILENCE, Told, agent, reason, watched},
    variable,
};
use crate::{io, progress::Line};

/// `owner/name`, or `owner/name@revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    repository: String,
    /// A branch, a tag or a commit.
    revision: String,
}

impl Name {
    /// The name that a text is, if it can be one: two parts of letters, digits and `-_.`.
    pub fn parse(text: &str) -> Option<Self> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (owner, name) = repository.split_once('/')?;
        let part = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !part.is_empty() && !part.starts_with('.') && part.len() <= 96 && part.chars().all(allowed)
        };
        let of_revision = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        let revised = !revision.is_empty() && !revision.contains("..") && revision.chars().all(of_revision);
        let is_one = part(owner) && part(name) && revised && !revision.starts_with('/');
        is_one.then(|| Self { repository: repository.to_owned(), revision: revision.to_owned() })
    }

    /// Where the cache has everything of this model.
    fn place(&self, cache: &Path) -> PathBuf {
        cache.join(format!("models--{}", self.repository.replace('/', "--")))
    }

    fn is_commit(&self) -> bool {
        is_commit(&self.revision)
    }
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The folder with a model's files, fetched as far as they are not there.
///
/// # Errors
///
/// When the hub has no such model or does not give it, it has no safetensors or no `tokenizer.json`, or a file is not
/// what the hub says it is.
pub fn folder(name: &Name) -> Result<PathBuf, Failure> {
    let cache = cache()?;
    if let Some(snapshot) = snapshot(&cache, name).filter(|folder| is_whole(folder)) {
        return Ok(snapshot);
    }
    let cannot = |reason: String| {
        Failure::new(Kind::NotFound, format!("{} could not be fetched from the Hub: {reason}", name.repository))
    };
    let no = |value: String| matches!(value.to_lowercase().as_str(), "0" | "false" | "no" | "off");
    if variable("HF_HUB_OFFLINE").is_some_and(|value| !no(value)) {
        return Err(cannot(format!("it is not whole in {}, and HF_HUB_OFFLINE is set", cache.display())));
    }
    let hub = Hub::from_environment().map_err(cannot)?;
    hub.fetch(name, &cache, &Line::new()).map_err(cannot)
}

/// Whether a model is in the cache, whole.
pub fn is_here(name: &Name) -> bool {
    cache().ok().and_then(|cache| snapshot(&cache, name)).is_some_and(|folder| is_whole(&folder))
}

/// The cache of Python's programs.
///
/// # Errors
///
/// When there is no home folder.
pub fn cache() -> Result<PathBuf, Failure> {
    if let Some(cache) = variable("HF_HUB_CACHE") {
        return Ok(cache.into());
    }
    home().map(|home| home.join("hub")).ok_or_else(|| Failure::bad_input("there is no home folder; set HF_HOME"))
}

/// Where Python's programs keep the cache and the token.
fn home() -> Option<PathBuf> {
    let usual = || Some(std::env::home_dir()?.join(".cache").join("huggingface"));
    variable("HF_HOME").map(PathBuf::from).or_else(usual)
}

/// Where the cache has a model, whole or not.
fn snapshot(cache: &Path, name: &Name) -> Option<PathBuf> {
    let place = name.place(cache);
    let commit = match name.is_commit() {
        true => name.revision.clone(),
        false => fs::read_to_string(place.join("refs").join(&name.revision)).ok()?.trim().to_owned(),
    };
    let folder = place.join("snapshots").join(&commit);
    (is_commit(&commit) && folder.is_dir()).then_some(folder)
}

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// What is fetched along, where it is there.
const COMPANIONS: [&str; 3] = ["generation_config.json", "tokenizer_config.json", "special_tokens_map.json"];

/// Whether everything is there that a model is read from.
fn is_whole(folder: &Path) -> bool {
    let there = |name: &str| folder.join(name).is_file();
    let shards = || {
        let names = Loader::shard_names(&fs::read(folder.join(INDEX)).ok()?).ok()?;
        names.iter().all(|name| there(name)).then_some(())
    };
    there(CONFIG) && there(TOKENIZER) && (there(WEIGHTS) || shards().is_some())
}

/// What the hub says of a model.
#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
    #[serde(default, rename = "cardData")]
    card: Option<Card>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: u64,
    /// Git's own name for the content, by which the cache knows small files.
    #[serde(rename = "blobId")]
    blob: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
}

#[derive(Deserialize)]
struct Card {
    license: Option<serde_json::Value>,
}

/// A hub, and who asks it.
#[derive(Clone)]
struct Hub {
    address: String,
    token: Option<String>,
}

impl Hub {
    fn from_environment() -> Result<Self, String> {
        let address = endpoint();
        if !address.starts_with("http://") && !address.starts_with("https://") {
            return Err(format!("HF_ENDPOINT is {address:?}, which is no address"));
        }
        // What `hf auth login` keeps.
        let kept = || fs::read_to_string(home()?.join("token")).ok();
        let token = variable("HF_TOKEN").or_else(kept).map(|token| token.trim().to_owned());
        if token.as_ref().is_some_and(|token| token.bytes().any(|byte| !byte.is_ascii_graphic())) {
            return Err("HF_TOKEN holds what no token does: a space, or a letter outside ASCII".into());
        }
        Ok(Self { address, token: token.filter(|token| !token.is_empty()) })
    }

    /// Asks for a path, from some byte on. The token goes to the hub alone and not to where it sends us.
    fn get(&self, path: &str, from: u64) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let mut request = agent().get(format!("{}/{path}", self.address));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        request.call()
    }

    fn info(&self, name: &Name, line: &Line) -> Result<Info, String> {
        let (hub, name) = (self.clone(), name.clone());
        watched("what there is", line, SILENCE, move |_| {
            let revision = name.revision.replace('/', "%2F");
            let path = format!("api/models/{}/revision/{revision}?blobs=true", name.repository);
            let mut response = hub.get(&path, 0).map_err(|error| refused(&name, &error))?;
            let unreadable =
                |error: &dyn std::fmt::Display| format!("what it says of the model cannot be read: {error}");
            let text = response.body_mut().with_config().limit(1 << 26).read_to_string();
            let info: Info =
                serde_json::from_str(&text.map_err(|error| unreadable(&error))?).map_err(|error| unreadable(&error))?;
            match is_commit(&info.sha) {
                true => Ok(info),
                false => Err(format!("it names the commit {:?}, which is none", info.sha)),
            }
        })
    }

    fn fetch(&self, name: &Name, cache: &Path, line: &Line) -> Result<PathBuf, String> {
        let info = self.info(name, line)?;
        let listed = |file: &str| info.siblings.iter().find(|sibling| sibling.rfilename == file);
        for file in [CONFIG, TOKENIZER] {
            if listed(file).is_none() {
                return Err(format!("it has no {file}, which a model is read from here"));
            }
        }
        if listed(WEIGHTS).is_none() && listed(INDEX).is_none() {
            let others = info.siblings.iter().any(|sibling| sibling.rfilename.ends_with(".bin"));
            let hint = if others { "; save it from transformers, which writes them" } else { "" };
            return Err(format!("it has no weights as safetensors{hint}"));
        }
        let place = name.place(cache);
        let target = Target { blobs: place.join("blobs"), snapshot: place.join("snapshots").join(&info.sha) };
        let get = |sibling: &Sibling| self.download(name, &info.sha, sibling, &target, line);
        let small = COMPANIONS.into_iter().filter_map(listed).chain([CONFIG, TOKENIZER].into_iter().filter_map(listed));
        for sibling in small {
            get(sibling)?;
        }
        let shards = match listed(WEIGHTS) {
            Some(sibling) => vec![sibling],
            None => {
                get(listed(INDEX).expect("one of the two is there"))?;
                let index = io::read_bytes(&target.snapshot.join(INDEX)).map_err(|failure| failure.message)?;
                let names = Loader::shard_names(&index).map_err(|error| error.to_string())?;
                let shard = |file: &String| {
                    let missing = || format!("{INDEX} names the shard {file:?}, which is not there");
                    listed(file).filter(|_| is_shard(file)).ok_or_else(missing)
                };
                names.iter().map(shard).collect::<Result<_, _>>()?
            }
        };
        say(name, &info, &shards);
        for shard in shards {
            get(shard)?;
        }
        // Only now is it found by its name: what is there is whole, and was compared with what the hub says.
        if !name.is_commit() {
            let reference = place.join("refs").join(&name.revision);
            fs::create_dir_all(reference.parent().unwrap_or(&place)).map_err(cannot_write(&reference))?;
            fs::write(&reference, &info.sha).map_err(cannot_write(&reference))?;
        }
        Ok(target.snapshot)
    }

    /// One file, into the cache. What is there of it already is not fetched again, and nothing is there under its own
    /// name before it was compared.
    fn download(
        &self,
        name: &Name,
        commit: &str,
        sibling: &Sibling,
        target: &Target,
        line: &Line,
    ) -> Result<(), String> {
        let hex =
            |text: &&str, digits: usize| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let large = sibling.lfs.as_ref().map(|lfs| lfs.sha256.as_str()).filter(|text| hex(text, 64));
        let known = large.or(sibling.blob.as_deref().filter(|text| hex(text, 40)));
        let blob = known.ok_or_else(|| format!("it says no hash of {}", sibling.rfilename))?.to_ascii_lowercase();
        let expected = blob.clone();
        let file = sibling.rfilename.clone();
        let path = format!("{}/resolve/{commit}/{file}", name.repository);
        let (hub, name, size) = (self.clone(), name.clone(), sibling.size);
        let (there, part) = (target.blobs.join(&blob), target.blobs.join(format!("{blob}.incomplete")));
        fs::create_dir_all(&target.blobs).map_err(cannot_write(&target.blobs))?;
        let lock = target.blobs.join(format!("{blob}.lock"));
        let lock = File::create(&lock).map_err(cannot_write(&lock))?;
        // Another process may be fetching the same file; then it is there afterwards.
        lock.lock().map_err(|error| format!("{blob} cannot be locked: {error}"))?;
        if !there.is_file() {
            let into = there.clone();
            watched(&file.clone(), line, SILENCE, move |told| {
                hub.read(&name, &path, size, &part, &told)?;
                let (hash, found) = match expected.len() {
                    64 => ("SHA-256", io::sha256(&part).map_err(|failure| failure.message)?.0),
                    _ => ("Git hash", git_hash(&io::read_bytes(&part).map_err(|failure| failure.message)?)),
                };
                if found != expected {
                    fs::remove_file(&part).map_err(cannot_write(&part))?;
                    return Err(format!("{file} is not what the Hub says: its {hash} is {found}, not {expected}"));
                }
                fs::rename(&part, &into).map_err(cannot_write(&into))
            })?;
        }
        target.link(&sibling.rfilename, &blob)
    }

    /// Reads a file of this size into `part`, from where an earlier attempt stopped.
    fn read(&self, name: &Name, path: &str, size: u64, part: &Path, told: &Told) -> Result<(), String> {
        let mut file = OpenOptions::new().append(true).create(true).open(part).map_err(cannot_write(part))?;
        let mut done = file.metadata().map_err(cannot_write(part))?.len();
        // A connection that breaks is taken up again where it broke, a few times.
        const TRIES: usize = 4;
        for attempt in 1..=TRIES {
            if done > size {
                file.set_len(0).map_err(cannot_write(part))?;
                done = 0;
            }
            if done == size {
                return Ok(());
            }
            let response = self.get(path, done).map_err(|error| refused(name, &error))?;
            if done > 0 && response.status() != 206 {
                file.set_len(0).map_err(cannot_write(part))?;
                done = 0;
            }
            // One byte more than there should be shows that there is more.
            let mut body = response.into_body().into_with_config().limit(u64::MAX).reader().take(size - done + 1);
            let mut piece = vec![0; 1 << 20];
            let broken = loop {
                match body.read(&mut piece) {
                    Ok(0) => break None,
                    Ok(n) => {
                        file.write_all(&piece[..n]).map_err(cannot_write(part))?;
                        done += n as u64;
                        let _ = told.send((done, size));
                    }
                    Err(error) => break Some(error),
                }
            };
            match broken {
                Some(error) if attempt == TRIES => return Err(format!("the download broke off: {error}")),
                None if done != size => {
                    fs::remove_file(part).map_err(cannot_write(part))?;
                    return Err(format!(
                        "{path} has not the {size} bytes that the Hub says, but {}",
                        if done > size { "more".into() } else { done.to_string() }
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Git's name for a file of this content.
fn git_hash(content: &[u8]) -> String {
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", content.len()));
    hasher.update(content);
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where files go.
struct Target {
    blobs: PathBuf,
    snapshot: PathBuf,
}

impl Target {
    /// Shows a blob under its file's name, as the layout has it.
    fn link(&self, file: &str, blob: &str) -> Result<(), String> {
        let path = self.snapshot.join(file);
        fs::create_dir_all(&self.snapshot).map_err(cannot_write(&path))?;
        if path.is_file() {
            return Ok(());
        }
        // A link that leads nowhere.
        let _ = fs::remove_file(&path);
        #[cfg(unix)]
        let linked = std::os::unix::fs::symlink(Path::new("../../blobs").join(blob), &path);
        #[cfg(not(unix))]
        let linked = fs::hard_link(self.blobs.join(blob), &path);
        linked.map_err(cannot_write(&path))
    }
}

/// A name that can be asked for as it stands, of a file of weights.
fn is_shard(file: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    file.ends_with(".safetensors") && !file.starts_with('.') && file.chars().all(plain)
}

fn cannot_write(path: &Path) -> impl Fn(std::io::Error) -> String + use<> {
    let path = path.to_owned();
    move |error| io::cannot_write(&path, &error).message
}

/// What is about to be fetched, and under which licence.
fn say(name: &Name, info: &Info, shards: &[&Sibling]) {
    let licence = info.card.as_ref().and_then(|card| card.license.as_ref());
    let licence = licence.and_then(serde_json::Value::as_str).unwrap_or("none named");
    // It comes from a stranger and goes to a terminal.
    let licence: String = licence.chars().filter(|c| !c.is_control()).take(80).collect();
    let megabytes = shards.iter().map(|shard| shard.size as f64).sum::<f64>() / 1e6;
    io::say(&format!("{} at {}, licence: {licence}, {megabytes:.1} MB", name.repository, &info.sha[..8]));
}

/// Why the hub does not give a model, and what to do.
fn refused(name: &Name, error: &ureq::Error) -> String {
    match error {
        ureq::Error::StatusCode(status @ (401 | 403)) => format!(
            "it is not there, or only for those who agreed to its terms (HTTP {status}): look at \
             https://huggingface.co/{}, and set HF_TOKEN to a token of yours",
            name.repository
        ),
        other => reason(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_s_hash_is_git_s() {
        assert_eq!(git_hash(b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
    }

    #[test]
    fn a_name_is_two_parts_and_a_revision() {
        let name = |repository: &str, revision: &str| {
            Some(Name { repository: repository.to_owned(), revision: revision.to_owned() })
        };
        assert_eq!(Name::parse("openai-community/gpt2"), name("openai-community/gpt2", "main"));
        assert_eq!(Name::parse("a/b.c@refs/pr/1"), name("a/b.c", "refs/pr/1"));
        for text in
            ["gpt2", "/gpt2", "a/", "a/b/c", "./a", "../a", "a/..", "a/b@", "a/b@../c", "a/b@/c", "a b/c", "a/b@x y"]
        {
            assert_eq!(Name::parse(text), None, "{text}");
        }
    }
}
