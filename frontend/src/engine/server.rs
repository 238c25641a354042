//! A session on the server the page came from: commands by POST, replies as server-sent events.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use gloo_net::http;
use leptos::task::spawn_local;
use rectify_protocol::{Reply, Request, SessionOpened};
use wasm_bindgen::{JsCast, closure::Closure};
use web_sys::{EventSource, MessageEvent};

use super::{Backend, Word};
use crate::surroundings;

pub struct Server(Rc<Shared>);

struct Shared {
    tell: Rc<dyn Fn(Word)>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// The session's address, once there is one.
    session: Option<String>,
    /// Posted one after the other, so that they arrive in order.
    waiting: VecDeque<Request>,
    posting: bool,
    ended: bool,
    source: Option<Listener>,
}

struct Listener {
    source: EventSource,
    /// Kept as long as they may be called.
    _listeners: [Closure<dyn Fn(MessageEvent)>; 3],
}

impl Server {
    /// Asks the server for a session.
    pub fn start(tell: Rc<dyn Fn(Word)>) -> Self {
        let shared = Rc::new(Shared { tell, state: RefCell::default() });
        let left = Rc::downgrade(&shared);
        surroundings::on_leaving(move || {
            let session = left.upgrade().and_then(|shared| shared.state.borrow().session.clone());
            session.iter().for_each(|session| surroundings::delete_while_leaving(session));
        });
        spawn_local({
            let shared = Rc::clone(&shared);
            async move {
                match open().await {
                    Ok(session) => Rc::clone(&shared).listen(&session),
                    Err(reason) => (shared.tell)(Word::Stopped(format!("the server did not open a session: {reason}"))),
                }
            }
        });
        Self(shared)
    }
}

async fn open() -> Result<String, String> {
    let address = format!("{}api/sessions", surroundings::base());
    // The server takes nothing but JSON, so that no other site's page can send it anything unasked.
    let request = http::Request::post(&address).json(&serde_json::json!({})).map_err(|error| error.to_string())?;
    let answer = request.send().await.map_err(|error| error.to_string())?;
    if !answer.ok() {
        return Err(format!("it answered {}", answer.status()));
    }
    let opened: SessionOpened = answer.json().await.map_err(|error| error.to_string())?;
    Ok(format!("{address}/{}", opened.key))
}

impl Shared {
    fn listen(self: Rc<Self>, session: &str) {
        if self.state.borrow().ended {
            return;
        }
        let source = match EventSource::new(&format!("{session}/events")) {
            Ok(source) => source,
            Err(error) => return (self.tell)(Word::Stopped(format!("cannot listen to the server: {error:?}"))),
        };
        // Commands wait until the stream is open: replies sent before would be missed.
        let opened = Closure::<dyn Fn(MessageEvent)>::new({
            let shared = Rc::clone(&self);
            let session = session.to_owned();
            move |_| {
                if shared.state.borrow_mut().session.replace(session.clone()).is_none() {
                    (shared.tell)(Word::Ready);
                    Rc::clone(&shared).post_waiting();
                }
            }
        });
        let heard = Closure::<dyn Fn(MessageEvent)>::new({
            let tell = Rc::clone(&self.tell);
            move |message: MessageEvent| {
                let text = message.data().as_string().unwrap_or_default();
                match serde_json::from_str::<Reply>(&text) {
                    Ok(reply) => tell(Word::Reply(Box::new(reply))),
                    Err(error) => tell(Word::Stopped(format!("the server uses a different version: {error}"))),
                }
            }
        });
        // A browser tries again by itself and the server repeats what was missed, until it knows the session no more.
        let lost = Closure::<dyn Fn(MessageEvent)>::new({
            let tell = Rc::clone(&self.tell);
            let source = source.clone();
            move |_| {
                if source.ready_state() == EventSource::CLOSED {
                    tell(Word::Stopped("the server has ended the session".into()));
                }
            }
        });
        source.set_onopen(Some(opened.as_ref().unchecked_ref()));
        source.set_onmessage(Some(heard.as_ref().unchecked_ref()));
        source.set_onerror(Some(lost.as_ref().unchecked_ref()));
        self.state.borrow_mut().source = Some(Listener { source, _listeners: [opened, heard, lost] });
    }

    fn post_waiting(self: Rc<Self>) {
        if std::mem::replace(&mut self.state.borrow_mut().posting, true) {
            return;
        }
        spawn_local(async move {
            loop {
                let (session, request) = {
                    let mut state = self.state.borrow_mut();
                    let (Some(session), false) = (state.session.clone(), state.ended) else { break };
                    let Some(request) = state.waiting.pop_front() else { break };
                    (session, request)
                };
                if let Err(reason) = post(&session, &request).await {
                    (self.tell)(Word::Stopped(format!("the server did not accept a command: {reason}")));
                    break;
                }
            }
            self.state.borrow_mut().posting = false;
        });
    }
}

async fn post(session: &str, request: &Request) -> Result<(), String> {
    let request = http::Request::post(&format!("{session}/commands")).json(request);
    let answer = request.map_err(|error| error.to_string())?.send().await.map_err(|error| error.to_string())?;
    if answer.ok() {
        return Ok(());
    }
    let words = answer.text().await.unwrap_or_default();
    Err(format!("it answered {} {words}", answer.status()))
}

impl Backend for Server {
    fn post(&self, request: Request) {
        self.0.state.borrow_mut().waiting.push_back(request);
        Rc::clone(&self.0).post_waiting();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut state = self.0.state.borrow_mut();
        state.ended = true;
        if let Some(listener) = state.source.take() {
            listener.source.set_onopen(None);
            listener.source.set_onmessage(None);
            listener.source.set_onerror(None);
            listener.source.close();
        }
        if let Some(session) = state.session.take() {
            spawn_local(async move {
                // The server ends idle sessions anyway; this only tells it sooner.
                let _ = http::Request::delete(&session).send().await;
            });
        }
    }
}
