//! `rectify edit`, `stats`, `mend train`, and folders of models.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::desk::{Desk, PROMPT, check_refused, document, fact, golden, rectify};

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
fn a_hypernetwork_is_trained_and_used() {
    let desk = Desk::new(&json!([fact()]));
    let (model, other, out) = (golden("gpt2-tiny"), golden("llama-tiny"), desk.path("deep/mend.safetensors"));
    let out = out.to_str().expect("text");
    let train = |facts: &'static str| {
        let facts = if facts.is_empty() { desk.facts.as_str() } else { facts };
        let mut args = vec!["mend", "train", "--model", &model, "--facts", facts, "--validation", &desk.facts];
        args.extend(["--out", out, "--steps", "6", "--rank", "4", "--accumulate", "2"]);
        args
    };
    check_refused(&train("nowhere.json"), &["cannot read nowhere.json"]);
    let made = rectify(&train(""));
    assert_eq!(made.status.code(), Some(0), "{}", String::from_utf8_lossy(&made.stderr));
    assert!(String::from_utf8_lossy(&made.stdout).starts_with(out));
    let beside: Vec<_> = fs::read_dir(desk.path("deep")).expect("a folder").collect();
    assert_eq!(beside.len(), 1, "nothing but the result remains");
    check_refused(&train(""), &["mend.safetensors exists"]);

    let edit = |model: &str, file: &str| -> Vec<String> {
        let args =
            ["edit", "--model", model, "--facts", &desk.facts, "--method", "mend", "--hypernetwork", file, "--json"];
        args.map(str::to_owned).to_vec()
    };
    let report = document(&edit(&model, out).iter().map(String::as_str).collect::<Vec<_>>());
    let note = report["operations"][0]["notes"][0].as_str().expect("a note");
    assert!(note.contains("trained for 6 steps on facts.json"), "{note}");
    let refused = |model: &str, file: &str, parts: &[&str]| {
        check_refused(&edit(model, file).iter().map(String::as_str).collect::<Vec<_>>(), parts);
    };
    refused(&other, out, &["was trained for the model with hash"]);
    refused(&model, "nowhere.safetensors", &["cannot read nowhere.safetensors"]);
    check_refused(
        &["edit", "--model", &model, "--facts", &desk.facts, "--method", "mend"],
        &["rectify mend train", "--hypernetwork"],
    );
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
fn an_edit_that_would_ruin_the_model_says_how_to_make_it_all_the_same() {
    let facts = concat!(env!("CARGO_MANIFEST_DIR"), "/../static/facts/demo_counterfact.json");
    let edit = ["edit", "--model", "demo-nano", "--facts", facts, "--index", "0", "--method", "kn"];
    check_refused(&edit, &["forget how to speak", "Nothing was changed; --allow-harm"]);
}

#[test]
fn a_prompt_that_ends_in_a_space_is_warned_of() {
    let mut spaced = fact();
    spaced["prompt"] = json!(format!("{PROMPT} "));
    let desk = Desk::new(&json!([fact(), spaced]));
    let (model, contexts) = (golden("gpt2-tiny"), desk.contexts());
    let said = |arguments: &[&str]| String::from_utf8_lossy(&rectify(arguments).stderr).into_owned();
    for (index, warned) in [("0", false), ("1", true)] {
        let said = said(&desk.edit(&model, &contexts, &["--index", index]));
        assert_eq!(said.contains("record 1: the prompt ends in a space"), warned, "{said}");
    }
    for (prompt, warned) in [("The", false), ("The ", true)] {
        let said = said(&["ask", "--model", &model, "--prompt", prompt, "--tokens", "1"]);
        assert_eq!(said.contains("the prompt ends in a space"), warned, "{said}");
    }
}

/// A cluster says SIGTERM before it kills.
#[cfg(unix)]
#[test]
fn statistics_that_were_stopped_are_kept_and_not_overwritten_by_others() {
    let (desk, model) = (Desk::new(&json!([fact()])), golden("gpt2-tiny"));
    let write = |name: &str, lines: usize| {
        let path = desk.path(name);
        let text: String = (0..lines).map(|i| format!("Number {i} was born in the year {i} of the river.\n")).collect();
        fs::write(&path, text).expect("writes");
        path.display().to_string()
    };
    let (long, short, out) =
        (write("long.txt", 200_000), write("short.txt", 10), desk.path("stats").display().to_string());
    let stats = |text: &str, tokens: &str| {
        let args = ["stats", "--model", &model, "--text", text, "--layers", "1", "--tokens", tokens, "--out", &out];
        args.map(str::to_owned)
    };
    let partial = Path::new(&out).join("moment.partial.safetensors");
    // On a busy machine it takes a while until there is something to stop.
    for seconds in [1, 3, 9, 27] {
        let mut run =
            Command::new(env!("CARGO_BIN_EXE_rectify")).args(stats(&long, "100000000")).spawn().expect("starts");
        std::thread::sleep(std::time::Duration::from_secs(seconds));
        let killed = Command::new("kill").args(["-TERM", &run.id().to_string()]).status().expect("kill");
        assert!(killed.success());
        assert!(!run.wait().expect("ends").success());
        if partial.is_file() {
            break;
        }
    }
    let kept = fs::read(&partial).expect("what was gathered is kept");
    let other = stats(&short, "50");
    check_refused(&other.each_ref().map(String::as_str), &["moment.partial.safetensors", "move it away"]);
    assert!(fs::read(&partial).expect("still there") == kept);
}

#[test]
fn alphaedit_reads_statistics_of_too_few_tokens_from_a_folder_as_beside_the_model() {
    let desk = Desk::new(&json!([fact()]));
    let (model, contexts) = (golden("gpt2-tiny"), desk.contexts());
    let (text, stats) = (desk.path("corpus.txt"), desk.path("stats"));
    fs::write(&text, "The capital of France is Paris, and the city lies on a river.\n".repeat(3)).expect("writes");
    let (text, stats) = (text.to_str().expect("text"), stats.to_str().expect("text"));
    let made =
        rectify(&["stats", "--model", &model, "--text", text, "--layers", "1", "--tokens", "50", "--out", stats]);
    assert_eq!(made.status.code(), Some(0), "{}", String::from_utf8_lossy(&made.stderr));
    let arguments = desk.edit(&model, &contexts, &["--covariance", stats, "--json"]);
    // ROME whitens by the inverse, and there is none.
    check_refused(&arguments, &["not positive definite"]);
    let alphaedit: Vec<&str> =
        arguments.iter().map(|argument| if *argument == "rome" { "alphaedit" } else { argument }).collect();
    assert!(document(&alphaedit)["operations"][0]["notes"].to_string().contains("directions are free"));
}

#[test]
fn a_key_is_ignored_only_where_a_model_is_read() {
    for command in [&["models", "list"][..], &["data", "list"], &["models", "check"], &["report", "."]] {
        check_refused(&[command, &["--ignore", "scale_attn_weights"]].concat(), &["--ignore", "read a model"]);
    }
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
    check(&["--index", "5"], &["records are 0..1"]);
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

/// Three facts of which the second does not fit the model's context.
fn one_too_long() -> Value {
    let mut long = fact();
    long["prompt"] = format!("{} {PROMPT}", "x ".repeat(200)).into();
    let mut last = fact();
    last["prompt"] = "Danielle Darrieux speaks the language".into();
    json!([fact(), long, last])
}

#[test]
fn one_bad_record_does_not_throw_away_the_others() {
    let (desk, model) = (Desk::new(&one_too_long()), golden("gpt2-tiny"));
    let contexts = desk.contexts();
    for mode in ["single", "sequential"] {
        let out = desk.path(mode).display().to_string();
        let output = rectify(&desk.edit(&model, &contexts, &["--mode", mode, "--out", &out, "--json"]));
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        for part in ["record 1", "context", "1 edit made before", "written", "--skip-bad"] {
            assert!(message.contains(part), "{message}\nlacks {part:?}");
        }
        let report: Value = serde_json::from_slice(&output.stdout).expect("what was done is printed");
        assert_eq!(report["operations"].as_array().expect("operations").len(), 1);
        assert_eq!(report["failed"][0]["record"], 1);
        let delta = if mode == "single" { "delta.0.safetensors" } else { "delta.safetensors" };
        assert!(desk.path(mode).join(delta).is_file() && desk.path(mode).join("report.json").is_file());

        let all = desk.path(&format!("{mode}-all")).display().to_string();
        let report = document(&desk.edit(&model, &contexts, &["--mode", mode, "--out", &all, "--json", "--skip-bad"]));
        assert_eq!(report["operations"].as_array().expect("operations").len(), 2);
        assert_eq!((&report["failed"][0]["record"], report["failed"].as_array().map(Vec::len)), (&json!(1), Some(1)));
        if mode == "single" {
            assert!(Path::new(&all).join("delta.2.safetensors").is_file(), "files keep the records' numbers");
        } else {
            assert_eq!(report["final_measure"].as_array().expect("facts").len(), 2);
        }
    }
    // Where nothing was done before, nothing is reported.
    check_refused(&desk.edit(&model, &contexts, &["--index", "1..3"]), &["record 1"]);
}

#[test]
fn a_batch_goes_on_without_the_records_that_cannot_be_asked() {
    let (desk, model) = (Desk::new(&one_too_long()), golden("gpt2-tiny"));
    let contexts = desk.contexts();
    let edit = desk.edit(&model, &contexts, &["--mode", "batch", "--covariance", "identity", "--json"]);
    let memit: Vec<&str> = edit.iter().map(|argument| if *argument == "rome" { "memit" } else { argument }).collect();
    check_refused(&memit, &["record 1", "context"]);
    let report = document(&[&memit[..], &["--skip-bad"]].concat());
    assert_eq!(report["operations"][0]["facts"].as_array().expect("facts").len(), 2);
    assert_eq!(report["failed"][0]["record"], 1);
}

/// The golden model with weights so large that what it says is no number.
fn beyond_numbers(desk: &Desk) -> String {
    let folder = desk.path("model");
    copy_model("gpt2-tiny", &folder);
    let path = folder.join("model.safetensors");
    let mut bytes = fs::read(&path).expect("reads");
    // The file's first tensors are of the first block, so everything behind it is lost.
    let from = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    bytes[from..from + 4096].as_chunks_mut::<4>().0.iter_mut().for_each(|number| *number = 3.4e38f32.to_le_bytes());
    fs::write(path, bytes).expect("writes");
    folder.display().to_string()
}

#[test]
fn a_model_whose_answers_are_no_numbers_is_not_measured() {
    let desk = Desk::new(&json!([fact()]));
    let model = beyond_numbers(&desk);
    check_refused(&["ask", "--model", &model, "--prompt", PROMPT], &["not a finite number"]);
    let tasks = concat!(env!("CARGO_MANIFEST_DIR"), "/../static/tasks/demo");
    let eval = ["eval", "--model", &model, "--data", tasks, "--tasks", "sentiment", "--limit", "2"];
    check_refused(&eval, &["not a finite number"]);
    let text = desk.path("corpus.txt");
    fs::write(&text, "The capital of France is Paris.\n").expect("writes");
    let (text, out) = (text.display().to_string(), desk.path("stats").display().to_string());
    check_refused(
        &["stats", "--model", &model, "--text", &text, "--layers", "3", "--tokens", "50", "--out", &out],
        &["second moment of layer 3 is not a finite number"],
    );
}

#[cfg(unix)]
#[test]
fn a_file_without_an_end_is_given_up() {
    let model = golden("gpt2-tiny");
    let ask = ["ask", "--model", &model, "--prompt", PROMPT, "--edits", "/dev/zero"];
    check_refused(&ask, &["/dev/zero does not end within 256 MiB"]);
}

#[test]
fn a_change_of_another_shape_is_named_by_its_file() {
    let (desk, model) = (Desk::new(&json!([fact()])), golden("gpt2-tiny"));
    let (contexts, out) = (desk.contexts(), desk.path("run").display().to_string());
    document(&desk.edit(&model, &contexts, &["--out", &out, "--json"]));
    let path = desk.path("run").join("delta.safetensors");
    let bytes = fs::read(&path).expect("reads");
    let at = bytes.windows(8).position(|bytes| bytes == b"[256,64]").expect("the shape");
    let turned = [&bytes[..at], b"[64,256]", &bytes[at + 8..]].concat();
    fs::write(&path, turned).expect("writes");
    check_refused(
        &["ask", "--model", &model, "--prompt", PROMPT, "--edits", &out],
        &["delta.safetensors", "transformer.h.1.mlp.c_proj.weight"],
    );
}

#[test]
fn a_record_that_cannot_be_read_is_left_out_only_on_demand() {
    let mut facts = one_too_long();
    facts[1] = json!({ "subject": "Ada", "prompt": "Ada is", "target_new": "" });
    let (desk, model) = (Desk::new(&facts), golden("gpt2-tiny"));
    let contexts = desk.contexts();
    check_refused(&desk.edit(&model, &contexts, &[]), &["record 1", "target_new is empty"]);
    let report = document(&desk.edit(&model, &contexts, &["--skip-bad", "--json"]));
    assert_eq!(report["operations"].as_array().expect("operations").len(), 2);
    assert_eq!(report["failed"][0]["failure"]["field"], "target_new");
}
