//! `rectify serve`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use rectify_protocol::Failure;

use tracing_subscriber::filter::{EnvFilter, LevelFilter};

use super::Place;
use crate::{
    device::DeviceKind,
    engine::Engine,
    http::{self, AppState, Limits, Settings, Token},
    installed, io,
    jobs::{self, Jobs, dispatch::Dispatcher, local::Local, shelf::Shelf, slurm::Slurm},
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
    /// The folder that keeps heavy runs, for as long as they are not deleted. On a cluster its nodes must share it
    #[arg(long, value_name = "DIR")]
    jobs: Option<PathBuf>,
    /// How many processes of heavy runs compute at a time on this machine
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    at_once: u16,
    /// Submit heavy runs to Slurm instead, with these arguments of sbatch, separated by commas: --slurm=--partition=gpu,--gres=gpu:1
    #[arg(long, value_name = "ARGUMENTS", num_args = 0..=1, require_equals = true, default_missing_value = "", conflicts_with = "at_once")]
    slurm: Option<String>,
    /// The file that holds the token which other machines have to show; made where it is not there. Default: token in the folder of heavy runs
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The device sessions and heavy runs compute on: cpu, gpu (the best card this program was built for), auto (gpu or else cpu), wgpu, vulkan or cuda
    #[arg(long, default_value = "cpu")]
    device: DeviceKind,
}

/// Where heavy runs are kept unless somebody says where.
const JOBS: &str = "jobs";

pub(super) fn run(args: &Args, place: &Place) -> Result<(), Failure> {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    // One is enough, whoever was first.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
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
    let token = token(args)?;
    let jobs = match jobs(args, statics.clone()) {
        Ok(jobs) => Some(Arc::new(jobs)),
        Err(failure) if args.jobs.is_none() && args.slurm.is_none() => {
            io::warn(&format!("heavy runs are not taken: {failure}"));
            None
        }
        Err(failure) => return Err(failure),
    };
    let kept = jobs.clone();
    let settings = |listen: SocketAddr| Settings {
        statics,
        engine,
        site,
        sweeps: args.sweeps.clone(),
        jobs: kept,
        device: args.device,
        listen,
        token,
        limits: Limits::default(),
    };
    let runtime = tokio::runtime::Runtime::new().map_err(|error| io::internal(error.to_string()))?;
    runtime.block_on(async {
        let served = serve(args.listen, settings, no_page).await;
        let Some(jobs) = jobs else { return served };
        let ended = tokio::task::spawn_blocking(move || jobs.end());
        tokio::select! {
            _ = ended => served,
            _ = super::interrupted() => std::process::exit(130),
        }
    })
}

fn jobs(args: &Args, statics: Arc<Static>) -> Result<Jobs, Failure> {
    let folder = args.jobs.clone().unwrap_or_else(|| JOBS.into());
    std::fs::create_dir_all(&folder).map_err(|error| io::cannot_write(&folder, &error))?;
    let folder = folder.canonicalize().map_err(|error| io::cannot_read(&folder, &error))?;
    let program =
        std::env::current_exe().map_err(|error| io::internal(format!("this program has no path: {error}")))?;
    let statics = statics.folder.canonicalize().map_err(|error| io::cannot_read(&statics.folder, &error))?;
    let shelf = Shelf::new(Arc::new(Static::open(&statics)?));
    let dispatcher: Box<dyn Dispatcher> = match &args.slurm {
        Some(arguments) => {
            let arguments = arguments.split(',').map(str::trim).filter(|argument| !argument.is_empty());
            Box::new(Slurm::new(arguments.map(str::to_owned).collect()))
        }
        None => Box::new(Local::new(args.at_once.into())),
    };
    Jobs::open(jobs::Settings { folder, shelf, program, device: args.device, waiting: WAITING }, dispatcher)
}

/// As many heavy runs may wait or run.
const WAITING: usize = 1000;

/// What other machines have to show; none where they cannot reach this server.
fn token(args: &Args) -> Result<Option<Token>, Failure> {
    if args.listen.ip().is_loopback() && args.token_file.is_none() {
        return Ok(None);
    }
    let default = || args.jobs.clone().unwrap_or_else(|| JOBS.into()).join("token");
    let path = args.token_file.clone().unwrap_or_else(default);
    if !path.exists() {
        let made = io::nobody_else_s()? + &io::nobody_else_s()?;
        io::write_secret(&path, &made)?;
    }
    let text = io::read_text(&path)?.trim().to_owned();
    if text.len() < SHORTEST_TOKEN || !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        let problem = format!("holds no token: {SHORTEST_TOKEN} or more letters and digits are expected");
        return Err(Failure::bad_input(format!("{} {problem}", path.display())));
    }
    io::say(&format!("other machines have to show this token (it is in {}):\n  {text}", path.display()));
    Ok(Some(Token::new(text)))
}

/// A token that cannot be guessed.
const SHORTEST_TOKEN: usize = 16;

async fn serve(
    listen: SocketAddr,
    settings: impl FnOnce(SocketAddr) -> Settings,
    no_page: Option<String>,
) -> Result<(), Failure> {
    let cannot_listen = |error| Failure::bad_input(format!("cannot listen on {listen}: {error}"));
    let listener = tokio::net::TcpListener::bind(listen).await.map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    let state = AppState::new(settings(address));
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
    http::serve(listener, state, super::interrupted).await
}

/// How often idle sessions are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
