//! Demonstrations in others' pages, which come from another origin than Rectify's own.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    driver::Browser,
    host::Host,
    ids::{DEMO, DEMO_AGREE, DEMO_DECLINE, DEMO_PLAYGROUND, DEMO_PROBLEM, EDIT_BUTTON, KEEP_NOW, RESULT},
    site,
};

const LONG: Duration = Duration::from_secs(300);
const SHORT: Duration = Duration::from_secs(20);

/// What stands in documents for the address of the page.
const PLACE: &str = "https://example.org/rectify/";

/// Keeps every event of every element, in order, by the element's id.
const RECORD: &str = "<script>
    window.heard = {};
    for (const demo of document.querySelectorAll('rectify-demo')) {
        const all = window.heard[demo.id] = [];
        for (const name of ['ready', 'progress', 'edit', 'result', 'error'])
            demo.addEventListener(name, ({ detail }) => all.push([name, detail]));
    }
    window.said = [];
    addEventListener('message', ({ data }) => window.said.push(data));
</script></body>";

const FRAME: &str = "return document.getElementById(arguments[0]).shadowRoot.querySelector('iframe')";

/// A page of another site's, with Rectify's under a path of a host that is none of ours.
struct Visit {
    /// Serves Rectify's page.
    rectify: Host,
    /// Serves the page around it.
    _other: Host,
    page: Browser,
}

impl Visit {
    fn open(test: &'static str, html: &str) -> Self {
        Self::open_with(test, &site::built(), html)
    }

    fn open_with(test: &'static str, site: &Path, html: &str) -> Self {
        let rectify = Host::serve(site, "/some/path/");
        let folder = folder(test);
        let html = html.replace(PLACE, &rectify.address);
        let html = if html.contains("</body>") { html } else { format!("<!doctype html><body>{html}</body>") };
        fs::write(folder.join("index.html"), html.replace("</body>", RECORD)).expect("writes");
        let other = Host::serve(&folder, "/");
        let page = Browser::open(test);
        page.resize(1280, 600);
        page.go(&other.address);
        Self { rectify, _other: other, page }
    }

    /// The details of an element's events of this name.
    fn heard(&self, id: &str, name: &str) -> Vec<Value> {
        let script =
            "return window.heard[arguments[0]].filter(([name]) => name === arguments[1]).map(([, detail]) => detail)";
        let heard = self.page.run(script, json!([id, name]));
        heard.as_array().expect("a list").clone()
    }

    #[track_caller]
    fn wait(&self, id: &str, name: &str, times: usize) -> Value {
        self.page.wait(&format!("{name} of {id}"), LONG, |_| {
            let errors = self.heard(id, "error");
            assert!(name == "error" || errors.is_empty(), "{errors:?}");
            self.heard(id, name).len() >= times
        });
        self.heard(id, name).remove(times - 1)
    }

    /// Does something in an element's frame.
    #[track_caller]
    fn inside<T>(&self, id: &str, act: impl FnOnce(&Browser) -> T) -> T {
        self.page.enter(FRAME, json!([id]));
        let done = act(&self.page);
        self.page.leave();
        done
    }

    #[track_caller]
    fn edit(&self, id: &str) {
        self.inside(id, |page| {
            page.wait("the button", SHORT, |page| page.enabled(EDIT_BUTTON));
            page.click(EDIT_BUTTON);
        });
    }

    fn has_frame(&self, id: &str) -> bool {
        self.page.run(FRAME, json!([id])) != Value::Null
    }

    /// Whether anything of a model or of the program that runs it was asked for.
    fn fetched(&self) -> bool {
        self.rectify.asked().iter().any(|path| path.starts_with("models/") || path.starts_with("rectify-worker"))
    }

    fn scroll_to(&self, id: &str) {
        self.page.run("document.getElementById(arguments[0]).scrollIntoView()", json!([id]));
    }
}

fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("embed").join(test);
    let _ = fs::remove_dir_all(&folder); // of an earlier run
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn document(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_project_page_has_two_demonstrations_that_do_not_disturb_each_other() {
    let visit = Visit::open("project-page", &document("examples/project-page.html"));
    let ready = visit.wait("first", "ready", 1);
    assert_eq!(ready["model"], "demo-gpt2");
    assert!(!visit.has_frame("second"), "what nobody sees is not there yet");
    assert!(!visit.fetched(), "nothing of a model is fetched before a click: {:?}", visit.rectify.asked());

    visit.edit("first");
    let result = visit.wait("first", "result", 1);
    let (before, after) = (&result["before"], &result["after"]);
    assert!(after["text"].as_str().is_some_and(|text| text.contains("Marrowfield")), "{result}");
    assert!(before["text"].as_str().is_some_and(|text| text.contains("Larkmoor")), "{result}");
    assert!(after["p_new"].as_f64() > before["p_new"].as_f64(), "{result}");
    assert_eq!((&result["keep"], &result["method"]), (&json!(0.4), &json!("rome")));
    assert_eq!(visit.heard("first", "edit").len(), 1);
    assert!(visit.heard("first", "progress").iter().any(|progress| progress["doing"] == "load"));
    let height =
        "const frame = document.getElementById('first').shadowRoot.querySelector('iframe'); return frame.offsetHeight";
    visit.inside("first", |page| {
        page.run("document.getElementById(arguments[0]).scrollIntoView()", json!([KEEP_NOW]));
        let slide = "const slider = document.getElementById(arguments[0]); slider.value = 5;
            slider.dispatchEvent(new Event('input', { bubbles: true }));";
        page.wait("the slider", SHORT, |page| page.enabled(KEEP_NOW));
        page.run(slide, json!([KEEP_NOW]));
    });
    let less = visit.wait("first", "result", 2);
    assert_eq!(less["keep"], json!(0.05));
    assert_ne!(less["after"]["p_new"], result["after"]["p_new"], "what less of it does is measured");
    assert_eq!(less["before"], result["before"]);
    assert!(visit.page.run(height, json!([])).as_f64() > Some(500.0), "the frame is as high as what it shows");

    visit.scroll_to("second");
    assert_eq!(visit.wait("second", "ready", 1)["model"], "demo-nano");
    visit.edit("second");
    let other = visit.wait("second", "result", 1);
    assert_eq!((&other["subject"], &other["method"]), (&json!("Sorrel Talard"), &json!("memit")));
    assert_eq!(visit.heard("first", "result").len(), 2, "the first hears nothing of the second");
    let link = visit.inside("second", |page| page.attribute(DEMO_PLAYGROUND, "href")).expect("a link");
    let start = format!("{}#edit?v=1&model=demo-nano&facts=", visit.rectify.address);
    assert!(link.starts_with(&start) && link.ends_with("&method=memit&regularizer=none&seed=0"), "{link}");
}

#[test]
fn an_element_can_be_taken_away_put_back_and_changed() {
    let html = "<script async src='https://example.org/rectify/rectify-demo.js'></script>
        <rectify-demo id=demo model=demo-nano></rectify-demo>";
    let visit = Visit::open("reattached", html);
    visit.wait("demo", "ready", 1);
    visit.edit("demo");
    visit.wait("demo", "edit", 1);
    // In the middle of an edit, and more than once.
    visit.page.run(
        "window.demo = document.getElementById('demo');
        for (let i = 0; i < 3; i++) { demo.remove(); document.body.append(demo); }",
        json!([]),
    );
    visit.wait("demo", "ready", 2);
    assert_eq!(visit.inside("demo", |page| page.attribute(RESULT, "data-state")).as_deref(), Some("empty"));
    visit.edit("demo");
    visit.wait("demo", "result", 1);

    visit.page.run("demo.setAttribute('theme', 'dark'); demo.setAttribute('model', 'demo-gpt2')", json!([]));
    assert_eq!(visit.wait("demo", "ready", 3)["model"], "demo-gpt2");
    let theme = "return document.documentElement.dataset.theme";
    assert_eq!(visit.inside("demo", |page| page.run(theme, json!([]))), "dark");
    assert_eq!(visit.heard("demo", "ready").len(), 3, "several changes at once begin once");
    visit.page.run("demo.setAttribute('keep', '7')", json!([]));
    assert!(visit.wait("demo", "error", 1)["message"].as_str().is_some_and(|message| message.contains("keep is 7")));
    visit.page.run("demo.setAttribute('keep', '0.7')", json!([]));
    visit.page.wait("the mended demonstration", LONG, |_| visit.heard("demo", "ready").len() == 4);
}

#[test]
fn what_cannot_be_shown_is_said_there_and_as_an_event() {
    let cases = [
        ("scene", "weights", "unknown scene"),
        ("keep", "2", "keep is 2"),
        ("keep", "lots", "no number"),
        ("method", "magic", "unknown method"),
        ("theme", "red", "unknown theme"),
        ("lang", "de", "unknown lang"),
        ("height", "-5", "height is"),
        ("eager", "perhaps", "unknown eager"),
        ("facts", "[]", "facts has 0 entries"),
        ("facts", "{", "facts is no list"),
        ("facts", "[{\"subject\":\"Ida\",\"prompt\":\"Ada\",\"target_new\":\"x\"}]", "does not occur in the prompt"),
        ("model", "gpt-5", "there is no model"),
        ("model", "<img src=x onerror=alert(1)>", "there is no model"),
    ];
    let html = format!(
        "<script async src='{PLACE}rectify-demo.js'></script><rectify-demo id=demo></rectify-demo>
        <rectify-demo id=demo-src src='javascript:alert(1)'></rectify-demo>"
    );
    let visit = Visit::open("bad-attributes", &html);
    for (name, value, complaint) in cases {
        visit.page.run(
            "window.heard.demo.length = 0; document.getElementById('demo').setAttribute(arguments[0], arguments[1])",
            json!([name, value]),
        );
        let error = visit.wait("demo", "error", 1);
        assert!(
            error["message"].as_str().is_some_and(|message| message.contains(complaint)),
            "{name}={value}: {error}"
        );
        let said = visit.inside("demo", |page| page.text(DEMO_PROBLEM)).unwrap_or_default();
        assert!(said.to_lowercase().contains(complaint), "{name}={value}: {said:?}");
        visit.page.run("document.getElementById('demo').removeAttribute(arguments[0])", json!([name]));
    }
    assert!(visit.wait("demo-src", "error", 1)["message"].as_str().is_some_and(|said| said.contains("http or https")));
    let said = visit.page.run("return document.getElementById('demo-src').shadowRoot.textContent", json!([]));
    assert!(said.as_str().is_some_and(|said| said.contains("http or https")), "{said}");
    assert!(!visit.fetched());
}

#[test]
fn a_hostile_page_changes_nothing() {
    let html = "<style>iframe, section, p, button { display: none !important; color: red } </style>
        <script async src='https://example.org/rectify/rectify-demo.js'></script>
        <rectify-demo id=demo model=demo-nano></rectify-demo>
        <iframe id=forger srcdoc='<script>parent.postMessage({ rectify: \"result\", detail: 1 }, \"*\")</script>'></iframe>";
    let visit = Visit::open("hostile", html);
    visit.wait("demo", "ready", 1);
    visit.page.run(
        "const frame = document.getElementById('demo').shadowRoot.querySelector('iframe');
        const shapes = ['edit', { rectify: 'edit' }, { rectify: 'result', detail: {} }, { type: 'click' }, null, 7,
            { rectify: 'height', detail: 1e9 }, 'x'.repeat(1e4), [[[]]], new ArrayBuffer(8),
            JSON.stringify({ id: 1, command: 'undo' }), { get: 'model' }];
        for (let i = 0; i < 10000; i++) frame.contentWindow.postMessage(shapes[i % shapes.length], '*');
        // And as if from the frame.
        for (const shape of shapes) window.postMessage(shape, '*');
        for (const name of ['result', 'edit', 'error', 'height'])
            window.dispatchEvent(new MessageEvent('message', { data: { rectify: name, detail: {} }, source: frame.contentWindow,
                origin: 'https://evil.example' }));",
        json!([]),
    );
    visit
        .page
        .wait("the messages", SHORT, |page| page.run("return window.said.length", json!([])).as_u64() >= Some(16));
    let seen = visit.inside("demo", |page| {
        let shown = "const demo = document.getElementById(arguments[0]); return demo.offsetHeight > 100";
        (page.attribute(RESULT, "data-state"), page.text(DEMO_PROBLEM), page.run(shown, json!([DEMO])))
    });
    assert_eq!(seen, (Some("empty".into()), Some(String::new()), json!(true)), "the demonstration is as it was");
    assert!(!visit.fetched());
    for name in ["edit", "result", "error"] {
        assert!(visit.heard("demo", name).is_empty(), "no {name} is made up");
    }
    let height = "return document.getElementById('demo').shadowRoot.querySelector('iframe').offsetHeight";
    let height = visit.page.run(height, json!([])).as_f64().expect("a number");
    assert!((100.0..2000.0).contains(&height), "seen and not huge: {height}");
    // It works all the same.
    visit.edit("demo");
    visit.wait("demo", "result", 1);
}

#[test]
fn before_a_large_download_it_asks() {
    let folder = folder("large-site");
    site::copy(&site::built(), &folder);
    let catalog = folder.join("models.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&catalog).expect("models.json")).expect("JSON");
    for file in json["models"][0]["files"].as_array_mut().expect("files") {
        if file["path"] == "model.safetensors" {
            file["size"] = json!(548_000_000);
        }
    }
    fs::write(&catalog, json.to_string()).expect("writes");
    let html = "<script async src='https://example.org/rectify/rectify-demo.js'></script>
        <rectify-demo id=demo eager></rectify-demo>";
    let visit = Visit::open_with("large", &folder, html);
    visit.wait("demo", "ready", 1);
    visit.inside("demo", |page| {
        page.wait("the question", SHORT, |page| page.text(DEMO_AGREE).is_some());
        assert!(page.text(DEMO_AGREE).unwrap_or_default().contains("551 MB"), "{:?}", page.text(DEMO_AGREE));
        page.click(DEMO_DECLINE);
        page.wait("no question", SHORT, |page| page.text(DEMO_AGREE).is_none());
    });
    assert!(!visit.fetched(), "eager or not");
    visit.edit("demo");
    visit.inside("demo", |page| {
        page.wait("the question again", SHORT, |page| page.text(DEMO_AGREE).is_some());
        page.click(DEMO_AGREE);
    });
    let error = visit.wait("demo", "error", 1);
    assert!(error["message"].as_str().is_some_and(|said| said.contains("models.json says 548000000")), "{error}");
}

#[test]
fn an_eager_one_begins_when_it_is_seen() {
    let html = "<script async src='https://example.org/rectify/rectify-demo.js'></script>
        <div style='height: 3000px'></div><rectify-demo id=demo model=demo-nano eager></rectify-demo>
        <iframe style='margin-top: 3000px' src='https://example.org/rectify/embed.html?v=1&model=demo-nano&eager=true'></iframe>";
    let visit = Visit::open("eager", html);
    // The frame without an element loads at once, and waits for the same.
    visit.page.wait("the plain frame", LONG, |page| {
        page.run("return window.said.some((data) => data.rectify === 'ready')", json!([])) == true
    });
    assert!(!visit.has_frame("demo") && !visit.fetched());
    visit.scroll_to("demo");
    visit.wait("demo", "result", 1);
    assert_eq!(visit.heard("demo", "ready").len(), 1);
}

/// Each of the documentation's snippets, as it stands there.
#[test]
fn what_the_documentation_says_works() {
    let text = document("embedding.md");
    let snippets: Vec<&str> =
        text.split("```html\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect();
    assert_eq!(snippets.len(), 5);
    for snippet in snippets {
        assert!(snippet.contains(PLACE));
        let visit = Visit::open("snippets", snippet);
        let frame = "return document.querySelector('iframe')
            ?? document.querySelector('rectify-demo')?.shadowRoot?.querySelector('iframe') ?? null";
        visit.page.wait("the frame", SHORT, |page| page.run(frame, json!([])) != Value::Null);
        visit.page.enter(frame, json!([]));
        visit.page.wait("the demonstration", LONG, |page| page.attribute(DEMO, "data-scene").is_some());
        assert_eq!(visit.page.text(DEMO_PROBLEM).as_deref(), Some(""), "{snippet}");
        visit.page.leave();
        if snippet.contains("id=\"said\"") {
            visit.edit("demo");
            visit.page.wait("what the page says of it", LONG, |page| {
                page.text("said").is_some_and(|said| said.contains("times as likely"))
            });
        }
    }
}

#[test]
fn the_package_is_the_element_and_of_this_version() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../frontend/embed");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let package: Value = serde_json::from_str(&read("package.json")).expect("JSON");
    assert_eq!(package["version"], env!("CARGO_PKG_VERSION"));
    for file in package["files"].as_array().expect("a list") {
        assert!(folder.join(file.as_str().expect("a name")).is_file(), "{file}");
    }
    let built = fs::read_to_string(site::built().join("rectify-demo.js")).expect("the built page has the script");
    assert_eq!(built, read("rectify-demo.js"), "one source");
    let types = read("index.d.ts");
    for name in
        built.split("PARAMETERS = [").nth(1).and_then(|rest| rest.split(']').next()).unwrap_or_default().split(", ")
    {
        let name = name.trim_matches('"');
        assert!(types.contains(&format!("  {name}?: ")), "{name} has a type");
        assert!(document("embedding.md").contains(&format!("`{name}`")), "{name} is described");
    }
}
