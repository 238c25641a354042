//! `rectify trace`.

use std::fs;

use serde_json::Value;

use crate::desk::{Desk, PROMPT, check_refused, check_said, document, fact, golden, rectify};

const ASKED: &str = "Willa Farolde was born in the city of";

fn demo() -> String {
    format!("{}/../static/models/demo-gpt2", env!("CARGO_MANIFEST_DIR"))
}

fn trace<'a>(model: &'a str, prompt: &'a str, subject: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["trace", "--model", model, "--prompt", prompt, "--subject", subject], more].concat()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_trace_says_where_the_bundled_model_knows_a_fact() {
    let desk = Desk::new(&fact());
    let (model, out) = (demo(), desk.text("out"));
    let more = ["--samples", "4", "--window", "3", "--json", "--out", &out];
    let found = document(&trace(&model, ASKED, "Willa Farolde", &more));
    let (high, low) = (number(&found["high"]), number(&found["low"]));
    assert!(high > 0.5 && low < 0.5 * high, "{high} {low}");
    assert_eq!(found["spec"]["noise"]["deviations"], 3.0);
    let tokens = found["tokens"].as_array().expect("tokens").len();
    let layers = found["model"]["layers"].as_u64().expect("layers") as usize;
    for map in ["states", "mlp", "attention"] {
        let rows = found[map].as_array().expect("a map");
        assert_eq!(rows.len(), tokens, "{map}");
        assert!(rows.iter().all(|row| row.as_array().expect("a row").len() == layers), "{map}");
    }
    // The last token's last state is all that the answer is read from.
    let last = number(&found["states"][tokens - 1][layers - 1]);
    assert!((last - high).abs() < 1e-5, "{last} {high}");

    let written: Value = serde_json::from_slice(&fs::read(desk.path("out/trace.json")).expect("reads")).expect("JSON");
    assert_eq!(written, found);
    let picture = fs::read_to_string(desk.path("out/trace.svg")).expect("reads");
    check_said(&picture, &["<svg", "&quot;W", "restored: MLP", "centre of 3 layers"]);

    let output = rectify(&trace(&model, ASKED, "Willa Farolde", &["--samples", "4", "--window", "3", "--out", &out]));
    let (table, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    check_said(&table, &[ASKED, "layer", "state", "MLP", "attention", "windows of 3 layers", "\"*"]);
    assert!(table.contains(&format!("{:.2}%", high * 100.0)), "{table}");
    check_said(&said, &["written to"]);
}

#[test]
fn noise_is_a_number_or_as_much_as_the_subjects_of_facts_have() {
    let desk = Desk::new(&fact());
    let model = golden("gpt2-tiny");
    let sigma = |more: &[&str]| {
        let all = [&["--samples", "2", "--json"], more].concat();
        number(&document(&trace(&model, PROMPT, "Danielle Darrieux", &all))["sigma"])
    };
    assert_eq!(sigma(&["--noise", "0.25"]), 0.25);
    let own = sigma(&[]);
    assert!((sigma(&["--noise", "s1"]) * 3.0 - own).abs() < 1e-12 * own);
    // The only fact is about the same subject.
    assert_eq!(sigma(&["--facts", &desk.facts]), own);
}

#[test]
fn an_edited_model_is_traced_as_it_is() {
    let desk = Desk::new(&fact());
    let (model, contexts, edited) = (golden("gpt2-tiny"), desk.contexts(), desk.text("edited"));
    let edit = rectify(&desk.edit(&model, &contexts, &["--out", &edited]));
    assert_eq!(edit.status.code(), Some(0), "{}", String::from_utf8_lossy(&edit.stderr));
    let traced = |more: &[&str]| document(&trace(&model, PROMPT, "Danielle Darrieux", more));
    let after = traced(&["--samples", "2", "--json", "--edits", &edited]);
    let before = traced(&["--samples", "2", "--json"]);
    assert_eq!((before["edits"].as_u64(), after["edits"].as_u64()), (Some(0), Some(1)));
    assert_ne!(before["high"], after["high"]);
    let asked = document(&["ask", "--model", &model, "--prompt", PROMPT, "--top", "1", "--json", "--edits", &edited]);
    assert_eq!(after["answer"], asked["top"][0][0]);
    assert!((number(&after["high"]) - number(&asked["top"][0][1])).abs() < 1e-6, "{}", asked["top"]);
}

#[test]
fn the_mean_over_facts_is_that_of_the_facts_which_the_model_knows() {
    let desk = Desk::new(&fact());
    let facts = format!("{}/../static/facts/demo_counterfact.json", env!("CARGO_MANIFEST_DIR"));
    let (model, out) = (demo(), desk.text("out"));
    let few = ["--samples", "2", "--window", "3", "--json"];
    let all = ["trace", "--model", &model, "--facts", &facts, "--index", "1..5", "--out", &out];
    let found = document(&[&all[..], &few].concat());
    let lines = fs::read_to_string(desk.path("out/traces.jsonl")).expect("reads");
    let traces: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let records: Vec<&Value> = traces.iter().map(|trace| &trace["record"]).collect();
    assert!(!traces.is_empty());
    assert_eq!(found["records"].as_array().expect("records").iter().collect::<Vec<_>>(), records);
    assert_eq!(found["facts"], traces.len());
    let mean = |of: &dyn Fn(&Value) -> f64| traces.iter().map(of).sum::<f64>() / traces.len() as f64;
    let check = |ours: &Value, expected: f64| assert!((number(ours) - expected).abs() < 1e-12, "{ours} {expected}");
    check(&found["high"], mean(&|trace| number(&trace["high"])));
    let last_of_subject = |trace: &Value| {
        let end = trace["subject"][1].as_u64().expect("a number") as usize;
        number(&trace["mlp"][end - 1][0])
    };
    let row = found["rows"].as_array().expect("rows").iter().position(|row| row == "last subject token");
    check(&found["mlp"][row.expect("every fact has one")][0], mean(&last_of_subject));

    // One of them by itself, with the same noise.
    let text = |name: &str| traces[0]["spec"][name].as_str().expect("text").to_owned();
    let sigma = found["sigma"].to_string();
    let alone = document(&trace(&model, &text("prompt"), &text("subject"), &[&few[..], &["--noise", &sigma]].concat()));
    assert_eq!(alone["states"], traces[0]["states"]);

    let picture = fs::read_to_string(desk.path("out/trace.svg")).expect("reads");
    check_said(&picture, &["last subject token", "last token", "restored: attention"]);
    let output = rectify(&[&all[..6], &["1..3", "--samples", "2", "--window", "3"]].concat());
    check_said(&String::from_utf8_lossy(&output.stdout), &["of 2 facts", "last subject token", "windows of 3"]);
    // Of a fact that the tiny model does not know nothing is a mean.
    let model = golden("gpt2-tiny");
    let none = ["trace", "--model", &model, "--facts", &facts, "--index", "0", "--samples", "2"];
    check_refused(&none, &["the true object of none of the 1 facts"]);
}

#[test]
fn what_cannot_be_traced_is_named() {
    let model = golden("gpt2-tiny");
    let subject = "Danielle Darrieux";
    // Said before a model is read.
    check_refused(&trace("/nowhere", PROMPT, "Darius", &[]), &["\"Darius\" does not occur in the prompt", PROMPT]);
    check_refused(&trace("/nowhere", "", subject, &[]), &["prompt is empty"]);
    check_refused(&trace("/nowhere", PROMPT, " ", &[]), &["subject is empty"]);
    check_refused(&trace("/nowhere", PROMPT, subject, &["--samples", "0"]), &["samples is 0"]);
    check_refused(&trace("/nowhere", PROMPT, subject, &["--window", "0"]), &["window is 0"]);
    check_refused(&trace("/nowhere", PROMPT, subject, &["--noise", "loud"]), &["--noise", "loud"]);
    check_refused(&trace("/nowhere", PROMPT, subject, &["--facts", "/nothing.json"]), &["/nothing.json"]);
    check_refused(&trace("/nowhere", PROMPT, subject, &[]), &["/nowhere"]);

    let long = format!("{}{PROMPT}", "so it is said ".repeat(60));
    check_refused(&trace(&model, &long, subject, &[]), &["tokens; the model's context holds 128"]);
    check_refused(&trace(&model, PROMPT, subject, &["--samples", "1000"]), &["samples is 1000", "at most 4096"]);
    check_refused(&trace(&model, PROMPT, subject, &["--noise", "1e38"]), &["is not a finite number"]);
    let here = tempfile::tempdir().expect("a folder");
    fs::write(here.path().join("thesis.tex"), "x").expect("writes");
    let out = here.path().display().to_string();
    check_refused(&trace(&model, PROMPT, subject, &["--out", &out]), &["thesis.tex"]);
}
