//! `rectify doctor`, and settings by file and environment.

use std::{fs, process::Command};

use serde_json::Value;

#[test]
fn the_doctor_says_what_is_here_and_what_is_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    let doctor = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rectify"));
        command.args(["doctor", "--json"]).args(more).current_dir(folder.path());
        command.env("HF_HOME", folder.path().join("hub")).output().expect("starts")
    };
    let output = doctor(&[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let says = |name: &str| {
        let check = report["checks"].as_array().expect("checks").iter().find(|check| check["name"] == name);
        check.map(|check| (check["state"].as_str().expect("a state"), check["says"].as_str().expect("words")))
    };
    assert_eq!(says("device flex"), Some(("ok", "multiplies as it should")));
    assert!(says("model demo-gpt2").expect("it is bundled").1.contains("an edit takes"));
    assert!(says("Hugging Face cache").expect("looked at").1.contains("not made yet"));
    assert!(report["machine"]["processors"].as_u64() >= Some(1));
    let none = doctor(&["--static", "nowhere"]);
    assert_eq!(none.status.code(), Some(1), "commands would fail");
    assert!(String::from_utf8_lossy(&none.stderr).contains("models"));
    // A person reads a table.
    let table = Command::new(env!("CARGO_BIN_EXE_rectify")).arg("doctor").output().expect("starts");
    assert!(String::from_utf8_lossy(&table.stdout).contains("ok      device flex"));
}

#[test]
fn flags_win_over_the_environment_and_the_environment_over_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rectify.toml");
    let run = |file: &str, variables: &[(&str, &str)], more: &[&str]| {
        fs::write(&path, file).expect("writes");
        let mut command = Command::new(env!("CARGO_BIN_EXE_rectify"));
        command.args(["jobs", "list"]).args(more).env("RECTIFY_CONFIG", &path).env_remove("RECTIFY_SERVER");
        let output = command.envs(variables.iter().copied()).output().expect("starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (by_file, by_variable, by_flag) = ("http://127.0.0.1:2", "http://127.0.0.1:3", "http://127.0.0.1:4");
    let file = format!("[jobs]\nserver = {by_file:?}");
    let variable = [("RECTIFY_SERVER", by_variable)];
    assert!(run(&file, &[], &[]).1.contains(by_file));
    assert!(run(&file, &variable, &[]).1.contains(by_variable));
    assert!(run(&file, &variable, &["--server", by_flag]).1.contains(by_flag));
    assert!(run("", &variable, &[]).1.contains(by_variable));
    // What is wrong is named with the file.
    let (code, said) = run("servers = 1", &[], &[]);
    assert_eq!(code, Some(2));
    assert!(said.contains("rectify.toml") && said.contains("did you mean \"server\"?"), "{said}");
    let (code, said) = run("[jobs.list]\ntoken-file = [1, [2]]", &[], &[]);
    assert!(code == Some(2) && said.contains("[jobs]: [list]"), "{said}");
    fs::remove_file(&path).expect("removes");
    let missing = Command::new(env!("CARGO_BIN_EXE_rectify")).args(["doctor", "--config"]).arg(&path).output();
    let missing = missing.expect("starts");
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("rectify.toml"));
}
