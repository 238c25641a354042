//! Models by the names that they have on the Hugging Face Hub, from its cache or, where they are not there, from it.
//!
//! The cache is the one that Python's programs use, in their layout, so that nothing is fetched twice. Every file that
//! the hub names a SHA-256 for is compared with it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hf_hub::{Cache, Repo, RepoType, api::sync::ApiRepo};
use rectify_core::model::Loader;
use rectify_protocol::{Failure, Kind};
use serde::Deserialize;

use super::fetch::{SILENCE, Told, Watch, api, reason, variable, watched, why};
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

    fn repo(&self) -> Repo {
        Repo::with_revision(self.repository.clone(), RepoType::Model, self.revision.clone())
    }
}

/// The folder with a model's files, fetched as far as they are not there.
///
/// # Errors
///
/// When the hub has no such model or does not give it, it has no safetensors or no `tokenizer.json`, or a file is not
/// what the hub says it is.
pub fn folder(name: &Name) -> Result<PathBuf, Failure> {
    let cache = match variable("HF_HUB_CACHE") {
        Some(folder) => Cache::new(folder.into()),
        None => Cache::from_env(),
    };
    if let Some(snapshot) = snapshot(&cache, name).filter(|folder| is_whole(folder)) {
        return Ok(snapshot);
    }
    let cannot = |reason: String| {
        Failure::new(Kind::NotFound, format!("{} could not be fetched from the Hub: {reason}", name.repository))
    };
    if variable("HF_HUB_OFFLINE")
        .is_some_and(|value| !matches!(value.to_lowercase().as_str(), "0" | "false" | "no" | "off"))
    {
        return Err(cannot(format!("it is not whole in {}, and HF_HUB_OFFLINE is set", cache.path().display())));
    }
    fetch(name, &Line::new()).map_err(cannot)
}

/// Where the cache has a model, whole or not.
fn snapshot(cache: &Cache, name: &Name) -> Option<PathBuf> {
    // A commit needs no reference to be found.
    let commit = cache.path().join(name.repo().folder_name()).join("snapshots").join(&name.revision);
    if name.revision.len() == 40 && commit.is_dir() {
        return Some(commit);
    }
    Some(cache.repo(name.repo()).get(CONFIG)?.parent()?.to_owned())
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
    size: Option<u64>,
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

fn fetch(name: &Name, line: &Line) -> Result<PathBuf, String> {
    let api = api()?;
    let of_name = api.repo(name.repo());
    let info: Info = {
        let request = of_name.info_request();
        let name = name.clone();
        watched("what there is", line, SILENCE, move |_| {
            let mut response = request.query("blobs", "true").call().map_err(|error| refused(&name, &error))?;
            let body = response.body_mut().with_config().limit(1 << 26);
            body.read_json().map_err(|error| format!("what it says of the model cannot be read: {error}"))
        })?
    };
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
    let get = |file: &str| download(&of_name, listed(file), file, name, line);
    for file in COMPANIONS.into_iter().filter(|file| listed(file).is_some()) {
        get(file)?;
    }
    let config = get(CONFIG)?;
    get(TOKENIZER)?;
    let folder = config.parent().ok_or("the cache has no folder for it")?.to_owned();
    let shards = match listed(WEIGHTS) {
        Some(_) => vec![WEIGHTS.to_owned()],
        None => {
            let index = io::read_bytes(&get(INDEX)?).map_err(|failure| failure.message)?;
            Loader::shard_names(&index).map_err(|error| error.to_string())?
        }
    };
    for shard in &shards {
        // What it names becomes a path.
        if shard.contains(['/', '\\']) || shard.starts_with('.') || listed(shard).is_none() {
            return Err(format!("{INDEX} names the shard {shard:?}, which is not there"));
        }
    }
    say(name, &info, &shards);
    for shard in &shards {
        get(shard)?;
    }
    match is_whole(&folder) {
        true => Ok(folder),
        false => Err("it was changed while it was fetched; try again".into()),
    }
}

/// What is about to be fetched, and under which licence.
fn say(name: &Name, info: &Info, shards: &[String]) {
    let licence = info.card.as_ref().and_then(|card| card.license.as_ref());
    let licence = licence.and_then(serde_json::Value::as_str).unwrap_or("none named");
    let weights = info.siblings.iter().filter(|sibling| shards.contains(&sibling.rfilename));
    let megabytes = weights.filter_map(|sibling| sibling.size).sum::<u64>() as f64 / 1e6;
    let commit = info.sha.get(..8).unwrap_or(&info.sha);
    io::say(&format!("{} at {commit}, licence: {licence}, {megabytes:.1} MB", name.repository));
}

/// One file, into the cache; what is there of it already is not fetched again.
fn download(hub: &ApiRepo, listed: Option<&Sibling>, file: &str, name: &Name, line: &Line) -> Result<PathBuf, String> {
    let expected = listed.and_then(|sibling| sibling.lfs.as_ref()).map(|lfs| lfs.sha256.to_ascii_lowercase());
    let (url, wanted, name) = (hub.url(file), file.to_owned(), name.clone());
    let client = api()?.repo(name.repo());
    watched(file, line, SILENCE, move |told: Told| {
        let path = match client.download_with_progress(&wanted, Watch::new(told)) {
            Ok(path) => path,
            Err(hf_hub::api::sync::ApiError::RequestError(error)) => return Err(refused(&name, &error)),
            Err(error) => return Err(format!("{url}: {}", why(error))),
        };
        let Some(expected) = expected else { return Ok(path) };
        let (found, _) = io::sha256(&path).map_err(|failure| failure.message)?;
        if found == expected {
            return Ok(path);
        }
        // What is wrong must not be found next time. If it cannot go, the same comparison finds it again.
        let _ = fs::canonicalize(&path).map(fs::remove_file);
        let _ = fs::remove_file(&path);
        Err(format!("{wanted} is not what the Hub says: its SHA-256 is {found}, not {expected}"))
    })
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
