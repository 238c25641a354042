//! The service: sessions for a page that computes on this machine, and the files that page is made of.
//!
//! It answers to its own address only and shares nothing with other origins: a page elsewhere can neither read an
//! answer (no CORS) nor send a command (JSON only), nor pose as this one by renaming itself ([`guard`]).

mod connections;
mod error;
mod files;
mod guard;
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
    routing::{any, delete, get, post},
};
use tokio::sync::{Semaphore, watch};
use tower_http::{
    CompressionLevel, compression::CompressionLayer, services::ServeDir, set_header::SetResponseHeaderLayer,
    timeout::RequestBodyTimeoutLayer,
};

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

/// `POST /api/token`.
async fn token(State(state): State<AppState>, Json(shown): Json<String>) -> Result<Response, error::Refusal> {
    match &state.0.settings.token {
        Some(token) if token.is(shown.trim()) => Ok(([(header::SET_COOKIE, token.cookie())]).into_response()),
        Some(_) => Err(error::Refusal::new(StatusCode::UNAUTHORIZED, "that is not this server's token")),
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

/// The table of routes.
pub fn app(state: AppState) -> Router {
    // The page may come compressed; models may not, for their parts are asked for by range.
    let site =
        get(files::site).layer(CompressionLayer::new().quality(CompressionLevel::Fastest)).with_state(state.clone());
    let facts = ServeDir::new(state.0.settings.statics.folder.join("facts"));
    Router::new()
        .route("/api/models", get(files::models))
        .route("/api/sweeps", get(sweeps::list))
        .route("/api/sweeps/{name}", get(sweeps::files))
        .route("/api/sweeps/{name}/{file}", get(sweeps::file))
        .route("/api/sessions", post(sessions::create))
        .route("/api/sessions/{key}", delete(sessions::remove))
        .route("/api/sessions/{key}/commands", post(sessions::command))
        .route("/api/sessions/{key}/events", get(sessions::events))
        .route(TOKEN, post(token))
        .route("/api/machine", get(jobs::machine))
        .route("/api/jobs", get(jobs::list).post(jobs::submit))
        .route("/api/jobs/{id}", get(jobs::job).delete(jobs::delete))
        .route("/api/jobs/{id}/events", get(jobs::events))
        .route("/api/jobs/{id}/cancel", post(jobs::cancel))
        .route("/api/jobs/{id}/resume", post(jobs::resume))
        .route("/api/jobs/{id}/rows", get(jobs::files))
        .route("/api/jobs/{id}/rows/{file}", get(jobs::file))
        .route("/api/jobs/{id}/log", get(jobs::log))
        .route("/api/jobs/{id}/{report}", get(jobs::report))
        .route("/api/{*rest}", any(error::no_such_route))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ops::ready))
        .route("/metrics", get(ops::metrics))
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
