//! `rectify doctor`.

use std::{
    fmt::Write as _,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rectify_protocol::{Failure, Kind, Machine};
use serde::Serialize;

use super::{Place, config};
use crate::{
    device::{self, DeviceKind},
    hub, installed, io,
    models::Static,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder that `rectify serve` keeps heavy runs in
    #[arg(long, value_name = "DIR", default_value = "jobs")]
    jobs: PathBuf,
    /// Print one JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// Something that was looked at.
#[derive(Serialize)]
struct Check {
    name: String,
    state: State,
    /// What was found, and what to do about it.
    says: String,
}

#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// Something works only in part, or not as it usually would.
    Warning,
    /// Commands will fail.
    Failed,
}

#[derive(Serialize)]
struct Report {
    machine: Machine,
    checks: Vec<Check>,
}

pub(super) fn run(args: &Args, place: &Place, out: &mut dyn Write) -> Result<(), Failure> {
    let [memory, memory_free] = device::memory();
    let machine = Machine {
        program: crate::PROGRAM_IN_FULL.into(),
        device: DeviceKind::default().name().into(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        memory,
        memory_free,
        offer: None,
    };
    let mut checks = vec![settings()];
    checks.extend(DeviceKind::compiled().map(device));
    checks.extend(models(place, memory_free));
    checks.push(page());
    checks.push(cache());
    checks.push(folder("heavy runs", &args.jobs));
    checks.push(slurm());
    let failed: Vec<String> =
        checks.iter().filter(|check| check.state == State::Failed).map(|check| check.name.clone()).collect();
    let report = Report { machine, checks };
    io::print(out, &if args.json { io::to_json(&report)? } else { table(&report) })?;
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Kind::Internal, format!("not as it should be: {}", failed.join(", "))))
}

fn check(name: impl Into<String>, state: State, says: impl Into<String>) -> Check {
    Check { name: name.into(), state, says: says.into() }
}

fn settings() -> Check {
    let words: Vec<_> = std::env::args_os().collect();
    let says = config::file(&words).map_or_else(|| "no file".into(), |path| format!("read from {}", path.display()));
    check("settings", State::Ok, says)
}

fn device(kind: DeviceKind) -> Check {
    let name = format!("device {}", kind.name());
    match kind.open() {
        Ok(_) => check(name, State::Ok, "multiplies as it should"),
        // The processor is left.
        Err(failure) => check(name, State::Warning, failure.message),
    }
}

/// The list of models, and whether an edit of each fits into memory.
fn models(place: &Place, free: Option<u64>) -> Vec<Check> {
    let statics = match Static::find(place.static_folder.as_deref()) {
        Ok(statics) => statics,
        Err(failure) => return vec![check("models", State::Failed, failure.message)],
    };
    let found = format!("{} in {}", statics.catalog.models.len(), statics.folder.display());
    let mut checks = vec![check("models", State::Ok, found)];
    for entry in statics.catalog.models.iter().filter(|entry| entry.memory_edit > 0) {
        let (name, needs) = (format!("model {}", entry.id), format!("an edit takes {}", bytes(entry.memory_edit)));
        checks.push(match free.filter(|free| *free < entry.memory_edit) {
            Some(free) => check(name, State::Warning, format!("{needs}, and {} are free", bytes(free))),
            None => check(name, State::Ok, needs),
        });
    }
    checks
}

fn page() -> Check {
    match installed::first_with("index.html", &installed::places("dist", "site")) {
        Ok(folder) => check("page", State::Ok, folder.display().to_string()),
        Err(problem) => check("page", State::Warning, format!("{problem}; `rectify serve` has no page to show")),
    }
}

fn cache() -> Check {
    match hub::models::cache() {
        Ok(path) => folder("Hugging Face cache", &path),
        Err(failure) => check("Hugging Face cache", State::Warning, failure.message),
    }
}

/// Whether a folder can be written to, or made, and how much room there is.
fn folder(name: &str, path: &Path) -> Check {
    let there = path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
    let probe = there.join(format!(".rectify-unfinished-{}", std::process::id()));
    let written = std::fs::create_dir(&probe).and_then(|()| std::fs::remove_dir(&probe));
    if let Err(error) = written {
        return check(name, State::Warning, io::cannot_write(path, &error).message);
    }
    let made = if there == path { "" } else { ", not made yet" };
    let room = fs4::available_space(there).map_or_else(|_| String::new(), |free| format!(", {} free", bytes(free)));
    check(name, State::Ok, format!("{}{made}{room}", path.display()))
}

fn slurm() -> Check {
    let version = Command::new("sbatch").arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
    let says = match version {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "not here; heavy runs compute on this machine".into(),
    };
    check("Slurm", State::Ok, says)
}

fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}

fn table(report: &Report) -> String {
    let Machine { program, processors, memory, memory_free, .. } = &report.machine;
    let mut text = format!("{program}\n{processors} processors");
    if let (Some(all), Some(free)) = (memory, memory_free) {
        let _ = write!(text, ", {} of memory, {} free", bytes(*all), bytes(*free));
    }
    text += "\n\n";
    let wide = report.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    for Check { name, state, says } in &report.checks {
        let mark = match state {
            State::Ok => "ok    ",
            State::Warning => "look  ",
            State::Failed => "FAILED",
        };
        let _ = writeln!(text, "{mark}  {name:wide$}  {says}");
    }
    text
}
