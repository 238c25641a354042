//! `cargo xtask bench rome`: one edit, three ways of saying how fast that is, all from one run on one machine.
//!
//! *Ours* and *peer* (PyTorch, `tools/peer/rome.py`) edit the same fact with the same contexts, steps and settings,
//! in turns, so that whatever else the machine does meets both. The *floor* is the arithmetic that cannot be avoided,
//! at the speed at which our own backend multiplied matrices of these sizes between the edits.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    Args,
    shell::{cargo, output_of, root, run, say, target_dir},
};

const SUBJECT: &str = "Danielle Darrieux";
const PROMPT: &str = "The mother tongue of Danielle Darrieux is";
const TARGET: &str = "English";

/// Given literally, so that both sides edit the same rows: as many and as long as the published sampler makes.
const CONTEXTS: &[&str] = &[
    "{}",
    "The first thing to. {}",
    "The city was built. {}",
    "Therefore, it is. {}",
    "Therefore, we can. {}",
    "Because of the rain. {}",
    "Because it was late. {}",
    "I have a friend. {}",
    "I was walking home. {}",
    "You can see that. {}",
    "You are not alone. {}",
    "The most important part of this question is how. {}",
    "The river that runs through the valley is very. {}",
    "Therefore, the number of people who live in. {}",
    "Therefore, you should always read the whole of. {}",
    "Because the house stood at the end of the. {}",
    "Because there are so many ways to look at. {}",
    "I do not know what to say about the. {}",
    "I think that the best way to learn is. {}",
    "You will find the answer in the second book. {}",
    "You may have heard of the old story about. {}",
];

/// Evaluations of the loss.
const STEPS: usize = 20;

/// `cargo xtask bench rome`.
pub fn bench(args: &mut Args) -> Result<()> {
    match args.word().as_deref() {
        Some("rome") => {}
        other => bail!("there is one benchmark, `bench rome`, not {:?}", other.unwrap_or("")),
    }
    let model = args.value("--model")?.map_or_else(|| root().join("static/models/demo-gpt2"), PathBuf::from);
    let repeats: usize = args.value("--repeats")?.map_or(Ok(5), |n| n.parse()).context("--repeats takes a number")?;
    args.done()?;
    let shape = Shape::read(&model)?;
    if output_of("python3", &["-c", "import torch, transformers"]).is_none() {
        bail!("the peer needs PyTorch: python3 -m pip install torch transformers");
    }
    run(cargo().args(["build", "--release", "--package", "rectify-tests", "--bin", "bench_rome"]))?;
    let mut ours = Side::start(Command::new(target_dir().join("release/bench_rome")).arg(&model))?;
    let mut peer = Side::start(Command::new("python3").arg(root().join("tools/peer/rome.py")).arg(&model))?;

    // First the same edit to its end on both sides: a faster one must not be another one.
    let layer = shape.layers / 3;
    say("the same edit on both sides");
    let real = job(layer, 0.5);
    let (answer, expected) = (ours.ask(&real)?, peer.ask(&real)?);
    let same = Same { ours: &answer, peer: &expected };

    // Then fixed steps: with so small a rate the loss never falls to where an edit stops early.
    let timed = job(layer, 1e-6);
    let rows = Rows::read(&expected)?;
    let sizes =
        json!({ "matmul": { "rows": rows.suffix, "inner": shape.width, "columns": shape.mlp, "seconds": 0.5 } });
    let (mut times, mut rates) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for repeat in 0..=repeats {
        say(format!("repetition {repeat} of {repeats}{}", if repeat == 0 { ", to warm up" } else { "" }));
        for (side, (times, rates)) in [&mut ours, &mut peer].into_iter().zip(times.iter_mut().zip(&mut rates)) {
            let rate = number(&side.ask(&sizes)?, "rate")?;
            let answer = side.ask(&timed)?;
            if number(&answer, "steps")? as usize != STEPS {
                bail!("stopped after {} of {STEPS} steps, so the times cannot be compared", answer["steps"]);
            }
            if repeat > 0 {
                rates.push(rate);
                times.push(number(&answer, "seconds")?);
            }
        }
    }
    report(&model, &shape, layer, &rows, &times, &rates, &same);
    Ok(())
}

fn job(layer: usize, v_lr: f64) -> Value {
    json!({
        "subject": SUBJECT, "prompt": PROMPT, "target_new": TARGET, "contexts": CONTEXTS, "layer": layer,
        "v_num_grad_steps": STEPS, "v_lr": v_lr, "v_weight_decay": 0.5, "clamp_norm_factor": 4.0, "kl_factor": 0.0625,
    })
}

/// A program that keeps the model loaded and answers jobs.
struct Side {
    child: Child,
    jobs: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Side {
    fn start(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let jobs = child.stdin.take().expect("stdin was piped");
        let answers = BufReader::new(child.stdout.take().expect("stdout was piped"));
        Ok(Self { child, jobs, answers })
    }

    fn ask(&mut self, job: &Value) -> Result<Value> {
        writeln!(self.jobs, "{job}").context("a side of the benchmark ended")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("a side of the benchmark ended or answered {line:?}"))
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // Gone already is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the arithmetic depends on.
struct Shape {
    layers: usize,
    width: usize,
    mlp: usize,
    vocab: usize,
    /// Weights of one block's matrices.
    block: usize,
}

impl Shape {
    fn read(model: &Path) -> Result<Self> {
        let text = fs::read_to_string(model.join("config.json"))
            .with_context(|| format!("{} is no folder with a Hugging Face model", model.display()))?;
        let config: Value = serde_json::from_str(&text).context("config.json is not JSON")?;
        let size = |name: &str| config[name].as_u64().map(|size| size as usize);
        let need = |name: &str| size(name).with_context(|| format!("config.json has no {name}"));
        let vocab = need("vocab_size")?;
        if let Some(width) = size("n_embd") {
            let mlp = size("n_inner").unwrap_or(4 * width);
            return Ok(Self {
                layers: need("n_layer")?,
                width,
                mlp,
                vocab,
                block: 4 * width * width + 2 * width * mlp,
            });
        }
        let (width, mlp, heads) = (need("hidden_size")?, need("intermediate_size")?, need("num_attention_heads")?);
        let head = size("head_dim").unwrap_or(width / heads);
        let (queries, keys) = (heads * head, size("num_key_value_heads").unwrap_or(heads) * head);
        let block = 2 * width * queries + 2 * width * keys + 3 * width * mlp;
        Ok(Self { layers: need("num_hidden_layers")?, width, mlp, vocab, block })
    }
}

/// How many tokens the edit is about.
struct Rows {
    /// Contexts and the row for the divergence.
    n: usize,
    /// In all rows.
    tokens: usize,
    /// From the subject's last token on, in all rows: the only positions that the optimisation can change.
    suffix: usize,
    /// The longest row, to which the peer pads.
    longest: usize,
    /// Positions whose logits the loss reads.
    scored: usize,
}

impl Rows {
    fn read(answer: &Value) -> Result<Self> {
        let list = |name: &str| {
            let list = answer[name].as_array().with_context(|| format!("the peer's answer has no {name}"))?;
            Ok::<_, anyhow::Error>(list.iter().filter_map(Value::as_u64).map(|n| n as usize).collect::<Vec<_>>())
        };
        let (mut lengths, at) = (list("lengths")?, list("at")?);
        let longest = lengths.iter().copied().max().context("the peer edits no rows")?;
        // What follows the bare subject in the last row cannot matter, so nobody needs to compute it.
        if let (Some(length), Some(at)) = (lengths.last_mut(), at.last()) {
            *length = at + 1;
        }
        Ok(Self {
            n: lengths.len(),
            tokens: lengths.iter().sum(),
            suffix: lengths.iter().zip(&at).map(|(length, at)| length - at).sum(),
            longest,
            scored: (lengths.len() - 1) * number(answer, "target_tokens")? as usize + 1,
        })
    }
}

/// Operations that no way of computing the same edit avoids: products of matrices; attention's own are left out.
fn floor(shape: &Shape, layer: usize, rows: &Rows) -> f64 {
    let upper = (shape.layers - layer - 1) * shape.block;
    let lower = (layer + 1) * shape.block;
    let passes = 2 * STEPS - 1; // a forward pass for each evaluation, a backward pass between two
    let each = rows.suffix * 2 * upper + rows.scored * 2 * shape.vocab * shape.width;
    let once = rows.tokens * 2 * lower + (rows.tokens - rows.suffix) * 2 * upper;
    (passes * each + once) as f64
}

/// The same for the published loop: every layer, every padded token, logits everywhere.
fn published(shape: &Shape, layer: usize, rows: &Rows) -> f64 {
    let padded = rows.n * rows.longest;
    let head = shape.vocab * shape.width;
    let forward = padded * 2 * (shape.layers * shape.block + head);
    let backward = padded * 2 * ((shape.layers - layer - 1) * shape.block + head);
    (STEPS * forward + (STEPS - 1) * backward) as f64
}

/// Whether both sides made the same edit.
struct Same<'a> {
    ours: &'a Value,
    peer: &'a Value,
}

fn report(
    model: &Path,
    shape: &Shape,
    layer: usize,
    rows: &Rows,
    times: &[Vec<f64>; 2],
    rates: &[Vec<f64>; 2],
    same: &Same<'_>,
) {
    let name = model.file_name().unwrap_or_default().to_string_lossy();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let [ours, peer] = times.each_ref().map(|times| median(times));
    let [our_rate, peer_rate] = rates.each_ref().map(|rates| median(rates));
    let (needed, spent) = (floor(shape, layer, rows), published(shape, layer, rows));
    let least = needed / our_rate;
    println!();
    println!(
        "ROME, one fact, {name}: {} layers of width {}, edited at {layer}; {} rows, {STEPS} evaluations, 32-bit floats, \
         {threads} processors",
        shape.layers, shape.width, rows.n
    );
    let all = |times: &[f64]| times.iter().map(|time| format!("{time:.2}")).collect::<Vec<_>>().join(" ");
    println!("  ours            {ours:9.3} s   of {}", all(&times[0]));
    println!("  peer (PyTorch)  {peer:9.3} s   of {}", all(&times[1]));
    println!(
        "  floor           {least:9.3} s   {:.1} GFLOP at {:.1} GFLOP/s, our product [{}, {}]·[{}, {}] and back",
        needed / 1e9,
        our_rate / 1e9,
        rows.suffix,
        shape.width,
        shape.width,
        shape.mlp
    );
    println!("  peer ÷ ours     {:9.2}     goal: at least 3", peer / ours);
    println!("  ours ÷ floor    {:9.2}     goal: at most 2", ours / least);
    println!();
    println!("  floor: (2K−1)·[s·2PU + (nT+1)·2Vd] + t·2P(ℓ+1) + (t−s)·2PU, with K = {STEPS} evaluations,");
    println!(
        "    s = {} tokens from the subject's last on, of t = {}; P = {} weights a block, U = {} blocks above ℓ = {layer},",
        rows.suffix,
        rows.tokens,
        shape.block,
        shape.layers - layer - 1
    );
    println!("    nT+1 = {} scored positions, V·d = {}·{}", rows.scored, shape.vocab, shape.width);
    println!(
        "  the published loop needs {:.1} GFLOP, {:.2} times the floor's; PyTorch multiplies at {:.1} GFLOP/s here",
        spent / 1e9,
        spent / needed,
        peer_rate / 1e9
    );
    let side = |side: &Value| {
        format!("{} evaluations, last loss {}, ‖ΔW‖ {}", side["steps"], side["loss"], side["delta_norm"])
    };
    println!("  the same edit, rate 0.5 and stopping when it may:");
    println!("    ours {}", side(same.ours));
    println!("    peer {}", side(same.peer));
}

fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

fn number(json: &Value, name: &str) -> Result<f64> {
    json[name].as_f64().with_context(|| format!("no {name} in {json}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_of_a_small_edit_counts_by_hand() {
        // Two blocks of ten weights, the first edited; two contexts of 5 tokens and a subject of 2.
        let shape = Shape { layers: 2, width: 1, mlp: 4, vocab: 3, block: 10 };
        let rows = Rows { n: 3, tokens: 12, suffix: 7, longest: 5, scored: 3 };
        let expected = 39 * (7 * 20 + 3 * 6) + 12 * 20 + 5 * 20;
        assert_eq!(floor(&shape, 0, &rows) as usize, expected);
    }

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
