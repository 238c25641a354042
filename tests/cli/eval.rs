//! `rectify eval`.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::desk::{Desk, check_refused, check_said, document, fact, golden, rectify};

#[test]
fn tasks_are_asked_of_a_model_edited_or_not() {
    let desk = Desk::new(&json!([fact()]));
    let data = format!("{}/../static/tasks/demo", env!("CARGO_MANIFEST_DIR"));
    let model = golden("llama-tiny");
    let args =
        ["eval", "--model", &model, "--data", &data, "--tasks", "nli,sentiment,dialogue", "--limit", "12", "--json"];
    let report = document(&args);
    let tasks = report["tasks"].as_array().expect("tasks");
    assert_eq!(tasks.len(), 3);
    for task in tasks {
        let judged = task["scores"]["n"].as_u64().expect("n") + task["skipped"].as_u64().expect("skipped");
        assert_eq!(judged, 12, "{task}");
    }
    assert!(tasks[2]["skipped"].as_u64().expect("skipped") > 0, "a dialogue is longer than this model's context");
    check_refused(&["eval", "--model", &model, "--data", desk.facts.as_str()], &["cannot read"]);

    // What was said, to be read by a person or a program.
    let out = desk.text("out");
    let logged = document(&[&args[..], &["--out", &out, "--log-samples"]].concat());
    let saved: Value = serde_json::from_slice(&fs::read(desk.path("out/report.json")).expect("reads")).expect("JSON");
    assert_eq!(saved["tasks"][0]["scores"], logged["tasks"][0]["scores"]);
    let samples = fs::read_to_string(desk.path("out/samples.nli.jsonl")).expect("reads");
    let samples: Vec<Value> = samples.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(samples.len() as u64, report["tasks"][0]["scores"]["n"].as_u64().expect("n"));
    for field in ["number", "prompts", "answers", "replies", "judgement"] {
        assert!(samples[0].get(field).is_some(), "{field}");
    }
    assert!(samples[1]["number"].as_u64() > samples[0]["number"].as_u64(), "evenly spaced through the file");
    check_refused(&[&args[..], &["--out", &desk.text("")]].concat(), &["facts.json", "no result of this command"]);
    check_refused(&["eval", "--model", &model, "--data", &data, "--tasks", "nlii"], &["did you mean \"nli\"?"]);
}

#[test]
fn a_stopped_evaluation_goes_on_with_the_next_task() {
    let here = tempfile::tempdir().expect("a folder");
    let out = here.path().join("out");
    let data = format!("{}/../static/tasks/demo", env!("CARGO_MANIFEST_DIR"));
    let out_text = out.display().to_string();
    let asked = ["eval", "--model", "demo-nano", "--data", &data, "--limit", "60", "--log-samples"];
    let args = [&asked[..], &["--out", &out_text]].concat();
    let mut child =
        Command::new(env!("CARGO_BIN_EXE_rectify")).args(&args).stderr(Stdio::null()).spawn().expect("starts");
    let partial = out.join("report.partial.json");
    while !partial.is_file() && child.try_wait().expect("waits").is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().expect("kills");
    child.wait().expect("waits");
    assert!(partial.is_file(), "it was stopped after the first task");
    // Another evaluation does not go on with it.
    check_refused(&[&asked[..6], &["50", "--out", &out_text]].concat(), &["report.partial.json", "another"]);
    // Nor with numbers that somebody changed.
    let whole = fs::read_to_string(&partial).expect("reads");
    fs::write(&partial, whole.replacen("\"tokens\": ", "\"tokens\": 9", 1)).expect("writes");
    check_refused(&args, &["report.partial.json", "was changed"]);
    fs::write(&partial, whole).expect("writes");
    // What was on its way when it was killed is in nobody's way.
    fs::write(out.join("report.partial.json.0123456789abcdef.part"), "half").expect("writes");
    let output = rectify(&args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("resuming after"));
    assert!(!partial.exists());
    let whole = here.path().join("whole").display().to_string();
    assert!(rectify(&[&asked[..], &["--out", &whole]].concat()).status.success());
    let read = |folder: &str, file: &str| fs::read_to_string(Path::new(folder).join(file)).expect("reads");
    let scores = |folder: &str| -> Vec<Value> {
        let report: Value = serde_json::from_str(&read(folder, "report.json")).expect("JSON");
        report["tasks"].as_array().expect("tasks").iter().map(|task| task["scores"].clone()).collect()
    };
    assert_eq!(scores(&out_text), scores(&whole));
    for task in ["nli", "ner", "summarization"] {
        let file = format!("samples.{task}.jsonl");
        assert_eq!(read(&out_text, &file), read(&whole, &file));
    }
}

#[test]
fn a_prompt_longer_than_the_context_is_skipped_and_counted() {
    let here = tempfile::tempdir().expect("a folder");
    let record = |passage: &str| json!({ "question": "is ice cold", "passage": passage, "answer": true }).to_string();
    let file = here.path().join("boolq.jsonl");
    let eval = |json: bool, records: &[String]| {
        fs::write(&file, records.join("\n")).expect("writes");
        let (model, data) = (golden("gpt2-tiny"), here.path().display().to_string());
        let mut args = vec!["eval", "--model", &model, "--data", &data, "--tasks", "closed_qa"];
        args.extend(json.then_some("--json"));
        let output = rectify(&args);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let (short, long) = (record("Ice is cold."), record(&"Ice is cold. ".repeat(500)));
    let report: Value = serde_json::from_str(&eval(true, &[short.clone(), long.clone()])).expect("JSON");
    assert_eq!((&report["tasks"][0]["skipped"], &report["tasks"][0]["scores"]["n"]), (&json!(1), &json!(1)));
    check_said(&eval(false, &[short, long.clone()]), &["1 of 2 records do not fit the model's context"]);
    // A score of nothing is no score.
    check_said(&eval(false, &[long]), &["1 of 1 records do not fit", "–"]);
}

#[test]
fn data_that_cannot_be_asked_is_named_before_a_model_is_read() {
    let here = tempfile::tempdir().expect("a folder");
    let data = here.path().display().to_string();
    let check = |file: &str, text: &str, task: &str, parts: &[&str]| {
        fs::write(here.path().join(file), text).expect("writes");
        check_refused(&["eval", "--model", "/nowhere", "--data", &data, "--tasks", task], parts);
    };
    check(
        "notes.txt",
        "",
        "nli",
        &[&data, "no file for Natural language inference (RTE)", "\"rte\"", "data fetch rte"],
    );
    check(
        "rte.tsv",
        "premise\tlabel\nx\tentailment\n",
        "nli",
        &["rte.tsv: line 2", "\"hypothesis\"", "label, premise"],
    );
    check(
        "boolq.jsonl",
        r#"{"question": "q", "passage": "", "answer": true}"#,
        "closed_qa",
        &["boolq.jsonl: line 1", "blank"],
    );
}
