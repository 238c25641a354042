//! What each kind of work is on this machine: the command that does it, the results it leaves, and when all of them are
//! there.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use rectify_protocol::{Failure, JobRequest, JobWork, SweepSpec};
use serde_json::Value;

use super::shelf::Shelf;
use crate::{
    cli::config,
    io,
    models::{HYPERNETWORK, moment_file},
    output,
    sweep::{Sweep, rows},
};

/// Where a job keeps what is its own.
pub struct Place {
    /// All of it.
    pub(super) folder: PathBuf,
    /// The grid, where it is one.
    pub(super) spec: PathBuf,
    /// Its results. The folder's name is what reports call it.
    pub results: PathBuf,
    /// What its processes said.
    pub(super) logs: PathBuf,
}

impl Place {
    pub(super) fn of(jobs: &Path, id: &str, work: &JobWork) -> Self {
        let folder = jobs.join(id);
        Self { spec: folder.join("spec.toml"), results: folder.join(work.name()), logs: folder.join("log"), folder }
    }
}

/// What is known of work before it is begun.
pub(super) struct Plan {
    /// Results there will be.
    pub(super) expected: usize,
    /// As many processes can share it.
    pub(super) units: usize,
    /// What [`Place::spec`] is to hold.
    pub(super) spec: Option<String>,
}

/// Looks whether work can be done here.
///
/// # Errors
///
/// When an id is not listed, a number is impossible, or a grid cannot be read.
pub(super) fn plan(shelf: &Shelf, work: &JobWork, place: &Place) -> Result<Plan, Failure> {
    let JobWork::Sweep { template, change } = work else {
        words(shelf, work)?;
        work.validate()?;
        return Ok(Plan { expected: files(work).len(), units: 1, spec: None });
    };
    let text = toml::to_string(&shelf.spec(template, change)?);
    let text = text.map_err(|error| Failure::bad_input(format!("the grid cannot be written: {error}")))?;
    // As its processes will read it.
    let sweep = shelf.sweep(SweepSpec::from_toml("the grid", &text)?, &place.results)?;
    Ok(Plan { expected: sweep.rows(), units: sweep.all_units(), spec: Some(text) })
}

/// The program's arguments; `--part` follows where the work is shared.
pub(super) fn arguments(
    shelf: &Shelf,
    request: &JobRequest,
    place: &Place,
    device: &str,
) -> Result<Vec<OsString>, Failure> {
    // What a job computes is what its request says: no file of settings and no variable changes it.
    let mut arguments: Vec<OsString> =
        ["--config", config::NONE, "--messages", "text", "--static"].map(Into::into).into();
    arguments.push(shelf.statics().into());
    let out = match &request.work {
        JobWork::Sweep { .. } => {
            arguments.extend(["sweep".into(), place.spec.clone().into()]);
            place.results.clone()
        }
        JobWork::MendTraining { .. } => place.results.join(HYPERNETWORK),
        JobWork::Evaluation { .. } | JobWork::Statistics { .. } => place.results.clone(),
    };
    arguments.extend(words(shelf, &request.work)?);
    arguments.extend(["--out".into(), out.into(), "--device".into(), device.into()]);
    arguments.extend(["--precision".into(), request.precision.name().into()]);
    Ok(arguments)
}

/// The command that does work which is not shared, and what it is about; nothing for a grid, whose file says it.
fn words(shelf: &Shelf, work: &JobWork) -> Result<Vec<OsString>, Failure> {
    let mut words: Vec<OsString> = Vec::new();
    let mut add = |flag: &str, value: OsString| words.extend([flag.into(), value]);
    match work {
        JobWork::Sweep { .. } => return Ok(words),
        JobWork::Evaluation { model, edits, data, tasks, limit, log_samples } => {
            add("--model", shelf.model(model)?.into());
            add("--data", shelf.tasks_of(data)?.into());
            crate::tasks::named(tasks)?;
            add("--tasks", tasks.join(",").into());
            if let Some(limit) = limit {
                add("--limit", limit.to_string().into());
            }
            if let Some(edits) = edits {
                add("--edits", shelf.edits_of(edits)?.into());
            }
            if *log_samples {
                words.push("--log-samples".into());
            }
            words.insert(0, "eval".into());
        }
        JobWork::Statistics { model, text, layers, tokens } => {
            let layers: Vec<String> = layers.iter().map(usize::to_string).collect();
            add("--model", shelf.model(model)?.into());
            add("--text", shelf.text(text)?.into());
            add("--layers", layers.join(",").into());
            add("--tokens", tokens.to_string().into());
            words.insert(0, "stats".into());
        }
        JobWork::MendTraining { model, facts, validation, steps, settings } => {
            add("--model", shelf.model(model)?.into());
            add("--facts", shelf.facts_of(facts)?.into());
            add("--validation", shelf.facts_of(validation)?.into());
            add("--steps", steps.to_string().into());
            for (name, value) in settings {
                let value = value.as_str().map_or_else(|| Value::to_string(value), str::to_owned);
                add(&format!("--{}", name.replace('_', "-")), value.into());
            }
            words.splice(0..0, ["mend".into(), "train".into()]);
        }
    }
    Ok(words)
}

/// The files that are there when work which is not shared is done.
fn files(work: &JobWork) -> Vec<String> {
    match work {
        JobWork::Sweep { .. } => Vec::new(),
        JobWork::Evaluation { .. } => vec![output::REPORT.to_owned()],
        JobWork::MendTraining { .. } => vec![HYPERNETWORK.to_owned()],
        JobWork::Statistics { layers, .. } => {
            let layers: std::collections::BTreeSet<usize> = layers.iter().copied().collect();
            layers.into_iter().map(moment_file).collect()
        }
    }
}

/// Something that changes whenever work which is not shared has written down how far it is.
pub(super) fn trace(place: &Place) -> Option<String> {
    let entries = std::fs::read_dir(&place.results).ok()?.filter_map(Result::ok);
    let is_kept = |name: &str| name.ends_with(".partial.json") || name.ends_with(".partial.safetensors");
    let kept = entries.filter(|entry| is_kept(&entry.file_name().to_string_lossy()));
    let mut seen: Vec<String> = kept
        .filter_map(|entry| {
            let of = entry.metadata().ok()?;
            Some(format!("{:?} {} {:?}", entry.file_name(), of.len(), of.modified().ok()?))
        })
        .collect();
    seen.sort();
    (!seen.is_empty()).then(|| seen.join("\n"))
}

/// How many of those files are there.
pub(super) fn count(work: &JobWork, place: &Place) -> usize {
    files(work).iter().filter(|name| place.results.join(name).is_file()).count()
}

/// Whether all results are there.
///
/// # Errors
///
/// When a grid cannot be read any more.
pub(super) fn is_finished(shelf: &Shelf, work: &JobWork, place: &Place) -> Result<bool, Failure> {
    match work {
        JobWork::Sweep { .. } => {
            let (all, finished) = sweep(shelf, place)?.finished()?;
            Ok(finished >= all)
        }
        _ => Ok(count(work, place) == files(work).len()),
    }
}

fn sweep(shelf: &Shelf, place: &Place) -> Result<Sweep, Failure> {
    let spec = SweepSpec::from_toml("spec.toml", &io::read_text(&place.spec)?)?;
    shelf.sweep(spec, &place.results)
}

/// The files of results there are by now; what a process keeps to go on from is not one.
///
/// # Errors
///
/// When the folder cannot be listed.
pub fn results(work: &JobWork, folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let listed = match work {
        JobWork::Sweep { .. } => rows::files(folder),
        _ => std::fs::read_dir(folder).map(|entries| {
            let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
            let is_result = |path: &PathBuf| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let ending = name.rsplit('.').next().unwrap_or_default();
                path.is_file() && ["json", "jsonl", "safetensors"].contains(&ending) && !name.contains(".partial.")
            };
            let mut paths: Vec<PathBuf> = paths.filter(is_result).collect();
            paths.sort();
            paths
        }),
    };
    match listed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(|error| io::cannot_read(folder, &error)),
    }
}
