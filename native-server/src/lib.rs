//! Rectify's command line and HTTP server, as a library: [`cli::run`] is the program, [`http::app`] the service.
//!
//! Everything that core may not do happens here: files, clocks, threads, sockets, Ctrl-C.
//! Begin reading at [`cli`] for the commands and at [`engine`] for how a session is driven and cancelled.

pub mod cli;
pub mod crew;
pub mod device;
pub mod edited;
pub mod engine;
pub mod facts;
mod hparams;
pub mod http;
pub mod hub;
pub mod installed;
pub mod io;
pub mod jobs;
pub mod models;
pub mod output;
pub mod progress;
mod shards;
pub mod sweep;
pub mod tasks;

/// The program and its version, as reports name it.
pub const PROGRAM: &str = concat!("rectify ", env!("CARGO_PKG_VERSION"));

/// The version with the commit, the devices that are compiled in, and the target: `0.1.0 (commit …; cpu; …)`. The commit
/// is the one that was checked out; what was changed since and not committed does not show.
pub const VERSION: &str = env!("RECTIFY_VERSION");

/// The program as a person's reports name it. Rows of sweeps say [`PROGRAM`].
pub const PROGRAM_IN_FULL: &str = concat!("rectify ", env!("RECTIFY_VERSION"));
