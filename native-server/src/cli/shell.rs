//! What shells and manuals want to know of the command line: `rectify completions`, `rectify man`.

use std::{io::Write, path::PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;
use rectify_protocol::Failure;

use super::Cli;
use crate::io;

#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// Which shell; its own documentation says where the script goes
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// The folder to write the pages into, one a command
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn completions(args: &Completions, out: &mut dyn Write) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "rectify", &mut script);
    io::print(out, &String::from_utf8_lossy(&script))
}

pub(super) fn man(args: &Man, out: &mut dyn Write) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.out).map_err(|error| io::cannot_write(&args.out, &error))?;
    clap_mangen::generate_to(Cli::command(), &args.out).map_err(|error| io::cannot_write(&args.out, &error))?;
    io::print(out, &format!("{}\n", args.out.join("rectify.1").display()))
}
