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
