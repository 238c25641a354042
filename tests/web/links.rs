//! What one visitor sets up and another opens, on a host that is none of ours.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    driver::Browser,
    host::Host,
    ids::{
        CITATION_BUTTON, EDIT_BUTTON, KEEP, LINK_BUTTON, LINK_OUTCOME, LINK_PROBLEM, METHOD, MODEL, MODEL_STATUS, PAGE,
        PROMPT, SUBJECT, TARGET_NEW, TARGET_TRUE,
    },
    site,
};

const LONG: Duration = Duration::from_secs(300);
const SHORT: Duration = Duration::from_secs(20);

/// Everything that a form holds.
const FORM: &str = "
    document.querySelectorAll('details').forEach((details) => { details.open = true; });
    return [...document.querySelectorAll('.todo input, .todo select, .todo textarea, #model')].map((field) =>
        [field.id || field.getAttribute('aria-label'), field.type === 'radio' || field.type === 'checkbox' ? field.checked : field.value]);";

/// Sets a field as a hand does, as far as a page can tell.
const SET: &str = "
    const field = document.getElementById(arguments[0]);
    field.value = arguments[1];
    for (const kind of ['input', 'change']) field.dispatchEvent(new Event(kind, { bubbles: true }));
    return field.value;";

/// Keeps what is copied where a test finds it.
const CLIPBOARD: &str = "navigator.clipboard.writeText = async (text) => { window.copied = text; };";

fn open(page: &Browser, address: &str) {
    page.go("about:blank"); // or another end of the same address would not load the page anew
    page.go(address);
    page.wait("the model", LONG, |page| page.attribute(MODEL_STATUS, "data-state").as_deref() == Some("ready"));
    page.wait("the settings", SHORT, |page| {
        page.enabled(EDIT_BUTTON) || page.text("error").is_some_and(|text| !text.is_empty())
    });
}

fn copied(page: &Browser) -> String {
    let text = page.run("return window.copied ?? null", json!([]));
    text.as_str().expect("something was copied").to_owned()
}

#[test]
fn a_link_shows_another_person_the_same_form() {
    let host = Host::serve(&site::built(), "/some/path/");
    let page = Browser::open("links");
    open(&page, &host.address);
    page.run(CLIPBOARD, json!([]));
    page.run(SET, json!([MODEL, "demo-nano"]));
    page.wait("another model", LONG, |page| page.attribute(MODEL_STATUS, "data-model").as_deref() == Some("demo-nano"));
    page.wait("it to be ready", LONG, |page| page.attribute(MODEL_STATUS, "data-state").as_deref() == Some("ready"));
    let odd = "Zoë “Z” 🙂 \"+\" 100% & <b>=#?";
    for (field, value) in [
        (SUBJECT, odd),
        (PROMPT, &format!("In {odd},\nthere is a")),
        (TARGET_NEW, "ümlaut\\"),
        (TARGET_TRUE, "a%20b"),
        (METHOD, "memit"),
        ("setting-v_lr", "0.123456789012345678"),
        ("seed", "18446744073709551615"),
    ] {
        page.run(SET, json!([field, value]));
    }
    page.click("regularizer-random");
    page.run(SET, json!([KEEP, "23"]));
    page.click(&format!("{PAGE}-sweeps"));
    page.click(LINK_BUTTON);
    page.wait("the confirmation", SHORT, |page| page.attribute(LINK_OUTCOME, "data-state").as_deref() == Some("done"));
    let link = copied(&page);
    assert!(link.starts_with(&format!("{}#sweeps?v=1&model=demo-nano&facts=", host.address)), "{link}");
    page.click(&format!("{PAGE}-edit"));
    let expected = page.run(FORM, json!([]));

    let other = Browser::open("links-other");
    open(&other, &link);
    let current = "return document.querySelector('nav [aria-current]').id";
    assert_eq!(other.run(current, json!([])), format!("{PAGE}-sweeps"), "the tab");
    assert_eq!(other.text(LINK_PROBLEM).as_deref(), Some(""));
    other.click(&format!("{PAGE}-edit"));
    assert_eq!(other.run(FORM, json!([])), expected, "{link}");
    assert_eq!(other.attribute(MODEL_STATUS, "data-edits").as_deref(), Some("0"), "nothing is edited without a click");
    other.run(CLIPBOARD, json!([]));
    other.click(LINK_BUTTON);
    other.wait("the link again", SHORT, |page| page.run("return window.copied ?? null", json!([])) != Value::Null);
    assert_eq!(copied(&other), link.replace("#sweeps", "#edit"), "it round-trips");

    other.click(CITATION_BUTTON);
    other.wait("the citation", SHORT, |page| copied(page).contains("@inproceedings{gu2024model"));
}

#[test]
fn a_link_that_is_not_understood_is_refused_by_name() {
    let host = Host::serve(&site::built(), "/");
    let page = Browser::open("bad-links");
    for (end, complaint) in [
        ("#edit?v=2&model=demo-nano", "this page reads version 1"),
        ("#edit?v=1&method=rome&colour=red", "unknown key in the address: \"colour\""),
        ("#edit?v=1&model=gpt5", "there is no model \"gpt5\" here"),
        ("#edit?v=1&model=demo-gpt2&method=rome&settings.layers=[99]", "the model's layers are 0 to 5"),
        ("#edit?v=1&facts=<script>", "facts is no list of facts"),
        ("#edit?v=1&regularizer=rect&keep=40", "keep is 40"),
    ] {
        open(&page, &format!("{}{end}", host.address));
        let said = |page: &Browser| page.text(LINK_PROBLEM).unwrap_or_default().to_lowercase();
        page.wait(&format!("{complaint:?} of {end}"), SHORT, |page| said(page).contains(complaint));
    }
    let long = format!("{}#edit?v=1&model={}", host.address, "a".repeat(20_000));
    open(&page, &long);
    assert!(page.text(LINK_PROBLEM).unwrap_or_default().contains("there may be 16384"));

    // A link that is opened where the page is already open.
    page.run("location.hash = '#edit?v=1&model=demo-gpt2&method=kn&seed=7'", json!([]));
    page.wait("the next link", SHORT, |page| page.text(LINK_PROBLEM).as_deref() == Some(""));
    assert_eq!(page.run("return document.getElementById(arguments[0]).value", json!([METHOD])), "kn");
}
