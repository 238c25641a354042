//! Our side of `cargo xtask bench`: one job per line on stdin, one line of JSON each on stdout.
//!
//! The model stays loaded between jobs, as it does in `tools/peer/main.py`, which takes the same jobs.
//! Begin reading at [`Job`].
#![allow(clippy::print_stdout, reason = "its output is read by xtask")]

mod algebra;
mod edits;
mod questions;

use std::{
    env, fs,
    io::{self, BufRead},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Error, Result};
use rectify_core::{
    Session,
    model::{Description, Loader},
};
use rectify_protocol::{Fact, KnSpec, Precision, ValueSpec};
use rectify_server::device::DeviceKind;
use serde::Deserialize;
use serde_json::{Value, json};

/// As in the program `rectify`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What can be asked.
#[derive(Deserialize)]
#[serde(tag = "job", rename_all = "snake_case")]
enum Job {
    /// Which layers the editors change in this model, and on how many processors.
    About,
    /// The first facts of an edit set.
    Facts { file: PathBuf, n: usize },
    /// Second moments of keys over the texts of a folder, each written to a file of `folder`.
    Moments { texts: PathBuf, tokens: usize, layers: Vec<usize>, folder: PathBuf },
    /// One fact by ROME.
    Rome { fact: Fact, layer: usize, value: ValueSpec },
    /// Many facts by MEMIT.
    Memit(edits::Memit),
    /// The neurons that KN would change.
    Kn { fact: Fact, ground_truth: String, spec: KnSpec },
    /// A system as MEMIT's, written to `file` for the other side.
    System { d_mlp: usize, d_model: usize, facts: usize, file: PathBuf },
    /// Its solution for the first `facts` facts, through the factor or directly; at least `least` seconds long.
    Solve { facts: usize, lambda: f64, direct: bool, least: f64 },
    /// A matrix and a change of it, written to `file` for the other side.
    Matrices { rows: usize, columns: usize, layer: Option<usize>, file: PathBuf },
    /// RECT of it; what is left is written to `save`.
    Rect { keep: f64, least: f64, save: Option<PathBuf> },
    /// The prompts of tasks.
    Prompts { data: PathBuf, tasks: Vec<String>, limit: Option<usize> },
    /// Greedy continuations.
    Answer { prompts: Vec<String>, new_tokens: usize },
    /// Greedy continuations by `n` variants that differ in one layer.
    Variants { prompts: Vec<String>, new_tokens: usize, n: usize, layer: usize },
    /// How fast products are.
    Matmul { rows: usize, inner: usize, columns: usize, least: f64 },
}

fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    let folder = args.next().context("which model?")?;
    let device = args.next().unwrap_or_else(|| "flex".into()).parse().map_err(Error::msg)?;
    let precision = args.next().unwrap_or_else(|| "f32".into()).parse().map_err(Error::msg)?;
    let mut session = open(Path::new(&folder), device, precision)?;
    let mut bench = algebra::Bench::default();
    for line in io::stdin().lock().lines() {
        let answer = answer(&mut session, &mut bench, serde_json::from_str(&line?)?)?;
        println!("{answer}");
    }
    Ok(())
}

fn answer(session: &mut Session, bench: &mut algebra::Bench, job: Job) -> Result<Value> {
    match job {
        Job::About => edits::about(session),
        Job::Facts { file, n } => edits::facts(&file, n),
        Job::Moments { texts, tokens, layers, folder } => edits::moments(session, &texts, tokens, &layers, &folder),
        Job::Rome { fact, layer, value } => edits::rome(session, fact, layer, value),
        Job::Memit(job) => edits::memit(session, job),
        Job::Kn { fact, ground_truth, spec } => edits::kn(session, fact, ground_truth, spec),
        Job::System { d_mlp, d_model, facts, file } => bench.system(d_mlp, d_model, facts, &file),
        Job::Solve { facts, lambda, direct, least } => bench.solve(facts, lambda, direct, least),
        Job::Matrices { rows, columns, layer, file } => bench.matrices(session, [rows, columns], layer, &file),
        Job::Rect { keep, least, save } => bench.rect(keep, least, save.as_deref()),
        Job::Prompts { data, tasks, limit } => questions::prompts(&data, &tasks, limit),
        Job::Answer { prompts, new_tokens } => questions::answers(session, &prompts, new_tokens),
        Job::Variants { prompts, new_tokens, n, layer } => questions::variants(session, &prompts, new_tokens, n, layer),
        Job::Matmul { rows, inner, columns, least } => algebra::matmul(session.device(), [rows, inner, columns], least),
    }
}

fn open(folder: &Path, device: DeviceKind, precision: Precision) -> Result<Session> {
    static STARTED: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    STARTED.get_or_init(Instant::now);
    let clock = || STARTED.get().map_or(0.0, |started| started.elapsed().as_secs_f64());
    let read = |name: &str| fs::read(folder.join(name)).with_context(|| format!("cannot read {name}"));
    let mut session = Session::new(device.open()?, device.name(), clock);
    let (config, tokenizer) = (read("config.json")?, read("tokenizer.json")?);
    let description = Description { precision, ..Description::new(&config, &tokenizer) };
    let mut loader = Loader::new(&description, session.device())?;
    let shards = match read("model.safetensors.index.json") {
        Ok(index) => Loader::shard_names(&index)?,
        Err(_) => vec!["model.safetensors".into()],
    };
    for shard in shards {
        loader.add_shard(&shard, &read(&shard)?)?;
    }
    session.open(loader.finish("bench")?);
    Ok(session)
}

/// Seconds of one run, from as many as take `least` seconds, and what the last one gave.
fn mean_seconds<T>(least: f64, mut work: impl FnMut() -> Result<T>) -> Result<(f64, T)> {
    let (mut done, started) = (0, Instant::now());
    loop {
        let result = work()?;
        done += 1;
        let seconds = started.elapsed().as_secs_f64();
        if seconds >= least {
            return Ok((seconds / f64::from(done), result));
        }
    }
}

/// A file of tensors for the other side.
fn write(file: &Path, tensors: &[(&str, [usize; 2], safetensors::Dtype, Vec<u8>)]) -> Result<()> {
    let views = tensors.iter().map(|(name, shape, dtype, data)| {
        Ok((*name, safetensors::tensor::TensorView::new(*dtype, shape.to_vec(), data)?))
    });
    let bytes = safetensors::serialize(views.collect::<Result<Vec<_>>>()?, None)?;
    fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
}

/// What every side says of an edit's loop.
fn loop_of(report: &rectify_protocol::EditReport) -> Value {
    json!({
        "seconds": report.seconds, "steps": report.steps, "loss": report.trace.last().map(|step| step.loss()),
        "delta_norm": report.delta_norm,
    })
}
