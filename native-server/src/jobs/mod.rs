//! Heavy runs: a server keeps them while nobody watches, and carries them on whatever is killed.
//!
//! [`Jobs`] is what the service and its clients speak to. [`store`] is the record of what was asked for and begun, in
//! SQLite; [`foreman`] carries jobs on, through a [`dispatch::Dispatcher`]: [`local`] starts processes here, [`slurm`]
//! submits arrays. [`work`] says what they run: `rectify sweep SPEC --out DIR --part N/OF` for a grid, and `eval`, `stats`
//! or `mend train`. Results are the only truth: a job is done when every one of them is there, whatever an engine says.
//! [`shelf`] says what jobs may be made of.

pub mod dispatch;
mod foreman;
pub mod local;
pub mod shelf;
pub mod slurm;
pub mod store;
mod work;

use std::{
    collections::HashMap,
    fmt, fs,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rectify_protocol::{Failure, Job, JobOffer, JobPart, JobRequest, JobState, Kind, bounds};
use tokio::sync::watch;

use crate::{device::DeviceKind, io};
use dispatch::Dispatcher;
use foreman::{Foreman, no_such_job};
use shelf::Shelf;
use store::{Record, Store, Submitted};
use work::Place;

/// What jobs need to know.
#[derive(Debug)]
pub struct Settings {
    /// Where everything about them is kept. Absolute: nodes of a cluster read it too.
    pub folder: PathBuf,
    /// What they may be made of.
    pub shelf: Shelf,
    /// The program that is started.
    pub program: PathBuf,
    /// What it computes on.
    pub device: DeviceKind,
    /// As many jobs may be kept that have not ended.
    pub waiting: usize,
}

/// Every job of a server.
pub struct Jobs {
    shared: Arc<Shared>,
    /// The dispatcher's name and how many processes it runs.
    engine: (String, Option<usize>),
    wake: mpsc::Sender<()>,
    foreman: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

/// What the service and the foreman share.
pub(crate) struct Shared {
    settings: Settings,
    store: Store,
    /// Sent to when something can be seen of a job.
    news: watch::Sender<()>,
    /// Whether the foreman is to end.
    ending: AtomicBool,
}

impl Shared {
    fn change<T>(
        &self,
        id: &str,
        change: impl FnOnce(&mut Record) -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        let mut step = None;
        let changed = self.store.change(id, |record| {
            let before = (record.job.state, record.job.attempt);
            let answer = change(record)?;
            let after = (record.job.state, record.job.attempt);
            step = (before != after).then(|| (after.0.name(), after.1, record.job.rows));
            Ok(answer)
        })?;
        if let Some((state, attempt, rows)) = step {
            tracing::info!(job = id, state, attempt, rows, "job");
        }
        self.news.send_replace(());
        Ok(changed)
    }
}

/// How often the foreman looks where things stand.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// As many parts as a job may have.
const PARTS: usize = 1_000;

/// The most files of a job's rows that are listed.
pub const MOST_FILES: usize = 10_000;

impl Jobs {
    /// Goes on with the jobs in a folder.
    ///
    /// # Errors
    ///
    /// When another process has them, or the record cannot be read or written.
    pub fn open(settings: Settings, dispatcher: Box<dyn Dispatcher>) -> Result<Self, Failure> {
        let store = Store::open(&settings.folder)?;
        let engine = (dispatcher.name().to_owned(), dispatcher.at_once());
        let shared = Arc::new(Shared { settings, store, news: watch::Sender::new(()), ending: AtomicBool::new(false) });
        let (wake, wishes) = mpsc::channel();
        let mut foreman =
            Foreman { shared: shared.clone(), dispatcher, counted: HashMap::new(), paces: HashMap::new() };
        let work = move || {
            while !foreman.shared.ending.load(Ordering::Relaxed) {
                if let Err(failure) = foreman.round() {
                    tracing::error!(%failure, "jobs cannot be looked after");
                }
                let woken = wishes.recv_timeout(LOOK_EVERY);
                // However often it was woken: one look is enough.
                while wishes.try_recv().is_ok() {}
                if woken == Err(mpsc::RecvTimeoutError::Disconnected) {
                    return;
                }
            }
        };
        let foreman = thread::Builder::new().name("foreman".into()).spawn(work);
        let foreman = foreman.map_err(|error| io::internal(format!("cannot start a thread: {error}")))?;
        Ok(Self { shared, engine, wake, foreman: Mutex::new(Some(foreman)) })
    }

    /// What may be asked for.
    ///
    /// # Errors
    ///
    /// When the folder of grids cannot be listed.
    pub fn offer(&self) -> Result<JobOffer, Failure> {
        let (dispatcher, at_once) = self.engine.clone();
        let shelf = &self.shared.settings.shelf;
        let ids = |listed: std::collections::BTreeMap<String, PathBuf>| listed.into_keys().collect();
        Ok(JobOffer {
            dispatcher,
            at_once,
            templates: shelf.templates()?,
            models: shelf.models()?,
            facts: ids(shelf.facts()),
            tasks: ids(shelf.tasks()),
            texts: ids(shelf.texts()),
            edits: ids(shelf.edits()),
        })
    }

    /// Keeps a job. `key` is what the client calls the request, so that it can be sent again; `body` is how it came.
    /// The job, and whether it is new.
    ///
    /// # Errors
    ///
    /// When the request cannot be done, too many jobs wait, or the key belongs to another request.
    pub fn submit(&self, key: Option<&str>, body: &str, request: JobRequest) -> Result<(Job, bool), Failure> {
        let Settings { shelf, waiting, .. } = &self.shared.settings;
        bounds::within("parts", request.parts, 1..=PARTS)?;
        let id = io::nobody_else_s()?[..12].to_owned();
        let place = Place::of(&self.shared.settings.folder, &id, &request.work);
        let work::Plan { expected, units, spec } = work::plan(shelf, &request.work, &place)?;
        if request.parts > units {
            let problem = format!("is {}, and this work can be divided into {units}", request.parts);
            return Err(Failure::bad_field("parts", problem));
        }
        let open = self.shared.store.records()?.iter().filter(|record| !record.job.state.has_ended()).count();
        if open >= *waiting {
            return Err(Failure::new(
                Kind::Unfinished,
                format!("{open} jobs wait already; try again when one has ended"),
            ));
        }
        for folder in [&place.results, &place.logs] {
            fs::create_dir_all(folder).map_err(|error| io::cannot_write(folder, &error))?;
        }
        if let Some(spec) = spec {
            io::write(&place.spec, spec.as_bytes())?;
        }
        let parts = vec![JobPart::Queued; request.parts];
        let job = Job {
            id,
            request,
            state: JobState::Queued,
            parts,
            attempt: 0,
            rows: 0,
            expected,
            created: foreman::now(),
            ended: None,
            seconds_left: None,
            note: None,
        };
        let record = Record { job, run: None, fruitless: 0, cancel: false, not_before: 0 };
        let submitted = self.shared.store.submit(key, body, &record)?;
        if submitted != Submitted::New {
            // What was prepared for it is another's by now, or nobody's.
            let _ = fs::remove_dir_all(&place.folder);
        }
        match submitted {
            Submitted::New => {
                self.look();
                Ok((record.job, true))
            }
            Submitted::Again(id) => match self.job(&id) {
                Err(failure) if failure.kind == Kind::NotFound => Err(Failure {
                    message: format!("the request of this key was job {id:?}, which is deleted"),
                    ..failure
                }),
                job => Ok((job?, false)),
            },
            Submitted::Other => {
                Err(Failure::bad_field("Idempotency-Key", "belongs to another request; a key is used once"))
            }
        }
    }

    /// Every job, the newest first.
    ///
    /// # Errors
    ///
    /// When the record cannot be read.
    pub fn list(&self) -> Result<Vec<Job>, Failure> {
        Ok(self.shared.store.records()?.into_iter().map(|record| record.job).collect())
    }

    /// Whether jobs can be kept and begun.
    ///
    /// # Errors
    ///
    /// When the record cannot be read, or there is no room for results.
    pub fn ready(&self) -> Result<(), Failure> {
        self.shared.store.records()?;
        foreman::room_in(&self.shared.settings.folder)
    }

    /// One job.
    ///
    /// # Errors
    ///
    /// When there is no such job.
    pub fn job(&self, id: &str) -> Result<Job, Failure> {
        self.shared.store.record(id)?.map(|record| record.job).ok_or_else(|| no_such_job(id))
    }

    /// Stops a job; one that has ended stays as it is.
    ///
    /// # Errors
    ///
    /// When there is no such job.
    pub fn cancel(&self, id: &str) -> Result<Job, Failure> {
        self.changed(id, |record| {
            record.cancel = !record.job.state.has_ended();
            if record.cancel {
                record.job.note = Some("is being stopped".into());
            }
            Ok(())
        })
    }

    /// Goes on with a job that was cancelled or has failed; one that runs stays as it is.
    ///
    /// # Errors
    ///
    /// When there is no such job, or it is done.
    pub fn resume(&self, id: &str) -> Result<Job, Failure> {
        self.changed(id, |record| {
            match record.job.state {
                JobState::Done => return Err(Failure::bad_input(format!("job {id:?} is done; every result is there"))),
                JobState::Queued | JobState::Running => (record.cancel, record.job.note) = (false, None),
                JobState::Failed | JobState::Cancelled => {
                    let job = &mut record.job;
                    (job.state, job.ended, job.note) = (JobState::Queued, None, None);
                    (record.fruitless, record.not_before) = (0, 0);
                }
            }
            Ok(())
        })
    }

    fn changed(&self, id: &str, change: impl FnOnce(&mut Record) -> Result<(), Failure>) -> Result<Job, Failure> {
        self.shared.change(id, change)?.ok_or_else(|| no_such_job(id))?;
        self.look();
        self.job(id)
    }

    /// Deletes a job with its results.
    ///
    /// # Errors
    ///
    /// When there is no such job, or it has not ended.
    pub fn delete(&self, id: &str) -> Result<(), Failure> {
        let job = self.job(id)?;
        if !job.state.has_ended() {
            return Err(Failure::bad_input(format!("job {id:?} has not ended; cancel it first")));
        }
        let folder = self.place(&job).folder;
        self.shared.store.forget(id)?;
        self.shared.news.send_replace(());
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io::cannot_write(&folder, &error)),
            _ => Ok(()),
        }
    }

    /// The record, for those who follow a job's events, and when there is news.
    pub fn follow(&self) -> (&Store, watch::Receiver<()>) {
        (&self.shared.store, self.shared.news.subscribe())
    }

    /// Where a job's results are.
    pub fn results(&self, job: &Job) -> PathBuf {
        self.place(job).results
    }

    /// The files of results that a job has by now.
    ///
    /// # Errors
    ///
    /// When they cannot be listed.
    pub fn files(&self, job: &Job) -> Result<Vec<PathBuf>, Failure> {
        work::results(&job.request.work, &self.results(job))
    }

    /// What each of a job's processes said, the last attempt first.
    pub fn logs(&self, job: &Job) -> Vec<PathBuf> {
        let logs = self.place(job).logs;
        let of = |attempt: u32| (0..job.parts.len()).map(move |part| (attempt, part));
        let paths = (1..=job.attempt).rev().flat_map(of);
        paths.map(|(attempt, part)| logs.join(format!("{attempt}/{part}.log"))).filter(|path| path.is_file()).collect()
    }

    fn place(&self, job: &Job) -> Place {
        Place::of(&self.shared.settings.folder, &job.id, &job.request.work)
    }

    /// A foreman that has ended has nothing to look at.
    fn look(&self) {
        let _ = self.wake.send(());
    }

    /// Ends the foreman and, with it, the processes that it started here: their rows are written.
    pub fn end(&self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        self.look();
        let foreman = self.foreman.lock().unwrap_or_else(PoisonError::into_inner).take();
        // One that has panicked has ended, too.
        let _ = foreman.map(JoinHandle::join);
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.end();
    }
}
