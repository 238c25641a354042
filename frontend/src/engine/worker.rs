//! A session in a worker of this page: JSON text by `postMessage`, both ways.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use rectify_protocol::{Reply, Request};
use wasm_bindgen::{JsCast, closure::Closure};
use web_sys::{ErrorEvent, MessageEvent};

use super::{Backend, Word};
use crate::surroundings;

pub struct Worker {
    shared: Rc<Shared>,
    /// Kept as long as it may be called, and so is the next.
    _hear: Closure<dyn Fn(MessageEvent)>,
    _lose: Closure<dyn Fn(ErrorEvent)>,
}

struct Shared {
    worker: web_sys::Worker,
    /// A message that comes before the worker listens would be lost, so early ones wait here.
    ready: Cell<bool>,
    early: RefCell<Vec<Request>>,
}

impl Worker {
    /// Starts the worker that lies in `folder`, with what it needs to find the page's files.
    pub fn start(folder: &str, tell: Rc<dyn Fn(Word)>) -> Self {
        let base = surroundings::base();
        let query = js_sys::encode_uri_component(&base);
        let worker = web_sys::Worker::new(&format!("{base}{folder}rectify-worker_loader.js?base={query}"))
            .expect("a page may start workers of its own origin");
        let shared = Rc::new(Shared { worker, ready: Cell::new(false), early: RefCell::default() });

        let hear = Closure::<dyn Fn(MessageEvent)>::new({
            let shared = Rc::clone(&shared);
            let tell = Rc::clone(&tell);
            move |message: MessageEvent| {
                let text = message.data().as_string().unwrap_or_default();
                if text == "ready" {
                    shared.ready.set(true);
                    for request in shared.early.take() {
                        shared.post(&request);
                    }
                    tell(Word::Ready);
                } else if let Some(reason) = text.strip_prefix("stopped") {
                    let reason = reason.trim_start_matches([':', ' ']);
                    let reason = if reason.is_empty() { "the worker stopped: a bug in Rectify" } else { reason };
                    tell(Word::Stopped(reason.to_owned()));
                } else {
                    match serde_json::from_str::<Reply>(&text) {
                        Ok(reply) => tell(Word::Reply(Box::new(reply))),
                        Err(error) => tell(Word::Stopped(format!("the worker uses a different version: {error}"))),
                    }
                }
            }
        });
        let lose = Closure::<dyn Fn(ErrorEvent)>::new(move |error: ErrorEvent| {
            // The event carries no words when the script itself could not be fetched.
            let words = js_sys::Reflect::get(&error, &"message".into()).ok().and_then(|words| words.as_string());
            let reason = match words.filter(|words| !words.is_empty()) {
                Some(words) => format!("the worker stopped: {words}"),
                None => "the worker's program could not be fetched".to_owned(),
            };
            tell(Word::Stopped(reason));
        });
        shared.worker.set_onmessage(Some(hear.as_ref().unchecked_ref()));
        shared.worker.set_onerror(Some(lose.as_ref().unchecked_ref()));
        Self { shared, _hear: hear, _lose: lose }
    }
}

impl Backend for Worker {
    fn post(&self, request: Request) {
        if self.shared.ready.get() {
            self.shared.post(&request);
        } else {
            self.shared.early.borrow_mut().push(request);
        }
    }
}

impl Shared {
    fn post(&self, request: &Request) {
        let text = serde_json::to_string(request).expect("a request is plain data, which has a JSON form");
        self.worker.post_message(&text.into()).expect("text can be cloned to a worker");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.worker.set_onmessage(None);
        self.shared.worker.set_onerror(None);
        self.shared.worker.terminate();
    }
}
