//! Sessions over HTTP: commands in, server-sent events out.
//!
//! A session's events are numbered and the latest are kept, so that a page that lost its connection goes on where
//! it stopped (`Last-Event-ID`), and one that connects late has missed nothing.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse,
        sse::{Event as Sent, KeepAlive, Sse},
    },
};
use futures_util::{Stream, stream};
use rectify_protocol::{Command, Reply, Request, SessionOpened};
use tokio::sync::watch;

use super::{
    AppState, Settings,
    error::{Refusal, read},
    interface::{Refused, SessionKey},
};
use crate::{
    engine::{Cancel, Engine, Outlet, SessionId},
    io,
};

/// How much strangers may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sessions at a time.
    pub sessions: usize,
    /// Commands of one session that wait or run.
    pub queue: usize,
    /// Events of one session that are kept.
    pub events: usize,
    /// Bytes of them.
    pub bytes: usize,
    /// A session that nobody listens to lives this long, and what it runs goes on for as long.
    pub idle: Duration,
    /// A command may take this long; heavy runs are for what takes longer.
    pub command: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: 16,
            queue: 16,
            events: 1024,
            bytes: 16 << 20,
            idle: Duration::from_secs(60),
            command: Duration::from_secs(3600),
        }
    }
}

/// The sessions there are, by key. Who knows the key is the owner.
#[derive(Debug, Default)]
pub(super) struct Registry {
    seats: Mutex<HashMap<String, Arc<Seat>>>,
    last_id: AtomicU64,
}

/// One session, seen from outside the engine.
#[derive(Debug)]
struct Seat {
    id: SessionId,
    log: Mutex<Log>,
    /// Sent to when the log has grown or ended.
    news: watch::Sender<()>,
    /// The commands that run or wait, oldest first.
    pending: Mutex<VecDeque<Pending>>,
    listeners: AtomicUsize,
    last_used: Mutex<Instant>,
}

/// A command that runs or waits.
#[derive(Debug)]
struct Pending {
    /// The number of its request.
    id: u64,
    cancel: Cancel,
    /// When it came to the front.
    since: Option<Instant>,
}

/// Numbered events, of which the latest are kept.
#[derive(Debug)]
struct Log {
    kept: VecDeque<Kept>,
    capacity: usize,
    /// Bytes that may be kept, and that are.
    bytes: [usize; 2],
    last_number: u64,
    ended: bool,
}

#[derive(Clone, Debug)]
struct Kept {
    number: u64,
    json: Arc<str>,
    is_last: bool,
}

impl Log {
    /// When there is no room, progress is forgotten before results are.
    fn push(&mut self, reply: &Reply) {
        let json: Arc<str> = serde_json::to_string(reply).expect("replies can be written as JSON").into();
        let [most, held] = &mut self.bytes;
        *held += json.len();
        while !self.kept.is_empty() && (self.kept.len() >= self.capacity || *held > *most) {
            let oldest_progress = self.kept.iter().position(|kept| !kept.is_last);
            let gone = self.kept.remove(oldest_progress.unwrap_or(0));
            *held -= gone.map_or(0, |gone| gone.json.len());
        }
        self.last_number += 1;
        self.kept.push_back(Kept { number: self.last_number, json, is_last: reply.event.is_last() });
    }

    fn after(&self, number: u64) -> Option<Kept> {
        let next = self.kept.partition_point(|kept| kept.number <= number);
        self.kept.get(next).cloned()
    }
}

impl Seat {
    fn new(id: SessionId, limits: Limits) -> Self {
        let (kept, bytes) = (VecDeque::new(), [limits.bytes, 0]);
        let log = Log { kept, capacity: limits.events, bytes, last_number: 0, ended: false };
        Self {
            id,
            log: Mutex::new(log),
            news: watch::Sender::new(()),
            pending: Mutex::default(),
            listeners: AtomicUsize::new(0),
            last_used: Mutex::new(Instant::now()),
        }
    }

    fn touch(&self) {
        *lock(&self.last_used) = Instant::now();
    }

    fn is_idle(&self, limit: Duration) -> bool {
        self.listeners.load(Ordering::Relaxed) == 0
            && lock(&self.pending).is_empty()
            && lock(&self.last_used).elapsed() > limit
    }

    /// Stops what runs without anybody who would see it, or for too long.
    fn stop_what_is_over(&self, limits: Limits) {
        let alone = self.listeners.load(Ordering::Relaxed) == 0 && lock(&self.last_used).elapsed() > limits.idle;
        let mut pending = lock(&self.pending);
        let Some(running) = pending.front_mut() else { return };
        let since = *running.since.get_or_insert_with(Instant::now);
        if since.elapsed() > limits.command {
            running.cancel.set();
        }
        if alone {
            pending.iter().for_each(|pending| pending.cancel.set());
        }
    }

    /// Ends what runs, what waits, and every stream. Nothing is queued after it: whoever queues looks, under the same lock,
    /// whether it has ended.
    fn end(&self, engine: &Engine) {
        let pending = lock(&self.pending);
        pending.iter().for_each(|pending| pending.cancel.set());
        lock(&self.log).ended = true;
        engine.forget(self.id);
        drop(pending);
        self.news.send_replace(());
    }
}

impl Outlet for Seat {
    fn send(&self, reply: Reply) {
        if reply.event.is_last() {
            // Before the event is seen: what has ended is not cancelled any more.
            lock(&self.pending).pop_front();
            self.touch();
        }
        lock(&self.log).push(&reply);
        self.news.send_replace(());
    }
}

impl Registry {
    fn create(&self, settings: &Settings) -> Result<String, Refusal> {
        self.sweep(settings);
        let mut seats = lock(&self.seats);
        if seats.len() >= settings.limits.sessions {
            let message = format!("{} sessions are open, which is the limit; try again later", seats.len());
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, message));
        }
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).map_err(|error| io::internal(format!("no random numbers: {error}")))?;
        let key: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let id = 1 + self.last_id.fetch_add(1, Ordering::Relaxed);
        seats.insert(key.clone(), Arc::new(Seat::new(id, settings.limits)));
        Ok(key)
    }

    fn seat(&self, key: &str) -> Result<Arc<Seat>, Refusal> {
        let seat = lock(&self.seats).get(key).cloned();
        let seat = seat.ok_or_else(no_such_session)?;
        seat.touch();
        Ok(seat)
    }

    pub(super) fn count(&self) -> usize {
        lock(&self.seats).len()
    }

    pub(super) fn sweep(&self, settings: &Settings) {
        lock(&self.seats).retain(|_, seat| {
            seat.stop_what_is_over(settings.limits);
            let idle = seat.is_idle(settings.limits.idle);
            if idle {
                seat.end(&settings.engine);
            }
            !idle
        });
    }
}

fn no_such_session() -> Refusal {
    Refusal::not_found("there is no such session; nobody listened to it for too long")
}

/// What these locks guard is whole between any two statements, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins a session: a model of one's own on the server, for as long as somebody listens.
#[utoipa::path(post, path = "/api/sessions", tag = "sessions", request_body(content = Value, description = "Nothing is read of it"), responses((status = 200, body = SessionOpened), Refused))]
pub(super) async fn create(State(state): State<AppState>) -> Result<Json<SessionOpened>, Refusal> {
    Ok(Json(SessionOpened { key: state.0.sessions.create(&state.0.settings)? }))
}

/// Ends a session.
#[utoipa::path(delete, path = "/api/sessions/{key}", tag = "sessions", params(SessionKey), responses((status = 204, description = "It has ended"), Refused))]
pub(super) async fn remove(State(state): State<AppState>, Path(key): Path<String>) -> Result<StatusCode, Refusal> {
    let seat = state.0.sessions.seat(&key)?;
    lock(&state.0.sessions.seats).remove(&key);
    seat.end(&state.0.settings.engine);
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a command, which events answer.
///
/// `Cancel` acts at once, on the command that it names if that has not ended; it has no event of its own.
#[utoipa::path(
    post, path = "/api/sessions/{key}/commands", tag = "sessions", params(SessionKey),
    request_body(content = Value, description = "A command and the number that its events will carry: \
        `{\"id\": 1, \"command\": {\"ask\": {\"prompt\": \"…\", \"tokens\": 8, \"top\": 5}}}`"),
    responses((status = 202, description = "It is queued"), Refused)
)]
pub(super) async fn command(
    State(state): State<AppState>,
    Path(key): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    let seat = state.0.sessions.seat(&key)?;
    let request: Request = read("a request", &body)?;
    let mut pending = lock(&seat.pending);
    if let Command::Cancel { request } = request.command {
        pending.iter().filter(|pending| pending.id == request).for_each(|pending| pending.cancel.set());
        return Ok(StatusCode::ACCEPTED);
    }
    if lock(&seat.log).ended {
        return Err(no_such_session());
    }
    let limit = state.0.settings.limits.queue;
    if pending.len() >= limit || state.0.settings.engine.is_full() {
        let message = format!("{} commands are waiting already", pending.len());
        return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, message));
    }
    // Queued while `pending` is locked, so that both are in the same order.
    let cancel = Cancel::default();
    let since = pending.is_empty().then(Instant::now);
    pending.push_back(Pending { id: request.id, cancel: cancel.clone(), since });
    state.0.settings.engine.run(seat.id, request, cancel, seat.clone());
    Ok(StatusCode::ACCEPTED)
}

/// A session's events as they happen. `Last-Event-ID` goes on after one.
#[utoipa::path(
    get, path = "/api/sessions/{key}/events", tag = "sessions",
    params(SessionKey, ("Last-Event-ID" = Option<String>, Header, description = "The last event that was seen")),
    responses((status = 200, body = String, content_type = "text/event-stream"), Refused)
)]
pub(super) async fn events(
    State(state): State<AppState>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Refusal> {
    let seat = state.0.sessions.seat(&key)?;
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok()).unwrap_or(0);
    let listener = Listener::new(seat, seen, state.0.closing.subscribe());
    Ok(Sse::new(listener.events()).keep_alive(KeepAlive::default()))
}

/// Somebody who reads a session's events; while there is one, the session is not idle.
struct Listener {
    seat: Arc<Seat>,
    seen: u64,
    news: watch::Receiver<()>,
    closing: watch::Receiver<bool>,
}

impl Listener {
    fn new(seat: Arc<Seat>, seen: u64, closing: watch::Receiver<bool>) -> Self {
        seat.listeners.fetch_add(1, Ordering::Relaxed);
        let news = seat.news.subscribe();
        Self { seat, seen, news, closing }
    }

    fn events(self) -> impl Stream<Item = Result<Sent, std::convert::Infallible>> {
        stream::unfold(self, |mut listener| async move {
            let event = listener.next().await?;
            listener.seen = event.number;
            Some((Ok(Sent::default().id(event.number.to_string()).data(&*event.json)), listener))
        })
    }

    /// The next event, or `None` when there will be none.
    async fn next(&mut self) -> Option<Kept> {
        loop {
            self.news.mark_unchanged();
            {
                let log = lock(&self.seat.log);
                match log.after(self.seen) {
                    Some(event) => return Some(event),
                    None if log.ended => return None,
                    None => {}
                }
            }
            tokio::select! {
                _ = self.news.changed() => {}
                _ = self.closing.wait_for(|closing| *closing) => return None,
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.seat.touch();
        self.seat.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use rectify_protocol::{Event, Progress};

    use super::*;

    fn log(events: impl IntoIterator<Item = Event>) -> Log {
        let bytes = [1 << 20, 0];
        let mut log = Log { kept: VecDeque::new(), capacity: 3, bytes, last_number: 0, ended: false };
        events.into_iter().for_each(|event| log.push(&Reply { id: 1, event }));
        log
    }

    #[track_caller]
    fn check(log: &Log, expected: &[u64]) {
        assert_eq!(log.kept.iter().map(|kept| kept.number).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_full_log_forgets_progress_first() {
        let progress = || Event::Progress(Progress::Preparing);
        check(&log([progress(), progress(), progress(), progress()]), &[2, 3, 4]);
        check(&log([Event::Cancelled, progress(), Event::Cancelled, Event::Cancelled]), &[1, 3, 4]);
        check(&log(std::iter::repeat_n(Event::Cancelled, 5)), &[3, 4, 5]);
    }

    #[test]
    fn what_is_kept_is_bounded_by_its_bytes_too() {
        let mut log = Log { kept: VecDeque::new(), capacity: 1000, bytes: [1000, 0], last_number: 0, ended: false };
        for n in 0..100 {
            log.push(&Reply { id: n, event: Event::Failed(rectify_protocol::Failure::bad_input("x".repeat(200))) });
            assert!(log.bytes[1] <= 1000 && log.kept.len() < 5, "{:?}", log.bytes);
            assert_eq!(log.bytes[1], log.kept.iter().map(|kept| kept.json.len()).sum::<usize>());
        }
        log.push(&Reply { id: 100, event: Event::Failed(rectify_protocol::Failure::bad_input("x".repeat(5000))) });
        assert_eq!(log.kept.len(), 1, "the newest is kept whatever it weighs");
    }

    #[test]
    fn a_listener_goes_on_after_what_it_has_seen() {
        let log = log([Event::Cancelled, Event::Cancelled]);
        assert_eq!(log.after(0).map(|kept| kept.number), Some(1));
        assert_eq!(log.after(1).map(|kept| kept.number), Some(2));
        assert_eq!(log.after(2).map(|kept| kept.number), None);
    }
}
