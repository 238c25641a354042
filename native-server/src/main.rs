//! The program `rectify`: arguments in, exit code out.

use std::{panic::catch_unwind, process::ExitCode};

use rectify_protocol::Kind;
use rectify_server::{
    cli::{self, Cli},
    io,
};

/// Tensors come and go in each step; the system's allocator gives their pages back each time and clears them anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// 0: done. 2: bad usage or bad input (clap's own complaints end in 2 as well). 75: a part is done, and the same command
/// finishes the rest. 130: Ctrl-C. 1: anything else.
fn main() -> ExitCode {
    let run = || Cli::settled().and_then(|cli| cli::run(cli, &mut std::io::stdout().lock()));
    let Ok(result) = catch_unwind(run) else {
        return ExitCode::from(1); // A panic has said where it happened.
    };
    let Err(failure) = result else { return ExitCode::SUCCESS };
    io::fail(&failure);
    match failure.kind {
        Kind::BadInput | Kind::NotFound | Kind::Harmful => ExitCode::from(2),
        Kind::Unfinished => ExitCode::from(75),
        Kind::Cancelled => ExitCode::from(130),
        Kind::Device | Kind::Internal => ExitCode::from(1),
    }
}
