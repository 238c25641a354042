//! Heavy runs over HTTP: ids in, states and rows out.
//!
//! A job's events are numbered `EPOCH-NUMBER`, over restarts too; who comes back with the last one it saw goes on there,
//! and who has missed more than is kept, or names an event of another record, is sent `reset` with the job as it is.

use std::{convert::Infallible, path::PathBuf, sync::Arc};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event as Sent, KeepAlive, Sse},
    },
};
use futures_util::{Stream, stream};
use rectify_figures::{Study, html, table};
use rectify_protocol::{Failure, Job, JobRequest, JobState, JobWork, Kind, Machine, RowsFile};
use tokio::sync::watch;

use super::{
    AppState,
    error::{Refusal, read},
    files::{decide, serve_file},
    interface::{FileName, JobId, Refused},
};
use crate::{
    io,
    jobs::{Jobs, MOST_FILES, store::Happened},
    output,
    sweep::read_folder,
};

/// The largest rows that a report is drawn of here; larger ones are downloaded and drawn by `rectify report`.
const LARGEST_REPORT: u64 = 512 << 20;

impl AppState {
    fn jobs(&self) -> Result<Arc<Jobs>, Refusal> {
        let none = "this server takes no jobs; start it with `rectify serve --jobs DIR`";
        self.0.settings.jobs.clone().ok_or_else(|| Refusal::not_found(none))
    }

    /// Work on the record of jobs or on files, beside what answers requests.
    pub(super) async fn with_jobs<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Jobs) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Refusal> {
        let jobs = self.jobs()?;
        let done = tokio::task::spawn_blocking(move || work(&jobs)).await;
        Ok(done.map_err(|error| Refusal::from(io::internal(error.to_string())))??)
    }
}

/// What the server computes on, its memory, and what jobs may be made of.
#[utoipa::path(get, path = "/api/machine", tag = "machine", responses((status = 200, body = Machine), Refused))]
pub(super) async fn machine(State(state): State<AppState>) -> Result<Json<Machine>, Refusal> {
    let device = state.0.settings.device.name().to_owned();
    let offer = match state.0.settings.jobs {
        Some(_) => Some(state.with_jobs(Jobs::offer).await?),
        None => None,
    };
    let [memory, memory_free] = crate::device::memory();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Json(Machine { program: crate::PROGRAM.into(), device, processors, memory, memory_free, offer }))
}

/// Asks for a job. The same key with the same body is the same job.
#[utoipa::path(
    post, path = "/api/jobs", tag = "jobs", request_body(content = JobRequest, example = json!({ "parts": 1, "work": { "sweep": { "template": "demo-figure-8",
        "change": { "model": "demo-nano", "seeds": [0], "edits": [0, 1], "limit": 2 } } } })),
    params(("Idempotency-Key" = Option<String>, Header, description = "What the client calls its request",
        min_length = 1, max_length = 200, pattern = "^[!-~]{1,200}$")),
    responses((status = 201, body = Job, description = "It is kept"),
        (status = 200, body = Job, description = "It is the job of the same request, sent before"), Refused)
)]
pub(super) async fn submit(
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let text =
        String::from_utf8(body.to_vec()).map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "the body is not UTF-8"))?;
    let request: JobRequest = read("a job", text.as_bytes())?;
    let key = key(&headers)?;
    let _turn = state.0.heavy.acquire().await.map_err(|error| Refusal::from(io::internal(error.to_string())))?;
    let submitted = state.with_jobs(move |jobs| jobs.submit(key.as_deref(), &text, request)).await;
    let (job, is_new) = submitted.map_err(|mut refusal| {
        if refusal.failure.field.as_deref() == Some(KEY) {
            refusal.status = StatusCode::CONFLICT;
        }
        refusal
    })?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let location = HeaderValue::from_str(&format!("/api/jobs/{}", job.id)).expect("an id is letters and digits");
    Ok((status, [(header::LOCATION, location)], Json(job)).into_response())
}

const KEY: &str = "Idempotency-Key";

/// What a client calls its request, at most 200 visible letters.
fn key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(key) = headers.get(KEY) else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| (1..=200).contains(&key.len()));
    let wrong = || Refusal::new(StatusCode::BAD_REQUEST, "Idempotency-Key has 1 to 200 visible ASCII letters");
    key.map(|key| Some(key.to_owned())).ok_or_else(wrong)
}

/// Every job, the newest first.
#[utoipa::path(get, path = "/api/jobs", tag = "jobs", responses((status = 200, body = Vec<Job>), Refused))]
pub(super) async fn list(State(state): State<AppState>) -> Result<Json<Vec<Job>>, Refusal> {
    Ok(Json(state.with_jobs(Jobs::list).await?))
}

/// One job and how far it is.
#[utoipa::path(get, path = "/api/jobs/{id}", tag = "jobs", params(JobId), responses((status = 200, body = Job), Refused))]
pub(super) async fn job(State(state): State<AppState>, Path(id): Path<String>) -> Result<Json<Job>, Refusal> {
    Ok(Json(state.with_jobs(move |jobs| jobs.job(&id)).await?))
}

/// Stops a job; what was measured is kept. One that has ended stays as it is.
#[utoipa::path(post, path = "/api/jobs/{id}/cancel", tag = "jobs", params(JobId), request_body(content = Value, description = "Nothing is read of it"), responses((status = 200, body = Job), Refused))]
pub(super) async fn cancel(State(state): State<AppState>, Path(id): Path<String>) -> Result<Json<Job>, Refusal> {
    Ok(Json(state.with_jobs(move |jobs| jobs.cancel(&id)).await?))
}

/// Goes on with a job that was cancelled or has failed.
#[utoipa::path(post, path = "/api/jobs/{id}/resume", tag = "jobs", params(JobId), request_body(content = Value, description = "Nothing is read of it"), responses((status = 200, body = Job), Refused))]
pub(super) async fn resume(State(state): State<AppState>, Path(id): Path<String>) -> Result<Json<Job>, Refusal> {
    let resumed = state.with_jobs(move |jobs| {
        let job = jobs.job(&id)?;
        if job.state == JobState::Done { Ok(Err(job)) } else { jobs.resume(&id).map(Ok) }
    });
    match resumed.await? {
        Ok(job) => Ok(Json(job)),
        Err(_) => Err(Refusal::new(StatusCode::CONFLICT, "the job is done; every result is there")),
    }
}

/// Deletes a job that has ended, with its results.
#[utoipa::path(delete, path = "/api/jobs/{id}", tag = "jobs", params(JobId), responses((status = 204, description = "It is gone"), Refused))]
pub(super) async fn delete(State(state): State<AppState>, Path(id): Path<String>) -> Result<StatusCode, Refusal> {
    let deleted = state.with_jobs(move |jobs| {
        let has_ended = jobs.job(&id)?.state.has_ended();
        if has_ended {
            jobs.delete(&id)?;
        }
        Ok(has_ended)
    });
    match deleted.await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Refusal::new(StatusCode::CONFLICT, "the job has not ended; cancel it first")),
    }
}

/// A job's files of results.
#[utoipa::path(get, path = "/api/jobs/{id}/rows", tag = "jobs", params(JobId), responses((status = 200, body = Vec<RowsFile>), Refused))]
pub(super) async fn files(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<Vec<RowsFile>>, Refusal> {
    Ok(Json(state.with_jobs(move |jobs| Ok(sizes(&jobs.files(&jobs.job(&id)?)?))).await?))
}

/// Files as they are listed.
pub(super) fn sizes(paths: &[PathBuf]) -> Vec<RowsFile> {
    let file = |path: &PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        Some(RowsFile { name, size: path.metadata().ok()?.len() })
    };
    paths.iter().take(MOST_FILES).filter_map(file).collect()
}

/// A file of results as it is, by range if you like.
#[utoipa::path(
    get, path = "/api/jobs/{id}/rows/{file}", tag = "jobs", params(JobId, FileName),
    responses((status = 200, body = String, content_type = "application/jsonl"),
        (status = 206, description = "The part that was asked for"), (status = 304, description = "It is as it was"), Refused)
)]
pub(super) async fn file(
    State(state): State<AppState>,
    Path((id, file)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let files = state.with_jobs(move |jobs| jobs.files(&jobs.job(&id)?)).await?;
    one_of(&files, &file, request).await
}

/// A listed file, streamed. Rows are only added and other results written once, so that its size tells its versions
/// apart.
pub(super) async fn one_of(files: &[PathBuf], name: &str, mut request: Request) -> Result<Response, Refusal> {
    let found = files.iter().find(|path| path.file_name().is_some_and(|file| file == name));
    let found = found.ok_or_else(|| Refusal::not_found(format!("there is no file {name:?}")))?;
    let size = found.metadata().map_err(|error| Refusal::from(io::cannot_read(found, &error)))?.len();
    let content = match found.extension().and_then(|extension| extension.to_str()) {
        Some("jsonl") => "application/jsonl",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    };
    let etag = HeaderValue::from_str(&format!("\"{size}\"")).expect("a number in quotes");
    let mut response = match decide(request.headers_mut(), &etag) {
        Some(status) => status.into_response(),
        None => serve_file(found, request).await,
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
    headers.insert(header::ETAG, etag);
    Ok(response)
}

/// What a job's processes said, the last attempt first.
#[utoipa::path(get, path = "/api/jobs/{id}/log", tag = "jobs", params(JobId), responses((status = 200, body = String, content_type = "text/plain; charset=utf-8"), Refused))]
pub(super) async fn log(State(state): State<AppState>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let text = state.with_jobs(move |jobs| {
        let mut text = String::new();
        for path in jobs.logs(&jobs.job(&id)?).iter().take(20) {
            let part = path.components().rev().take(2).collect::<Vec<_>>();
            let name: Vec<_> = part.iter().rev().map(|part| part.as_os_str().to_string_lossy()).collect();
            text += &format!(
                "--- attempt {}\n{}\n",
                name.join(", part ").trim_end_matches(".log"),
                io::tail(path, 64 << 10)
            );
        }
        Ok(text)
    });
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text.await?).into_response())
}

/// What a job's results say, as they are now: `report.html`, `report.csv` or `report.json`.
#[utoipa::path(
    get, path = "/api/jobs/{id}/{report}", tag = "jobs",
    params(JobId, ("report" = String, Path, description = "report.html, report.csv or report.json")),
    responses((status = 200, content((String = "text/html; charset=utf-8"), (String = "text/csv; charset=utf-8"),
        (Value = "application/json"))), Refused)
)]
pub(super) async fn report(
    State(state): State<AppState>,
    Path((id, form)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let (content, disposition) = match form.as_str() {
        "report.html" => ("text/html; charset=utf-8", "inline"),
        "report.csv" => ("text/csv; charset=utf-8", "attachment"),
        "report.json" => ("application/json", "inline"),
        _ => return Err(Refusal::not_found("a job has report.html, report.csv and report.json")),
    };
    let _turn = state.0.heavy.acquire().await.map_err(|error| Refusal::from(io::internal(error.to_string())))?;
    let text = state.with_jobs(move |jobs| {
        let job = jobs.job(&id)?;
        let folder = jobs.results(&job);
        if !job.has_rows() {
            return written_report(&job, &folder, &form);
        }
        let size: u64 = sizes(&jobs.files(&job)?).iter().map(|file| file.size).sum();
        if size > LARGEST_REPORT {
            let megabytes = size >> 20;
            return Err(Failure::bad_input(format!(
                "the rows have {megabytes} MiB, too many for a report here; download them, and `rectify report` draws it"
            )));
        }
        let sweep = read_folder(&folder)?;
        let study = Study::of(&sweep).ok_or_else(|| Failure::bad_input("there are no rows yet"))?;
        match form.as_str() {
            "report.html" => Ok(html::document(job.request.work.name(), &[sweep])),
            "report.csv" => Ok(table::csv(&[study])),
            _ => serde_json::to_string(&[study]).map_err(|error| io::internal(error.to_string())),
        }
    });
    let text = text.await?;
    Ok(([(header::CONTENT_TYPE, content), (header::CONTENT_DISPOSITION, disposition)], Body::from(text))
        .into_response())
}

/// The report that a job's process wrote.
fn written_report(job: &Job, folder: &std::path::Path, form: &str) -> Result<String, Failure> {
    let name = job.request.work.name();
    if !matches!(job.request.work, JobWork::Evaluation { .. }) || form != "report.json" {
        let has = if name == "evaluation" { "report.json only" } else { "no report; its files are its results" };
        return Err(Failure::new(Kind::NotFound, format!("{name} has {has}")));
    }
    let path = folder.join(output::REPORT);
    if !path.is_file() {
        return Err(Failure::bad_input("there is no report yet"));
    }
    io::read_text(&path)
}

/// A job's events as they happen: each is the job as it was then. `Last-Event-ID` goes on after one.
#[utoipa::path(
    get, path = "/api/jobs/{id}/events", tag = "jobs",
    params(JobId, ("Last-Event-ID" = Option<String>, Header, description = "The last event that was seen")),
    responses((status = 200, body = String, content_type = "text/event-stream"), Refused)
)]
pub(super) async fn events(
    State(state): State<AppState>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Refusal> {
    let jobs = state.jobs()?;
    let known = id.clone();
    state.with_jobs(move |jobs| jobs.job(&known)).await?;
    let (store, news) = jobs.follow();
    let place = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(|id| {
        let number = id.strip_prefix(&store.epoch).and_then(|rest| rest.strip_prefix('-')?.parse().ok());
        number.map_or(Seen::Unknown, Seen::Number)
    });
    let seen = place.unwrap_or(Seen::Nothing);
    let follower =
        Follower { jobs: jobs.clone(), id, seen, queue: Vec::new(), news, closing: state.0.closing.subscribe() };
    Ok(Sse::new(follower.events()).keep_alive(KeepAlive::default()))
}

/// The last event that somebody has seen.
#[derive(Clone, Copy)]
enum Seen {
    /// None: it begins with the job as it is.
    Nothing,
    /// One of another record.
    Unknown,
    Number(i64),
}

/// Somebody who reads a job's events.
struct Follower {
    jobs: Arc<Jobs>,
    id: String,
    seen: Seen,
    /// What is to be sent, the next one last.
    queue: Vec<Happened>,
    news: watch::Receiver<()>,
    closing: watch::Receiver<bool>,
}

impl Follower {
    fn events(self) -> impl Stream<Item = Result<Sent, Infallible>> {
        stream::unfold(self, |mut follower| async move { Some((Ok(follower.next().await?), follower)) })
    }

    /// The next event, or `None` when there will be none.
    async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some(event) = self.queue.pop() {
                return Some(self.sent(event, "job"));
            }
            self.news.mark_unchanged();
            // A moment's work, in memory.
            let store = self.jobs.follow().0;
            let found = match self.seen {
                Seen::Number(number) => store.after(&self.id, number).ok()?,
                Seen::Nothing | Seen::Unknown => None,
            };
            match found {
                Some(mut events) if !events.is_empty() => {
                    events.reverse();
                    self.queue = events;
                    continue;
                }
                Some(_) => {}
                None => {
                    let kind = if matches!(self.seen, Seen::Nothing) { "job" } else { "reset" };
                    // A job that is gone has no last event.
                    let last = store.last(&self.id).ok()??;
                    return Some(self.sent(last, kind));
                }
            }
            tokio::select! {
                _ = self.news.changed() => {}
                _ = self.closing.wait_for(|closing| *closing) => return None,
            }
        }
    }

    fn sent(&mut self, event: Happened, kind: &str) -> Sent {
        self.seen = Seen::Number(event.number);
        let epoch = &self.jobs.follow().0.epoch;
        Sent::default().event(kind).id(format!("{epoch}-{}", event.number)).data(event.job)
    }
}
