//! A worker of the page, spoken to directly in protocol's words, so that every digit of an answer can be compared.

use rectify_protocol::{
    Answer, Command, EditReport, EditSpec, Event, Fact, ModelInfo, ModelSource, Progress, Reply, Request,
};
use serde::Deserialize;
use serde_json::json;

use crate::driver::Browser;

/// Starts the worker of `folder` in the page and resolves when it hears.
const START: &str = r#"
const base = new URL(".", document.baseURI).href;
const worker = new Worker(base + arguments[0] + "rectify-worker_loader.js?base=" + encodeURIComponent(base));
const heard = [];
window.rectify = { worker, heard, tell: () => {} };
return new Promise((resolve, reject) => {
    worker.onerror = (error) => reject(new Error(error.message || "the worker's program could not be fetched"));
    worker.onmessage = (message) => {
        if (message.data === "ready") { resolve(null); }
        else if (message.data.startsWith("stopped")) { reject(new Error(message.data)); }
        else { heard.push(message.data); window.rectify.tell(); }
    };
});
"#;

/// Sends a request and resolves with every reply to it once the last is there.
const REQUEST: &str = r#"
const [request, id] = arguments;
const rectify = window.rectify;
return new Promise((resolve, reject) => {
    rectify.worker.onerror = (error) => reject(new Error(error.message));
    rectify.tell = () => {
        const newest = JSON.parse(rectify.heard.at(-1));
        if (newest.id === id && newest.event.progress === undefined) {
            resolve(rectify.heard.splice(0));
        }
    };
    rectify.worker.postMessage(request);
});
"#;

/// A worker in an open page.
pub struct Worker<'a> {
    browser: &'a Browser,
    last_id: u64,
}

impl<'a> Worker<'a> {
    /// Starts the worker that computes on the CPU (`""`) or on WebGPU (`"webgpu/"`).
    #[track_caller]
    pub fn start(browser: &'a Browser, folder: &str) -> Self {
        browser.run(START, json!([folder]));
        Self { browser, last_id: 0 }
    }

    #[track_caller]
    pub fn load(&mut self, id: &str) -> ModelInfo {
        match self.last(Command::Load(ModelSource::Bundled { id: id.into() })) {
            Event::Loaded(info) => info,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub fn ask(&mut self, prompt: &str, tokens: usize, top: usize) -> Answer {
        match self.last(Command::Ask { prompt: prompt.into(), tokens, top }) {
            Event::Answered(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub fn edit(&mut self, fact: Fact, spec: EditSpec) -> (Vec<Progress>, EditReport) {
        let mut events = self.request(Command::Edit { facts: vec![fact], spec });
        let last = events.pop();
        let progress = events.into_iter().filter_map(|event| match event {
            Event::Progress(progress) => Some(progress),
            _ => None,
        });
        match last {
            Some(Event::Edited(report)) => (progress.collect(), report),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub fn undo(&mut self) -> usize {
        match self.last(Command::Undo) {
            Event::Undone { edits } => edits,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn last(&mut self, command: Command) -> Event {
        self.request(command).pop().expect("every command has a last event")
    }

    /// Every event of a command.
    #[track_caller]
    pub fn request(&mut self, command: Command) -> Vec<Event> {
        self.replies(command).iter().map(|text| event(text)).collect()
    }

    /// Every event of a command, and what was asked of WebGPU since the one before: for a worker whose loader counts.
    #[track_caller]
    pub fn counted(&mut self, command: Command) -> Vec<(Event, Counted)> {
        #[derive(Deserialize)]
        struct Counting {
            counted: Counted,
        }
        let replies = self.replies(command);
        let counted = |text: &String| serde_json::from_str::<Counting>(text).expect("the loader counts").counted;
        replies.iter().map(|text| (event(text), counted(text))).collect()
    }

    #[track_caller]
    fn replies(&mut self, command: Command) -> Vec<String> {
        self.last_id += 1;
        let request = serde_json::to_string(&Request { id: self.last_id, command }).expect("a request has a JSON form");
        let replies = self.browser.run(REQUEST, json!([request, self.last_id]));
        serde_json::from_value(replies).expect("a list of texts")
    }
}

#[track_caller]
fn event(text: &str) -> Event {
    serde_json::from_str::<Reply>(text).unwrap_or_else(|error| panic!("{error}: {text}")).event
}

/// What a worker asked of WebGPU.
#[derive(Debug, Deserialize)]
pub struct Counted {
    /// Launches of kernels.
    pub dispatches: usize,
    /// Kernels compiled, by name.
    pub kernels: Vec<String>,
    /// Times that someone waited for numbers.
    pub reads: usize,
}
