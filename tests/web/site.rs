//! The page as `rectify serve` serves it, with the golden models beside the bundled ones.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A running server. Ends with the test.
pub struct Site {
    server: Child,
    /// The files that it serves.
    folder: PathBuf,
    /// `http://127.0.0.1:PORT/`
    pub address: String,
}

impl Site {
    /// Serves a copy of the built page on a port of its own.
    pub fn serve(test: &str) -> Self {
        let site = copy_with_golden_models(test);
        let program = program();
        let mut server = Command::new(&program)
            .args(["serve", "--listen", "127.0.0.1:0", "--site"])
            .arg(&site)
            .arg("--data")
            .arg(&site)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        let mut log = BufReader::new(server.stderr.take().expect("stderr was piped")).lines().map_while(Result::ok);
        let address = log
            .find_map(|line| Some(format!("{}/", line.split_once("listening on ")?.1.trim())))
            .expect("the server says where it listens");
        thread::spawn(move || log.for_each(|line| eprintln!("server: {line}")));
        Self { server, folder: site, address }
    }

    /// Runs a script before one of the site's.
    pub fn prefix(&self, file: &str, script: &str) {
        let file = self.folder.join(file);
        let own = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        fs::write(&file, format!("{script}{own}")).expect("writes");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Whatever is gone already need not be ended.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// What `cargo xtask test` says: where the page was built, which program serves it.
fn path(variable: &str) -> PathBuf {
    env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set: run this by `cargo xtask test`")).into()
}

/// The program `rectify`.
pub fn program() -> PathBuf {
    path("RECTIFY_SERVER")
}

/// The built page.
pub fn built() -> PathBuf {
    path("RECTIFY_SITE")
}

/// Where the golden files lie.
pub fn golden(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(model)
}

fn copy_with_golden_models(test: &str) -> PathBuf {
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("site").join(test);
    let _ = fs::remove_dir_all(&to); // of an earlier run
    copy(&built(), &to);
    let catalog = to.join("models.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&catalog).expect("models.json")).expect("JSON");
    for (model, architecture) in [("gpt2-tiny", "gpt2"), ("llama-tiny", "llama")] {
        let files = ["config.json", "tokenizer.json", "model.safetensors"].map(|name| {
            let bytes = fs::read(golden(model).join(name)).unwrap_or_else(|error| panic!("{model}/{name}: {error}"));
            let folder = to.join("models").join(model);
            fs::create_dir_all(&folder).expect("a folder for a model");
            fs::write(folder.join(name), &bytes).expect("a model's file");
            let digits: Vec<String> = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "path": name, "size": bytes.len(), "sha256": digits.concat() })
        });
        json["models"].as_array_mut().expect("a list of models").push(json!({
            "id": model, "name": model, "folder": format!("models/{model}"), "description": "for tests",
            "architecture": architecture, "licence": "MIT OR Apache-2.0", "layers": 4, "context": 128,
            "memory_load": 0, "memory_edit": 0, "files": files,
        }));
    }
    fs::write(catalog, json.to_string()).expect("models.json");
    to
}

/// Copies a folder and all that is in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder for the page");
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.expect("a folder's entry");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).expect("a copy of a file");
        }
    }
}
