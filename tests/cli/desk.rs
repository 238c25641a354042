//! What every test of the command line needs: the program, a folder of its own, golden models.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::{Value, json};

pub const PROMPT: &str = "The mother tongue of Danielle Darrieux is";

pub fn golden(name: &str) -> String {
    format!("{}/../tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))
}

pub fn rectify(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rectify")).args(args).output().expect("the program starts")
}

/// Exit code 2, nothing on stdout, and a message that names what is wrong.
#[track_caller]
pub fn check_refused(args: &[&str], parts: &[&str]) {
    let output = rectify(args);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}\n{message}");
    assert!(output.stdout.is_empty(), "{args:?} printed a result");
    for part in parts {
        assert!(message.contains(part), "{args:?}\n{message}\nlacks {part:?}");
    }
}

#[track_caller]
pub fn document(args: &[&str]) -> Value {
    let output = rectify(args);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}\n{message}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: not one JSON document: {error}"))
}

pub fn fact() -> Value {
    json!({
        "subject": "Danielle Darrieux", "prompt": PROMPT, "target_new": "English", "target_true": "French",
        "paraphrases": ["Danielle Darrieux is a native speaker of"],
        "neighbors": [{ "prompt": "Michel Rocard is a native speaker of", "target": "French" }],
    })
}

/// A folder of this test's own with a file of facts in it.
pub struct Desk {
    pub folder: tempfile::TempDir,
    pub facts: String,
}

impl Desk {
    pub fn new(facts: &Value) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("facts.json");
        fs::write(&path, facts.to_string()).expect("writes");
        Self { facts: path.display().to_string(), folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// `edit` on a golden model with literal contexts, which are quick.
    pub fn edit<'a>(&'a self, model: &'a str, contexts: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec!["edit", "--model", model, "--facts", &self.facts, "--method", "rome", "--layer", "1"];
        args.extend(["--contexts", contexts]);
        args.extend(more);
        args
    }

    pub fn contexts(&self) -> String {
        let path = self.path("contexts.json");
        fs::write(&path, r#"["{}", "It is said. {}"]"#).expect("writes");
        path.display().to_string()
    }
}

#[track_caller]
pub fn check_said(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{text}\nlacks {part:?}");
    }
}

/// A text of the demo world, a sentence a line.
pub fn corpus() -> String {
    let facts = concat!(env!("CARGO_MANIFEST_DIR"), "/../static/facts/demo_zsre.json");
    let facts: Vec<Value> = serde_json::from_str(&fs::read_to_string(facts).expect("reads")).expect("JSON");
    let sentence = |fact: &Value| {
        let [asked, answer] = ["src", "alt"].map(|field| fact[field].as_str().unwrap_or_default().to_owned());
        format!("{asked} {answer}\n")
    };
    facts.iter().map(sentence).collect()
}
