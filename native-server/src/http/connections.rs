//! Connections: how many there may be, how long they may take to say what they want, and how they end.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use hyper::{Request, body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use rectify_protocol::Failure;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

use super::AppState;

/// How long a client may take to send the head of a request, and how long a connection may be idle.
const HEAD_TIME: Duration = Duration::from_secs(5);

/// How long a client may take no byte of an answer.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// How long answers that are on their way are waited for at the end.
const GRACE: Duration = Duration::from_secs(5);

/// As many connections at a time, where the system allows more.
const MOST: usize = 1024;

/// Serves until `interrupted` answers for the first time; the second time the program ends at once.
///
/// # Errors
///
/// None that a client can cause.
pub async fn serve<F>(listener: TcpListener, state: AppState, interrupted: impl Fn() -> F) -> Result<(), Failure>
where
    F: Future<Output = std::io::Result<()>>,
{
    let app = super::app(state.clone());
    let places = Arc::new(Semaphore::new(places()));
    let graceful = GracefulShutdown::new();
    let ended = interrupted();
    tokio::pin!(ended);
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            _ = &mut ended => break,
        };
        let Ok((stream, _)) = accepted else {
            // No descriptor is free, or the client has gone again.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let app = app.clone();
        let answer = move |request: Request<Incoming>| app.clone().oneshot(request.map(Body::new));
        let mut connections = http1::Builder::new();
        connections.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIME));
        let stream = TokioIo::new(Box::pin(stream));
        let connection = connections.serve_connection(stream, hyper::service::service_fn(answer));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // What a client breaks off is its own affair.
            let _ = connection.await;
            drop(place);
        });
    }
    state.close();
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(GRACE) => {}
        _ = interrupted() => std::process::exit(130),
    }
    Ok(())
}

/// Half of the descriptors that this process may have: files, models and children need the others.
fn places() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let descriptors = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    descriptors.map_or(MOST, |descriptors| (descriptors / 2).clamp(8, MOST))
}
