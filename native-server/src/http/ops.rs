//! For whoever runs the server: is it ready, and what does it do.

use std::fmt::Write;

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use rectify_protocol::{Job, JobState};

use super::{AppState, error::Refusal, interface::Refused};
use crate::jobs::Jobs;

/// Whether the process answers.
#[utoipa::path(get, path = "/healthz", tag = "operation", responses((status = 200, body = String, content_type = "text/plain; charset=utf-8")))]
pub(super) async fn alive() -> &'static str {
    "alive\n"
}

/// Whether it takes requests and, where it keeps jobs, their record can be read and there is room for results.
#[utoipa::path(
    get, path = "/readyz", tag = "operation",
    responses((status = 200, body = String, content_type = "text/plain; charset=utf-8"),
        (status = 503, body = String, content_type = "text/plain; charset=utf-8"))
)]
pub(super) async fn ready(State(state): State<AppState>) -> Response {
    let is_ready = match state.0.settings.jobs {
        Some(_) => state.with_jobs(Jobs::ready).await,
        None => Ok(()),
    };
    match is_ready {
        Ok(()) => "ready\n".into_response(),
        Err(refusal) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", refusal.failure)).into_response(),
    }
}

/// Numbers about the server in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "operation",
    responses((status = 200, body = String, content_type = "text/plain; version=0.0.4"), Refused)
)]
pub(super) async fn metrics(State(state): State<AppState>) -> Response {
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, values: &[(&str, f64)]| {
        let _ = writeln!(text, "# HELP rectify_{name} {help}\n# TYPE rectify_{name} gauge");
        for (labels, value) in values {
            let _ = writeln!(text, "rectify_{name}{labels} {value}");
        }
    };
    gauge("sessions", "Sessions that are open.", &[("", state.0.sessions.count() as f64)]);
    gauge("commands", "Commands of sessions that wait or run.", &[("", state.0.settings.engine.waiting() as f64)]);
    if let [Some(all), Some(free)] = crate::device::memory() {
        gauge("memory_bytes", "Memory of this machine.", &[("", all as f64)]);
        gauge("memory_free_bytes", "Memory that is free.", &[("", free as f64)]);
    }
    if let Ok(jobs) = jobs(&state).await {
        let of = |wanted: JobState| jobs.iter().filter(|job| job.state == wanted).count() as f64;
        gauge(
            "jobs",
            "Heavy runs by their state.",
            &[
                ("{state=\"queued\"}", of(JobState::Queued)),
                ("{state=\"running\"}", of(JobState::Running)),
                ("{state=\"done\"}", of(JobState::Done)),
                ("{state=\"failed\"}", of(JobState::Failed)),
                ("{state=\"cancelled\"}", of(JobState::Cancelled)),
            ],
        );
        let rows: usize = jobs.iter().map(|job| job.rows).sum();
        gauge("job_rows", "Rows that are kept of all heavy runs.", &[("", rows as f64)]);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// Every job; none where this server takes none.
async fn jobs(state: &AppState) -> Result<Vec<Job>, Refusal> {
    match state.0.settings.jobs {
        Some(_) => state.with_jobs(Jobs::list).await,
        None => Ok(Vec::new()),
    }
}
