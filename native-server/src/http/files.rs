//! Files: the page, and the bundled models with ranges and strong ETags.

use std::{collections::HashMap, path::Path};

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rectify_protocol::Catalog;
use sha2::{Digest, Sha256};
use tower::ServiceExt;
use tower_http::services::{ServeDir, ServeFile};

use super::{AppState, error::Refusal, interface::Refused};

/// The bundled models, as `models.json` lists them.
#[utoipa::path(get, path = "/api/models", tag = "machine", responses((status = 200, body = Value), Refused))]
pub(super) async fn models(State(state): State<AppState>) -> Json<Catalog> {
    Json(state.0.settings.statics.catalog.clone())
}

/// The SHA-256 of every file that may be served, by its path below `static/`. What is not listed is not there.
#[derive(Debug)]
pub(super) struct Listed(HashMap<String, String>);

impl Listed {
    pub(super) fn of(catalog: &Catalog) -> Self {
        let files = catalog.models.iter().flat_map(|entry| {
            let path = |file: &str| format!("{}/{file}", entry.folder.trim_end_matches('/'));
            entry.files.iter().map(move |file| (path(&file.path), file.sha256.to_ascii_lowercase()))
        });
        Self(files.collect())
    }
}

/// `GET /models/…`: a listed file of a bundled model.
pub(super) async fn model(State(state): State<AppState>, mut request: Request) -> Response {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let Some(hash) = state.0.listed.0.get(&path) else {
        return Refusal::not_found("no bundled model has such a file").into_response();
    };
    let Ok(etag) = HeaderValue::from_str(&format!("\"{hash}\"")) else {
        return Refusal::not_found("models.json lists this file with a hash that is none").into_response();
    };
    let mut response = match decide(request.headers_mut(), &etag) {
        Some(status) => status.into_response(),
        None => serve_file(&state.0.settings.statics.folder.join(path), request).await,
    };
    if response.status() != StatusCode::NOT_FOUND {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// Answers a request's conditions (RFC 9110, 13), or takes them away so that nobody answers them again.
pub(super) fn decide(headers: &mut HeaderMap, etag: &HeaderValue) -> Option<StatusCode> {
    let names = |headers: &HeaderMap, name: HeaderName| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        let values: Vec<String> = values.flat_map(|value| value.split(',')).map(|tag| tag.trim().to_owned()).collect();
        (!values.is_empty()).then(|| values.iter().any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag))
    };
    if names(headers, header::IF_MATCH) == Some(false) {
        return Some(StatusCode::PRECONDITION_FAILED);
    }
    if names(headers, header::IF_NONE_MATCH) == Some(true) {
        return Some(StatusCode::NOT_MODIFIED);
    }
    if headers.get(header::IF_RANGE).is_some_and(|tag| tag != etag) {
        headers.remove(header::RANGE);
    }
    for name in [
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_RANGE,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
    ] {
        headers.remove(name);
    }
    None
}

/// Everything else: the built page. Paths without a file name are the page's own routes.
pub(super) async fn site(State(state): State<AppState>, request: Request) -> Response {
    let site = &state.0.settings.site;
    let path = request.uri().path().to_owned();
    let file_name = path.rsplit('/').next().unwrap_or_default();
    let index_request = copy(&request);
    let files = ServeDir::new(site).precompressed_br().precompressed_gzip();
    let mut response = answered(files.oneshot(request).await);
    let mut document = site.join(path.trim_start_matches('/'));
    if response.status() == StatusCode::NOT_FOUND && !file_name.contains('.') {
        document = site.join("index.html");
        response = serve_file(&document, index_request).await;
        if response.status() == StatusCode::NOT_FOUND {
            let message = "the page is not built: `cargo xtask play` builds it, --site names its folder";
            return Refusal::not_found(message).into_response();
        }
    }
    if let Ok(policy) = HeaderValue::from_str(&policy(&response, &document)) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    if response.status().is_success() && is_hashed(file_name) {
        let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
        response.headers_mut().insert(header::CACHE_CONTROL, forever);
    }
    response
}

/// What the page may load: what comes from here, and the scripts within a document, each by its hash. Workers are bound by
/// the policy of their own script.
fn policy(response: &Response, document: &Path) -> String {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let mut hashes = String::new();
    if response.status().is_success() && kind.starts_with("text/html") {
        let document = if document.is_dir() { document.join("index.html") } else { document.to_owned() };
        let text = std::fs::read_to_string(document).unwrap_or_default();
        for script in inline_scripts(&text) {
            hashes += &format!(" 'sha256-{}'", STANDARD.encode(Sha256::digest(script)));
        }
    }
    format!(
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'{hashes}; style-src 'self' 'unsafe-inline'; \
         img-src 'self' data: blob:; object-src 'none'; base-uri 'self'; form-action 'none'"
    )
}

/// The scripts that stand in a document itself.
fn inline_scripts(html: &str) -> Vec<&str> {
    let mut scripts = Vec::new();
    let mut rest = html;
    while let Some((_, after)) = rest.split_once("<script") {
        let Some((attributes, after)) = after.split_once('>') else { break };
        let Some((script, after)) = after.split_once("</script>") else { break };
        if !attributes.contains("src=") {
            scripts.push(script);
        }
        rest = after;
    }
    scripts
}

/// Whether a name holds the hash of its content, as Trunk writes it: `rectify-0123456789abcdef_bg.wasm`.
fn is_hashed(name: &str) -> bool {
    let runs = name.split(|c: char| !c.is_ascii_hexdigit());
    runs.into_iter().any(|run| run.len() == 16) && name.contains('-')
}

/// The same request for another file. Both methods that come here have no body.
fn copy(request: &Request) -> Request {
    let mut copy = Request::new(axum::body::Body::empty());
    *copy.method_mut() = if request.method() == Method::HEAD { Method::HEAD } else { Method::GET };
    *copy.headers_mut() = request.headers().clone();
    copy
}

pub(super) async fn serve_file(path: &Path, request: Request) -> Response {
    answered(ServeFile::new(path).oneshot(request).await)
}

fn answered<B>(response: Result<axum::http::Response<B>, std::convert::Infallible>) -> Response
where
    B: axum::body::HttpBody<Data = axum::body::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let Ok(response) = response;
    response.map(axum::body::Body::new)
}
