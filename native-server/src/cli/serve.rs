//! `rectify serve`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use rectify_protocol::{Failure, Kind};

use crate::{
    device::DeviceKind,
    engine::Engine,
    http::{self, Settings},
    io,
    models::Static,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to listen; only this machine can reach the default
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// The folder with models.json and the bundled models, like --static
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The folder with the built page
    #[arg(long, value_name = "DIR", default_value = "dist")]
    site: PathBuf,
    /// What sessions compute on: flex (the CPU), vulkan or cuda
    #[arg(long, default_value = "flex")]
    device: DeviceKind,
}

pub(super) fn run(args: &Args, statics: Option<&Path>) -> Result<(), Failure> {
    args.device.open()?; // Says at once when it was not compiled in.
    let statics = Arc::new(Static::find(args.data.as_deref().or(statics))?);
    let engine = Engine::start(statics.clone(), args.device)?;
    let app = http::app(Settings { statics, engine, site: args.site.clone(), listen: args.listen.ip() });
    let runtime = tokio::runtime::Runtime::new().map_err(|error| io::internal(error.to_string()))?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(args.listen)
            .await
            .map_err(|error| Failure { kind: Kind::BadInput, message: format!("cannot listen on {}: {error}", args.listen) })?;
        let address = listener.local_addr().map_err(|error| io::internal(error.to_string()))?;
        io::say(&format!("listening on http://{address}"));
        axum::serve(listener, app.router)
            .with_graceful_shutdown(async move {
                // Event streams would never end by themselves.
                let _ = tokio::signal::ctrl_c().await;
                app.closing.close();
            })
            .await
            .map_err(|error| io::internal(error.to_string()))
    })
}
