//! `rectify sweep` and `rectify report`.

use std::{collections::HashSet, fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::desk::{Desk, PROMPT, check_refused, fact, golden, rectify};

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

/// Every row of a folder but for the seconds it took, sorted, with the cell it is of; what a cell is about stands there
/// once, however many files it has.
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
                let cell = path.file_name().expect("a name").to_string_lossy();
                rows.push(format!("{} {row}", cell.split('.').next().expect("a beginning")));
            }
        }
    }
    rows.sort();
    rows.dedup_by(|a, b| a == b && a.contains("\"schema\""));
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
fn parts_of_a_grid_are_together_the_whole() {
    let desk = Desk::new(&sweep_facts());
    let tasks = format!("{}/../static/tasks/demo", env!("CARGO_MANIFEST_DIR"));
    let tasks = format!("tasks = [\"sentiment\"]\nlimit = 5\ndata = {tasks:?}\nseeds = [0, 1]");
    for (mode, more) in [
        ("single", "".to_owned()),
        ("sequential", format!("edits = [0, 1, 2]\n{tasks}")),
        ("batch", format!("edits = [0, 1, 3]\n{tasks}")),
    ] {
        let mut spec = sweep(&desk, mode, &more);
        if mode == "batch" {
            // ROME writes one fact at a time.
            let text = fs::read_to_string(&spec).expect("a spec").replace("\"rome\"", "\"emmet\"");
            spec = desk.path("batch.toml").display().to_string();
            fs::write(&spec, text).expect("writes");
        }
        let out = |name: &str| desk.path(&format!("{mode}-{name}")).display().to_string();
        let run = |folder: &str, more: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_rectify"));
            command.args(["sweep", &spec, "--out", &out(folder)]).args(more);
            command.env("SLURM_ARRAY_TASK_ID", "2").stdout(std::process::Stdio::null());
            command.spawn().expect("starts")
        };
        assert!(run("whole", &[]).wait().expect("waits").success());
        let parts = [["--part", "0/3"], ["--part", "1/3"], ["--part", "auto/3"]];
        for mut child in parts.map(|part| run("parts", &part)) {
            assert_eq!(child.wait().expect("waits").code(), Some(0), "{mode}");
        }
        let (whole, parts) = (desk.path(&format!("{mode}-whole")), desk.path(&format!("{mode}-parts")));
        assert_eq!(rows(&parts), rows(&whole), "{mode}");
        // Sums are rounded: to the last digit, whoever measured what.
        assert_eq!(crate::jobs::scores(&parts), crate::jobs::scores(&whole), "{mode}");
        let files = |folder: &Path| fs::read_dir(folder).expect("a folder").count();
        for (folder, whole_or_part) in [(&parts, &[][..]), (&whole, &["--part", "1/3"])] {
            let before = files(folder);
            let name = folder.file_name().expect("a name").to_string_lossy();
            let name = name.split_once('-').expect("two words").1;
            assert!(run(name, whole_or_part).wait().expect("waits").success());
            assert_eq!(files(folder), before, "{mode}: nothing is missing, so nothing is begun");
        }
    }
    let spec = sweep(&desk, "single", "index = [1, 4]");
    let out = desk.path("none").display().to_string();
    for (part, words) in [("3/3", "from 0"), ("auto/3", "SLURM_ARRAY_TASK_ID"), ("one", "N/OF")] {
        check_refused(&["sweep", &spec, "--out", &out, "--part", part], &["--part", words]);
    }
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
        // Whoever came late may have found cells taken, and says that the work is not done.
        assert!(matches!(child.wait().expect("waits").code(), Some(0 | 75)));
    }
    // A last run makes sure.
    let output = rectify(&args);
    assert_eq!(output.status.code(), Some(0));
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
    check(sweep(&desk, "single", "index = [1, 9]"), &["index 1..9 is outside", "records are 0..4"]);
    check(sweep(&desk, "batch", "edits = [2]"), &["rome writes one fact at a time"]);
    check(sweep(&desk, "sequential", "edits = [9]"), &["edits asks for 9 facts; there are 4"]);
    let most = "edits = [4611686018427387904]\nbatch = 4";
    check(sweep(&desk, "sequential", most), &["edits is 4611686018427387904"]);
    check(sweep(&desk, "single", "limit = 0"), &["limit is 0"]);
    check(sweep(&desk, "sequential", "edits = [1]\ntasks = [\"nlii\"]\ndata = \".\""), &["did you mean \"nli\"?"]);
    check(sweep(&desk, "sequential", "edits = [1]\ntasks = [\"nli\"]\ndata = \".\""), &["no file for", "\"rte\""]);
}

/// The only file of rows of the grid's first editor.
fn rows_of(folder: &Path, editor: &str) -> std::path::PathBuf {
    let mut paths = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let is = |path: &std::path::PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy();
        name.starts_with(editor) && name.ends_with(".jsonl")
    };
    paths.find(is).expect("rows")
}

#[test]
fn a_line_that_is_no_row_stops_its_cell_alone_and_is_set_aside_on_demand() {
    let desk = Desk::new(&sweep_facts());
    let spec = sweep(&desk, "single", "index = [1, 3]");
    let out = desk.path("out").display().to_string();
    assert!(rectify(&["sweep", &spec, "--out", &out]).status.success());
    let before = rows(&desk.path("out"));
    let rome = rows_of(&desk.path("out"), "rome");
    let text = fs::read_to_string(&rome).expect("rows");
    let second = text.lines().nth(1).expect("a row");
    fs::write(&rome, text.replace(second, &second[..second.len() / 2])).expect("writes");
    fs::remove_file(rows_of(&desk.path("out"), "memit")).expect("removes");

    let output = rectify(&["sweep", &spec, "--out", &out]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("line 2 is no row") && message.contains("--repair"), "{message}");
    assert!(rows_of(&desk.path("out"), "memit").is_file(), "the other cell is measured");
    let output = rectify(&["report", &out]);
    assert_eq!(output.status.code(), Some(0), "a report goes on");
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 2 is no row"));

    let output = rectify(&["sweep", &spec, "--out", &out, "--repair"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let repaired: Vec<String> = fs::read_to_string(&rome).expect("rows").lines().map(str::to_owned).collect();
    assert!(repaired[1].trim().is_empty(), "nothing else has moved");
    fs::write(&rome, repaired.into_iter().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>().join("\n") + "\n")
        .expect("writes");
    assert_eq!(rows(&desk.path("out")), before, "the same rows again");
}

#[test]
fn what_is_missing_is_an_error_and_never_a_row() {
    let desk = Desk::new(&sweep_facts());
    let spec = sweep(&desk, "single", "index = [1, 3]");
    let out = desk.path("out").display().to_string();
    let text = fs::read_to_string(&spec).expect("a spec");
    fs::write(&spec, text.replace("covariance = \"identity\"\n", "")).expect("writes");
    check_refused(&["sweep", &spec, "--out", &out], &["memit seed 0", "no statistics of layer 1"]);
    fs::write(&spec, text.replace("\"identity\"", "\"moments\"")).expect("writes");
    check_refused(&["sweep", &spec, "--out", &out], &["moments", "no such file"]);
    fs::write(
        &spec,
        text.replace("covariance = \"identity\"\n", "")
            .replace("\"memit\"", "\"mend\"")
            .replace("layers = [1, 2]\nv_num_grad_steps = 3\ncontexts = { given = [\"{}\"] }\n", ""),
    )
    .expect("writes");
    check_refused(&["sweep", &spec, "--out", &out], &["mend seed 0", "rectify mend train"]);
    assert!(
        !fs::read_dir(&out)
            .expect("a folder")
            .any(|entry| { entry.expect("an entry").path().extension().is_some_and(|extension| extension == "jsonl") })
    );
}

#[test]
fn records_that_cannot_be_used_are_left_out_only_on_demand() {
    let mut facts = sweep_facts();
    facts[2]["target_new"] = "".into();
    let desk = Desk::new(&facts);
    let spec = sweep(&desk, "single", "");
    let out = desk.path("out").display().to_string();
    check_refused(&["sweep", &spec, "--out", &out], &["record 2", "target_new is empty", "--skip-bad"]);
    let output = rectify(&["sweep", &spec, "--out", &out, "--skip-bad"]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{message}");
    assert!(message.contains("records 2 are left out"), "{message}");
    let head = fs::read_to_string(rows_of(&desk.path("out"), "rome")).expect("rows");
    let head: Value = serde_json::from_str(head.lines().next().expect("a head")).expect("JSON");
    assert_eq!(head["skipped"], json!([2]));
    assert_eq!(rows(&desk.path("out")).len(), 2 * (1 + 3 * 2 * 2));
}
