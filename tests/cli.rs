//! The command line as a person or a script meets it: exit codes, documents, files, and what bad input is told.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

const PROMPT: &str = "The mother tongue of Danielle Darrieux is";

fn golden(name: &str) -> String {
    format!("{}/../tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn rectify(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rectify")).args(args).output().expect("the program starts")
}

/// Exit code 2, nothing on stdout, and a message that names what is wrong.
#[track_caller]
fn check_refused(args: &[&str], parts: &[&str]) {
    let output = rectify(args);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}\n{message}");
    assert!(output.stdout.is_empty(), "{args:?} printed a result");
    for part in parts {
        assert!(message.contains(part), "{args:?}\n{message}\nlacks {part:?}");
    }
}

#[track_caller]
fn document(args: &[&str]) -> Value {
    let output = rectify(args);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}\n{message}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: not one JSON document: {error}"))
}

fn fact() -> Value {
    json!({
        "subject": "Danielle Darrieux", "prompt": PROMPT, "target_new": "English", "target_true": "French",
        "paraphrases": ["Danielle Darrieux is a native speaker of"],
        "neighbors": [{ "prompt": "Michel Rocard is a native speaker of", "target": "French" }],
    })
}

/// A folder of this test's own with a file of facts in it.
struct Desk {
    folder: tempfile::TempDir,
    facts: String,
}

impl Desk {
    fn new(facts: &Value) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("facts.json");
        fs::write(&path, facts.to_string()).expect("writes");
        Self { facts: path.display().to_string(), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `edit` on a golden model with literal contexts, which are quick.
    fn edit<'a>(&'a self, model: &'a str, contexts: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec!["edit", "--model", model, "--facts", &self.facts, "--method", "rome", "--layer", "1"];
        args.extend(["--contexts", contexts]);
        args.extend(more);
        args
    }

    fn contexts(&self) -> String {
        let path = self.path("contexts.json");
        fs::write(&path, r#"["{}", "It is said. {}"]"#).expect("writes");
        path.display().to_string()
    }
}

#[test]
fn an_edit_is_written_and_asked_again() {
    for model in ["gpt2-tiny", "llama-tiny"] {
        let (desk, model) = (Desk::new(&json!([fact()])), golden(model));
        let (contexts, out) = (desk.contexts(), desk.path("run"));
        let out = out.to_str().expect("text");
        let report = document(&desk.edit(
            &model,
            &contexts,
            &["--regularizer", "rect", "--keep", "0.4", "--out", out, "--json"],
        ));
        let operation = &report["operations"][0];
        let [fact] = operation["facts"].as_array().expect("facts").as_slice() else { panic!("one fact") };
        for part in ["before", "after"] {
            for field in ["p_new", "p_true", "top", "text"] {
                assert!(!fact[part][field].is_null(), "{part}.{field}");
            }
        }
        for field in ["reliability", "generalization", "locality"] {
            assert!((0.0..=1.0).contains(&fact[field].as_f64().expect(field)), "{field}");
        }
        for field in ["seconds", "steps", "delta_norm", "manhattan", "kept", "model_hash", "spec"] {
            assert!(!operation[field].is_null(), "{field}");
        }
        let saved: Value =
            serde_json::from_slice(&fs::read(desk.path("run/report.json")).expect("report")).expect("JSON");
        assert_eq!(saved, report, "the file and stdout say the same");

        let ask = |more: &[&str]| document(&[&["ask", "--model", &model, "--prompt", PROMPT, "--json"], more].concat());
        let (before, after) = (ask(&[]), ask(&["--edits", out]));
        assert_eq!(
            before["text"].as_str().map(|text| &text[..8]),
            fact["before"]["text"].as_str().map(|text| &text[..8])
        );
        assert_ne!(before["top"], after["top"]);
        assert_eq!(after["top"][0][0], fact["after"]["top"][0][0]);
    }
}

#[test]
fn sequential_edits_are_measured_again_at_the_end() {
    let mut second = fact();
    second["subject"] = json!("Michel Rocard");
    second["prompt"] = json!("Michel Rocard is a native speaker of");
    let desk = Desk::new(&json!([fact(), second]));
    let (model, contexts) = (golden("gpt2-tiny"), desk.contexts());
    let report = document(&desk.edit(&model, &contexts, &["--mode", "sequential", "--json"]));
    assert_eq!(report["operations"].as_array().map(Vec::len), Some(2));
    assert_eq!(report["operations"][1]["edits"], 2);
    assert_eq!(report["final_measure"].as_array().map(Vec::len), Some(2));
    check_refused(&desk.edit(&model, &contexts, &["--mode", "batch"]), &["rome writes one fact per operation"]);
}

#[test]
fn statistics_are_made_and_used() {
    let desk = Desk::new(&json!([fact()]));
    let (model, contexts) = (golden("gpt2-tiny"), desk.contexts());
    let (text, stats) = (desk.path("corpus.txt"), desk.path("stats"));
    let lines = "The capital of France is Paris, and the city lies on a river.\n".repeat(30)
        + &(0..300)
            .map(|i| format!("Number {i} was born in the year {} of the river.\n", 1500 + i))
            .collect::<String>();
    fs::write(&text, lines).expect("writes");
    let (text, stats) = (text.to_str().expect("text"), stats.to_str().expect("text"));
    let made =
        rectify(&["stats", "--model", &model, "--text", text, "--layers", "1", "--tokens", "6000", "--out", stats]);
    assert_eq!(made.status.code(), Some(0), "{}", String::from_utf8_lossy(&made.stderr));
    let report = document(&desk.edit(&model, &contexts, &["--covariance", stats, "--json"]));
    assert_eq!(report["operations"][0]["spec"]["editor"]["mom2_adjustment"], true);
    let other = golden("llama-tiny");
    check_refused(&desk.edit(&other, &contexts, &["--covariance", stats]), &["moment.1.safetensors"]);
}

#[test]
fn a_fact_that_cannot_be_edited_is_named() {
    let changed = |field: &str, value: Value| {
        let mut fact = fact();
        fact[field] = value;
        Desk::new(&json!([fact]))
    };
    let model = golden("gpt2-tiny");
    let check = |desk: &Desk, parts: &[&str]| {
        let contexts = desk.contexts();
        check_refused(&desk.edit(&model, &contexts, &[]), parts);
    };
    check(&changed("target_new", json!("")), &["target_new is empty"]);
    check(&changed("subject", json!("Ida")), &["\"Ida\"", "does not occur in the prompt"]);
    check(&changed("prompt", json!("Danielle Darrieux, Danielle Darrieux is")), &["occurs 2 times"]);
    check(&changed("target_new", json!(7)), &["record 0"]);
    let long = format!("{}{PROMPT}", "and then ".repeat(200));
    check(&changed("prompt", json!(long)), &["context", "128"]);
    check(&Desk::new(&json!([{ "name": "nothing we know" }])), &["name"]);
}

#[test]
fn settings_that_cannot_be_are_named() {
    let desk = Desk::new(&json!([fact()]));
    let (model, contexts) = (golden("gpt2-tiny"), desk.contexts());
    let check = |more: &[&str], parts: &[&str]| check_refused(&desk.edit(&model, &contexts, more), parts);
    for keep in ["-1", "0", "NaN", "1.01", "101"] {
        check(&["--regularizer", "rect", "--keep", keep], &["keep"]);
    }
    check(&["--regularizer", "rekt"], &["rekt", "rect"]);
    check(&["--set", "v_lrr=1"], &["v_lrr", "v_lr"]);
    check(&["--set", "v_lr=fast"], &["v_lr"]);
    check(&["--index", "3..1"], &["3..1"]);
    check(&["--index", "5"], &["1 record"]);
    let with = |flag: &str, value: &str, parts: &[&str]| {
        let mut args: Vec<String> = desk.edit(&model, &contexts, &[]).into_iter().map(str::to_owned).collect();
        let at = args.iter().position(|arg| arg == flag).expect("the flag is there");
        args[at + 1] = value.into();
        check_refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), parts);
    };
    with("--layer", "99", &["layer 99 does not exist", "0 to 3"]);
    with("--method", "rom", &["rom", "rome"]);
    with("--model", "/nowhere/at/all", &["/nowhere/at/all"]);
}

fn copy_model(from: &str, to: &Path) {
    fs::create_dir(to).expect("a folder");
    for entry in fs::read_dir(golden(from)).expect("lists").flatten() {
        if !entry.file_name().to_string_lossy().starts_with("fixtures") {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("copies");
        }
    }
}

#[test]
fn a_damaged_model_folder_is_named() {
    let desk = Desk::new(&json!([fact()]));
    let check = |name: &str, damage: &dyn Fn(&Path), parts: &[&str]| {
        let folder = desk.path(name);
        copy_model("gpt2-tiny", &folder);
        damage(&folder);
        check_refused(&["ask", "--model", folder.to_str().expect("text"), "--prompt", PROMPT], parts);
    };
    let weights = fs::read(format!("{}/model.safetensors", golden("gpt2-tiny"))).expect("reads");
    check(
        "truncated",
        &|folder| fs::write(folder.join("model.safetensors"), &weights[..1000]).expect("writes"),
        &["model.safetensors"],
    );
    check(
        "header",
        &|folder| fs::write(folder.join("model.safetensors"), (1u64 << 63).to_le_bytes()).expect("writes"),
        &["model.safetensors"],
    );
    check("config", &|folder| fs::write(folder.join("config.json"), "{").expect("writes"), &["config.json"]);
    check("missing", &|folder| fs::remove_file(folder.join("tokenizer.json")).expect("removes"), &["tokenizer.json"]);
    let index = r#"{"weight_map": {"wte.weight": "model-00001-of-00002.safetensors"}}"#;
    check(
        "shard",
        &|folder| {
            fs::remove_file(folder.join("model.safetensors")).expect("removes");
            fs::write(folder.join("model.safetensors.index.json"), index).expect("writes");
        },
        &["model-00001-of-00002.safetensors"],
    );
}

/// A full disk cannot be had everywhere; a limit on the size of files can, and fails a write in the same place.
#[cfg(unix)]
#[test]
fn without_room_nothing_half_written_remains() {
    let desk = Desk::new(&json!([fact()]));
    let (model, contexts) = (golden("gpt2-tiny"), desk.contexts());
    let out = desk.path("run");
    let args = desk.edit(&model, &contexts, &["--out", out.to_str().expect("text")]).join(" ");
    let script = format!("trap '' XFSZ; ulimit -f 4; exec {} {args}", env!("CARGO_BIN_EXE_rectify"));
    let output = Command::new("sh").args(["-c", &script]).output().expect("a shell");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("run"), "the message names the folder: {message}");
    let left: Vec<_> =
        fs::read_dir(desk.folder.path()).expect("lists").flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| name == "facts.json" || name == "contexts.json"), "{left:?}");
}
