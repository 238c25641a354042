//! What a person or CI runs, in Rust: `cargo xtask play`, `cargo xtask test`.
//!
//! Needs nothing but cargo: what else is missing, [`setup`] finds or installs, and says so.
//! Begin reading at [`COMMANDS`].
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

mod api;
mod bench;
mod circles;
mod deny;
mod edges;
mod kit;
mod python;
mod setup;
mod shell;
mod test;
mod tidy;
mod web;
mod wheel;

use std::process::ExitCode;

use anyhow::{Result, bail};

/// A command's name, its options, what it does, and the function that does it.
type Command = (&'static str, &'static str, &'static str, fn(&mut Args) -> Result<()>);

const COMMANDS: &[Command] = &[
    ("play", "[--port N] [--no-webgpu]", "build the page and serve it with the bundled model", web::play),
    ("test", "[NAME]", "run every test, the browser's too; or the native ones whose name contains NAME", test::test),
    ("rectify", "ARGS…", "build the program and run it", web::rectify),
    ("fuzz", "[--minutes N]", "break files for N minutes and see that every reader says what is wrong", test::fuzz),
    ("ci", "", "formatting, lints, edges, tidy, deny, then every test, the Python package's last", test::ci),
    ("web", "[--debug] [--no-webgpu]", "build the page into dist/", web::web),
    ("webgpu", "[--publish]", "build the worker for WebGPU into dist/", web::webgpu),
    ("site", "DIR [--no-webgpu]", "build the page into DIR for any static host, to be used and embedded", web::site),
    ("setup", "", "find or install what play and test need", setup::setup),
    ("edges", "", "check which crate depends on which, and that files do not in a circle", edges::edges),
    ("deny", "", "check licences, sources and known holes of the crates we use", deny::deny),
    ("tidy", "", "check what the compiler does not", tidy::tidy),
    ("wheel", "[--release]", "make the Python package with the program in it: dist-wheel/*.whl", wheel::wheel),
    ("api", "", "make requests of all kinds of a server, and hold its answers against docs/openapi.json", api::api),
    ("python", "", "types and tests of the Python package, as whoever installs the wheel has it", wheel::python),
    (
        "card-kit",
        "DIR [--devices vulkan,cuda] [--no-page]",
        "pack what measures on a machine that has a card and nothing else",
        kit::kit,
    ),
    (
        "bench",
        "rome|memit|linalg|kn|rect|eval|card [--model DIR] …",
        "compare our speed with what is published, on PyTorch",
        bench::bench,
    ),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut args = Args(std::env::args().skip(1).collect());
    let name = args.word().unwrap_or_default();
    let Some((.., command)) = COMMANDS.iter().find(|(known, ..)| *known == name) else {
        for (command, options, what, _) in COMMANDS {
            println!("cargo xtask {:<44} {what}", format!("{command} {options}"));
        }
        match name.as_str() {
            "" | "help" | "--help" | "-h" => return Ok(()),
            other => bail!("no command {other:?}; there are the ones above"),
        }
    };
    command(&mut args)
}

/// The command line, from which each command takes what it knows.
pub struct Args(Vec<String>);

impl Args {
    /// Takes the next word that is not an option.
    pub fn word(&mut self) -> Option<String> {
        let at = self.0.iter().position(|arg| !arg.starts_with("--"))?;
        Some(self.0.remove(at))
    }

    /// Takes `--name`, if it is there.
    pub fn flag(&mut self, name: &str) -> bool {
        let at = self.0.iter().position(|arg| arg == name);
        at.map(|at| self.0.remove(at)).is_some()
    }

    /// Takes `--name VALUE`.
    pub fn value(&mut self, name: &str) -> Result<Option<String>> {
        let Some(at) = self.0.iter().position(|arg| arg == name) else { return Ok(None) };
        self.0.remove(at);
        if at >= self.0.len() {
            bail!("{name} needs a value");
        }
        Ok(Some(self.0.remove(at)))
    }

    /// Takes whatever is left, as it is.
    pub fn rest(&mut self) -> Vec<String> {
        std::mem::take(&mut self.0)
    }

    /// Without anything left to take.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// Complains about whatever nobody took.
    pub fn done(&self) -> Result<()> {
        match self.0.first() {
            None => Ok(()),
            Some(unknown) => bail!("unknown argument {unknown:?}; `cargo xtask help` lists what there is"),
        }
    }
}
