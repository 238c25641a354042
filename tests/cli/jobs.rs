//! Heavy runs as somebody meets them who sends them to a server and goes away.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// A server over a folder of jobs.
pub struct Server {
    child: Child,
    pub address: String,
    folder: PathBuf,
}

pub fn statics() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../static").to_owned()
}

impl Server {
    pub fn start(folder: &Path, more: &[&str]) -> Self {
        Self::listening(folder, "127.0.0.1:0", more)
    }

    fn listening(folder: &Path, listen: &str, more: &[&str]) -> Self {
        Self::begin(&statics(), folder, listen, more, &[])
    }

    /// With variables of its own.
    pub fn with(folder: &Path, more: &[&str], variables: &[(&str, OsString)]) -> Self {
        Self::begin(&statics(), folder, "127.0.0.1:0", more, variables)
    }

    /// With another static folder.
    pub fn of(statics: &Path, folder: &Path) -> Self {
        Self::begin(&statics.display().to_string(), folder, "127.0.0.1:0", &[], &[])
    }

    fn begin(statics: &str, folder: &Path, listen: &str, more: &[&str], variables: &[(&str, OsString)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rectify"));
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.args(["serve", "--static", statics, "--listen", listen, "--jobs", &folder.display().to_string()]);
        let mut child = command.args(more).stderr(Stdio::piped()).spawn().expect("starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut said = String::new();
        while !said.contains("listening on ") {
            assert_ne!(stderr.read_line(&mut said).expect("reads"), 0, "the server ended: {said}");
        }
        // What it says later is read, so that it never waits for a reader.
        std::thread::spawn(move || drop(std::io::copy(&mut stderr, &mut std::io::sink())));
        let address = said.trim().rsplit("listening on ").next().expect("an address").to_owned();
        Self { child, address, folder: folder.to_owned() }
    }

    pub fn jobs(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rectify"));
        command.arg("jobs").args(args).args(["--server", &self.address]).output().expect("starts")
    }

    /// What `rectify jobs … --json` prints.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.jobs(&[args, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    pub fn submit(&self, args: &[&str]) -> String {
        self.asked(&[&["submit"], args].concat())
    }

    /// The id of a job that is asked for.
    pub fn asked(&self, args: &[&str]) -> String {
        let job = self.json(args);
        job["id"].as_str().expect("an id").to_owned()
    }

    /// How a job ended.
    pub fn ended(&self, id: &str) -> Value {
        let job = || self.json(&["list"]).as_array().expect("jobs").iter().find(|job| job["id"] == id).cloned();
        let asked = Instant::now();
        loop {
            let job = job().expect("it is listed");
            if ["done", "failed", "cancelled"].contains(&job["state"].as_str().expect("a state")) {
                return job;
            }
            assert!(asked.elapsed() < Duration::from_secs(240), "{job}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build().into();
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut answer = agent.run(request.body(body.to_owned()).expect("a request")).expect("an answer");
        (answer.status().as_u16(), answer.body_mut().read_to_string().expect("text"))
    }

    pub fn post(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> (u16, String) {
        self.ask("POST", path, &[&[("content-type", "application/json")], headers].concat(), &body.to_string())
    }

    /// Kills it where it stands.
    pub fn kill(mut self) -> PathBuf {
        self.child.kill().expect("kills");
        self.child.wait().expect("waits");
        self.folder.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A grid of two editors of which a row takes a moment.
pub const CHANGE: &str = r#"{"edits": [0, 1, 3], "seeds": [0, 1], "limit": 8, "regularizers": ["none", "rect 40%"],
    "editors": [{"method": "rome", "mom2_adjustment": false, "v_num_grad_steps": 6},
                {"method": "ft", "num_steps": 4}]}"#;

/// Every score, but for seconds, as a table.
pub fn scores(folder: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_rectify")).arg("report").arg(folder).output().expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = fs::read_to_string(folder.join("report.csv")).expect("a table");
    let lines = table.lines().filter(|line| !line.contains(",seconds,"));
    // The first column is the folder's name.
    let mut lines: Vec<&str> = lines.filter_map(|line| Some(line.split_once(',')?.1)).collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// The rows of a job by the plain command line.
pub fn by_hand(job: &Path, out: &Path) -> String {
    let spec = job.join("spec.toml").display().to_string();
    let out_text = out.display().to_string();
    let args = ["sweep", &spec, "--static", &statics(), "--out", &out_text];
    let output = Command::new(env!("CARGO_BIN_EXE_rectify")).args(args).output().expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    scores(out)
}

pub const GRID: &str = "demo-figure-8";

#[test]
fn a_job_ends_in_the_command_line_s_table_whatever_is_killed() {
    const KILLS: u64 = 12;
    let folder = tempfile::tempdir().expect("a folder");
    let jobs = folder.path().join("jobs");
    let mut server = Server::start(&jobs, &["--at-once", "2"]);
    let submit =
        ["submit", GRID, "--change", CHANGE, "--model", "demo-nano", "--parts", "3", "--key", "once", "--json"];
    let id = server.submit(&submit[1..submit.len() - 1]);
    for kill in 0..KILLS {
        // Each time somewhere else: between what was meant and what was begun, too.
        std::thread::sleep(Duration::from_millis(kill * 67 % 500));
        server = Server::start(&server.kill(), &["--at-once", "2"]);
        // Sent again, it is the same job.
        assert_eq!(server.submit(&submit[1..submit.len() - 1]), id);
    }
    let job = server.ended(&id);
    assert_eq!((&job["state"], &job["note"]), (&json!("done"), &Value::Null), "{job}");
    assert_eq!(server.json(&["list"]).as_array().expect("jobs").len(), 1);
    let place = jobs.join(&id);
    assert_eq!(scores(&place.join(GRID)), by_hand(&place, &folder.path().join("hand")));
    let watched = server.jobs(&["watch", &id]);
    assert_eq!(watched.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&watched.stdout).contains("done"));

    // What it found leaves the server as it is.
    let out = folder.path().join("rows").display().to_string();
    assert!(server.jobs(&["rows", &id, "--out", &out]).status.success());
    assert_eq!(scores(Path::new(&out)), scores(&place.join(GRID)));
    for form in ["html", "csv", "json"] {
        let file = folder.path().join(format!("report.{form}"));
        assert!(server.jobs(&["report", &id, "--out", &file.display().to_string()]).status.success());
        assert!(fs::read_to_string(&file).expect("a report").len() > 500);
    }
}

#[test]
fn a_job_is_stopped_goes_on_and_is_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), &[]);
    let id = server.submit(&[GRID, "--seeds", "0,1,2,3,4,5,6,7"]);
    let second = server.submit(&[GRID, "--seeds", "0"]);
    let path = format!("/api/jobs/{id}");
    let asked = Instant::now();
    while server.json(&["list"])[1]["rows"].as_u64() < Some(20) {
        assert!(asked.elapsed() < Duration::from_secs(60), "{}", server.json(&["list"]));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(server.json(&["list"])[0]["state"], "queued", "one process at a time");
    assert_eq!(server.ask("DELETE", &path, &[], "").0, 409, "it runs");
    assert!(server.jobs(&["cancel", &second]).status.success());
    assert!(server.jobs(&["cancel", &id]).status.success());
    let told = Instant::now();
    let job = server.ended(&id);
    assert!(told.elapsed() < Duration::from_secs(15), "{:?}", told.elapsed());
    assert_eq!((&job["state"], server.ended(&second)["rows"].as_u64()), (&json!("cancelled"), Some(0)));
    assert_eq!(server.jobs(&["watch", &id]).status.code(), Some(130));
    assert!(server.jobs(&["cancel", &id]).status.success(), "once more is as good");
    let rows = job["rows"].as_u64().expect("a number");

    assert!(server.jobs(&["resume", &id]).status.success());
    while server.json(&["list"])[1]["rows"].as_u64() <= Some(rows) {
        assert!(told.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(server.jobs(&["cancel", &id]).status.success());
    server.ended(&id);
    assert!(server.jobs(&["delete", &id]).status.success());
    assert!(!folder.path().join(&id).exists());
    assert_eq!(server.ask("GET", &path, &[], "").0, 404);
    assert_eq!(server.jobs(&["watch", &id]).status.code(), Some(2));
}

#[test]
fn a_job_that_cannot_be_done_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), &[]);
    // The server does not know which statistics there are; its process does.
    let id = server.submit(&[GRID, "--change", r#"{"editors": [{"method": "memit", "layers": [1]}]}"#, "--edits", "0"]);
    let job = server.ended(&id);
    assert_eq!(job["state"], "failed");
    assert!(job["note"].as_str().expect("a note").contains("no statistics of layer 1"), "{job}");
    let watched = server.jobs(&["watch", &id]);
    assert_eq!(watched.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&watched.stderr).contains("no statistics of layer 1"));
    let log = server.jobs(&["log", &id]);
    assert!(String::from_utf8_lossy(&log.stdout).contains("attempt 1, part 0"));
}

/// On a disk of its own with hardly any room, where one may be made.
#[cfg(target_os = "linux")]
#[test]
fn a_job_waits_for_room_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let mount = |size: &str| {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", size, "rectify-test"]).arg(folder.path()).stderr(Stdio::null()).status()
    };
    if !mount("size=8m").is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: a small disk cannot be mounted here");
        return;
    }
    let jobs = folder.path().join("jobs");
    let server = Server::start(&jobs, &[]);
    let id = server.submit(&[GRID, "--model", "demo-nano", "--seeds", "0", "--edits", "0,1", "--limit", "2"]);
    let asked = Instant::now();
    let mut said = Value::Null;
    while said.is_null() && asked.elapsed() < Duration::from_secs(30) {
        said = server.json(&["list"])[0]["note"].clone();
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(said.as_str().expect("a note").contains("waits for room: less than 32 MiB are free in"), "{said}");
    assert_eq!(server.json(&["list"])[0]["state"], "queued");
    let (ready, text) = server.ask("GET", "/readyz", &[], "");
    assert!(ready == 503 && text.contains("room"), "{text}");
    assert!(mount("remount,size=256m").is_ok_and(|status| status.success()));
    assert_eq!(server.ended(&id)["state"], "done");
    drop(server);
    assert!(Command::new("umount").arg(folder.path()).status().is_ok_and(|status| status.success()));
}

/// A request for a changed grid.
fn changed(change: &Value) -> Value {
    json!({ "work": { "sweep": { "template": GRID, "change": change } } })
}

/// A request is refused with this status, for a reason that says so much.
#[track_caller]
pub fn check_job(server: &Server, body: &Value, status: u16, part: &str) {
    let (found, text) = server.post("/api/jobs", body, &[]);
    assert_eq!(found, status, "{body}: {text}");
    let failure: Value = serde_json::from_str(&text).expect("a failure");
    assert!(text.contains(part) && failure["kind"].is_string(), "{text}");
}

/// The requests that servers of this kind were broken with, as far as they concern jobs.
#[test]
fn no_request_names_a_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), &[]);
    let check = |body: &Value, status: u16, part: &str| check_job(&server, body, status, part);
    let sweep = |change: Value| changed(&change);
    for template in
        ["../sweeps/demo-figure-8", "/etc/passwd", "demo-figure-8.toml", "%2e%2e/x", "..\\x", "demo\u{0}", ""]
    {
        check(&json!({ "work": { "sweep": { "template": template } } }), 404, "has no template");
    }
    for model in
        ["/etc", "../../golden", "http://169.254.169.254/latest", "http://[::1]/", "file:///etc/passwd", "gopher://x"]
    {
        check(&sweep(json!({ "model": model })), 404, "has no model");
    }
    for (key, value) in
        [("facts", "/etc/passwd"), ("data", "/"), ("covariance", "/"), ("snippets", "/x"), ("out", "/tmp")]
    {
        check(&sweep(json!({ key: value })), 400, "unknown field");
    }
    assert_eq!(server.json(&["list"]), json!([]), "nothing was begun");
    let id = server.submit(&[GRID, "--seeds", "0"]);
    for path in [
        "/api/jobs/../../etc/passwd",
        "/api/jobs/%2e%2e%2f%2e%2e/rows",
        "/api/jobs/x",
        "/api/jobs/%00/rows",
        &format!("/api/jobs/{id}/rows/..%2f..%2fjobs.sqlite"),
        &format!("/api/jobs/{id}/rows/%252e%252e%252fjobs.sqlite"),
        &format!("/api/jobs/{id}/rows/table.md"),
        &format!("/api/jobs/{id}/rows/%5cwindows%5cwin.ini"),
        &format!("/api/jobs/{id}/report.svg"),
        &format!("/api/jobs/{id}/spec.toml"),
        "/api/jobs/jobs.sqlite",
        &format!("/api/jobs/{}", "x".repeat(5000)),
    ] {
        let (status, text) = server.ask("GET", path, &[], "");
        assert!(matches!(status, 404 | 414), "{path}: {status} {text}");
        assert!(!text.contains("root:") && !text.contains("SQLite"), "{path}: {text}");
    }
}

#[test]
fn no_number_is_taken_on_trust() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), &[]);
    let check = |body: &Value, status: u16, part: &str| check_job(&server, body, status, part);
    let sweep = |change: Value| changed(&change);
    check(&sweep(json!({ "edits": [0, 1_000_000_000_000_000_u64] })), 400, "edits");
    check(&sweep(json!({ "edits": [-1] })), 400, "not a job");
    check(&sweep(json!({ "seeds": ["0"] })), 400, "not a job");
    check(&sweep(json!({ "regularizers": ["rect NaN"] })), 400, "NaN");
    check(&sweep(json!({ "regularizers": ["rect 0%"] })), 400, "keep");
    check(&sweep(json!({ "limit": 0 })), 400, "limit");
    check(&sweep(json!({ "seeds": vec![0; 2000] })), 400, "seeds");
    check(&sweep(json!({ "seeds": [0, 0] })), 400, "seeds has 0 twice");
    check(&sweep(json!({ "seeds": [u64::MAX] })), 400, "too large");
    check(&sweep(json!({ "tasks": ["sentiment", "sentiment"] })), 400, "twice");
    let editors = |editors: Value| sweep(json!({ "editors": editors }));
    check(&editors(json!([{ "method": "nope" }])), 400, "unknown method");
    check(&editors(json!([{}])), 400, "an editor has no");
    check(&editors(json!([{ "method": "rome" }, { "method": "rome" }])), 400, "twice");
    check(&editors(json!([{ "method": "rome", "nonsense": 1 }])), 400, "nonsense");
    // What the record could not be read back with would be in every job's way.
    for depth in 100..125 {
        let nested = (0..depth).fold(json!(1), |inner, _| json!([inner]));
        let (status, text) = server.post("/api/jobs", &editors(json!([{ "method": "rome", "layers": nested }])), &[]);
        assert_eq!(status, 400, "{depth}: {text}");
    }
    let parts = json!({ "work": { "sweep": { "template": GRID, "change": { "seeds": [0] } } }, "parts": 999 });
    check(&parts, 400, "can be divided into 7");
    check(&json!({ "work": { "sweep": { "template": GRID } }, "parts": 0 }), 400, "parts");
    check(&json!({ "work": { "sweep": { "template": GRID } }, "parts": 1_000_000 }), 400, "parts");
    check(&json!({ "work": { "sweep": { "template": "llama-7b-figure-7" } } }), 400, "has not");
    check(&json!("x".repeat(1000)), 400, "not a job");
    assert_eq!(server.json(&["list"]), json!([]), "nothing was begun");
}

#[test]
fn other_pages_and_other_forms_begin_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), &[]);
    let sweep = |change: Value| changed(&change);
    let good = sweep(json!({ "seeds": [0] }));
    for origin in ["null", "http://localhost.evil.com", "http://127.0.0.1", "http://evil.example"] {
        let (status, text) = server.post("/api/jobs", &good, &[("origin", origin)]);
        assert_eq!(status, 403, "{origin}: {text}");
    }
    assert_eq!(server.post("/api/jobs", &good, &[("sec-fetch-site", "cross-site")]).0, 403);
    assert_eq!(server.post("/api/jobs", &good, &[("host", "evil.example")]).0, 403);
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        assert_eq!(server.ask("POST", "/api/jobs", &[("content-type", kind)], &good.to_string()).0, 415, "{kind}");
    }
    let gzip = [("content-type", "application/json"), ("content-encoding", "gzip")];
    assert_eq!(server.ask("POST", "/api/jobs", &gzip, "\u{1f}\u{8b}").0, 400, "nothing is unpacked");
    assert_eq!(server.post("/api/jobs", &good, &[("idempotency-key", &"k".repeat(300))]).0, 400);
    assert_eq!(server.json(&["list"]), json!([]), "nothing was begun");
}

#[test]
fn a_key_stands_for_one_request_however_often_it_is_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), &[]);
    let body = |seed: u64| json!({ "work": { "sweep": { "template": GRID, "change": { "seeds": [seed] } } } });
    let send = |seed, key: &str| server.post("/api/jobs", &body(seed), &[("idempotency-key", key)]);
    let answers: Vec<(u16, String)> = std::thread::scope(|scope| {
        let sent: Vec<_> = (0..50).map(|_| scope.spawn(|| send(0, "k"))).collect();
        sent.into_iter().map(|sent| sent.join().expect("an answer")).collect()
    });
    assert_eq!(answers.iter().filter(|(status, _)| *status == 201).count(), 1, "{answers:?}");
    assert!(answers.iter().all(|(status, _)| [200, 201].contains(status)), "{answers:?}");
    assert_eq!(send(1, "k").0, 409);
    assert_eq!(server.json(&["list"]).as_array().expect("jobs").len(), 1);
}

/// The events of a job from one on, until it has ended.
fn events(server: &Server, id: &str, seen: &str) -> Vec<(String, String, Value)> {
    let headers: &[_] = if seen.is_empty() { &[] } else { &[("last-event-id", seen)] };
    let mut request = ureq::get(format!("{}/api/jobs/{id}/events", server.address));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut body = BufReader::new(request.call().expect("a stream").into_body().into_reader());
    let (mut found, mut kind, mut number, mut line) = (Vec::new(), String::new(), String::new(), String::new());
    while {
        line.clear();
        body.read_line(&mut line).expect("reads")
    } > 0
    {
        match line.trim_end().split_once(": ") {
            Some(("event", text)) => kind = text.to_owned(),
            Some(("id", text)) => number = text.to_owned(),
            Some(("data", text)) => {
                let job: Value = serde_json::from_str(text).expect("a job");
                let last = ["done", "failed", "cancelled"].contains(&job["state"].as_str().expect("a state"));
                found.push((kind.clone(), number.clone(), job));
                if last {
                    return found;
                }
            }
            _ => {}
        }
    }
    found
}

#[test]
fn events_go_on_where_a_listener_stopped_over_a_restart_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), &[]);
    let id = server.submit(&[GRID, "--seeds", "0", "--edits", "0,1", "--limit", "4"]);
    let all = events(&server, &id, "");
    assert!(all.len() > 2 && all.iter().all(|(kind, ..)| kind == "job"), "{all:?}");
    let server = Server::start(&server.kill(), &[]);
    assert_eq!(events(&server, &id, &all[0].1), all[1..], "exactly what came after");
    let last = &all[all.len() - 1];
    assert_eq!(events(&server, &id, ""), std::slice::from_ref(last), "who comes late begins with the job as it is");
    let epoch = last.1.split_once('-').expect("two parts").0;
    for unknown in [&format!("{epoch}-999999"), "0123456789abcdef-1", "x", &format!("{epoch}-"), "-1"] {
        let found = events(&server, &id, unknown);
        assert_eq!((found.len(), &found[0].0[..], &found[0].2), (1, "reset", &last.2), "{unknown}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn other_machines_need_the_token_and_other_pages_get_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    // Another address of this machine, as another machine would see it.
    let server = Server::listening(
        folder.path(),
        "127.0.0.2:0",
        &["--token-file", &folder.path().join("t").display().to_string()],
    );
    let token = fs::read_to_string(folder.path().join("t")).expect("a token").trim().to_owned();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(folder.path().join("t")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let get = |path: &str, headers: &[(&str, &str)]| server.ask("GET", path, headers, "");
    for path in ["/api/jobs", "/api/machine", "/api/models", "/api/sweeps"] {
        let (status, text) = get(path, &[]);
        assert_eq!(status, 401, "{path}");
        assert!(!text.contains(&token));
        assert_eq!(get(path, &[("authorization", &format!("Bearer {token}"))]).0, 200, "{path}");
    }
    assert_eq!(server.post("/api/token", &json!("x"), &[]).0, 401);
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let sent = agent.post(format!("{}/api/token", server.address)).header("content-type", "application/json");
    let answer = sent.send(json!(token).to_string()).expect("an answer");
    let cookie = answer.headers()["set-cookie"].to_str().expect("text").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().expect("a cookie");
    assert_eq!(get("/api/jobs", &[("cookie", cookie)]).0, 200);
    let refused = server.jobs(&["list"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("asks for its token"));
    let file = folder.path().join("t").display().to_string();
    assert!(server.jobs(&["list", "--token-file", &file]).status.success());
}

#[test]
fn a_server_without_a_token_is_not_open_to_other_machines() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::listening(folder.path(), "0.0.0.0:0", &[]);
    let token = fs::read_to_string(folder.path().join("token")).expect("one was made");
    let port = server.address.rsplit(':').next().expect("a port");
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).expect("connects");
    let request = format!("GET /api/jobs HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    std::io::Write::write_all(&mut stream, request.as_bytes()).expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(token.trim().len() >= 32);
}

#[test]
fn two_servers_do_not_share_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let _first = Server::start(folder.path(), &[]);
    let args =
        ["serve", "--static", &statics(), "--listen", "127.0.0.1:0", "--jobs", &folder.path().display().to_string()];
    let output = Command::new(env!("CARGO_BIN_EXE_rectify")).args(args).output().expect("starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("another server keeps its jobs"));
}

/// The command lines of this machine's processes that name this.
#[cfg(target_os = "linux")]
fn processes_that_name(text: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("processes").filter_map(|entry| Some(entry.ok()?.path()));
    let lines = processes.filter_map(|process| fs::read(process.join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(text)).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn a_server_that_is_told_to_end_leaves_no_process_and_its_rows() {
    for signal in ["-INT", "-TERM"] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut server = Server::start(folder.path(), &[]);
        let id = server.submit(&[GRID, "--seeds", "0,1,2,3"]);
        let asked = Instant::now();
        while server.json(&["list"])[0]["rows"].as_u64() < Some(5) {
            assert!(asked.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(50));
        }
        let told = Instant::now();
        assert!(Command::new("kill").args([signal, &server.child.id().to_string()]).status().expect("kill").success());
        while server.child.try_wait().expect("waits").is_none() {
            assert!(told.elapsed() < Duration::from_secs(15), "{signal}: the server still runs");
            std::thread::sleep(Duration::from_millis(20));
        }
        let running = processes_that_name(&folder.path().display().to_string());
        assert!(running.is_empty(), "{signal}: {running:?}");
        let server = Server::start(folder.path(), &[]);
        let job = &server.json(&["list"])[0];
        assert!(job["rows"].as_u64() >= Some(5) && !job["state"].as_str().expect("a state").contains("fail"), "{job}");
        assert!(server.jobs(&["cancel", &id]).status.success());
        server.ended(&id);
    }
}
