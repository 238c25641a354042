//! A browser, driven through chromedriver by the W3C's WebDriver protocol: JSON over HTTP on this machine.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// WebGPU without a graphics card: SwiftShader computes it on the processor.
const ARGS: &[&str] = &[
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-webgpu",
    "--enable-features=Vulkan",
    "--use-webgpu-adapter=swiftshader",
    "--use-vulkan=swiftshader",
    "--enable-unsafe-swiftshader",
    "--window-size=1280,1000",
];

/// The key under which WebDriver hides an element's id.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Starts chromedriver: the process and the port where it listens. Nothing if it ended without one: it takes a free
/// port of IPv4, and ends when another process has the same one of IPv6.
fn start() -> Option<(Child, u16)> {
    let program = env::var_os("CHROMEDRIVER").unwrap_or_else(|| "chromedriver".into());
    let mut driver = Command::new(&program)
        .arg("--port=0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
    let mut said = String::new();
    for line in BufReader::new(driver.stdout.take().expect("stdout was piped")).lines().map_while(Result::ok) {
        let port =
            line.split_once("successfully on port ").and_then(|(_, port)| port.trim_end_matches('.').parse().ok());
        if let Some(port) = port {
            return Some((driver, port));
        }
        said.push_str(&line);
        said.push('\n');
    }
    let status = driver.wait().expect("chromedriver ended");
    println!("chromedriver ended with {status} and listens nowhere:\n{said}");
    None
}

/// One browser window. Ends with the test, and leaves a picture behind when the test fails.
pub struct Browser {
    driver: Child,
    http: ureq::Agent,
    session: String,
    test: &'static str,
}

impl Browser {
    /// Opens a window for `test`, which is the name its picture gets.
    pub fn open(test: &'static str) -> Self {
        let (driver, port) = (0..5).find_map(|_| start()).expect("chromedriver finds a free port within five tries");
        let limit = Some(Duration::from_secs(900));
        let http = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(limit).build().new_agent();
        let mut browser = Self { driver, http, session: format!("http://127.0.0.1:{port}/session"), test };

        let mut options = json!({ "args": ARGS });
        if let Some(binary) = env::var_os("CHROMIUM") {
            options["binary"] = binary.to_string_lossy().into();
        }
        let wanted = json!({
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "script": 900_000 },
        });
        let opened = browser.post("", json!({ "capabilities": { "alwaysMatch": wanted } }));
        let id = opened["sessionId"].as_str().unwrap_or_else(|| panic!("chromedriver opens no window: {opened}"));
        browser.session = format!("{}/{id}", browser.session);
        browser
    }

    /// Loads a page.
    pub fn go(&self, address: &str) {
        self.post("/url", json!({ "url": address }));
    }

    /// Runs the body of a function; `arguments` holds `args`. A promise is waited for.
    #[track_caller]
    pub fn run(&self, script: &str, args: Value) -> Value {
        self.post("/execute/sync", json!({ "script": script, "args": args }))
    }

    /// The text of the element with this id, or nothing when it is not there.
    pub fn text(&self, id: &str) -> Option<String> {
        let text = self.run("return document.getElementById(arguments[0])?.innerText ?? null", json!([id]));
        text.as_str().map(|text| text.trim().to_owned())
    }

    /// Its attribute, or nothing when either is not there.
    pub fn attribute(&self, id: &str, name: &str) -> Option<String> {
        let value = self
            .run("return document.getElementById(arguments[0])?.getAttribute(arguments[1]) ?? null", json!([id, name]));
        value.as_str().map(str::to_owned)
    }

    /// Presses the mouse button where the element is, as a person does: what is hidden or covered cannot be clicked.
    #[track_caller]
    pub fn click(&self, id: &str) {
        let element = self.element(id);
        self.post(&format!("/element/{element}/click"), json!({}));
    }

    /// Replaces what an input holds, by keys: everything is selected, deleted, and `text` typed.
    #[track_caller]
    pub fn fill(&self, id: &str, text: &str) {
        const CONTROL: char = '\u{E009}';
        const RELEASE: char = '\u{E000}';
        const BACKSPACE: char = '\u{E003}';
        let element = self.element(id);
        let keys = format!("{CONTROL}a{RELEASE}{BACKSPACE}{text}");
        self.post(&format!("/element/{element}/value"), json!({ "text": keys }));
    }

    /// Chooses a file or folder in an `input type=file`.
    #[track_caller]
    pub fn choose_file(&self, id: &str, path: &Path) {
        let element = self.element(id);
        self.post(&format!("/element/{element}/value"), json!({ "text": path.display().to_string() }));
    }

    /// Goes into the frame that a script returns, until [`Self::leave`].
    #[track_caller]
    pub fn enter(&self, script: &str, args: Value) {
        let frame = self.run(script, args);
        self.post("/frame", json!({ "id": frame }));
    }

    /// Goes back to the page that was opened.
    pub fn leave(&self) {
        self.post("/frame", json!({ "id": null }));
    }

    /// Makes the part of the page that is seen so many CSS pixels large.
    pub fn resize(&self, width: u32, height: u32) {
        let screen = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.post("/goog/cdp/execute", json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": screen }));
    }

    /// Whether it is there and can be used.
    pub fn enabled(&self, id: &str) -> bool {
        self.run("return document.getElementById(arguments[0])?.disabled === false", json!([id])) == true
    }

    #[track_caller]
    fn element(&self, id: &str) -> String {
        let found = self.post("/element", json!({ "using": "css selector", "value": format!("#{id}") }));
        found[ELEMENT].as_str().unwrap_or_else(|| panic!("no element #{id}")).to_owned()
    }

    /// Looks again and again until `done`; fails when that takes longer than `limit`.
    #[track_caller]
    pub fn wait(&self, what: &str, limit: Duration, mut done: impl FnMut(&Self) -> bool) {
        let started = Instant::now();
        while !done(self) {
            assert!(started.elapsed() < limit, "waited {limit:?} for {what}; the page says {:?}", self.text("error"));
            thread::sleep(Duration::from_millis(50));
        }
    }

    #[track_caller]
    fn post(&self, path: &str, body: Value) -> Value {
        self.answer(path, self.http.post(format!("{}{path}", self.session)).send_json(&body))
    }

    #[track_caller]
    fn answer(&self, path: &str, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Value {
        let mut answer = answer.unwrap_or_else(|error| panic!("chromedriver does not answer {path:?}: {error}"));
        let text = answer.body_mut().with_config().limit(1 << 28).read_to_string().expect("an answer is text");
        let mut json: Value = serde_json::from_str(&text).expect("an answer is JSON");
        assert!(answer.status().is_success(), "{path:?}: {}", json["value"]["message"].as_str().unwrap_or(&text));
        json["value"].take()
    }

    /// What a person needs to see why a test failed.
    fn keep_evidence(&self) -> Option<PathBuf> {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("web-failures");
        fs::create_dir_all(&folder).ok()?;
        let read = |mut answer: ureq::http::Response<ureq::Body>| {
            let text = answer.body_mut().with_config().limit(1 << 28).read_to_string().ok()?;
            serde_json::from_str::<Value>(&text).ok()
        };
        let shot = read(self.http.get(format!("{}/screenshot", self.session)).call().ok()?)?;
        let picture = folder.join(format!("{}.png", self.test));
        fs::write(&picture, base64(shot["value"].as_str()?)?).ok()?;
        let log = self.http.post(format!("{}/se/log", self.session)).send_json(json!({ "type": "browser" })).ok()?;
        for line in read(log)?["value"].as_array()? {
            eprintln!("the browser's console: {}", line["message"].as_str().unwrap_or_default());
        }
        Some(picture)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if thread::panicking()
            && let Some(picture) = self.keep_evidence()
        {
            eprintln!("what the page looked like: {}", picture.display());
        }
        // Whatever is gone already need not be ended.
        let _ = self.http.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The bytes that base64 text stands for.
fn base64(text: &str) -> Option<Vec<u8>> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0_u32, 0);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let digit = DIGITS.iter().position(|digit| *digit == letter)?;
        bits = (bits << 6) | u32::try_from(digit).ok()?;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).ok()?);
        }
    }
    Some(bytes)
}
