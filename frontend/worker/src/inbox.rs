//! Requests that wait, and how a running one notices that it was cancelled.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, VecDeque},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Poll, Waker},
};

use js_sys::Promise;
use rectify_protocol::{Command, Request};
use wasm_bindgen::{JsCast, closure::Closure};
use wasm_bindgen_futures::JsFuture;
use web_sys::MessageChannel;

/// Shared by the listener, which puts, and the loop, which takes.
#[derive(Clone, Default)]
pub struct Inbox(Rc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: RefCell<VecDeque<Request>>,
    /// The number of the request that was taken last.
    running: Cell<u64>,
    /// Requests that are to be dropped, and have not ended as far as is known.
    cancelled: RefCell<BTreeSet<u64>>,
    waker: RefCell<Option<Waker>>,
}

impl Inbox {
    /// Takes a request in. `Cancel` is heard at once, and names one that runs or waits.
    pub fn put(&self, request: Request) {
        if let Command::Cancel { request } = request.command {
            self.0.cancelled.borrow_mut().insert(request);
        } else {
            self.0.waiting.borrow_mut().push_back(request);
        }
        if let Some(waker) = self.0.waker.take() {
            waker.wake();
        }
    }

    /// The next request, in the order they came.
    pub async fn next(&self) -> Request {
        poll_fn(|context| match self.0.waiting.borrow_mut().pop_front() {
            Some(request) => {
                self.0.running.set(request.id);
                // Numbers grow: what is below has ended.
                self.0.cancelled.borrow_mut().retain(|id| *id >= request.id);
                Poll::Ready(request)
            }
            None => self.wait(context.waker()),
        })
        .await
    }

    /// Runs what was taken last to its end, or drops it when a `Cancel` names it.
    ///
    /// Between two polls the browser's event loop gets a turn. Without it a future that wakes itself, as core's do
    /// after each read, would be polled again as a microtask, before any message could be heard.
    pub async fn drive<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        while !self.0.cancelled.borrow().contains(&self.0.running.get()) {
            if let Poll::Ready(output) = self.poll_once(future.as_mut()).await {
                return Some(output);
            }
            event_loop_turn().await;
        }
        None
    }

    /// Polls once; if that was not the end, waits until the future or a message asks for attention.
    async fn poll_once<F: Future>(&self, mut future: Pin<&mut F>) -> Poll<F::Output> {
        let mut polled = false;
        poll_fn(|context| {
            if polled {
                return Poll::Ready(Poll::Pending);
            }
            polled = true;
            match future.as_mut().poll(context) {
                Poll::Ready(output) => Poll::Ready(Poll::Ready(output)),
                Poll::Pending => self.wait(context.waker()),
            }
        })
        .await
    }

    fn wait<T>(&self, waker: &Waker) -> Poll<T> {
        self.0.waker.replace(Some(waker.clone()));
        Poll::Pending
    }
}

/// Returns after the messages that have already arrived were heard. A timer would wait at least four milliseconds.
async fn event_loop_turn() {
    let channel = MessageChannel::new().expect("a browser has message channels");
    let turn = Promise::new(&mut |resolve, _| {
        let wake = Closure::once_into_js(move || drop(resolve.call0(&wasm_bindgen::JsValue::UNDEFINED)));
        channel.port1().set_onmessage(Some(wake.unchecked_ref()));
    });
    channel.port2().post_message(&wasm_bindgen::JsValue::NULL).expect("null can be cloned");
    JsFuture::from(turn).await.expect("the promise is never rejected");
    channel.port1().close();
}
