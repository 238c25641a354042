//! The service: sessions for a page that computes on this machine, and the files that page is made of.
//!
//! It answers to its own address only and shares nothing with other origins: a page elsewhere can neither read an
//! answer (no CORS) nor send a command (JSON only), nor pose as this one by renaming itself ([`guard`]).

mod connections;
mod error;
mod files;
mod guard;
mod interface;
mod jobs;
mod ops;
mod sessions;
mod sweeps;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{any, get},
};
use tokio::sync::{Semaphore, watch};
use tower_http::{
    CompressionLevel, compression::CompressionLayer, services::ServeDir, set_header::SetResponseHeaderLayer,
    timeout::RequestBodyTimeoutLayer,
};

use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{device::DeviceKind, engine::Engine, jobs::Jobs, models::Static};
pub use connections::serve;
pub use guard::Token;
pub use sessions::Limits;

/// What the service needs to know.
#[derive(Debug)]
pub struct Settings {
    /// The bundled models and facts.
    pub statics: Arc<Static>,
    /// Where commands run.
    pub engine: Engine,
    /// The folder with the built page.
    pub site: PathBuf,
    /// The folder with sweeps' folders.
    pub sweeps: PathBuf,
    /// Heavy runs, where this server takes them.
    pub jobs: Option<Arc<Jobs>>,
    /// What sessions and jobs compute on.
    pub device: DeviceKind,
    /// The address listened on, which `Host` may name; port 0 where there is no socket.
    pub listen: SocketAddr,
    /// What everybody has to show, where other machines can reach this server.
    pub token: Option<Token>,
    /// How much strangers may ask for.
    pub limits: Limits,
}

/// What handlers share.
#[derive(Clone, Debug)]
pub struct AppState(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: Settings,
    listed: files::Listed,
    sessions: sessions::Registry,
    closing: watch::Sender<bool>,
    /// Whoever reads a grid or rows as a whole, which takes as much memory as they do: one at a time.
    heavy: Semaphore,
}

impl AppState {
    /// A service without sessions.
    pub fn new(settings: Settings) -> Self {
        let listed = files::Listed::of(&settings.statics.catalog);
        let sessions = sessions::Registry::default();
        let closing = watch::Sender::new(false);
        Self(Arc::new(Shared { settings, listed, sessions, closing, heavy: Semaphore::new(1) }))
    }

    /// Ends every event stream, which would otherwise keep the server open.
    pub fn close(&self) {
        self.0.closing.send_replace(true);
    }

    /// Drops sessions that nobody has used for long; to be called now and then.
    pub fn sweep(&self) {
        self.0.sessions.sweep(&self.0.settings);
    }
}

/// The largest request body: a batch of facts is far below.
const BODY_LIMIT: usize = 1 << 20;

/// How long a body may pause.
const BODY_TIME: Duration = Duration::from_secs(20);

/// Where a browser exchanges the token for a cookie.
const TOKEN: &str = "/api/token";

/// Exchanges the token, a JSON string, for a cookie, because a browser's stream of events sends no header of ours.
#[utoipa::path(
    post, path = "/api/token", tag = "machine",
    request_body(content = String, content_type = "application/json"),
    responses((status = 200, description = "The cookie is set"), (status = 204, description = "None is needed"),
        interface::Refused)
)]
async fn token(State(state): State<AppState>, Json(shown): Json<String>) -> Result<Response, error::Refusal> {
    match &state.0.settings.token {
        Some(token) if token.is(shown.trim()) => Ok(([(header::SET_COOKIE, token.cookie())]).into_response()),
        Some(_) => Err(error::Refusal::new(StatusCode::UNAUTHORIZED, "that is not this server's token")),
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

/// What programs may rely on: routes with the description that is made of them.
fn described() -> (Router<AppState>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(interface::Interface::openapi())
        .routes(routes!(files::models))
        .routes(routes!(sweeps::list))
        .routes(routes!(sweeps::files))
        .routes(routes!(sweeps::file))
        .routes(routes!(sessions::create))
        .routes(routes!(sessions::remove))
        .routes(routes!(sessions::command))
        .routes(routes!(sessions::events))
        .routes(routes!(token))
        .routes(routes!(jobs::machine))
        .routes(routes!(jobs::list, jobs::submit))
        .routes(routes!(jobs::job, jobs::delete))
        .routes(routes!(jobs::events))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::resume))
        .routes(routes!(jobs::files))
        .routes(routes!(jobs::file))
        .routes(routes!(jobs::log))
        .routes(routes!(jobs::report))
        .routes(routes!(ops::alive))
        .routes(routes!(ops::ready))
        .routes(routes!(ops::metrics))
        .split_for_parts()
}

/// The description as a file.
fn description() -> String {
    described().1.to_pretty_json().expect("a description can be written as JSON") + "\n"
}

/// The table of routes.
pub fn app(state: AppState) -> Router {
    // The page may come compressed; models may not, for their parts are asked for by range.
    let site =
        get(files::site).layer(CompressionLayer::new().quality(CompressionLevel::Fastest)).with_state(state.clone());
    let facts = ServeDir::new(state.0.settings.statics.folder.join("facts"));
    let description = description();
    described()
        .0
        .route("/api/{*rest}", any(error::no_such_route))
        .route("/openapi.json", get(|| async { ([(header::CONTENT_TYPE, "application/json")], description) }))
        .route("/models.json", get(files::models))
        .route("/models/{*path}", get(files::model))
        .nest_service("/facts", facts)
        .fallback_service(site)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(RequestBodyTimeoutLayer::new(BODY_TIME))
        .layer(middleware::from_fn(guard::worded))
        .layer(middleware::from_fn_with_state(state.clone(), guard::guard))
        .layer(SetResponseHeaderLayer::if_not_present(header::CACHE_CONTROL, HeaderValue::from_static("no-cache")))
        .layer(middleware::from_fn(guard::labelled))
        .layer(middleware::from_fn(guard::told))
        .with_state(state)
}

#[cfg(test)]
mod tests;
