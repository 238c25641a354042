//! Our side of `cargo xtask bench rome`: one job per line on stdin, one line of JSON each on stdout.
//!
//! The model stays loaded between jobs, as it does in `tools/peer/rome.py`, which takes the same jobs.
#![allow(clippy::print_stdout, reason = "its output is read by xtask")]

use std::{
    env, fs,
    io::{self, BufRead},
    path::Path,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use burn::tensor::{Device, Distribution, Tensor};
use rectify_core::{Session, model::Loader};
use rectify_protocol::{Command, Contexts, EditSpec, EditorSpec, Event, Fact, Regularizer, RomeSpec};
use serde_json::{Value, json};

/// As in the program `rectify`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let folder = env::args().nth(1).context("which model?")?;
    let mut session = open(Path::new(&folder))?;
    for line in io::stdin().lock().lines() {
        let job: Value = serde_json::from_str(&line?)?;
        let answer = match &job["matmul"] {
            Value::Null => edit(&mut session, &job)?,
            sizes => matmul_rate(session.device(), sizes)?,
        };
        println!("{answer}");
    }
    Ok(())
}

fn open(folder: &Path) -> Result<Session> {
    static STARTED: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    STARTED.get_or_init(Instant::now);
    let clock = || STARTED.get().map_or(0.0, |started| started.elapsed().as_secs_f64());
    let read = |name: &str| fs::read(folder.join(name)).with_context(|| format!("cannot read {name}"));
    let mut session = Session::new(Device::flex(), "flex", clock);
    let mut loader = Loader::new(&read("config.json")?, &read("tokenizer.json")?, session.device())?;
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

/// Edits, says how long that took, and takes the edit back.
fn edit(session: &mut Session, job: &Value) -> Result<Value> {
    let text = |name: &str| job[name].as_str().map(str::to_owned).with_context(|| format!("{name} is not text"));
    let number = |name: &str| job[name].as_f64().with_context(|| format!("{name} is not a number"));
    let count = |name: &str| {
        let count = job[name].as_u64().with_context(|| format!("{name} is not a count"))?;
        Ok::<_, anyhow::Error>(usize::try_from(count)?)
    };
    let fact =
        Fact { subject: text("subject")?, prompt: text("prompt")?, target_new: text("target_new")?, ..Fact::default() };
    let rome = RomeSpec {
        layers: Some(vec![count("layer")?]),
        v_num_grad_steps: count("v_num_grad_steps")?,
        v_lr: number("v_lr")?,
        v_weight_decay: number("v_weight_decay")?,
        clamp_norm_factor: number("clamp_norm_factor")?,
        kl_factor: number("kl_factor")?,
        contexts: Contexts::Given(serde_json::from_value(job["contexts"].clone())?),
        ..RomeSpec::default()
    };
    let spec = EditSpec { editor: EditorSpec::Rome(rome), regularizer: Regularizer::None, seed: 0 };
    let edit = Command::Edit { facts: vec![fact], spec };
    let Event::Edited(report) = pollster::block_on(session.handle(edit, &mut |_| {}))? else {
        bail!("an edit ends in Edited")
    };
    pollster::block_on(session.handle(Command::Undo, &mut |_| {}))?;
    let loss = report.trace.last().map(|step| step.loss());
    Ok(json!({
        "seconds": report.seconds, "steps": report.steps, "loss": loss, "delta_norm": report.delta_norm,
    }))
}

/// Floating point operations per second of a product and of the product back.
fn matmul_rate(device: &Device, sizes: &Value) -> Result<Value> {
    let size = |name: &str| Ok::<_, anyhow::Error>(usize::try_from(sizes[name].as_u64().context("a size")?)?);
    let (rows, inner, columns) = (size("rows")?, size("inner")?, size("columns")?);
    let random = |dims: [usize; 2]| Tensor::<2>::random(dims, Distribution::Default, device);
    let (x, w, v) = (random([rows, inner]), random([inner, columns]), random([columns, inner]));
    let limit = sizes["seconds"].as_f64().context("seconds")?;
    let (mut done, started) = (0_usize, Instant::now());
    while started.elapsed().as_secs_f64() < limit {
        let _on_this_device_a_product_is_done_when_it_returns = x.clone().matmul(w.clone()).matmul(v.clone());
        done += 4 * rows * inner * columns;
    }
    Ok(json!({ "rate": done as f64 / started.elapsed().as_secs_f64() }))
}
