//! What is checked before any handler sees a request, and what every answer carries.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use super::{AppState, error::Refusal};

/// What a visitor has to show where this server can be reached from other machines.
#[derive(Clone)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    /// Never in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// A token of these letters.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Whether it was shown. Hashes are compared, so that the time it takes tells nothing of the letters.
    pub(super) fn is(&self, shown: &str) -> bool {
        Sha256::digest(shown) == Sha256::digest(&self.0)
    }

    /// Whether a request shows it: as programs do, or as browsers do, whose streams of events send no header of ours.
    fn is_shown(&self, headers: &HeaderMap) -> bool {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let bearer = text(header::AUTHORIZATION).and_then(|value| value.split_once(' '));
        let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, shown)| shown);
        let cookies = text(header::COOKIE).unwrap_or_default().split(';');
        let cookie = cookies.filter_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('=')).next();
        bearer.or(cookie).is_some_and(|shown| self.is(shown))
    }

    /// The cookie that shows it, for a browser to keep until it is closed: no script reads it, and no other page makes a browser send it.
    pub(super) fn cookie(&self) -> HeaderValue {
        let cookie = format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Strict", self.0);
        HeaderValue::from_str(&cookie).expect("a token has letters and digits")
    }
}

const COOKIE: &str = "rectify-token";

/// Refuses requests for another host, of another page, without a token where there is one, and bodies that are not JSON.
///
/// A stranger's page may point its own name at this machine (DNS rebinding); then `Host` is that name. It may send
/// requests from a visitor's browser; then `Origin` or `Sec-Fetch-Site` say so. Asking for `application/json` makes
/// browsers ask first before another origin's page may post, and nobody answers.
pub(super) async fn guard(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let settings = &state.0.settings;
    match check(&request, settings.listen, settings.token.as_ref()) {
        Err(refusal) => refusal.into_response(),
        Ok(()) => next.run(request).await,
    }
}

fn check(request: &Request, listen: SocketAddr, token: Option<&Token>) -> Result<(), Refusal> {
    let refuse = |status, message: &str| Err(Refusal::new(status, message));
    let text = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let host = text(header::HOST).or(request.uri().authority().map(|authority| authority.as_str()));
    let host = host.unwrap_or_default();
    // Where a token is asked for, a name may stand before this server, and rebinding gains nothing.
    if token.is_none() && !is_ours(host, listen) {
        return refuse(StatusCode::FORBIDDEN, "this server answers to its own address and to localhost only");
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let foreign = text(header::ORIGIN).is_some_and(|origin| !is_of(origin, host));
        let elsewhere = text(HeaderName::from_static("sec-fetch-site"))
            .is_some_and(|site| !["same-origin", "none"].contains(&site));
        if foreign || elsewhere {
            return refuse(StatusCode::FORBIDDEN, "this server takes nothing from other pages");
        }
    }
    let path = request.uri().path();
    // A folder is answered with its address and a slash behind it, and `//name/` is another host.
    if path.starts_with("//") {
        return refuse(StatusCode::NOT_FOUND, "there is no such path");
    }
    let is_open = !path.starts_with("/api/") && path != "/metrics" || path == super::TOKEN;
    if token.is_some_and(|token| !is_open && !token.is_shown(request.headers())) {
        return refuse(StatusCode::UNAUTHORIZED, "this server asks for its token, which it said when it was started");
    }
    // Where nothing is posted to, the router says so.
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let takes_posts = route.is_none_or(|route| POSTS.contains(&route));
    if request.method() == Method::POST && takes_posts && !is_json(request) {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json");
    }
    Ok(())
}

/// The routes that take posts.
pub(super) const POSTS: &[&str] = &[
    "/api/jobs",
    "/api/jobs/{id}/cancel",
    "/api/jobs/{id}/resume",
    "/api/sessions",
    "/api/sessions/{key}/commands",
    super::TOKEN,
];

fn is_json(request: &Request) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// Whether a page's origin is the host it asks.
fn is_of(origin: &str, host: &str) -> bool {
    let origin = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    origin.is_some_and(|origin| origin.eq_ignore_ascii_case(host))
}

/// Whether a host with an optional port is this machine under an address of its own, and the port this server's.
///
/// A server that listens on every address has no single one; it accepts every number, for only names can be rebound.
fn is_ours(host: &str, listen: SocketAddr) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, rest)) => (address, Some(rest.strip_prefix(':').unwrap_or("none"))),
            None => return false,
        },
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let port = port.map_or(Some(80), |port| port.parse::<u16>().ok());
    let name = match name.parse::<IpAddr>() {
        Ok(address) => address.is_loopback() || address == listen.ip() || listen.ip().is_unspecified(),
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    };
    // A server that was handed no port of its own is asked without a socket, in tests.
    name && (port == Some(listen.port()) || listen.port() == 0)
}

/// A line a request. A session's key and what a body says are nobody's business: the route is named, not the path.
pub(super) async fn told(request: Request, next: Next) -> Response {
    let started = std::time::Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|route| route.as_str().to_owned());
    let response = next.run(request).await;
    let (status, route) = (response.status().as_u16(), route.unwrap_or_else(|| "page".into()));
    tracing::info!(%method, route, status, milliseconds = started.elapsed().as_millis(), "request");
    response
}

/// Errors that the framework words itself, a wrong method or a body that is too large, are failures like all others.
pub(super) async fn worded(request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let response = next.run(request).await;
    let status = response.status();
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if !is_api || is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let reason = status.canonical_reason().unwrap_or("refused").to_lowercase();
    let mut worded = Refusal::new(status, format!("the request was refused: {reason}")).into_response();
    // What may be done instead, or when.
    for name in [header::ALLOW, header::RETRY_AFTER] {
        if let Some(value) = response.headers().get(&name) {
            worded.headers_mut().insert(name, value.clone());
        }
    }
    worded
}

/// What a browser is told of every answer: what the page may load, who may show it in a frame, and that nobody learns
/// where a visitor came from.
pub(super) async fn labelled(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_framed = ["/embed", "/embed.html"].contains(&path);
    let is_shared = is_framed || path == "/rectify-demo.js";
    // A page that isolates itself shows frames, and lets them start workers, only if they do the same.
    let is_isolated = is_framed || path.ends_with("/rectify-worker_loader.js");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let ancestors = if is_framed { "*" } else { "'self'" };
    let policy = match headers.get(header::CONTENT_SECURITY_POLICY).and_then(|policy| policy.to_str().ok()) {
        Some(policy) => format!("{policy}; frame-ancestors {ancestors}"),
        None => format!("default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors {ancestors}"),
    };
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    if !is_framed {
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    }
    let of = if is_shared { "cross-origin" } else { "same-origin" };
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static(of));
    if is_isolated {
        headers.insert("cross-origin-embedder-policy", HeaderValue::from_static("require-corp"));
    }
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[track_caller]
    fn check_host(host: &str, listen: &str, expected: bool) {
        assert_eq!(is_ours(host, listen.parse().unwrap()), expected, "{host}");
    }

    #[test]
    fn a_host_is_an_address_of_this_machine_and_a_port_of_this_server() {
        for host in ["localhost:8080", "LocalHost:8080", "127.0.0.1:8080", "[::1]:8080"] {
            check_host(host, "127.0.0.1:8080", true);
        }
        check_host("localhost", "127.0.0.1:80", true);
        for host in [
            "localhost",
            "localhost:8081",
            "localhost:x",
            "evil.example:8080",
            "localhost.evil.example:8080",
            "",
            "127.0.0.1.evil.example:8080",
            "[::1:8080",
            "[::1].evil.example:8080",
            "[::1]evil:8080",
            "10.0.0.7:8080",
        ] {
            check_host(host, "127.0.0.1:8080", false);
        }
        check_host("10.0.0.7:8080", "10.0.0.7:8080", true);
        check_host("10.0.0.8:8080", "10.0.0.7:8080", false);
        check_host("10.0.0.8:8080", "0.0.0.0:8080", true);
        check_host("evil.example:8080", "0.0.0.0:8080", false);
    }

    fn status(method: Method, path: &str, headers: &[(&str, &str)], token: Option<&Token>) -> u16 {
        let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        check(&request, "127.0.0.1:8080".parse().unwrap(), token)
            .map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn other_pages_can_send_nothing() {
        let sent = |method, more: &[(&str, &str)]| {
            status(method, "/api/jobs", &[&[("host", "localhost:8080")], more].concat(), None)
        };
        assert_eq!(sent(Method::POST, &[]), 200, "a program");
        assert_eq!(sent(Method::POST, &[("origin", "http://localhost:8080"), ("sec-fetch-site", "same-origin")]), 200);
        for origin in [
            "null",
            "http://evil.example",
            "http://localhost:8081",
            "http://localhost",
            "http://localhost:8080.evil.example",
            "file://localhost:8080",
            "http://127.0.0.1:8080",
            "http://user@localhost:8080",
        ] {
            assert_eq!(sent(Method::POST, &[("origin", origin)]), 403, "{origin}");
            assert_eq!(sent(Method::DELETE, &[("origin", origin)]), 403, "{origin}");
        }
        for site in ["cross-site", "same-site", "x"] {
            assert_eq!(sent(Method::POST, &[("sec-fetch-site", site)]), 403, "{site}");
        }
        assert_eq!(sent(Method::GET, &[("sec-fetch-site", "cross-site")]), 200, "nothing is given away: no CORS");
    }

    #[test]
    fn a_token_is_asked_for_wherever_something_is_done() {
        let token = Token::new("0123abcd".into());
        let sent = |path: &str, headers: &[(&str, &str)]| status(Method::GET, path, headers, Some(&token));
        assert_eq!(sent("/", &[("host", "rectify.example")]), 200, "the page itself");
        assert_eq!(sent(super::super::TOKEN, &[]), 200);
        for path in ["/api/jobs", "/api/machine", "/api/sweeps", "/api/sessions", "/api/nothing"] {
            assert_eq!(sent(path, &[]), 401, "{path}");
            assert_eq!(sent(path, &[("authorization", "Bearer 0123abcd")]), 200, "{path}");
            assert_eq!(sent(path, &[("cookie", "a=b; rectify-token=0123abcd; c=d")]), 200, "{path}");
        }
        for wrong in ["Bearer", "Bearer ", "Bearer 0123abc", "Bearer 0123abcd ", "Basic 0123abcd", "0123abcd"] {
            assert_eq!(sent("/api/jobs", &[("authorization", wrong)]), 401, "{wrong}");
        }
        for wrong in
            ["rectify-token", "rectify-token=", "rectify-token=x", "rectify-tokens=0123abcd", "xrectify-token=0123abcd"]
        {
            assert_eq!(sent("/api/jobs", &[("cookie", wrong)]), 401, "{wrong}");
        }
        let shown =
            [("authorization", "Bearer 0123abcd"), ("origin", "http://evil.example"), ("host", "rectify.example")];
        assert_eq!(status(Method::POST, "/api/jobs", &shown, Some(&token)), 403, "a token is not enough");
        assert_eq!(format!("{token:?}"), "Token");
    }
}
