//! The service: sessions for a page that computes on this machine, and the files that page is made of.
//!
//! It answers to its own address only and shares nothing with other origins: a page elsewhere can neither read an
//! answer (no CORS) nor send a command (JSON only), nor pose as this one by renaming itself ([`guard`]).

mod error;
mod files;
mod guard;
mod sessions;
mod sweeps;

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderValue, header},
    middleware,
    routing::{any, delete, get, post},
};
use tokio::sync::watch;
use tower_http::{
    CompressionLevel, compression::CompressionLayer, services::ServeDir, set_header::SetResponseHeaderLayer,
};

use crate::{engine::Engine, models::Static};
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
    /// The address listened on, which `Host` may name.
    pub listen: IpAddr,
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
}

impl AppState {
    /// A service without sessions.
    pub fn new(settings: Settings) -> Self {
        let listed = files::Listed::of(&settings.statics.catalog);
        let sessions = sessions::Registry::default();
        Self(Arc::new(Shared { settings, listed, sessions, closing: watch::Sender::new(false) }))
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

/// The table of routes.
pub fn app(state: AppState) -> Router {
    // The page may come compressed; models may not, for their parts are asked for by range.
    let site =
        get(files::site).layer(CompressionLayer::new().quality(CompressionLevel::Fastest)).with_state(state.clone());
    let facts = ServeDir::new(state.0.settings.statics.folder.join("facts"));
    Router::new()
        .route("/api/models", get(files::models))
        .route("/api/sweeps", get(sweeps::list))
        .route("/api/sweeps/{name}", get(sweeps::rows))
        .route("/api/sessions", post(sessions::create))
        .route("/api/sessions/{key}", delete(sessions::remove))
        .route("/api/sessions/{key}/commands", post(sessions::command))
        .route("/api/sessions/{key}/events", get(sessions::events))
        .route("/api/{*rest}", any(error::no_such_route))
        .route("/models.json", get(files::models))
        .route("/models/{*path}", get(files::model))
        .nest_service("/facts", facts)
        .fallback_service(site)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn_with_state(state.clone(), guard::guard))
        .layer(SetResponseHeaderLayer::if_not_present(header::CACHE_CONTROL, HeaderValue::from_static("no-cache")))
        .layer(SetResponseHeaderLayer::overriding(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        .with_state(state)
}

#[cfg(test)]
mod tests;
