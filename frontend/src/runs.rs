//! Heavy runs on the server that the page came from: what can be asked for, the jobs there are, and one that is watched.

use std::collections::BTreeMap;

use gloo_net::http::{Request, RequestBuilder};
use gloo_timers::future::TimeoutFuture;
use leptos::{prelude::*, task::spawn_local};
use rectify_protocol::{Failure, Job, JobRequest, Machine, RowsFile};
use wasm_bindgen::{JsCast, closure::Closure};
use web_sys::{EventSource, MessageEvent};

use crate::{surroundings, view};

/// What is known of the server.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Connection {
    /// Nothing yet.
    #[default]
    Asking,
    /// There is none: the page came from a plain host.
    None,
    /// It asks for its token.
    Locked,
    /// It takes jobs, or says why not.
    Open(Box<Machine>),
    /// It does not answer any more; it is asked again.
    Away,
}

/// Handles to what is known; copied freely.
#[derive(Clone, Copy)]
pub struct Runs {
    /// The server.
    pub connection: RwSignal<Connection>,
    /// Its jobs, the newest first.
    pub jobs: RwSignal<Vec<Job>>,
    /// The id of the job that is watched.
    pub watched: RwSignal<Option<String>>,
    /// The watched job as it is.
    pub job: RwSignal<Option<Job>>,
    /// Its files, and of a grid's rows what was fetched: whole lines.
    pub rows: RwSignal<BTreeMap<String, String>>,
    /// What could not be done.
    pub failure: RwSignal<Option<String>>,
    source: StoredValue<Option<Listener>, LocalStorage>,
    fetching: StoredValue<bool>,
}

/// A stream of a job's events; ended when it is dropped.
struct Listener {
    source: EventSource,
    _heard: Closure<dyn Fn(MessageEvent)>,
    _lost: Closure<dyn Fn()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.source.close();
    }
}

/// How often the list of jobs is asked for, in milliseconds.
const EVERY: u32 = 2_000;

impl Runs {
    /// Nothing is known and nothing asked.
    pub fn new() -> Self {
        Self {
            connection: RwSignal::default(),
            jobs: RwSignal::default(),
            watched: RwSignal::new(None),
            job: RwSignal::new(None),
            rows: RwSignal::default(),
            failure: RwSignal::new(None),
            source: StoredValue::new_local(None),
            fetching: StoredValue::new(false),
        }
    }

    /// Asks the server what it takes, and then for its jobs again and again as long as `seen` says so.
    pub fn follow(self, seen: impl Fn() -> bool + 'static) {
        spawn_local(async move {
            while seen() {
                if !matches!(self.connection.get_untracked(), Connection::Open(_)) {
                    self.connect().await;
                }
                if matches!(self.connection.get_untracked(), Connection::Open(_)) {
                    match get::<Vec<Job>>("jobs").await {
                        Ok(jobs) => self.jobs.set(jobs),
                        Err(Refused::Away) => self.connection.set(Connection::Away),
                        Err(Refused::Locked) => self.connection.set(Connection::Locked),
                        // It takes none, which the machine has said.
                        Err(Refused::Because(_)) => {}
                    }
                }
                TimeoutFuture::new(EVERY).await;
            }
        });
    }

    async fn connect(self) {
        let found = match get::<Machine>("machine").await {
            Ok(machine) => Connection::Open(Box::new(machine)),
            Err(Refused::Locked) => Connection::Locked,
            Err(_) if matches!(self.connection.get_untracked(), Connection::Away) => Connection::Away,
            Err(_) => Connection::None,
        };
        if self.connection.get_untracked() != found {
            self.connection.set(found);
        }
    }

    /// Shows the token, which the browser then keeps as a cookie until it is closed.
    pub async fn unlock(self, token: String) {
        self.done(send("token", &token).await.map(drop));
        self.connect().await;
        self.watch(self.watched.get_untracked());
    }

    /// Sends a job and watches it.
    pub async fn submit(self, request: JobRequest) {
        match send("jobs", &request).await {
            Ok(text) => match serde_json::from_str::<Job>(&text) {
                Ok(job) => {
                    self.failure.set(None);
                    self.jobs.update(|jobs| jobs.insert(0, job.clone()));
                    surroundings::go_to(&format!("#runs/{}", job.id));
                }
                Err(error) => self.failure.set(Some(format!("The server uses a different version: {error}"))),
            },
            Err(failure) => self.failure.set(Some(view::sentence(&failure))),
        }
    }

    /// Cancels or resumes a job.
    pub async fn tell(self, id: String, verb: &'static str) {
        self.done(send(&format!("jobs/{id}/{verb}"), &()).await.map(drop));
    }

    /// Deletes a job with its rows.
    pub async fn delete(self, id: String) {
        let request = RequestBuilder::new(&address(&format!("jobs/{id}"))).method(gloo_net::http::Method::DELETE);
        let deleted = match request.send().await {
            Ok(answer) if answer.ok() => Ok(()),
            Ok(answer) => Err(refusal(answer).await),
            Err(error) => Err(unreachable_because(&error)),
        };
        if deleted.is_ok() && self.watched.get_untracked().as_ref() == Some(&id) {
            surroundings::go_to("#runs");
        }
        self.jobs.update(|jobs| jobs.retain(|job| job.id != id || deleted.is_err()));
        self.done(deleted);
    }

    fn done(self, done: Result<(), Failure>) {
        self.failure.set(done.err().map(|failure| view::sentence(&failure)));
    }

    /// Listens to a job's events; the browser goes on where it stopped when the server was away.
    pub fn watch(self, id: Option<String>) {
        self.source.set_value(None);
        self.watched.set(id.clone());
        self.job.set(None);
        self.rows.set(BTreeMap::new());
        let Some(id) = id else { return };
        let Ok(source) = EventSource::new(&address(&format!("jobs/{id}/events"))) else { return };
        let heard = Closure::<dyn Fn(MessageEvent)>::new(move |message: MessageEvent| {
            let text = message.data().as_string().unwrap_or_default();
            if let Ok(job) = serde_json::from_str::<Job>(&text) {
                self.jobs.update(|jobs| {
                    jobs.iter_mut().filter(|known| known.id == job.id).for_each(|known| *known = job.clone());
                });
                self.job.set(Some(job));
                self.fetch_rows();
            }
        });
        let lost = Closure::<dyn Fn()>::new({
            let (source, id) = (source.clone(), id.clone());
            move || {
                if source.ready_state() == EventSource::CLOSED {
                    self.failure.set(Some(format!(
                        "Job {id} cannot be followed: the server does not have it, or asks for its token."
                    )));
                }
            }
        });
        for kind in ["job", "reset"] {
            let _ = source.add_event_listener_with_callback(kind, heard.as_ref().unchecked_ref());
        }
        source.set_onerror(Some(lost.as_ref().unchecked_ref()));
        self.source.set_value(Some(Listener { source, _heard: heard, _lost: lost }));
    }

    /// Fetches what was added to the watched job's rows, unless that is being done.
    fn fetch_rows(self) {
        if self.fetching.get_value() {
            return;
        }
        self.fetching.set_value(true);
        spawn_local(async move {
            loop {
                let (id, told) = (self.watched.get_untracked(), self.job.get_untracked());
                if let Some(id) = &id {
                    self.fetch_new(id).await;
                }
                // As long as rows are made, there may be more by now; not at every one of them.
                let same = self.watched.get_untracked() == id && self.job.get_untracked() == told;
                if same || id.is_none() {
                    break;
                }
                TimeoutFuture::new(1_000).await;
            }
            self.fetching.set_value(false);
        });
    }

    async fn fetch_new(self, id: &str) {
        let Ok(files) = get::<Vec<RowsFile>>(&format!("jobs/{id}/rows")).await else { return };
        let is_grid = self.job.with_untracked(|job| job.as_ref().is_some_and(Job::has_rows));
        for RowsFile { name, size } in files {
            if !is_grid {
                self.rows.update(|rows| _ = rows.entry(name).or_default());
                continue;
            }
            let from = self.rows.with_untracked(|rows| rows.get(&name).map_or(0, String::len));
            if size as usize <= from {
                continue;
            }
            let Ok(text) = added(&format!("jobs/{id}/rows/{name}"), from).await else { continue };
            // The last line may be on its way, and cut in the middle of a letter.
            let whole = text.rfind('\n').map_or(0, |end| end + 1);
            if self.watched.get_untracked().as_deref() != Some(id) {
                return;
            }
            self.rows.update(|rows| *rows.entry(name).or_default() += &text[..whole]);
        }
    }
}

/// Why there is no answer.
enum Refused {
    /// Nobody answers.
    Away,
    /// A token is asked for.
    Locked,
    /// The server says why.
    Because(#[expect(dead_code, reason = "nobody asks yet, and it would be missed in a message")] String),
}

fn address(path: &str) -> String {
    format!("{}api/{path}", surroundings::base())
}

async fn get<T: serde::de::DeserializeOwned>(path: &str) -> Result<T, Refused> {
    let answer = Request::get(&address(path)).send().await.map_err(|_| Refused::Away)?;
    match answer.status() {
        401 => Err(Refused::Locked),
        200 => answer.json().await.map_err(|error| Refused::Because(error.to_string())),
        // What stands before a server that is being started again.
        502..=504 => Err(Refused::Away),
        status => Err(Refused::Because(status.to_string())),
    }
}

/// A file from some byte on.
async fn added(path: &str, from: usize) -> Result<String, ()> {
    let request = Request::get(&address(path)).header("range", &format!("bytes={from}-"));
    let answer = request.send().await.map_err(drop)?;
    match answer.status() {
        206 => answer.text().await.map_err(drop),
        200 if from == 0 => answer.text().await.map_err(drop),
        _ => Err(()),
    }
}

/// Posts a value. What the server answers, or what it says against it.
async fn send(path: &str, value: &impl serde::Serialize) -> Result<String, Failure> {
    let request = Request::post(&address(path)).json(value).map_err(|error| unreachable_because(&error))?;
    let answer = request.send().await.map_err(|error| unreachable_because(&error))?;
    if !answer.ok() {
        return Err(refusal(answer).await);
    }
    answer.text().await.map_err(|error| unreachable_because(&error))
}

async fn refusal(answer: gloo_net::http::Response) -> Failure {
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_else(|_| Failure::bad_input(format!("the server answered {status}")))
}

fn unreachable_because(error: &gloo_net::Error) -> Failure {
    Failure::bad_input(format!("the server does not answer: {error}"))
}
