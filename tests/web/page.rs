//! What a visitor does.

use std::time::Duration;

use crate::{
    driver::Browser,
    ids::{
        ANSWER_AFTER, ANSWER_BEFORE, ASK_ANSWER, ASK_BUTTON, ASK_INPUT, CANCEL_BUTTON, EDIT_BUTTON, ERROR,
        MODEL_STATUS, PROGRESS, PROMPT, RESULT, SUBJECT, TARGET_NEW, UNDO_BUTTON,
    },
    site::Site,
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
