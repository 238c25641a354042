//! The only talker to a session: commands in, signals out.
//!
//! A session runs in a worker or on a server; both take [`Request`]s and give [`Reply`]s. One command runs at a time.
//! [`Engine::send`] waits for a command's last event, and [`Engine::activity`] tells meanwhile how far it is.

mod server;
mod worker;

use std::{collections::HashMap, rc::Rc};

use futures_channel::oneshot;
use leptos::prelude::*;
use rectify_protocol::{Command, Event, Failure, Kind, ModelInfo, Progress, Reply, Request, Step};

/// Where a session runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A worker of this page, on the CPU.
    Cpu,
    /// A worker of this page, on the graphics card.
    WebGpu,
    /// The server the page came from.
    Server,
}

/// Whether there is somebody to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Code is being fetched, or a server asked.
    Starting,
    /// Commands are heard.
    Running,
    /// Nobody is there any more; the model and its edits are gone. Says why.
    Stopped(String),
}

/// The command that a visitor waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Activity {
    id: u64,
    /// `load`, `ask`, `edit`, `undo`, `measure` or `play`.
    pub doing: &'static str,
    /// The latest word from the session.
    pub progress: Option<Progress>,
    /// The evaluations of a running edit.
    pub trace: Vec<Step>,
    /// Whether the visitor has asked to stop it.
    pub cancelling: bool,
}

/// See the module. Copied freely: it is a handle to signals.
#[derive(Clone, Copy)]
pub struct Engine {
    /// Where the session runs.
    pub place: RwSignal<Place>,
    /// Whether it runs.
    pub state: RwSignal<State>,
    /// The model it has taken up.
    pub model: RwSignal<Option<ModelInfo>>,
    /// What is being waited for; commands sent quietly are not shown.
    pub activity: RwSignal<Option<Activity>>,
    inner: StoredValue<Inner, LocalStorage>,
}

#[derive(Default)]
struct Inner {
    last_id: u64,
    /// Replies of an earlier backend that are still on their way are told apart by this number.
    generation: u64,
    backend: Option<Rc<dyn Backend>>,
    waiting: HashMap<u64, oneshot::Sender<Event>>,
    listeners: HashMap<u64, Rc<Listener>>,
}

/// Whoever hears of a command's progress.
type Listener = dyn Fn(&Progress);

/// One end of the two conversations in [`rectify_protocol`]. Dropping it ends the session.
trait Backend {
    /// Sends in the order of the calls, as soon as the other side hears.
    fn post(&self, request: Request);
}

/// What a backend tells the engine.
enum Word {
    Ready,
    Reply(Box<Reply>),
    Stopped(String),
}

impl Engine {
    /// An engine without a session; [`Engine::start`] makes one.
    pub fn new() -> Self {
        Self {
            place: RwSignal::new(Place::Cpu),
            state: RwSignal::new(State::Starting),
            model: RwSignal::new(None),
            activity: RwSignal::new(None),
            inner: StoredValue::new_local(Inner::default()),
        }
    }

    /// Begins a session, ending the one there was. Commands may be sent at once.
    pub fn start(self, place: Place) {
        self.end("the session was ended");
        self.place.set(place);
        self.state.set(State::Starting);
        let generation = self.inner.with_value(|inner| inner.generation);
        let tell = Rc::new(move |word| self.hear(generation, word));
        let backend: Rc<dyn Backend> = match place {
            Place::Cpu => Rc::new(worker::Worker::start("", tell)),
            Place::WebGpu => Rc::new(worker::Worker::start("webgpu/", tell)),
            Place::Server => Rc::new(server::Server::start(tell)),
        };
        self.inner.update_value(|inner| inner.backend = Some(backend));
    }

    /// Sends a command and waits for its last event: `Cancelled` is an event, `Failed` the error. `hear` is told of all
    /// progress.
    pub async fn send(self, command: Command, hear: impl Fn(&Progress) + 'static) -> Result<Event, Failure> {
        self.cancel_quiet_ones();
        let (id, last) = self.post(command.clone());
        self.inner.update_value(|inner| {
            inner.listeners.insert(id, Rc::new(hear));
        });
        let doing = name(&command);
        self.activity.set(Some(Activity { id, doing, progress: None, trace: Vec::new(), cancelling: false }));
        let event = last.await;
        self.inner.update_value(|inner| drop(inner.listeners.remove(&id)));
        self.activity.update(|activity| {
            activity.take_if(|activity| activity.id == id);
        });
        Self::result(event)
    }

    /// The same for what the page asks by itself: it is not shown, and a command of the visitor's cancels it.
    pub async fn send_quietly(self, command: Command) -> Result<Event, Failure> {
        self.cancel_quiet_ones();
        let (_, last) = self.post(command);
        Self::result(last.await)
    }

    /// Drops the command that runs.
    pub fn cancel(self) {
        let Some(request) = self.activity.with_untracked(|activity| activity.as_ref().map(|activity| activity.id))
        else {
            return;
        };
        self.activity.update(|activity| {
            if let Some(activity) = activity {
                activity.cancelling = true;
            }
        });
        self.post_only(Command::Cancel { request });
    }

    fn cancel_quiet_ones(self) {
        if self.activity.with_untracked(Option::is_none) {
            for request in self.inner.with_value(|inner| inner.waiting.keys().copied().collect::<Vec<_>>()) {
                self.post_only(Command::Cancel { request });
            }
        }
    }

    fn result(event: Result<Event, oneshot::Canceled>) -> Result<Event, Failure> {
        match event {
            Ok(Event::Failed(failure)) => Err(failure),
            Ok(event) => Ok(event),
            Err(oneshot::Canceled) => Ok(Event::Cancelled), // its session was ended by the visitor
        }
    }

    fn post(self, command: Command) -> (u64, oneshot::Receiver<Event>) {
        let (end, last) = oneshot::channel();
        let id = self.post_only(command);
        self.inner.update_value(|inner| {
            inner.waiting.insert(id, end);
        });
        (id, last)
    }

    fn post_only(self, command: Command) -> u64 {
        let mut id = 0;
        let mut backend = None;
        self.inner.update_value(|inner| {
            inner.last_id += 1;
            id = inner.last_id;
            backend.clone_from(&inner.backend);
        });
        if let Some(backend) = backend {
            backend.post(Request { id, command });
        }
        id
    }

    fn hear(self, generation: u64, word: Word) {
        if self.inner.with_value(|inner| inner.generation != generation) {
            return;
        }
        match word {
            Word::Ready => self.state.set(State::Running),
            Word::Reply(reply) => self.hear_reply(*reply),
            Word::Stopped(reason) => {
                self.end(&reason);
                self.state.set(State::Stopped(reason));
            }
        }
    }

    fn hear_reply(self, Reply { id, event }: Reply) {
        match event {
            Event::Progress(progress) => {
                let listener = self.inner.with_value(|inner| inner.listeners.get(&id).cloned());
                if let Some(hear) = listener {
                    hear(&progress);
                }
                self.activity.update(|activity| {
                    if let Some(activity) = activity.as_mut().filter(|activity| activity.id == id) {
                        if let Progress::Optimizing { step, .. } = progress {
                            activity.trace.push(step);
                        }
                        activity.progress = Some(progress);
                    }
                });
            }
            last => {
                if let Event::Loaded(model) = &last {
                    self.model.set(Some(model.clone()));
                }
                let mut end = None;
                self.inner.update_value(|inner| end = inner.waiting.remove(&id));
                if let Some(end) = end {
                    let _ = end.send(last); // nobody may be waiting any more
                }
            }
        }
    }

    /// Lets go of the session; whoever waits hears why.
    fn end(self, reason: &str) {
        let mut waiting = HashMap::new();
        let mut backend = None;
        self.inner.update_value(|inner| {
            inner.generation += 1;
            waiting = std::mem::take(&mut inner.waiting);
            backend = inner.backend.take();
        });
        drop(backend);
        self.model.set(None);
        for end in waiting.into_values() {
            let failure = Failure::new(Kind::Internal, reason.to_owned());
            let _ = end.send(Event::Failed(failure));
        }
    }
}

fn name(command: &Command) -> &'static str {
    match command {
        Command::Load(_) => "load",
        Command::Ask { .. } => "ask",
        Command::Edit { .. } => "edit",
        Command::Measure { .. } => "measure",
        Command::Regularize { .. } => "regularize",
        Command::Changes => "changes",
        Command::Evaluate { .. } => "evaluate",
        Command::Play(_) => "play",
        Command::Trace(_) => "trace",
        Command::Undo => "undo",
        Command::Cancel { .. } => "cancel",
    }
}
