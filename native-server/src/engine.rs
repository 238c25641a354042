//! Sessions, driven. Core's commands are futures that yield after every read from the device; here they are
//! polled, and dropped when someone asks for that: a dropped command has changed nothing.
//!
//! [`drive`] runs one command on the calling thread, for the command line. [`Engine`] owns a thread with the
//! device and every session of the server on it, where commands run one after the other.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use rectify_core::Session;
use rectify_protocol::{Command, Event, Failure, ModelSource, Progress, Reply, Request};

use crate::{
    device::DeviceKind,
    io,
    models::{Source, Static},
};

/// A wish to drop what runs: set by one thread, seen by another between two polls.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks for it.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Forgets it.
    pub fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether it was asked for.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often a future that waits for its device is interrupted to look at the wish.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs a future on this thread. `None` when it was cancelled: it is dropped then.
pub fn drive<T>(future: impl Future<Output = T>, cancel: &Cancel) -> Option<T> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    while !cancel.is_set() {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return Some(value),
            Poll::Pending => thread::park_timeout(LOOK_EVERY),
        }
    }
    None
}

/// Lets [`drive`] look whether to go on.
pub async fn pause() {
    let mut paused = false;
    poll_fn(|context| {
        if paused {
            return Poll::Ready(());
        }
        paused = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Seconds since the first call: the clock core is handed.
pub fn clock() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// Where a session's events go.
pub trait Outlet: Send + Sync {
    /// Takes one event; must not wait.
    fn send(&self, reply: Reply);
}

/// A session's number within the engine.
pub type SessionId = u64;

/// The thread that owns the device. Dropping the last handle ends it after the running command.
#[derive(Clone, Debug)]
pub struct Engine {
    jobs: mpsc::Sender<Job>,
    /// How many commands wait or run, of all sessions, those that have ended included.
    waiting: Arc<AtomicUsize>,
}

/// As many commands may wait, each of which may be as large as a request.
const WAITING: usize = 128;

#[expect(clippy::large_enum_variant, reason = "jobs that wait are few")]
enum Job {
    Run { session: SessionId, request: Request, cancel: Cancel, outlet: Arc<dyn Outlet> },
    Forget(SessionId),
}

impl Engine {
    /// Starts the thread. The device is opened when the first model is loaded.
    pub fn start(statics: Arc<Static>, device: DeviceKind) -> Result<Self, Failure> {
        let (jobs, queue) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let done = waiting.clone();
        thread::Builder::new()
            .name("engine".into())
            .spawn(move || {
                let mut sessions = Sessions { statics, device, open: HashMap::new(), pristine: HashMap::new() };
                for job in queue {
                    let counted = matches!(job, Job::Run { .. });
                    sessions.work(job);
                    if counted {
                        done.fetch_sub(1, Ordering::Relaxed);
                    }
                }
            })
            .map_err(|error| io::internal(format!("cannot start a thread: {error}")))?;
        Ok(Self { jobs, waiting })
    }

    /// Queues a command. Its last event comes to `outlet` whatever happens.
    pub fn run(&self, session: SessionId, request: Request, cancel: Cancel, outlet: Arc<dyn Outlet>) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.jobs.send(Job::Run { session, request, cancel, outlet }).expect("the engine runs while handles exist");
    }

    /// How many commands wait or run.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether no more should be queued.
    pub fn is_full(&self) -> bool {
        self.waiting() >= WAITING
    }

    /// Drops a session, after what is queued.
    pub fn forget(&self, session: SessionId) {
        self.jobs.send(Job::Forget(session)).expect("the engine runs while handles exist");
    }
}

/// What lives on the engine's thread.
struct Sessions {
    statics: Arc<Static>,
    device: DeviceKind,
    open: HashMap<SessionId, Open>,
    /// Each model in use, unedited: sessions are forks of these and share their weights.
    pristine: HashMap<String, Session>,
}

struct Open {
    session: Session,
    /// The model's id.
    model: String,
}

impl Sessions {
    fn work(&mut self, job: Job) {
        match job {
            Job::Run { session, request, cancel, outlet } => {
                let id = request.id;
                let mut watch = |progress| outlet.send(Reply { id, event: Event::Progress(progress) });
                let ran = catch_unwind(AssertUnwindSafe(|| self.run(session, request.command, &cancel, &mut watch)));
                let event = match ran {
                    Ok(Some(Ok(event))) => event,
                    Ok(Some(Err(failure))) => Event::Failed(failure),
                    Ok(None) => Event::Cancelled,
                    Err(panic) => Event::Failed(io::internal(format!("the engine failed: {}", panic_text(&*panic)))),
                };
                outlet.send(Reply { id, event });
            }
            Job::Forget(session) => {
                self.open.remove(&session);
            }
        }
        // A model that no session uses any more gives its memory back.
        self.pristine.retain(|id, _| self.open.values().any(|open| open.model == *id));
    }

    /// `None` when cancelled.
    fn run(
        &mut self,
        id: SessionId,
        command: Command,
        cancel: &Cancel,
        watch: &mut dyn FnMut(Progress),
    ) -> Option<Result<Event, Failure>> {
        if let Command::Load(ModelSource::Bundled { id: model }) = command {
            return self.load(id, &model, cancel, watch);
        }
        let Some(open) = self.open.get_mut(&id) else {
            return Some(Err(Failure::bad_input("no model is loaded; send Load first")));
        };
        drive(open.session.handle(command, watch), cancel).map(|result| result.map_err(Failure::from))
    }

    fn load(
        &mut self,
        id: SessionId,
        model: &str,
        cancel: &Cancel,
        watch: &mut dyn FnMut(Progress),
    ) -> Option<Result<Event, Failure>> {
        let source = match self.statics.bundled(model) {
            Ok(source) => source,
            Err(failure) => return Some(Err(failure)),
        };
        if !self.pristine.contains_key(model) {
            match open(&source, self.device, cancel, watch)? {
                Ok(mut session) => match self.statics.tasks(model) {
                    Ok(tasks) => {
                        session.set_tasks(Arc::new(tasks));
                        self.pristine.insert(model.to_owned(), session)
                    }
                    Err(failure) => return Some(Err(failure)),
                },
                Err(failure) => return Some(Err(failure)),
            };
        }
        let session = self.pristine[model].fork();
        let info = session.info().expect("a fork has its original's model");
        self.open.insert(id, Open { session, model: source.id });
        Some(Ok(Event::Loaded(info)))
    }
}

/// A session with a model in it, or `None` when cancelled.
pub fn open(
    source: &Source,
    device: DeviceKind,
    cancel: &Cancel,
    watch: &mut dyn FnMut(Progress),
) -> Option<Result<Session, Failure>> {
    let work = async {
        let mut session = Session::new(device.open()?, device.name(), clock);
        let model = source.load(session.device(), watch).await?;
        session.open(model);
        source.add_companions(&mut session)?;
        Ok(session)
    };
    drive(work, cancel)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason was given")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_runs_to_its_end() {
        let work = async {
            pause().await;
            7
        };
        assert_eq!(drive(work, &Cancel::default()), Some(7));
    }

    #[test]
    fn a_cancelled_future_is_dropped_at_its_next_pause() {
        let cancel = Cancel::default();
        let mut steps = 0;
        let work = async {
            loop {
                pause().await;
                steps += 1;
                if steps == 3 {
                    cancel.set();
                }
            }
        };
        assert_eq!(drive::<()>(work, &cancel), None);
        assert_eq!(steps, 3);
    }

    #[test]
    fn a_wait_without_end_can_be_cancelled_from_another_thread() {
        let cancel = Cancel::default();
        let other = cancel.clone();
        let thread = thread::spawn(move || other.set());
        assert_eq!(drive(std::future::pending::<()>(), &cancel), None);
        thread.join().unwrap();
    }
}
