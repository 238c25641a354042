//! The pump around core's [`Session`]: requests in by `postMessage`, replies out, both JSON text.
//!
//! One command runs at a time and later ones wait. `Cancel` does not wait: it drops the running future, which
//! changes nothing in the session. `Load` is served here, because only this side can fetch.
//!
//! Two messages are not replies but plain words: `ready`, once requests are heard, and `stopped`, after a panic.

mod device;
mod inbox;
mod store;

use std::{cell::Cell, sync::Arc};

use burn::tensor::Device;
use rectify_core::{
    Session,
    model::{Description, LoadedModel, Loader},
};
use rectify_protocol::{
    CatalogFile, CatalogModel, Command, Event, Failure, FileRole, Kind, ModelSource, Progress, Reply, Request,
};
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use web_sys::{DedicatedWorkerGlobalScope, MessageEvent, UrlSearchParams};

use crate::{inbox::Inbox, store::Store};

thread_local! {
    /// The request that runs, so that a panic can still be answered.
    static RUNNING: Cell<Option<u64>> = const { Cell::new(None) };
}

fn main() {
    std::panic::set_hook(Box::new(|panic| {
        console_error_panic_hook::hook(panic);
        if let Some(id) = RUNNING.get() {
            let message = format!("the worker stopped because of a bug in Rectify: {panic}");
            post(&Reply { id, event: Event::Failed(Failure::new(Kind::Internal, message)) });
        }
        send(&JsValue::from_str("stopped"));
    }));

    let inbox = Inbox::default();
    let hear = {
        let inbox = inbox.clone();
        Closure::<dyn Fn(MessageEvent)>::new(move |message: MessageEvent| {
            let text = message.data().as_string().unwrap_or_default();
            match serde_json::from_str::<Request>(&text) {
                Ok(request) => inbox.put(request),
                Err(error) => web_sys::console::error_1(&format!("no request: {error}: {text}").into()),
            }
        })
    };
    scope().set_onmessage(Some(hear.as_ref().unchecked_ref()));
    hear.forget(); // it listens as long as the worker lives

    wasm_bindgen_futures::spawn_local(async move {
        let mut server = Server { device: None, session: None, store: Store::new(base()) };
        loop {
            let Request { id, command } = inbox.next().await;
            RUNNING.set(Some(id));
            let watch = &mut |progress| post(&Reply { id, event: Event::Progress(progress) });
            let event = match inbox.drive(server.serve(command, watch)).await {
                Some(Ok(event)) => event,
                Some(Err(failure)) => Event::Failed(failure),
                None => Event::Cancelled,
            };
            RUNNING.set(None);
            let lost = match &event {
                Event::Failed(failure) if failure.kind == Kind::Device && server.session.is_some() => {
                    Some(format!("stopped: {failure}"))
                }
                _ => None,
            };
            post(&Reply { id, event });
            if let Some(lost) = lost {
                // A device that failed answers nothing any more, and only another worker is given another.
                send(&JsValue::from_str(&lost));
            }
        }
    });
    send(&JsValue::from_str("ready"));
}

/// What a worker keeps between commands.
struct Server {
    /// Opened with the first model, and serves the next ones too.
    device: Option<Device>,
    /// Kept when a later load fails or is cancelled.
    session: Option<Session>,
    store: Store,
}

/// Names the tokens that end a text, where a model has it.
const GENERATION: &str = "generation_config.json";

impl Server {
    async fn serve(&mut self, command: Command, watch: &mut dyn FnMut(Progress)) -> Result<Event, Failure> {
        match (command, &mut self.session) {
            (Command::Load(ModelSource::Bundled { id }), _) => self.load(&id, watch).await,
            (command, Some(session)) => {
                if command.asks_tasks() && session.tasks().is_empty() {
                    let id = session.info().map(|info| info.id).unwrap_or_default();
                    session.set_tasks(Arc::new(self.store.tasks(&id).await?));
                }
                Ok(session.handle(command, watch).await?)
            }
            (_, None) => Err(Failure::bad_input("no model is loaded")),
        }
    }

    async fn load(&mut self, id: &str, watch: &mut dyn FnMut(Progress)) -> Result<Event, Failure> {
        let model = self.store.model(id).await?;
        let config = self.small_file(&model, "config.json").await?;
        let tokenizer = self.small_file(&model, "tokenizer.json").await?;
        let device = match &self.device {
            Some(device) => device.clone(),
            None => self.device.insert(device::open().await?).clone(),
        };
        let generation_config = match model.files.iter().any(|file| file.path == GENERATION) {
            true => Some(self.small_file(&model, GENERATION).await?),
            false => None,
        };
        let description =
            Description { generation_config: generation_config.as_deref(), ..Description::new(&config, &tokenizer) };
        let mut loader = Loader::new(&description, &device)?;
        let mut companions: Vec<(&CatalogFile, Vec<u8>)> = Vec::new();
        let large = || model.files.iter().filter(|file| file.role() != FileRole::Other);
        let total = large().map(|file| file.size).sum();
        let mut done = 0;
        for file in large() {
            let mut arrived = |bytes: u64| {
                done += bytes;
                watch(Progress::Fetching { file: file.path.clone(), done, total: Some(total) });
                if done == total {
                    watch(Progress::Preparing); // hashing and converting take seconds for a large model
                }
            };
            let bytes = self.store.file(&model, file, &mut arrived).await?;
            match file.role() {
                FileRole::Weights => loader.add_shard(&file.path, &bytes)?,
                _ => companions.push((file, bytes)),
            }
        }
        let mut loaded = loader.finish(id)?;
        self.tune(&model, &mut loaded).await?;
        // A session of its own, so that the one there was is still whole if a companion is not what it should be.
        let mut session = Session::new(device, device::NAME, seconds);
        let info = session.open(loaded);
        for (file, bytes) in companions {
            match file.role() {
                FileRole::Moment(layer) => {
                    for warning in session.add_moment(layer, &file.path, &bytes)? {
                        web_sys::console::warn_1(&format!("{}: {warning}", file.path).into());
                    }
                }
                FileRole::Hypernetwork => session.add_hypernetwork(&file.path, &bytes)?,
                FileRole::Weights | FileRole::Other => {}
            }
        }
        self.session = Some(session);
        Ok(Event::Loaded(info))
    }

    /// Changes a model's presets to what the files beside the catalog say.
    async fn tune(&self, model: &CatalogModel, loaded: &mut LoadedModel) -> Result<(), Failure> {
        for editor in &mut loaded.editors {
            let method = editor.method();
            if model.hparams.iter().any(|known| known == method) {
                let (file, text) = self.store.settings(method, &model.id).await?;
                *editor = editor.clone().with_toml(&file, &text)?;
                loaded.settings.insert(method.to_owned(), file);
            }
        }
        Ok(())
    }

    async fn small_file(&self, model: &CatalogModel, name: &str) -> Result<Vec<u8>, Failure> {
        let missing = || Failure::bad_input(format!("models.json lists no {name} for {:?}", model.id));
        let file = model.files.iter().find(|file| file.path == name).ok_or_else(missing)?;
        self.store.file(model, file, &mut |_| {}).await
    }
}

fn post(reply: &Reply) {
    let text = serde_json::to_string(reply).expect("a reply is plain data, which has a JSON form");
    send(&JsValue::from_str(&text));
}

fn send(message: &JsValue) {
    scope().post_message(message).expect("text can be cloned to the page");
}

fn scope() -> DedicatedWorkerGlobalScope {
    js_sys::global().unchecked_into()
}

/// The page's address, which it passes as `?base=`: this script may lie in a folder of its own.
fn base() -> String {
    let search = scope().location().search();
    UrlSearchParams::new_with_str(&search).ok().and_then(|params| params.get("base")).unwrap_or_else(|| "./".into())
}

/// Seconds since the worker began.
fn seconds() -> f64 {
    let performance = js_sys::Reflect::get(&js_sys::global(), &"performance".into());
    performance.map_or(0.0, |performance| performance.unchecked_into::<web_sys::Performance>().now() / 1000.0)
}
