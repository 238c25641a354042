//! Files from where the page came from, each checked before anything reads it.
//!
//! A cache belongs between [`Store::file`] and `fetch`: a file whose hash is known to be there need not be fetched.

use js_sys::Uint8Array;
use rectify_core::task::{Records, TASKS};
use rectify_protocol::{Catalog, CatalogFile, CatalogModel, Failure, Kind};
use sha2::{Digest, Sha256};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, DedicatedWorkerGlobalScope, ReadableStreamDefaultReader, RequestInit, Response};

/// Where files are fetched from.
pub struct Store {
    /// The page's address up to its last slash; every other address is relative to it.
    base: String,
}

impl Store {
    /// A store of the files beside the page at `base`.
    pub fn new(base: String) -> Self {
        Self { base }
    }

    async fn catalog(&self) -> Result<Catalog, Failure> {
        let bytes = fetch(&format!("{}models.json", self.base), 0, &mut |_| {}).await?;
        serde_json::from_slice(&bytes).map_err(|error| bad_file("models.json", &error.to_string()))
    }

    /// The model called `id` in `models.json`.
    pub async fn model(&self, id: &str) -> Result<CatalogModel, Failure> {
        let catalog = self.catalog().await?;
        let ids: Vec<&str> = catalog.models.iter().map(|model| model.id.as_str()).collect();
        let missing = format!("no model {id:?} in models.json; there are {ids:?}");
        let found = catalog.models.into_iter().find(|model| model.id == id);
        found.ok_or(Failure::new(Kind::NotFound, missing))
    }

    /// The tasks that the model called `id` can be asked; none where `models.json` names no world for it.
    pub async fn tasks(&self, id: &str) -> Result<Vec<Records>, Failure> {
        let catalog = self.catalog().await?;
        let Some(world) = catalog.world_of(id) else { return Ok(Vec::new()) };
        let mut tasks = Vec::new();
        for task in TASKS {
            let Some(file) = world.tasks.get(task.id) else { continue };
            let bytes = fetch(&format!("{}{}", self.base, file.path), file.size, &mut |_| {}).await?;
            verify(&file.path, &bytes, file)?;
            let text = String::from_utf8(bytes).map_err(|_| bad_file(&file.path, "it is no UTF-8 text"))?;
            tasks.push(Records::read(task, &file.path, &text, file.sha256.clone())?);
        }
        Ok(tasks)
    }

    /// One file of a model, whole and with the hash that the catalog names. `arrived` hears of each chunk's bytes.
    pub async fn file(
        &self,
        model: &CatalogModel,
        file: &CatalogFile,
        arrived: &mut dyn FnMut(u64),
    ) -> Result<Vec<u8>, Failure> {
        let path = format!("{}/{}", model.folder, file.path);
        let bytes = fetch(&format!("{}{path}", self.base), file.size, arrived).await?;
        verify(&path, &bytes, file)?;
        Ok(bytes)
    }

    /// A method's settings for the model called `id`: the file's name and its text.
    pub async fn settings(&self, method: &str, id: &str) -> Result<(String, String), Failure> {
        let path = format!("hparams/{method}/{id}.toml");
        let bytes = fetch(&format!("{}{path}", self.base), 0, &mut |_| {}).await?;
        check_no_page(&path, &bytes)?;
        let text = String::from_utf8(bytes).map_err(|_| bad_file(&path, "it is no UTF-8 text"))?;
        Ok((path, text))
    }
}

/// The body of a successful GET. Dropping the future aborts the request.
async fn fetch(url: &str, expected_size: u64, arrived: &mut dyn FnMut(u64)) -> Result<Vec<u8>, Failure> {
    let lost = |error: JsValue| Failure::new(Kind::NotFound, format!("{url} could not be fetched: {}", words(&error)));
    let abort = AbortOnDrop(AbortController::new().map_err(lost)?);
    let init = RequestInit::new();
    init.set_signal(Some(&abort.0.signal()));
    let scope: DedicatedWorkerGlobalScope = js_sys::global().unchecked_into();
    let response = JsFuture::from(scope.fetch_with_str_and_init(url, &init)).await.map_err(lost)?;
    let response: Response = response.unchecked_into();
    if !response.ok() {
        let message = format!("{url} could not be fetched: the server answered {}", response.status());
        return Err(Failure::new(Kind::NotFound, message));
    }

    // Room for what is said to come, as far as that is not beyond belief.
    const ROOM: u64 = 64 << 20;
    let mut bytes = Vec::with_capacity(expected_size.min(ROOM) as usize);
    let Some(body) = response.body() else { return Ok(bytes) };
    let reader: ReadableStreamDefaultReader = body.get_reader().unchecked_into();
    loop {
        let part = JsFuture::from(reader.read()).await.map_err(lost)?;
        if js_sys::Reflect::get(&part, &"done".into()).is_ok_and(|done| done.is_truthy()) {
            return Ok(bytes);
        }
        let chunk: Uint8Array = js_sys::Reflect::get(&part, &"value".into()).map_err(lost)?.unchecked_into();
        let start = bytes.len();
        bytes.resize(start + chunk.length() as usize, 0);
        chunk.copy_to(&mut bytes[start..]);
        arrived(u64::from(chunk.length()));
    }
}

/// Says what is wrong with a file that is not the one the catalog names.
fn verify(path: &str, bytes: &[u8], file: &CatalogFile) -> Result<(), Failure> {
    check_no_page(path, bytes)?;
    if bytes.len() as u64 != file.size {
        return Err(bad_file(path, &format!("{} bytes arrived, models.json says {}", bytes.len(), file.size)));
    }
    let found = hexadecimal(&Sha256::digest(bytes));
    if found != file.sha256 {
        return Err(bad_file(path, &format!("its SHA-256 is {found}, models.json says {}", file.sha256)));
    }
    Ok(())
}

/// Some servers answer for every missing file with their front page.
fn check_no_page(path: &str, bytes: &[u8]) -> Result<(), Failure> {
    let start: Vec<u8> = bytes.iter().copied().skip_while(u8::is_ascii_whitespace).take(5).collect();
    if start.eq_ignore_ascii_case(b"<!doc") || start.eq_ignore_ascii_case(b"<html") {
        return Err(bad_file(path, "the server sent a web page instead; is the file there?"));
    }
    Ok(())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bad_file(path: &str, problem: &str) -> Failure {
    Failure::bad_input(format!("{path}: {problem}"))
}

/// A JavaScript error's own words.
fn words(error: &JsValue) -> String {
    error.dyn_ref::<js_sys::Error>().map_or_else(|| format!("{error:?}"), |error| String::from(error.message()))
}

/// Ends a request that nobody waits for any more.
struct AbortOnDrop(AbortController);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], complaint: Option<&str>) {
        let file = CatalogFile {
            path: "weights".into(),
            size: 3,
            sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".into(),
        };
        match (verify("models/m/weights", bytes, &file), complaint) {
            (Ok(()), None) => {}
            (Err(failure), Some(part)) => assert!(failure.message.contains(part), "{failure}"),
            (found, expected) => panic!("expected {expected:?}, found {found:?}"),
        }
    }

    #[test]
    fn only_the_named_bytes_pass() {
        check(b"abc", None);
        check(b"abd", Some("its SHA-256 is"));
        check(b"ab", Some("2 bytes arrived, models.json says 3"));
        check(b"\n<!DOCTYPE html><p>not found", Some("a web page instead"));
    }
}
