//! Heavy runs as a visitor sends them: dispatch, go away, come back by a link, whatever happens to the server meanwhile.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::json;

use crate::{
    driver::Browser,
    ids::{
        JOBS, RUN_BUTTON, RUN_FACTS, RUN_MEMORY, RUN_MINE, RUN_PARTS, RUN_RATE, RUN_SEEDS, RUN_TEMPLATE, RUN_VIEW,
        RUNS, RUNS_ERROR, RUNS_TOKEN,
    },
    site::{built, program},
};

const LONG: Duration = Duration::from_secs(300);
const SHORT: Duration = Duration::from_secs(30);

/// A server with a folder of jobs, which outlives it.
struct Server {
    child: Child,
    /// `http://127.0.0.1:PORT/`
    address: String,
    jobs: PathBuf,
}

impl Server {
    fn start(jobs: &Path, listen: &str) -> Self {
        let statics = Path::new(env!("CARGO_MANIFEST_DIR")).join("../static");
        let mut command = Command::new(program());
        command.args(["serve", "--listen", listen]).arg("--static").arg(statics).arg("--site").arg(built());
        let mut child = command.arg("--jobs").arg(jobs).stderr(Stdio::piped()).spawn().expect("starts");
        let mut said = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let address = said.find_map(|line| Some(format!("{}/", line.split_once("listening on ")?.1.trim())));
        thread::spawn(move || said.for_each(drop));
        Self { child, address: address.expect("it says where it listens"), jobs: jobs.to_owned() }
    }

    fn kill(&mut self) {
        self.child.kill().expect("kills");
        self.child.wait().expect("waits");
    }

    /// The same again, at the same address.
    fn again(&mut self) {
        let listen = self.address.trim_start_matches("http://").trim_end_matches('/').to_owned();
        *self = Self::start(&self.jobs.clone(), &listen);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder for jobs of an earlier run of nobody.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runs").join(test);
    let _ = fs::remove_dir_all(&folder);
    folder
}

fn state(page: &Browser, id: &str) -> String {
    page.attribute(id, "data-state").unwrap_or_default()
}

fn choose(page: &Browser, id: &str, value: &str) {
    let script = "const field = document.getElementById(arguments[0]); field.value = arguments[1]; \
                  field.dispatchEvent(new Event('change', { bubbles: true }));";
    page.run(script, json!([id, value]));
}

/// Asks for a small grid; the end of the page's address, which is its link.
fn dispatch(page: &Browser) -> String {
    page.wait("the form", SHORT, |page| state(page, RUNS) == "open" && page.enabled(RUN_BUTTON));
    choose(page, RUN_TEMPLATE, "demo-figure-7");
    page.fill(RUN_FACTS, "12");
    page.fill(RUN_SEEDS, "0");
    page.fill(RUN_PARTS, "2");
    assert!(page.text(RUN_MEMORY).unwrap_or_default().contains("free there"), "{:?}", page.text(RUN_MEMORY));
    page.click(RUN_BUTTON);
    page.wait("the run's own address", SHORT, |page| {
        assert_eq!(page.text(RUNS_ERROR).unwrap_or_default(), "");
        page.run("return location.hash", json!([])).as_str().is_some_and(|end| end.starts_with("#runs/"))
    });
    page.run("return location.hash", json!([])).as_str().expect("an address").to_owned()
}

#[test]
fn a_run_is_dispatched_left_alone_and_found_done_by_its_link() {
    let server = Server::start(&folder("dispatch"), "127.0.0.1:0");
    let link = {
        let page = Browser::open("dispatch");
        page.go(&format!("{}#runs", server.address));
        let link = dispatch(&page);
        page.wait("its rows", LONG, |page| {
            page.attribute(RUN_VIEW, "data-rows").and_then(|rows| rows.parse::<u32>().ok()) > Some(0)
        });
        link
    };
    let page = Browser::open("dispatch-again");
    page.go(&format!("{}{link}", server.address));
    page.wait("the end", LONG, |page| state(page, RUN_VIEW) == "done");
    page.wait("what it found, drawn", SHORT, |page| {
        page.run("return document.querySelectorAll('#run-view svg').length", json!([])).as_u64() > Some(0)
    });
    let text = page.text(RUN_VIEW).unwrap_or_default();
    assert!(text.contains("every result is there") && text.contains("reliability"), "{text}");
    let report =
        page.run("return fetch(document.querySelector('#run-view a').href).then(answer => answer.status)", json!([]));
    assert_eq!(report.as_u64(), Some(200));
    page.wait("how long it took", SHORT, |page| {
        choose(page, RUN_TEMPLATE, "demo-figure-7");
        page.text(RUN_RATE).unwrap_or_default().contains("before")
    });

    // Deleted only when asked twice, and gone then.
    let press = "[...document.querySelectorAll('#jobs button')].at(-1).click()";
    page.run(press, json!([]));
    assert_eq!(page.run("return document.querySelectorAll('#jobs tbody tr').length", json!([])).as_u64(), Some(1));
    page.run(press, json!([]));
    page.wait("an empty list", SHORT, |page| page.text(JOBS).is_none());
    assert_eq!(page.run("return location.hash", json!([])).as_str(), Some("#runs"));
    page.leave();
}

#[test]
fn a_run_goes_on_when_its_server_was_killed_and_the_page_with_it() {
    let mut server = Server::start(&folder("kill"), "127.0.0.1:0");
    let page = Browser::open("kill");
    page.go(&format!("{}#runs", server.address));
    dispatch(&page);
    page.wait("its rows", LONG, |page| {
        page.attribute(RUN_VIEW, "data-rows").and_then(|rows| rows.parse::<u32>().ok()) > Some(3)
    });
    server.kill();
    page.wait("that the page says so", SHORT, |page| state(page, RUNS) == "away");
    server.again();
    page.wait("the end", LONG, |page| state(page, RUN_VIEW) == "done");
    assert_eq!(state(&page, RUNS), "open");
    page.leave();
}

#[test]
fn a_server_that_others_can_reach_asks_for_its_token_once() {
    let jobs = folder("token");
    let token_file = jobs.join("token");
    let server = Server::start(&jobs, "0.0.0.0:0");
    let token = fs::read_to_string(&token_file).expect("a token was made");
    // As another machine would: by another address.
    let address = server.address.replace("0.0.0.0", "127.0.0.2");
    let page = Browser::open("token");
    page.go(&format!("{address}#runs"));
    page.wait("the question", SHORT, |page| state(page, RUNS) == "locked");
    let unlock = |text: &str| {
        page.fill(RUNS_TOKEN, text);
        page.run("document.querySelector('#runs form button').click()", json!([]));
    };
    unlock("wrong");
    page.wait("a refusal", SHORT, |page| page.text(RUNS_ERROR).unwrap_or_default().contains("not this server"));
    unlock(&token);
    page.wait("the form", SHORT, |page| state(page, RUNS) == "open");
    let seen = page.run("return document.cookie + location.href", json!([]));
    assert!(!seen.as_str().unwrap_or_default().contains(token.trim()), "no script sees it: {seen}");
    page.go(&format!("{address}#runs"));
    page.wait("the form again, unasked", SHORT, |page| state(page, RUNS) == "open");
    page.leave();
}

#[test]
fn what_the_visitor_does_is_run_on_many_facts() {
    let server = Server::start(&folder("mine"), "127.0.0.1:0");
    let page = Browser::open("mine");
    page.go(&format!("{}?device=flex#runs", server.address));
    page.wait("the model, whose settings are sent", LONG, |page| state(page, crate::ids::MODEL_STATUS) == "ready");
    page.wait("the form", SHORT, |page| state(page, RUNS) == "open" && page.enabled(RUN_BUTTON));
    page.click(RUN_MINE);
    dispatch(&page);
    page.wait("the end", LONG, |page| {
        assert_ne!(state(page, RUN_VIEW), "failed", "{:?}", page.text(RUN_VIEW));
        state(page, RUN_VIEW) == "done"
    });
    let text = page.text(RUN_VIEW).unwrap_or_default();
    assert!(text.contains("ROME") && !text.contains("MEMIT"), "one editor, the page's: {text}");
    page.leave();
}
