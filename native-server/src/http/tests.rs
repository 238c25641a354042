//! The service as its visitors see it, without a socket.

use std::{fs, net::Ipv4Addr, time::Duration};

use axum::{
    body::Body,
    http::{Request, Response, StatusCode, request::Builder},
};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::device::DeviceKind;

/// A service over a folder of its own.
struct Service {
    app: Router,
    state: AppState,
    _folder: tempfile::TempDir,
}

fn service_with(limits: Limits) -> Service {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (path, text) in [
        ("secret.txt", "secret"),
        ("static/models.json", MODELS),
        ("static/models/demo/config.json", "0123456789"),
        ("static/models/demo/notes.txt", "not listed"),
        ("static/facts/examples.json", "[]"),
        ("site/index.html", "<title>page</title><script type=module>start()</script><script src=x></script>"),
        ("site/app-0123456789abcdef_bg.wasm", "wasm"),
        ("site/plain.js", "script"),
        ("sweeps/one/rome.jsonl", "rows\nand half a li"),
        ("sweeps/one/table.md", "no rows"),
        ("sweeps/none/table.md", "no rows"),
    ] {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), text).unwrap();
    }
    let statics = Arc::new(Static::open(&root.join("static")).unwrap());
    let engine = Engine::start(statics.clone(), DeviceKind::Flex).unwrap();
    let listen = (Ipv4Addr::LOCALHOST, 0).into();
    let state = AppState::new(Settings {
        statics,
        engine,
        site: root.join("site"),
        sweeps: root.join("sweeps"),
        jobs: None,
        device: DeviceKind::Flex,
        listen,
        token: None,
        limits,
    });
    Service { app: app(state.clone()), state, _folder: folder }
}

fn service() -> Service {
    service_with(Limits::default())
}

const MODELS: &str = r#"{"models": [{"id": "demo", "name": "Demo", "folder": "models/demo", "licence": "MIT",
    "description": "", "architecture": "gpt2", "layers": 4, "context": 64, "memory_load": 0, "memory_edit": 0,
    "files": [{"path": "config.json", "size": 10, "sha256": "ABCD"}]}]}"#;

fn get(path: &str) -> Builder {
    Request::get(path).header("host", "localhost:8080")
}

fn post(path: &str) -> Builder {
    Request::post(path).header("host", "localhost:8080").header("content-type", "application/json")
}

impl Service {
    async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.app.clone().oneshot(request).await.unwrap()
    }

    async fn ask(&self, request: Builder) -> (StatusCode, String) {
        self.ask_with(request, "").await
    }

    async fn ask_with(&self, request: Builder, body: &str) -> (StatusCode, String) {
        let response = self.send(request.body(Body::from(body.to_owned())).unwrap()).await;
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn header(&self, request: Builder, name: &str) -> String {
        let response = self.send(request.body(Body::empty()).unwrap()).await;
        response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    async fn create(&self) -> String {
        let (status, text) = self.ask(post("/api/sessions")).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["key"].as_str().unwrap().to_owned()
    }

    /// Events up to the `n`-th, as they are sent.
    async fn events(&self, key: &str, last_seen: &str, n: usize) -> String {
        let request = get(&format!("/api/sessions/{key}/events")).header("last-event-id", last_seen);
        let mut body = self.send(request.body(Body::empty()).unwrap()).await.into_body();
        let mut text = String::new();
        while text.matches("\n\n").count() < n {
            let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("an event in time");
            let Some(frame) = frame else { break };
            text += std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap();
        }
        text
    }
}

#[track_caller]
fn check((status, text): (StatusCode, String), expected: StatusCode, part: &str) {
    assert_eq!(status, expected, "{text}");
    assert!(text.contains(part), "{text}\nlacks {part:?}");
}

#[tokio::test]
async fn the_page_and_the_bundled_files_are_served() {
    let service = service();
    check(service.ask(get("/")).await, StatusCode::OK, "<title>page");
    check(service.ask(get("/evaluate")).await, StatusCode::OK, "<title>page");
    check(service.ask(get("/missing.js")).await, StatusCode::NOT_FOUND, "");
    check(service.ask(get("/api/models")).await, StatusCode::OK, "\"licence\":\"MIT\"");
    check(service.ask(get("/api/nothing")).await, StatusCode::NOT_FOUND, "no such route");
    check(service.ask(get("/models/demo/config.json")).await, StatusCode::OK, "0123456789");
    check(service.ask(get("/facts/examples.json")).await, StatusCode::OK, "[]");
    let wasm = "/app-0123456789abcdef_bg.wasm";
    assert_eq!(service.header(get(wasm), "content-type").await, "application/wasm");
    assert!(service.header(get(wasm), "cache-control").await.contains("immutable"));
    assert_eq!(service.header(get("/plain.js"), "cache-control").await, "no-cache");
    assert_eq!(service.header(get("/"), "x-content-type-options").await, "nosniff");
    assert_eq!(service.header(get("/"), "x-frame-options").await, "SAMEORIGIN");
    assert_eq!(service.header(get("/embed.html"), "x-frame-options").await, "");
    assert_eq!(service.header(get("/rectify-demo.js"), "cross-origin-resource-policy").await, "cross-origin");
    let policy = service.header(get("/"), "content-security-policy").await;
    // SHA-256 of `start()`, by `openssl dgst -sha256 -binary | base64`.
    let hash = "'sha256-DIm7WJS6ZKDYe5qFLPy+h4JFI9Bol5QmYC57mt3Fb00='";
    assert!(policy.contains(hash) && policy.contains("frame-ancestors 'self'"), "{policy}");
    let policy = service.header(get("/embed"), "content-security-policy").await;
    assert!(policy.contains("frame-ancestors *"), "{policy}");
    let policy = service.header(get("/api/models"), "content-security-policy").await;
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
}

#[tokio::test]
async fn nothing_outside_the_folders_can_be_reached() {
    let service = service();
    for path in [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/facts/../../secret.txt",
        "/facts/%2e%2e/models.json",
        "/facts/..%5c..%5csecret.txt",
        "/models/demo/../../../secret.txt",
        "/models/demo/%2e%2e/%2e%2e/%2e%2e/secret.txt",
        "/models/demo/notes.txt",
        "/models//etc/passwd",
        "//etc/passwd",
    ] {
        let (status, text) = service.ask(get(path)).await;
        assert!(!text.contains("secret") && !text.contains("listed"), "{path}: {text}");
        assert!(status.is_client_error() || text.contains("<title>page"), "{path}: {status}");
    }
}

#[tokio::test]
async fn no_answer_leads_to_another_host() {
    let service = service();
    let folder = service.state.0.settings.site.join("evil.example");
    fs::create_dir_all(folder).unwrap();
    for path in [
        "/evil.example",
        "//evil.example",
        "///evil.example",
        "//evil.example/%2e%2e",
        "/%5cevil.example",
        "/?next=//x",
    ] {
        let location = service.header(get(path), "location").await;
        assert!(location.is_empty() || location == "/evil.example/", "{path}: {location}");
    }
}

#[tokio::test]
async fn sweeps_with_rows_are_listed_and_nothing_else_is_read() {
    let service = service();
    check(service.ask(get("/api/sweeps")).await, StatusCode::OK, r#"["one"]"#);
    check(service.ask(get("/api/sweeps/one")).await, StatusCode::OK, r#"[{"name":"rome.jsonl","size":18}]"#);
    check(service.ask(get("/api/sweeps/one/rome.jsonl")).await, StatusCode::OK, "rows\nand half a li");
    let conditional =
        |name: &str, value: &str| get("/api/sweeps/one/rome.jsonl").header("range", "bytes=5-7").header(name, value);
    check(service.ask(conditional("if-range", "\"18\"")).await, StatusCode::PARTIAL_CONTENT, "");
    check(service.ask(conditional("if-range", "\"17\"")).await, StatusCode::OK, "rows\nand half a li");
    check(service.ask(conditional("if-none-match", "\"18\"")).await, StatusCode::NOT_MODIFIED, "");
    check(service.ask(conditional("if-match", "\"18\"")).await, StatusCode::PARTIAL_CONTENT, "");
    let part = get("/api/sweeps/one/rome.jsonl").header("range", "bytes=5-7");
    check(service.ask(part).await, StatusCode::PARTIAL_CONTENT, "and");
    for file in ["table.md", "..%2Fone%2Frome.jsonl", "%2e%2e", "rome.jsonl%00"] {
        check(service.ask(get(&format!("/api/sweeps/one/{file}"))).await, StatusCode::NOT_FOUND, "no file");
    }
    for name in ["none", "two", "..%2Fstatic", "one%2F..%2Fone", "%2e%2e"] {
        check(service.ask(get(&format!("/api/sweeps/{name}"))).await, StatusCode::NOT_FOUND, "");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_that_leads_out_of_the_sweeps_is_not_followed() {
    let service = service();
    let (root, elsewhere) = (service._folder.path(), tempfile::tempdir().unwrap());
    fs::write(elsewhere.path().join("rome.jsonl"), "secret\n").unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), root.join("sweeps/two")).unwrap();
    fs::create_dir(root.join("sweeps/three")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("rome.jsonl"), root.join("sweeps/three/rome.jsonl")).unwrap();
    check(service.ask(get("/api/sweeps")).await, StatusCode::OK, r#"["one"]"#);
    for name in ["two", "three"] {
        check(service.ask(get(&format!("/api/sweeps/{name}"))).await, StatusCode::NOT_FOUND, "");
    }
    // One that stays within is as good as a folder.
    std::os::unix::fs::symlink(root.join("sweeps/one"), root.join("sweeps/four")).unwrap();
    check(service.ask(get("/api/sweeps")).await, StatusCode::OK, r#"["four","one"]"#);
}

#[tokio::test]
async fn a_model_file_comes_in_parts_and_with_its_hash() {
    let service = service();
    let file = || get("/models/demo/config.json");
    assert_eq!(service.header(file(), "etag").await, "\"abcd\"");
    check(service.ask(file().header("range", "bytes=2-4")).await, StatusCode::PARTIAL_CONTENT, "234");
    assert_eq!(service.header(file().header("range", "bytes=2-4"), "content-range").await, "bytes 2-4/10");
    assert_eq!(service.header(file().header("range", "bytes=2-4"), "etag").await, "\"abcd\"");
    check(service.ask(file().header("range", "bytes=20-")).await, StatusCode::RANGE_NOT_SATISFIABLE, "");
    check(service.ask(file().header("if-none-match", "\"abcd\"")).await, StatusCode::NOT_MODIFIED, "");
    check(service.ask(file().header("if-none-match", "\"x\", W/\"abcd\"")).await, StatusCode::NOT_MODIFIED, "");
    check(service.ask(file().header("if-none-match", "\"old\"")).await, StatusCode::OK, "0123456789");
    check(service.ask(file().header("if-match", "\"old\"")).await, StatusCode::PRECONDITION_FAILED, "");
    let resumed = |etag: &str| file().header("range", "bytes=8-").header("if-range", etag);
    check(service.ask(resumed("\"abcd\"")).await, StatusCode::PARTIAL_CONTENT, "89");
    check(service.ask(resumed("\"old\"")).await, StatusCode::OK, "0123456789");
    let head = Request::head("/models/demo/config.json").header("host", "localhost");
    assert_eq!(service.header(head, "content-length").await, "10");
}

#[tokio::test]
async fn only_this_machines_names_are_answered() {
    let service = service();
    for host in ["evil.example", "evil.example:8080", "localhost.evil.example"] {
        let request = Request::get("/api/models").header("host", host);
        check(service.ask(request).await, StatusCode::FORBIDDEN, "its own address");
    }
    check(service.ask(Request::get("/api/models")).await, StatusCode::FORBIDDEN, "its own address");
    check(service.ask(Request::get("/api/models").header("host", "[::1]:8080")).await, StatusCode::OK, "demo");
    assert_eq!(
        service.header(get("/api/models").header("origin", "http://a.b"), "access-control-allow-origin").await,
        ""
    );
}

#[tokio::test]
async fn a_command_must_be_json_of_reasonable_size() {
    let service = service();
    let key = service.create().await;
    let path = format!("/api/sessions/{key}/commands");
    let plain = || Request::post(&path).header("host", "localhost");
    check(service.ask_with(plain(), "{}").await, StatusCode::UNSUPPORTED_MEDIA_TYPE, "application/json");
    let text = plain().header("content-type", "text/plain");
    check(service.ask_with(text, "{}").await, StatusCode::UNSUPPORTED_MEDIA_TYPE, "application/json");
    check(service.ask_with(post(&path), "{}").await, StatusCode::BAD_REQUEST, "missing field `id`");
    let path_load = r#"{"id": 1, "command": {"load": {"folder": {"path": "/etc"}}}}"#;
    check(service.ask_with(post(&path), path_load).await, StatusCode::BAD_REQUEST, "unknown variant");
    let large = " ".repeat(BODY_LIMIT + 1);
    check(service.ask_with(post(&path), &large).await, StatusCode::PAYLOAD_TOO_LARGE, "");
}

#[tokio::test]
async fn every_command_ends_in_one_event_and_events_are_replayed() {
    let service = service();
    let key = service.create().await;
    let path = format!("/api/sessions/{key}/commands");
    for (id, command) in [(1, r#""undo""#), (2, r#"{"load": {"bundled": {"id": "dem"}}}"#)] {
        let body = format!(r#"{{"id": {id}, "command": {command}}}"#);
        check(service.ask_with(post(&path), &body).await, StatusCode::ACCEPTED, "");
    }
    let text = service.events(&key, "", 2).await;
    assert!(text.contains("id: 1\n") && text.contains("no model is loaded"), "{text}");
    assert!(text.contains("id: 2\n") && text.contains("did you mean"), "{text}");
    let text = service.events(&key, "1", 1).await;
    assert!(!text.contains("id: 1\n") && text.contains("id: 2\n"), "{text}");
    let cancel = r#"{"id": 3, "command": {"cancel": {"request": 2}}}"#;
    check(service.ask_with(post(&path), cancel).await, StatusCode::ACCEPTED, "");
}

#[tokio::test]
async fn a_list_is_no_object_whose_fields_are_in_order() {
    let service = service();
    let key = service.create().await;
    let path = format!("/api/sessions/{key}/commands");
    for (body, place) in [
        (r#"[1, "undo"]"#, "the value"),
        (r#"{"id": 1, "command": {"ask": ["x", 1, 1]}}"#, "command.ask"),
        (r#"{"id": 1, "command": {"load": {"bundled": ["demo"]}}}"#, "command.load.bundled"),
    ] {
        check(service.ask_with(post(&path), body).await, StatusCode::BAD_REQUEST, &format!("{place} is a list"));
    }
    for body in [
        r#"{"id": 1, "command": {"evaluate": {"task": "nli", "records": 2, "uneditd": true}}}"#,
        r#"{"id": 1, "command": {"cancel": {"request": 1, "x": 2}}}"#,
        r#"{"id": 1, "command": "undo", "id2": 2}"#,
    ] {
        check(service.ask_with(post(&path), body).await, StatusCode::BAD_REQUEST, "unknown field");
    }
}

#[tokio::test]
async fn a_cancel_names_its_command() {
    let service = service();
    let key = service.create().await;
    let path = format!("/api/sessions/{key}/commands");
    let send = |id: u64, command: &str| {
        let body = format!(r#"{{"id": {id}, "command": {command}}}"#);
        let (service, path) = (&service, &path);
        async move { check(service.ask_with(post(path), &body).await, StatusCode::ACCEPTED, "") }
    };
    // Loading what is not there takes a moment, and those behind it wait.
    send(1, r#"{"load": {"bundled": {"id": "demo"}}}"#).await;
    send(2, r#""undo""#).await;
    send(3, r#""undo""#).await;
    // One that has ended, or never was, and one that waits.
    send(4, r#"{"cancel": {"request": 0}}"#).await;
    send(5, r#"{"cancel": {"request": 99}}"#).await;
    send(6, r#""changes""#).await;
    let text = service.events(&key, "", 4).await;
    assert!(!text.contains("cancelled"), "{text}");
    // The oldest is not taken for it, as long as its number is another.
    assert_eq!(text.matches("no model is loaded").count(), 3, "{text}");
}

#[tokio::test]
async fn a_removed_session_ends_its_streams() {
    let service = service();
    let key = service.create().await;
    let path = format!("/api/sessions/{key}");
    let listening = service.send(get(&format!("{path}/events")).body(Body::empty()).unwrap()).await.into_body();
    let remove = || Request::delete(&path).header("host", "localhost");
    check(service.ask(remove()).await, StatusCode::NO_CONTENT, "");
    let rest = tokio::time::timeout(Duration::from_secs(10), listening.collect()).await.expect("the stream ends");
    assert!(rest.unwrap().to_bytes().is_empty());
    check(service.ask(remove()).await, StatusCode::NOT_FOUND, "no such session");
    check(service.ask(get(&format!("{path}/events"))).await, StatusCode::NOT_FOUND, "no such session");
}

#[tokio::test]
async fn closing_ends_every_stream() {
    let service = service();
    let key = service.create().await;
    let request = get(&format!("/api/sessions/{key}/events")).body(Body::empty()).unwrap();
    let listening = service.send(request).await.into_body();
    service.state.close();
    tokio::time::timeout(Duration::from_secs(10), listening.collect()).await.expect("the stream ends").unwrap();
}

#[tokio::test]
async fn idle_sessions_make_room_for_others() {
    let limits = Limits { sessions: 1, ..Limits::default() };
    let service = service_with(limits);
    service.create().await;
    check(service.ask(post("/api/sessions")).await, StatusCode::TOO_MANY_REQUESTS, "the limit");
    let service = service_with(Limits { idle: Duration::ZERO, ..limits });
    let first = service.create().await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_ne!(service.create().await, first);
    let events = get(&format!("/api/sessions/{first}/events"));
    check(service.ask(events).await, StatusCode::NOT_FOUND, "nobody listened");
}

#[test]
fn the_description_in_the_documents_is_what_the_routes_say() {
    let said = super::description();
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let kept = std::fs::read_to_string(kept).unwrap_or_default();
    assert!(
        kept == said,
        "docs/openapi.json is another; `rectify serve`, then: curl -s ADDRESS/openapi.json -o docs/openapi.json"
    );
    let described: serde_json::Value = serde_json::from_str(&said).unwrap();
    for route in ["/api/jobs", "/api/jobs/{id}/rows/{file}", "/api/sessions/{key}/commands", "/readyz"] {
        assert!(described["paths"][route].is_object(), "{route}");
    }
    // What other pages may make a browser send is asked of every one of them.
    let paths = described["paths"].as_object().unwrap().iter();
    let posts: std::collections::BTreeSet<&str> =
        paths.filter(|(_, routes)| routes.get("post").is_some()).map(|(path, _)| path.as_str()).collect();
    assert_eq!(posts, guard::POSTS.iter().copied().collect());
}
