//! `rectify serve`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use rectify_protocol::Failure;

use super::Place;
use crate::{
    device::DeviceKind,
    engine::Engine,
    http::{self, AppState, Limits, Settings},
    installed, io,
    models::Static,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to listen; only this machine can reach the default
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// The folder with models.json and the bundled models and facts. Default: as for the other commands
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The folder with the built page. Default: ./dist, or what is installed with this program
    #[arg(long, value_name = "DIR")]
    site: Option<PathBuf>,
    /// The folder that holds the sweeps' folders, for the page to draw
    #[arg(long, value_name = "DIR", default_value = "sweeps")]
    sweeps: PathBuf,
    /// The device sessions compute on: cpu, gpu (the best card this program was built for), auto (gpu or else cpu), wgpu, vulkan or cuda
    #[arg(long, default_value = "cpu")]
    device: DeviceKind,
}

pub(super) fn run(args: &Args, place: &Place) -> Result<(), Failure> {
    args.device.open()?; // Says at once when it was not compiled in.
    let statics = Arc::new(Static::find(args.data.as_deref().or(place.static_folder.as_deref()))?);
    let engine = Engine::start(statics.clone(), args.device)?;
    let (site, no_page) = match &args.site {
        Some(folder) => (folder.clone(), None),
        None => match installed::first_with("index.html", &installed::places("dist", "site")) {
            Ok(folder) => (folder, None),
            Err(problem) => (PathBuf::from("dist"), Some(problem)),
        },
    };
    let settings = Settings {
        statics,
        engine,
        site,
        sweeps: args.sweeps.clone(),
        listen: args.listen.ip(),
        limits: Limits::default(),
    };
    let state = AppState::new(settings);
    let runtime = tokio::runtime::Runtime::new().map_err(|error| io::internal(error.to_string()))?;
    runtime.block_on(serve(args.listen, state, no_page))
}

async fn serve(listen: SocketAddr, state: AppState, no_page: Option<String>) -> Result<(), Failure> {
    let cannot_listen = |error| Failure::bad_input(format!("cannot listen on {listen}: {error}"));
    let listener = tokio::net::TcpListener::bind(listen).await.map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    io::say(&format!("listening on http://{address}"));
    if let Some(problem) = no_page {
        io::warn(&format!("there is no page to serve: {problem}; --site names its folder"));
    }
    let sweeper = state.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            sweeper.sweep();
        }
    });
    let router = http::app(state.clone());
    let (ending, ended) = tokio::sync::oneshot::channel();
    let until_interrupted = async move {
        let _ = super::interrupted().await;
        state.close();
        let _ = ending.send(());
    };
    let serving = axum::serve(listener, router).with_graceful_shutdown(until_interrupted);
    // A client that holds half a request would be waited for without end.
    let grace = async {
        let _ = ended.await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serving => served.map_err(|error| io::internal(error.to_string())),
        () = grace => Ok(()),
    }
}

/// How long answers that are on their way are waited for at the end.
const GRACE: Duration = Duration::from_secs(5);

/// How often idle sessions are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
