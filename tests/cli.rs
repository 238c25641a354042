//! The command line as a person or a script meets it: exit codes, documents, files, and what bad input is told.

use std::{
    collections::HashSet,
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

/// Two facts that the tiny models were trained on, several times: a sweep needs more than one.
fn sweep_facts() -> Value {
    let named = |prompt: &str| {
        let mut fact = fact();
        fact["prompt"] = prompt.into();
        fact
    };
    json!([
        named(PROMPT),
        named("Danielle Darrieux speaks the language"),
        named("The language of Danielle Darrieux is"),
        named("Danielle Darrieux was taught in"),
    ])
}

/// A grid of two editors and two regularizers, with few steps, one after the other, and two tasks.
fn sweep(desk: &Desk, mode: &str, more: &str) -> String {
    let path = desk.path("sweep.toml");
    let text = format!(
        "model = {:?}\nfacts = \"facts.json\"\nmode = \"{mode}\"\nregularizers = [\"none\", \"rect 40%\"]\n{more}\n\
         covariance = \"identity\"\n\
         [[editors]]\nmethod = \"rome\"\nlayers = [1]\nv_num_grad_steps = 3\ncontexts = {{ given = [\"{{}}\"] }}\n\
         [[editors]]\nmethod = \"memit\"\nlayers = [1, 2]\nv_num_grad_steps = 3\ncontexts = {{ given = [\"{{}}\"] }}\n",
        golden("gpt2-tiny")
    );
    fs::write(&path, text).expect("writes");
    path.display().to_string()
}

/// Every row of a folder but for the seconds it took, sorted.
fn rows(folder: &Path) -> Vec<String> {
    let mut rows = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            for line in fs::read_to_string(&path).expect("text").lines() {
                let mut row: Value = serde_json::from_str(line).expect("every line is whole");
                if let Some(edit) = row.pointer_mut("/measured/edit") {
                    edit["seconds"] = 0.into();
                }
                rows.push(format!("{} {row}", path.file_name().expect("a name").display()));
            }
        }
    }
    rows.sort();
    rows
}

#[test]
fn a_sweep_that_is_killed_again_and_again_ends_with_the_same_rows() {
    const KILLS: usize = 20;
    let desk = Desk::new(&sweep_facts());
    let tasks = format!("{}/../static/tasks/demo", env!("CARGO_MANIFEST_DIR"));
    let more =
        format!("edits = [0, 1, 3]\ntasks = [\"sentiment\", \"nli\"]\nlimit = 20\ndata = {tasks:?}\nseeds = [0, 1]");
    let spec = sweep(&desk, "sequential", &more);
    let (whole, torn) = (desk.path("whole"), desk.path("torn"));
    let out = |folder: &Path| ["sweep".to_owned(), spec.clone(), "--out".into(), folder.display().to_string()];
    let run =
        |folder| Command::new(env!("CARGO_BIN_EXE_rectify")).args(out(folder)).output().expect("the program starts");
    let undisturbed = run(&whole);
    assert!(undisturbed.status.success(), "{}", String::from_utf8_lossy(&undisturbed.stderr));

    let (mut kills, mut wait) = (0, 60);
    while kills < KILLS {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rectify"))
            .args(out(&torn))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the program starts");
        std::thread::sleep(std::time::Duration::from_millis(wait));
        // Killed where it stands: no handler runs, no buffer is flushed.
        match child.try_wait().expect("waits") {
            Some(_) => {
                // Too late: begin anew, and come earlier.
                fs::remove_dir_all(&torn).expect("removes");
                wait = 60;
            }
            None => {
                child.kill().expect("kills");
                child.wait().expect("waits");
                kills += 1;
                // Each time a little later or earlier, so that it stands somewhere else.
                wait = 40 + (wait * 7 + 13) % 90;
            }
        }
    }
    assert!(run(&torn).status.success());
    assert_eq!(rows(&torn), rows(&whole));
}

#[test]
fn a_sweep_shares_its_updates_between_regularizers_and_its_folder_with_others() {
    let desk = Desk::new(&sweep_facts());
    let spec = sweep(&desk, "single", "index = [1, 3]");
    let out = desk.path("out").display().to_string();
    let args = ["sweep", &spec, "--out", &out];
    let both = [Command::new(env!("CARGO_BIN_EXE_rectify")).args(args).spawn().expect("starts"), {
        Command::new(env!("CARGO_BIN_EXE_rectify")).args(args).spawn().expect("starts")
    }];
    for mut child in both {
        assert!(child.wait().expect("waits").success());
    }
    // Whoever came late may have found cells taken; a last run makes sure and finds nothing to do.
    let output = rectify(&args);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("| ROME | rect 40% | 1 | 2 |"), "{table}");
    assert!(table.contains("| MEMIT | none | 1 | 2 |"), "{table}");
    // Two editors, each a line for itself, and two facts under two regularizers: a fact and an edit each.
    assert_eq!(rows(&desk.path("out")).len(), 2 * (1 + 2 * 2 * 2));
}

#[test]
fn texts_are_written_and_scored_where_a_sweep_asks_for_them() {
    let record = json!([{
        "requested_rewrite": {
            "subject": "Danielle Darrieux", "prompt": "The mother tongue of {} is", "relation_id": "P103",
            "target_new": { "str": "English", "id": "Q1860" }, "target_true": { "str": "French", "id": "Q150" },
        },
        "paraphrase_prompts": ["Danielle Darrieux, a native"], "neighborhood_prompts": ["Ada speaks"],
        "generation_prompts": ["Danielle Darrieux speaks", "In Danielle Darrieux's home"],
    }]);
    let desk = Desk::new(&record);
    let snippets = json!([{ "relation_id": "P103", "target_id": "Q1860", "samples": [
        { "name": "Ida", "text": "Ida is a native speaker of English and the language of England." }] }]);
    fs::write(desk.path("snippets.json"), snippets.to_string()).expect("writes");
    let spec = sweep(&desk, "single", "texts = true\nsnippets = \"snippets.json\"");
    let out = desk.path("out").display().to_string();
    let output = rectify(&["sweep", &spec, "--out", &out]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("| n-gram entropy | unedited | consistency | unedited |"));
    let texts = |folder: &str| {
        let rows = rows(&desk.path(folder));
        rows.into_iter().filter(|row| row.contains("\"text\"")).collect::<Vec<_>>()
    };
    assert_eq!(texts("out").len(), 4, "two editors, two regularizers");
    let row: Value = serde_json::from_str(texts("out")[0].split_once(' ').expect("a row").1).expect("JSON");
    assert!(row["measured"]["text"]["entropy"].as_f64().expect("a number") > 1.0, "{row}");
    let consistency = row["measured"]["text"]["consistency"].as_f64().expect("a number");
    assert!((0.0..=1.0).contains(&consistency), "{row}");
    let unedited: HashSet<String> = texts("out")
        .iter()
        .map(|row| serde_json::from_str::<Value>(row.split_once(' ').expect("a row").1).expect("JSON"))
        .map(|row| row["measured"]["text"]["unedited"]["entropy"].as_f64().expect("a number").to_string())
        .collect();
    assert_eq!(unedited.len(), 1, "one model wrote them, whatever the editor and the regularizer: {unedited:?}");
    // The same seed writes the same texts.
    let again = desk.path("again").display().to_string();
    assert!(rectify(&["sweep", &spec, "--out", &again]).status.success());
    assert_eq!(texts("again"), texts("out"));

    let bare = Desk::new(&sweep_facts());
    let out = bare.path("out").display().to_string();
    check_refused(&["sweep", &sweep(&bare, "single", "texts = true"), "--out", &out], &["generation_prompts"]);
}

#[test]
fn a_report_stands_alone_and_says_what_the_rows_say() {
    let desk = Desk::new(&sweep_facts());
    let spec = sweep(&desk, "single", "index = [1, 3]");
    let out = desk.path("out").display().to_string();
    let output = rectify(&["sweep", &spec, "--out", &out, "--report"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |name: &str| fs::read_to_string(desk.path("out").join(name)).expect("a file of the report");
    let page = read("report.html");
    for elsewhere in ["src=", "href=", "url(", "@import", "<script"] {
        assert!(!page.contains(elsewhere), "the page needs {elsewhere:?}");
    }
    let row = read("table.md").lines().nth(2).expect("a row").to_owned();
    for cell in row.split('|').map(str::trim).filter(|cell| !cell.is_empty()) {
        assert!(page.contains(&format!(">{cell}<")), "the page lacks {cell:?}");
    }
    assert!(read("figures/out-single.svg").starts_with("<svg"));
    assert!(
        read("report.csv").starts_with("sweep,model,mode,editor,batch,kept,edits,facts,score,mean,low,high,seeds\n")
    );
    let json: Value = serde_json::from_str(&read("report.json")).expect("JSON");
    assert_eq!(json[0]["points"].as_array().expect("points").len(), 4);

    let empty = desk.path("nothing");
    fs::create_dir(&empty).expect("a folder");
    check_refused(&["report", &empty.display().to_string()], &["has no rows of a sweep", "rectify sweep"]);
    assert_eq!(fs::read_dir(empty).expect("a folder").count(), 0);
}

#[test]
fn a_sweep_that_cannot_be_is_named() {
    let desk = Desk::new(&sweep_facts());
    let out = desk.path("out").display().to_string();
    let check = |spec: String, parts: &[&str]| check_refused(&["sweep", &spec, "--out", &out], parts);
    check(sweep(&desk, "single", "indx = [1, 3]"), &["sweep.toml", "did you mean \"index\"?"]);
    check(sweep(&desk, "single", "index = [1, 9]"), &["index 1..9 is outside", "holds 4 records"]);
    check(sweep(&desk, "batch", "edits = [2]"), &["rome writes one fact at a time"]);
    check(sweep(&desk, "sequential", "edits = [9]"), &["edits asks for 9 facts; there are 4"]);
    check(sweep(&desk, "sequential", "edits = [1]\ntasks = [\"nlii\"]\ndata = \".\""), &["did you mean \"nli\"?"]);
    check(sweep(&desk, "sequential", "edits = [1]\ntasks = [\"nli\"]\ndata = \".\""), &["no file for", "\"rte\""]);
}

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
    check_refused(&["eval", "--model", &model, "--data", &data, "--tasks", "nlii"], &["did you mean \"nli\"?"]);
}

/// A hub that has these files, by their path, and says 404 to everything else; `Err` is another status.
fn hub(files: &[(&str, Result<&str, u16>)]) -> String {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let files: Vec<(String, Result<String, u16>)> =
        files.iter().map(|(path, file)| ((*path).to_owned(), file.map(str::to_owned))).collect();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a visitor");
            let asked: Vec<String> = BufReader::new(stream.try_clone().expect("two ends"))
                .lines()
                .map_while(|line| line.ok().filter(|line| !line.is_empty()))
                .collect();
            let path = asked.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
            let found = files.iter().find(|(name, _)| path == name).map_or(&Err(404), |(_, file)| file);
            let reply = match found {
                Err(status) => format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
                Ok(text) => {
                    // The hub is asked for the first byte, to learn the size, and then for everything from some byte on.
                    let range = asked
                        .iter()
                        .find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
                    let range = range.unwrap_or_default();
                    let (from, to) = range.split_once('-').unwrap_or_default();
                    let from: usize = from.parse().unwrap_or(0);
                    let to = to.parse().map_or(text.len(), |last: usize| last + 1);
                    format!(
                        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{}\r\n\
                         ETag: \"{}\"\r\nX-Repo-Commit: 0123\r\nConnection: close\r\n\r\n{}",
                        to - from,
                        to - 1,
                        text.len(),
                        text.len(),
                        &text[from..to]
                    )
                }
            };
            stream.write_all(reply.as_bytes()).expect("the visitor waits");
        }
    });
    address
}

/// `data fetch` from this hub into a folder of its own, with a cache of its own: exit code, stdout, stderr, files.
fn fetch(hub: &str, args: &[&str]) -> (Option<i32>, String, String, Vec<String>) {
    let here = tempfile::tempdir().expect("a folder");
    let out = here.path().join("data");
    let output = Command::new(env!("CARGO_BIN_EXE_rectify"))
        .args(["data", "fetch"])
        .args(args)
        .arg("--out")
        .arg(&out)
        .env("HF_ENDPOINT", hub)
        .env("HF_HOME", here.path().join("cache"))
        .output()
        .expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&out.display().to_string(), "OUT");
    let files = fs::read_dir(&out).into_iter().flatten();
    let files = files.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    (output.status.code(), text(&output.stdout), text(&output.stderr), files.collect())
}

#[track_caller]
fn check_said(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{text}\nlacks {part:?}");
    }
}

const SAMSUM: &str = "/datasets/knkarthick/samsum/resolve/main/validation.csv";
const SST2: &str = "/datasets/SetFit/sst2/resolve/main/dev.jsonl";
const CHATS: &str = "id,dialogue,summary\n1,\"A: Coming?\nB: I am ill.\",B is ill.\n2,A: Hi,A greets.\n";

#[test]
fn data_sets_are_listed_with_their_licences() {
    for args in [["data", "list"], ["data", "fetch"]] {
        let output = rectify(&args);
        assert_eq!(output.status.code(), Some(0));
        let list = String::from_utf8_lossy(&output.stdout).into_owned();
        check_said(&list, &["gsm8k", "licence  MIT", "conll2003", "research only", "samsum", "non-commercial"]);
        check_said(&list, &["licence  unstated", "CC BY-SA 3.0", "https://", "counterfact.json", "cannot be fetched"]);
    }
}

#[test]
fn without_consent_licences_are_shown_and_nothing_is_fetched() {
    let hub = hub(&[(SAMSUM, Ok(CHATS))]);
    let (code, stdout, stderr, files) = fetch(&hub, &["samsum"]);
    assert_eq!((code, stdout.as_str(), files.len()), (Some(2), "", 0));
    check_said(&stderr, &["CC BY-NC-ND 4.0", "knkarthick/samsum", "nothing was fetched", "--accept-licences"]);
    let (code, _, stderr, files) = fetch(&hub, &["samsun", "--accept-licences"]);
    assert_eq!((code, files.len()), (Some(2), 0));
    check_said(&stderr, &["unknown data set \"samsun\"; did you mean \"samsum\"?"]);
}

#[test]
fn a_data_set_is_fetched_from_the_hub_under_its_name_and_the_others_still_are_when_one_is_not() {
    let hub = hub(&[(SAMSUM, Ok(CHATS)), (SST2, Err(401))]);
    let (code, stdout, stderr, files) = fetch(&hub, &["samsum", "--accept-licences"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stdout, "OUT/samsum_validation.csv  2 records\n");
    assert_eq!(files, ["samsum_validation.csv"]);
    check_said(&stderr, &["CC BY-NC-ND 4.0"]);

    let (code, stdout, stderr, files) = fetch(&hub, &["sst2", "nq", "samsum", "--yes"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(
        (stdout.as_str(), files),
        ("OUT/samsum_validation.csv  2 records\n", vec!["samsum_validation.csv".into()])
    );
    check_said(
        &stderr,
        &["HTTP 401", "OUT/sst2_dev.jsonl", "OUT/nq_open_test.jsonl", "2 of 3", "not fetched: nq, sst2"],
    );
}

#[test]
fn without_a_network_it_is_said_what_to_place_where() {
    // Nothing listens on the port for discarding.
    let (code, stdout, stderr, files) = fetch("http://127.0.0.1:9", &["sst2", "--accept-licences"]);
    assert_eq!((code, stdout.as_str(), files.len()), (Some(1), "", 0), "{stderr}");
    check_said(
        &stderr,
        &["cannot be reached", "by hand", "https://huggingface.co/datasets/SetFit/sst2", "OUT/sst2_dev.jsonl"],
    );
    check_said(&stderr, &["licence  unstated", "format   JSON Lines with text and label", "1 of 1"]);
    let (_, _, stderr, _) = fetch(&hub(&[]), &["sst2", "--accept-licences"]);
    check_said(&stderr, &["HTTP 404", "OUT/sst2_dev.jsonl"]);
}

#[test]
fn what_cannot_be_read_or_is_another_file_is_not_kept() {
    let hub = hub(&[
        (SAMSUM, Ok("id,chat,summary\n1,A: Hi,A greets.\n")),
        (SST2, Ok("{\"text\": \"good\", \"label\": 1}\n")),
    ]);
    let (code, stdout, stderr, files) = fetch(&hub, &["samsum", "sst2", "--accept-licences"]);
    assert_eq!((code, stdout.as_str(), files.len()), (Some(1), "", 0), "{stderr}");
    check_said(
        &stderr,
        &["line 2: field \"dialogue\"", "there are chat, id, summary", "not the file that was expected"],
    );
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
