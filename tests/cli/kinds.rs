//! Work of a server's that is no grid: evaluations, statistics, MEND's training.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::{
    desk::{check_refused, corpus, document, rectify},
    import::moment,
    jobs::{Server, check_job, statics},
};

/// A static folder with a corpus and an edit of its own.
fn shelf(folder: &Path) -> PathBuf {
    let shelf = folder.join("static");
    fs::create_dir_all(shelf.join("data")).expect("writes");
    for name in ["facts", "hparams", "models", "sweeps", "tasks", "models.json"] {
        let from = fs::canonicalize(Path::new(&statics()).join(name)).expect("it is there");
        #[cfg(unix)]
        std::os::unix::fs::symlink(from, shelf.join(name)).expect("links");
        #[cfg(not(unix))]
        panic!("no links: {}", from.display());
    }
    fs::write(shelf.join("data/corpus.txt"), corpus()).expect("writes");
    let mine = shelf.join("edits/mine").display().to_string();
    let facts = shelf.join("facts/demo_zsre.json").display().to_string();
    let edit = ["edit", "--model", "demo-nano", "--facts", &facts, "--index", "0", "--method", "ft", "--out", &mine];
    let edited = rectify(&edit);
    assert!(edited.status.success(), "{}", String::from_utf8_lossy(&edited.stderr));
    shelf
}

/// What decides nothing: how long it took.
fn scores(report: &str) -> Value {
    let mut report: Value = serde_json::from_str(report).expect("JSON");
    for task in report["tasks"].as_array_mut().expect("tasks") {
        task["seconds"] = Value::Null;
        task["file"] = task["file"][1].clone();
    }
    report["edits"] = Value::Null;
    report
}

/// The numbers in a file; what it says of itself has no order.
fn tensors(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(path).expect("reads");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    tensors.iter().map(|(name, tensor)| (name.to_owned(), tensor.data().to_vec())).collect()
}

#[cfg(unix)]
#[test]
fn a_server_does_what_the_command_line_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let (shelf, out) = (shelf(folder.path()), folder.path().join("out"));
    let text = |path: PathBuf| path.display().to_string();
    let (edits, data, corpus) =
        (text(shelf.join("edits/mine")), text(shelf.join("tasks/demo")), text(shelf.join("data/corpus.txt")));
    let (facts, held_out) =
        (text(shelf.join("facts/demo_zsre_train.json")), text(shelf.join("facts/demo_zsre_validation.json")));

    let server = Server::of(&shelf, &folder.path().join("jobs"));
    let offer = &server.json(&["offer"])["offer"];
    assert_eq!(
        (&offer["texts"], &offer["edits"], &offer["tasks"]),
        (&json!(["corpus"]), &json!(["mine"]), &json!(["demo"]))
    );
    let asked = ["--model", "demo-nano", "--tasks", "nli,ner", "--limit", "9", "--log-samples"];
    let evaluation = server.asked(&[&["eval", "--data", "demo", "--edits", "mine"], &asked[..]].concat());
    let gathered = ["--model", "demo-nano", "--layers", "1,0,1", "--tokens", "300"];
    let statistics = server.asked(&[&["stats", "--text", "corpus"], &gathered[..]].concat());
    let trained = ["--model", "demo-nano", "--steps", "24"];
    let of = ["--facts", "demo_zsre_train", "--validation", "demo_zsre_validation"];
    let settings = ["--settings", r#"{"validate_every": 12, "rank": 4}"#, "--key", "once"];
    let training = server.asked(&[&["mend"], &trained[..], &of, &settings].concat());

    // By hand, while the server works.
    let by_hand = text(out.join("eval"));
    let by_hand = ["eval", "--json", "--data", &data, "--edits", &edits, "--out", &by_hand];
    let report = document(&[&by_hand[..], &asked].concat()).to_string();
    let moments = text(out.join("stats"));
    assert!(rectify(&[&["stats", "--text", &corpus, "--out", &moments], &gathered[..]].concat()).status.success());
    let network = text(out.join("mend/mend.safetensors"));
    let by_hand = ["mend", "train", "--facts", &facts, "--validation", &held_out, "--out", &network];
    let by_hand = rectify(&[&by_hand[..], &trained, &["--validate-every", "12", "--rank", "4"]].concat());
    assert!(by_hand.status.success(), "{}", String::from_utf8_lossy(&by_hand.stderr));

    let fetched = |id: &str, expected: &[&str]| {
        let job = server.ended(id);
        assert_eq!((&job["state"], &job["rows"]), (&json!("done"), &job["expected"]), "{job}");
        let to = folder.path().join(id);
        assert!(server.jobs(&["rows", id, "--out", &to.display().to_string()]).status.success());
        let mut names: Vec<_> =
            fs::read_dir(&to).expect("lists").map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        assert_eq!(names, expected);
        to
    };
    let found = fetched(&evaluation, &["report.json", "samples.ner.jsonl", "samples.nli.jsonl"]);
    let written = fs::read_to_string(found.join("report.json")).expect("reads");
    assert_eq!(scores(&written), scores(&report));
    let again = text(folder.path().join("again.json"));
    assert!(server.jobs(&["report", &evaluation, "--out", &again]).status.success());
    assert_eq!(fs::read_to_string(again).expect("reads"), written);
    assert_eq!(server.ask("GET", &format!("/api/jobs/{evaluation}/report.html"), &[], "").0, 404);
    let found = fetched(&statistics, &["moment.0.safetensors", "moment.1.safetensors"]);
    for layer in ["moment.0.safetensors", "moment.1.safetensors"] {
        assert_eq!(moment(&found.join(layer)), moment(&out.join("stats").join(layer)));
    }
    let found = fetched(&training, &["mend.safetensors"]);
    assert_eq!(tensors(&found.join("mend.safetensors")), tensors(Path::new(&network)));
}

#[cfg(unix)]
#[test]
fn work_goes_on_after_its_server_was_killed_and_is_found_done() {
    let folder = tempfile::tempdir().expect("a folder");
    let (shelf, jobs) = (shelf(folder.path()), folder.path().join("jobs"));
    let mut server = Server::of(&shelf, &jobs);
    let id = server.asked(&["eval", "--model", "demo-nano", "--data", "demo", "--limit", "40"]);
    for pause in [300, 900, 1500, 2500] {
        std::thread::sleep(Duration::from_millis(pause));
        server = Server::of(&shelf, &server.kill());
    }
    let job = server.ended(&id);
    assert_eq!((&job["state"], &job["note"]), (&json!("done"), &Value::Null), "{job}");
    // A result that was there before anybody could say so is a result.
    let found = jobs.join(&id).join("evaluation");
    assert!(found.join("report.json").is_file() && !found.join("report.partial.json").exists());
    let data = shelf.join("tasks/demo").display().to_string();
    let report = document(&["eval", "--model", "demo-nano", "--data", &data, "--limit", "40", "--json"]).to_string();
    assert_eq!(scores(&fs::read_to_string(found.join("report.json")).expect("reads")), scores(&report));
}

/// A job is what its request says, whatever the one who runs the server has in a file of settings.
#[test]
fn a_job_reads_no_settings() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = folder.path().join("settings.toml");
    fs::write(&settings, "precision = \"f16\"\n[eval]\nlimit = 3\n[serve]\nat-once = 2\n").expect("writes");
    let variables = [("RECTIFY_CONFIG", settings.into_os_string()), ("RECTIFY_MESSAGES", "json".into())];
    let server = Server::with(&folder.path().join("jobs"), &["--messages", "text"], &variables);
    let id = server.asked(&["eval", "--model", "demo-nano", "--data", "demo", "--tasks", "nli", "--limit", "9"]);
    assert_eq!(server.ended(&id)["state"], "done");
    let (_, report) = server.ask("GET", &format!("/api/jobs/{id}/report.json"), &[], "");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!((&report["tasks"][0]["scores"]["n"], &report["precision"]), (&json!(9), &Value::Null), "{report}");
}

/// Sums of a model in another precision are sums of other keys.
#[test]
fn statistics_of_another_precision_are_not_gone_on_with() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = |name: &str| folder.path().join(name).display().to_string();
    fs::write(folder.path().join("corpus.txt"), corpus()).expect("writes");
    let (file, out) = (text("corpus.txt"), text("out"));
    let args = ["stats", "--model", "demo-nano", "--text", &file, "--layers", "1", "--tokens", "100000", "--out", &out];
    let mut child = Command::new(env!("CARGO_BIN_EXE_rectify"));
    let mut child = child.args(args).args(["--precision", "int8"]).stderr(Stdio::null()).spawn().expect("starts");
    let partial = folder.path().join("out/moment.partial.safetensors");
    while !partial.is_file() && child.try_wait().expect("waits").is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().expect("kills");
    child.wait().expect("waits");
    assert!(partial.is_file(), "it was stopped in the middle");
    check_refused(&args, &["moment.partial.safetensors", "another model, precision"]);
    let fewer = [&args[..7], &["--tokens", "9", "--out", &out, "--precision", "int8"]].concat();
    check_refused(&fewer, &["already"]);
    assert!(rectify(&[&args[..], &["--precision", "int8"]].concat()).status.success());
    let (_, header) =
        SafeTensors::read_metadata(&fs::read(folder.path().join("out/moment.1.safetensors")).expect("reads"))
            .map(|(size, header)| (size, header.metadata().clone().expect("metadata")))
            .expect("safetensors");
    assert_eq!(header["precision"], "int8");
}

#[test]
fn what_a_server_does_not_have_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), &[]);
    let check = |work: Value, status: u16, part: &str| check_job(&server, &json!({ "work": work }), status, part);
    let evaluation = |model: &str, data: &str, tasks: &str| json!({ "evaluation": { "model": model, "data": data, "tasks": [tasks] } });
    for path in ["../..", "/etc", "%2e%2e", "demo/../demo", ""] {
        check(evaluation("demo-nano", path, "nli"), 404, "no folder of tasks");
        check(evaluation(path, "demo", "nli"), 404, "no model");
        check(
            json!({ "statistics": { "model": "demo-nano", "text": path, "layers": [0], "tokens": 9 } }),
            404,
            "no text",
        );
        check(json!({ "mend_training": { "model": "demo-nano", "facts": path, "validation": path } }), 404, "no facts");
    }
    check(evaluation("demo-nano", "demo", "nlii"), 400, "did you mean");
    check(json!({ "evaluation": { "model": "demo-nano", "data": "demo", "edits": "x" } }), 404, "no edits");
    check(json!({ "evaluation": { "model": "demo-nano", "data": "demo", "limit": 0 } }), 400, "limit");
    let training = |settings: Value| json!({ "mend_training": { "model": "demo-nano", "facts": "demo_zsre", "validation": "demo_zsre", "settings": settings } });
    check(training(json!({ "out": "/etc/passwd" })), 400, "settings");
    check(training(json!({ "rank": 0 })), 400, "rank");
    check(training(json!({ "outer": "--out" })), 400, "settings");
    let shared = json!({ "work": evaluation("demo-nano", "demo", "nli"), "parts": 2 });
    check_job(&server, &shared, 400, "can be divided into 1");
    assert_eq!(server.json(&["list"]), json!([]));
}
