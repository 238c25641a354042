//! What a visitor does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rectify_protocol::{EvalReport, Fact};

use crate::{
    driver::Browser,
    ids::{
        ABILITIES, ANSWER_AFTER, ANSWER_BEFORE, ANYWAY_BUTTON, ASK_ANSWER, ASK_BUTTON, ASK_INPUT, CANCEL_BUTTON,
        CHANGE, EDIT_BUTTON, ERROR, KEEP_NOW, KEEP_NOW_CARD, LACKS, METHOD, MODEL, MODEL_STATUS, PAGE, PLAY,
        PLAY_BUTTON, PROGRESS, PROMPT, REGULARIZER, RESULT, SUBJECT, SWEEP_EXAMPLE, SWEEP_FILES, SWEEP_FOLDER,
        SWEEP_VIEW, TARGET_NEW, UNDO_BUTTON,
    },
    site::{Site, program},
};

/// Longer than anything takes on a busy machine of two cores.
const LONG: Duration = Duration::from_secs(300);
const SHORT: Duration = Duration::from_secs(20);

/// The page with its model ready to compute on the processor.
fn open(test: &'static str) -> (Site, Browser) {
    let site = Site::serve(test);
    let browser = Browser::open(test);
    browser.go(&format!("{}?device=flex", site.address));
    browser.wait("the bundled model", LONG, |page| {
        assert!(page.attribute(ERROR, "data-kind").is_none_or(|kind| kind == "fact"), "{:?}", page.text(ERROR));
        state(page, MODEL_STATUS) == "ready"
    });
    browser.wait("an example in the form", SHORT, |page| !value(page, PROMPT).is_empty());
    assert_eq!(browser.attribute(MODEL_STATUS, "data-device").as_deref(), Some("flex"));
    (site, browser)
}

#[test]
fn an_edit_changes_the_answer_and_undo_restores_it_bit_for_bit() {
    let (_site, page) = open("edit-and-undo");
    let prompt = value(&page, PROMPT);
    let before = ask(&page, &prompt, 0);

    page.click(EDIT_BUTTON);
    page.wait("the edit", LONG, |page| state(page, RESULT) == "done");
    assert_ne!(page.text(ANSWER_BEFORE), page.text(ANSWER_AFTER), "the result shows an answer that changed");
    let after = page.text(ANSWER_AFTER).unwrap_or_default();
    let target = value(&page, TARGET_NEW);
    assert!(after.contains(&target), "{after:?} says {target:?}");
    assert_ne!(ask(&page, &prompt, 1), before, "the edited model answers otherwise");

    page.click(UNDO_BUTTON);
    page.wait("the undo", LONG, |page| page.attribute(MODEL_STATUS, "data-edits").as_deref() == Some("0"));
    assert_eq!(ask(&page, &prompt, 0), before, "the model answers as before, bit for bit");
}

#[test]
fn another_method_is_chosen_edits_and_is_undone() {
    let (_site, page) = open("another-method");
    let prompt = value(&page, PROMPT);
    let before = ask(&page, &prompt, 0);
    page.click(&format!("{REGULARIZER}-none"));
    for (method, label) in [("memit", "MEMIT"), ("mend", "MEND"), ("ft", "Fine-tuning")] {
        choose(&page, METHOD, method);
        assert_eq!(page.text(LACKS).as_deref(), Some(""), "{method} needs nothing that the model comes without");
        page.click(EDIT_BUTTON);
        page.wait(&format!("the edit by {method}"), LONG, |page| {
            assert!(page.attribute(ERROR, "data-kind").is_none(), "{method}: {:?}", page.text(ERROR));
            state(page, RESULT) == "done"
        });
        let heading = page.text(RESULT).unwrap_or_default();
        assert!(heading.contains(&format!("After {label}")), "{heading:?} names {label}");
        assert_ne!(ask(&page, &prompt, 1), before, "the edited model answers otherwise");

        page.click(UNDO_BUTTON);
        page.wait("the undo", LONG, |page| page.attribute(MODEL_STATUS, "data-edits").as_deref() == Some("0"));
        assert_eq!(ask(&page, &prompt, 0), before, "the model answers as before, bit for bit");
    }
}

/// What is left of the abilities, in the page and by `rectify eval` of the same edit and records: digit by digit.
#[test]
fn what_an_edit_costs_is_what_eval_says() {
    let (_site, page) = open("abilities");
    let known = |edits: usize| {
        page.wait("the abilities", LONG, |page| {
            state(page, ABILITIES) == "known"
                && page.attribute(ABILITIES, "data-edits").as_deref() == Some(&edits.to_string())
        });
    };
    let check = |report: &EvalReport| {
        assert_eq!(report.tasks.len(), 8);
        for task in &report.tasks {
            let shown = page.attribute(&format!("{ABILITIES}-{}", task.task), "data-score").expect("a score");
            assert_eq!(shown, task.scores.paper.expect("a score").to_string(), "{}", task.task);
        }
    };
    known(0);
    check(&eval(None));

    // Fine-tuning without a bound does what a visitor may do by mistake: it is an edit that costs something.
    let prompt = value(&page, PROMPT);
    choose(&page, METHOD, "ft");
    page.click(&format!("{REGULARIZER}-none"));
    page.click(EDIT_BUTTON);
    page.wait("the edit", LONG, |page| state(page, RESULT) == "done");
    known(1);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("abilities");
    let _ = fs::remove_dir_all(&folder); // of an earlier run
    fs::create_dir_all(&folder).expect("a folder");
    let facts = folder.join("facts.json");
    let fact = Fact { subject: value(&page, SUBJECT), prompt, target_new: value(&page, TARGET_NEW), ..Fact::default() };
    fs::write(&facts, serde_json::to_string(&[fact]).expect("JSON")).expect("writes");
    let edits = folder.join("edits");
    rectify(&["edit", "--model", "demo-gpt2", "--method", "ft", "--facts", &text(&facts), "--out", &text(&edits)]);
    check(&eval(Some(&edits)));

    page.click(UNDO_BUTTON);
    known(0);
    check(&eval(None));
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn eval(edits: Option<&Path>) -> EvalReport {
    let data = text(&statics().join("tasks/demo"));
    let mut args = vec!["eval", "--model", "demo-gpt2", "--data", &data, "--limit", "24", "--json"];
    let edits = edits.map(text);
    args.extend(edits.iter().flat_map(|edits| ["--edits", edits.as_str()]));
    serde_json::from_slice(&rectify(&args)).expect("a report")
}

fn statics() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../static")
}

/// What the program prints.
#[track_caller]
fn rectify(args: &[&str]) -> Vec<u8> {
    let output =
        Command::new(program()).args(args).arg("--static").arg(statics()).output().expect("the program starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn many_edits_in_a_row_are_played_and_leave_the_visitor_s_model_alone() {
    let (_site, page) = open("play");
    let prompt = value(&page, PROMPT);
    let before = ask(&page, &prompt, 0);
    page.click(PLAY_BUTTON);
    page.wait("the play", SHORT, |page| state(page, PLAY) == "running");
    page.click(CANCEL_BUTTON);
    page.wait("its end", SHORT, |page| state(page, PLAY) == "empty");

    let started = Instant::now();
    page.click(PLAY_BUTTON);
    page.wait("the play", LONG, |page| {
        assert!(page.attribute(ERROR, "data-kind").is_none(), "{:?}", page.text(ERROR));
        state(page, PLAY) == "done"
    });
    println!("twenty edits, three times, and their measurement: {:.0} s", started.elapsed().as_secs_f64());
    let rows = page.run(
        "return [...document.querySelectorAll('.findings tbody tr')].map(row => row.innerText.replace(/\\s+/g, ' '))",
        serde_json::json!([]),
    );
    let rows: Vec<&str> = rows.as_array().expect("rows").iter().filter_map(serde_json::Value::as_str).collect();
    let [unedited, all, rect_40, rect_20] = rows[..] else { panic!("{rows:?}") };
    assert!(unedited.starts_with("not edited") && all.starts_with("all of it"), "{rows:?}");
    assert!(rect_40.starts_with("RECT 40%") && rect_20.starts_with("RECT 20%"), "{rows:?}");
    assert_ne!(all, rect_20);
    assert_eq!(
        page.run("return document.querySelectorAll('.study figure svg').length > 5", serde_json::json!([])),
        true
    );
    assert_eq!(page.attribute(MODEL_STATUS, "data-edits").as_deref(), Some("0"));
    assert_eq!(ask(&page, &prompt, 0), before, "the visitor's model answers as before, bit for bit");
}

#[test]
fn a_sweep_of_the_visitor_s_is_drawn_as_its_report_is() {
    let folder = sweep();
    let (_site, page) = open("sweeps");
    page.click(&format!("{PAGE}-sweeps"));
    assert_eq!(state(&page, SWEEP_VIEW), "empty");
    let example = page.run(
        "const request = new XMLHttpRequest();
        request.open('GET', document.getElementById(arguments[0]).href, false);
        request.send();
        return [request.status, request.responseText.includes('Table 1')]",
        serde_json::json!([SWEEP_EXAMPLE]),
    );
    assert_eq!(example, serde_json::json!([200, true]), "the report that the page offers");
    page.choose_file(SWEEP_FOLDER, &folder);
    page.wait("the figures", SHORT, |page| state(page, SWEEP_VIEW) == "drawn");
    let drawn = page.run(
        "const view = document.getElementById(arguments[0]); view.querySelectorAll('details').forEach(d => d.open = true);
        return [view.querySelectorAll('svg rect').length > 10, view.innerText]",
        serde_json::json!([SWEEP_VIEW]),
    );
    assert_eq!(drawn[0], true, "bars are drawn");
    let text = drawn[1].as_str().expect("text");
    let table = fs::read_to_string(folder.join("table.md")).expect("the sweep's table");
    for cell in table.lines().nth(2).expect("a row").split('|').map(str::trim).filter(|cell| !cell.is_empty()) {
        assert!(text.contains(cell), "the page lacks {cell:?} of {table}");
    }

    let broken = folder.join("broken.jsonl");
    fs::write(&broken, "{}\n").expect("writes");
    page.choose_file(SWEEP_FILES, &broken);
    page.wait("the complaint", SHORT, |page| state(page, SWEEP_VIEW) == "failed");
    assert!(page.text(SWEEP_VIEW).unwrap_or_default().contains("broken.jsonl line 1"));
    page.click(&format!("{PAGE}-edit"));
    page.wait("the other page", SHORT, |page| page.enabled(EDIT_BUTTON));
}

/// A small grid, measured by the command line. Each time anew, in a folder of rows and a table.
fn sweep() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sweep");
    let _ = fs::remove_dir_all(&folder); // of an earlier run
    fs::create_dir_all(&folder).expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../static");
    let spec = format!(
        "model = \"demo-nano\"\nfacts = {:?}\nindex = [0, 2]\nmode = \"single\"\nregularizers = [\"none\", \"rect 40%\"]\n\
        editors = [{{ method = \"rome\", v_num_grad_steps = 3 }}]\n",
        root.join("facts/demo_counterfact.json")
    );
    let file = folder.join("spec.toml");
    fs::write(&file, spec).expect("writes");
    let out = folder.join("rows");
    let mut command = Command::new(program());
    command.arg("sweep").arg(file).arg("--out").arg(&out).arg("--static").arg(root);
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    out
}

/// KN ruins this model, so that the page asks before it does.
#[test]
fn an_edit_that_would_ruin_the_model_waits_for_a_second_word() {
    let (_site, page) = open("ruin");
    let prompt = value(&page, PROMPT);
    let before = ask(&page, &prompt, 0);
    page.click(&format!("{REGULARIZER}-none"));
    choose(&page, METHOD, "kn");
    page.click(EDIT_BUTTON);
    page.wait("the refusal", LONG, |page| page.text(ERROR).unwrap_or_default().contains("forget how to speak"));
    assert_eq!(ask(&page, &prompt, 0), before, "nothing was changed");

    page.click(EDIT_BUTTON);
    page.wait("the refusal again", LONG, |page| page.enabled(ANYWAY_BUTTON));
    page.click(ANYWAY_BUTTON);
    page.wait("the edit", LONG, |page| state(page, RESULT) == "done");
    assert_ne!(ask(&page, &prompt, 1), before, "the edited model answers otherwise");
    page.click(UNDO_BUTTON);
    page.wait("the undo", LONG, |page| page.attribute(MODEL_STATUS, "data-edits").as_deref() == Some("0"));
    assert_eq!(ask(&page, &prompt, 0), before, "the model answers as before, bit for bit");
}

#[test]
fn a_method_says_what_the_model_comes_without() {
    let (_site, page) = open("lacks");
    choose(&page, METHOD, "rome");
    page.wait("ROME to be possible", SHORT, |page| page.enabled(EDIT_BUTTON));
    // The model for tests comes with nothing.
    choose(&page, MODEL, "gpt2-tiny");
    page.wait("the model for tests", LONG, |page| {
        page.attribute(MODEL_STATUS, "data-model").as_deref() == Some("gpt2-tiny") && idle(page)
    });
    for (method, what) in [("memit", "statistics of the keys"), ("mend", "a network trained for")] {
        choose(&page, METHOD, method);
        page.wait(what, SHORT, |page| page.text(LACKS).unwrap_or_default().contains(what));
        assert!(!page.enabled(EDIT_BUTTON), "{method} cannot edit without");
    }
}

#[test]
fn the_slider_trims_the_edit_without_editing_again() {
    let (_site, page) = open("keep-now");
    let prompt = value(&page, PROMPT);
    page.click(EDIT_BUTTON);
    page.wait("the edit", LONG, |page| state(page, RESULT) == "done");
    assert_eq!(page.attribute(KEEP_NOW_CARD, "data-keep").as_deref(), Some("40"), "what the form asked for");
    let kept_40 = ask(&page, &prompt, 1);
    let all_of_40 = manhattan(&page);

    let kept_5 = keep(&page, 5, &prompt);
    let all_of_5 = manhattan(&page);
    assert!(all_of_5 < all_of_40, "less is changed: {all_of_5} against {all_of_40}");
    assert!(all_of_5 > 0.0);
    assert_ne!(kept_5, kept_40, "the model answers otherwise");
    assert!(page.text(RESULT).unwrap_or_default().contains("RECT 5%"), "the heading says what is kept now");

    assert_eq!(keep(&page, 40, &prompt), kept_40, "the same share again gives the same answer, bit for bit");
    assert!((manhattan(&page) - all_of_40).abs() <= 1e-3 * all_of_40);
    assert_eq!(state(&page, RESULT), "done");
}

#[test]
fn a_cancelled_edit_leaves_the_model_as_it_was() {
    let (_site, page) = open("cancel");
    let prompt = value(&page, PROMPT);
    let before = ask(&page, &prompt, 0);

    page.click(EDIT_BUTTON);
    page.wait("the edit to begin", LONG, |page| page.attribute(PROGRESS, "data-doing").as_deref() == Some("edit"));
    page.click(CANCEL_BUTTON);
    page.wait("the edit to end", LONG, idle);
    assert_ne!(state(&page, RESULT), "done", "a cancelled edit has no result");
    assert_eq!(ask(&page, &prompt, 0), before, "nothing changed");
    assert!(page.attribute(ERROR, "data-kind").is_none(), "cancelling is no error: {:?}", page.text(ERROR));
}

#[test]
fn a_fact_that_cannot_be_edited_is_explained() {
    let (_site, page) = open("bad-input");
    let said = |subject: &str, prompt: &str, target: &str, expected: &str| {
        page.fill(SUBJECT, subject);
        page.fill(PROMPT, prompt);
        page.fill(TARGET_NEW, target);
        // The form says so while one types, or when the button is pressed.
        if page.run("return document.getElementById(arguments[0]).disabled", serde_json::json!([EDIT_BUTTON])) == false
        {
            page.click(EDIT_BUTTON);
        }
        page.wait(expected, SHORT, |page| page.text(ERROR).unwrap_or_default().contains(expected));
        assert!(page.attribute(ERROR, "data-kind").is_some(), "an error says whose turn it is");
    };
    said("Ida", "Ada was born in the city of", "Rome", "does not occur in the prompt");
    said("Ada", "Ada, Ada was born in the city of", "Rome", "2 times");
    said("Ada", "Ada was born in the city of", "", "empty");
}

/// Moves the slider below the result, waits until the page shows that share, and asks the model.
#[track_caller]
fn keep(page: &Browser, percent: u32, prompt: &str) -> (String, String) {
    let slide = "const slider = document.getElementById(arguments[0]); slider.value = arguments[1];
        slider.dispatchEvent(new Event('input', { bubbles: true }));";
    page.wait("the slider", SHORT, |page| page.enabled(KEEP_NOW));
    page.run(slide, serde_json::json!([KEEP_NOW, percent]));
    page.wait("what is kept now", LONG, |page| {
        page.attribute(KEEP_NOW_CARD, "data-keep") == Some(percent.to_string()) && state(page, KEEP_NOW_CARD) == "idle"
    });
    ask(page, prompt, 1)
}

/// The sum of absolute changes, once the page knows it.
#[track_caller]
fn manhattan(page: &Browser) -> f64 {
    let sum = page.attribute(CHANGE, "data-manhattan").expect("what changed is shown");
    sum.parse().unwrap_or_else(|_| panic!("{sum:?} is no number"))
}

/// Chooses in a `select`, as far as a page can tell.
#[track_caller]
fn choose(page: &Browser, id: &str, value: &str) {
    let choose = "const select = document.getElementById(arguments[0]); select.value = arguments[1];
        select.dispatchEvent(new Event('change', { bubbles: true })); return select.value;";
    assert_eq!(page.run(choose, serde_json::json!([id, value])), value, "{id} offers {value}");
}

/// Puts a prompt to the model, which carries `edits`. The answer with every digit.
#[track_caller]
fn ask(page: &Browser, prompt: &str, edits: usize) -> (String, String) {
    // Another question first, so that an answer given earlier cannot be taken for this one.
    for prompt in ["Once", prompt] {
        page.fill(ASK_INPUT, prompt);
        page.wait("the page to be idle", LONG, |page| idle(page) && page.enabled(ASK_BUTTON));
        page.click(ASK_BUTTON);
        page.wait("an answer", LONG, |page| page.text(ASK_ANSWER).is_some_and(|text| text.starts_with(prompt)));
    }
    assert_eq!(page.attribute(ASK_ANSWER, "data-edits"), Some(edits.to_string()));
    (page.text(ASK_ANSWER).unwrap_or_default(), page.attribute(ASK_ANSWER, "data-top").unwrap_or_default())
}

fn state(page: &Browser, id: &str) -> String {
    page.attribute(id, "data-state").unwrap_or_default()
}

fn idle(page: &Browser) -> bool {
    page.attribute(PROGRESS, "data-doing").is_none_or(|doing| doing == "idle")
}

fn value(page: &Browser, id: &str) -> String {
    let value = page.run("return document.getElementById(arguments[0])?.value ?? ''", serde_json::json!([id]));
    value.as_str().unwrap_or_default().to_owned()
}
