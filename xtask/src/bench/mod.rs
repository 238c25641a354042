//! `cargo xtask bench WHAT`: how fast we are beside what is published, from one run on one machine.
//!
//! *Ours* (`rectify-tests`' program `bench`) and the *peer* (PyTorch, `tools/peer/`) do the same work with the same
//! settings, in turns, so that whatever else the machine does meets both; and each benchmark first checks that both
//! come to the same result, because a faster one must not be another one. One file here is one benchmark.

mod card;
mod eval;
mod kn;
mod linalg;
mod memit;
mod rect;
mod rome;

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    Args,
    shell::{cargo, output_of, root, run, say, target_dir},
    test::packages,
};

/// A benchmark's name, its own options, and the function that runs it.
type Benchmark = (&'static str, &'static str, fn(Setting, &mut Args) -> Result<()>);

const BENCHMARKS: &[Benchmark] = &[
    ("rome", "", rome::bench),
    ("memit", "[--facts N] [--peer-facts N] [--steps N] [--from FILE]", memit::bench),
    ("linalg", "[--sizes D_MLP,…]", linalg::bench),
    ("kn", "[--facts N] [--from FILE]", kn::bench),
    ("rect", "[--large]", rect::bench),
    ("card", "[--shapes small,xl,7b] [--devices cuda,vulkan] [--tokenizer FILE]", card::bench),
    ("eval", "[--data DIR] [--tasks ID,…] [--limit N] [--slow-items N]", eval::bench),
];

/// `cargo xtask bench WHAT [--model DIR] [--repeats N] [--python PROGRAM] [--peer-threads N]
/// [--device NAME] [--precision f32|f16|int8] [--peer-device NAME] [--peer-type NAME] [--ours PROGRAM]`, and the benchmark's
/// own options.
pub fn bench(args: &mut Args) -> Result<()> {
    let name = args.word().unwrap_or_default();
    let Some((.., benchmark)) = BENCHMARKS.iter().find(|(known, ..)| *known == name) else {
        for (name, options, _) in BENCHMARKS {
            println!("cargo xtask bench {name} {options}");
        }
        bail!(
            "no benchmark {name:?}; there are the ones above, all with [--model DIR] [--repeats N] [--python PROGRAM] \
             [--peer-threads N] [--device NAME] [--precision f32|f16|int8] [--peer-device NAME] [--peer-type NAME] [--ours PROGRAM]"
        );
    };
    let model = args.value("--model")?.map_or_else(|| root().join("static/models/demo-gpt2"), PathBuf::from);
    let repeats = count(args, "--repeats")?.unwrap_or(5).max(1);
    let python = args.value("--python")?.or_else(|| env::var("PYTHON").ok()).unwrap_or_else(|| "python3".into());
    let peer_threads = count(args, "--peer-threads")?;
    let ours = Ours {
        program: args.value("--ours")?.map(PathBuf::from),
        device: args.value("--device")?.unwrap_or_else(|| "flex".into()),
        precision: args.value("--precision")?.unwrap_or_else(|| "f32".into()),
    };
    let peer = Peer {
        python,
        threads: peer_threads,
        device: args.value("--peer-device")?.unwrap_or_else(|| "cpu".into()),
        dtype: args.value("--peer-type")?.unwrap_or_else(|| "float32".into()),
    };
    benchmark(Setting { model, repeats, ours, peer }, args)
}

/// What every benchmark is told.
#[derive(Clone)]
struct Setting {
    /// A folder in the layout of Hugging Face.
    model: PathBuf,
    /// How often each side is timed, after once to warm up.
    repeats: usize,
    ours: Ours,
    peer: Peer,
}

/// Our side.
#[derive(Clone)]
struct Ours {
    /// The program `bench`; built when absent.
    program: Option<PathBuf>,
    /// What computes.
    device: String,
    /// How matrices are stored.
    precision: String,
}

/// The other side.
#[derive(Clone)]
struct Peer {
    /// The interpreter that has PyTorch.
    python: String,
    /// Threads of PyTorch's; one for each processor, as ours, when absent.
    threads: Option<usize>,
    /// What computes, and in which type, by PyTorch's names.
    device: String,
    dtype: String,
}

/// Takes an option that is a number.
fn count(args: &mut Args, name: &str) -> Result<Option<usize>> {
    let count = args.value(name)?.map(|n| n.parse()).transpose();
    count.with_context(|| format!("{name} takes a number"))
}

impl Ours {
    /// The program, built where none is named.
    fn program(&self) -> Result<PathBuf> {
        if let Some(program) = &self.program {
            return Ok(program.clone());
        }
        // The packages of `test` and `play`, so that nothing is compiled twice; what computes is optimised in this
        // profile too.
        let mut build = cargo();
        build.arg("build").args(packages()).args(["--bin", "bench"]);
        if self.device != "flex" {
            build.args(["--release", "--features", &format!("rectify-tests/{}", self.device)]);
        }
        run(&mut build)?;
        Ok(target_dir().join(if self.device == "flex" { "debug/bench" } else { "release/bench" }))
    }
}

/// Both sides, with the model loaded.
struct Sides {
    ours: Side,
    peer: Side,
    /// What our side says of the model.
    about: Value,
    /// For files that both read; removed at the end.
    folder: PathBuf,
    repeats: usize,
    title: String,
}

impl Sides {
    /// Builds our side and starts both.
    fn start(setting: &Setting) -> Result<Self> {
        let Setting { model, repeats, ours, peer } = setting;
        let python = &peer.python;
        if output_of(python, &["-c", "import torch, transformers"]).is_none() {
            bail!(
                "the peer needs PyTorch: {python} -m pip install torch transformers, or name another interpreter by \
                 --python or the variable PYTHON"
            );
        }
        let program = ours.program()?;
        let on = format!("{} in {}", ours.device, ours.precision);
        let mut ours = Side::start(Command::new(program).arg(model).args([&ours.device, &ours.precision]))?;
        let (threads, script) = (peer.threads, root().join("tools/peer/main.py"));
        let mut command = Command::new(python);
        command.arg(script).arg(model).args([&peer.device, &peer.dtype]).env("PYTHONDONTWRITEBYTECODE", "1");
        let mut peer = Side::start(&mut command)?;
        let about = ours.ask(&json!({ "job": "about" }))?;
        let theirs = peer.ask(&json!({ "job": "about", "threads": threads }))?;
        let folder = target_dir().join(format!("bench-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let name = model.file_name().unwrap_or_default().to_string_lossy();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let title = format!(
            "{name}; {} processors (load {} at the start), {} threads of ours ({on}), {} of the peer's ({}); {repeats} \
             runs each, in turns",
            std::thread::available_parallelism().map_or(1, usize::from),
            load.split(' ').next().unwrap_or_default(),
            about["threads"],
            theirs["threads"],
            theirs["name"].as_str().unwrap_or_default(),
        );
        Ok(Self { ours, peer, about, folder, repeats: *repeats, title })
    }

    /// A number of our side's model.
    fn shape(&self, name: &str) -> Result<usize> {
        Ok(number(&self.about, name)? as usize)
    }

    /// Times both sides in turns, after a run to warm up.
    fn time(&mut self, job: &Value) -> Result<(Times, Times)> {
        let (mut ours, mut peer) = (Times::default(), Times::default());
        for repeat in 0..=self.repeats {
            say(format!("repetition {repeat} of {}{}", self.repeats, if repeat == 0 { ", to warm up" } else { "" }));
            for (side, times) in [(&mut self.ours, &mut ours), (&mut self.peer, &mut peer)] {
                let answer = side.ask(job)?;
                if repeat > 0 {
                    times.take(&answer)?;
                }
            }
        }
        Ok((ours, peer))
    }
}

impl Drop for Sides {
    fn drop(&mut self) {
        // What cannot be removed is in the folder of things to be built again.
        let _ = fs::remove_dir_all(&self.folder);
    }
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

    /// Answers a job. Where `seconds` are told, `processor` is what of them was spent computing, over all threads.
    fn ask(&mut self, job: &Value) -> Result<Value> {
        let (started, computed) = (Instant::now(), self.computed());
        writeln!(self.jobs, "{job}").context("a side of the benchmark ended")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let share = (self.computed() - computed) / started.elapsed().as_secs_f64();
        let mut answer: Value = serde_json::from_str(&line)
            .with_context(|| format!("a side of the benchmark ended or answered {line:?}"))?;
        if let Some(seconds) = answer["seconds"].as_f64() {
            answer["processor"] = json!(seconds * share);
        }
        Ok(answer)
    }

    /// Seconds that its threads have computed; not a number where the system does not say.
    fn computed(&self) -> f64 {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.child.id())) else { return f64::NAN };
        let nanoseconds = |folder: PathBuf| -> Option<f64> {
            fs::read_to_string(folder.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
        };
        threads.filter_map(|thread| nanoseconds(thread.ok()?.path())).sum::<f64>() / 1e9
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // Gone already is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds of repeated runs.
#[derive(Clone, Default)]
struct Times {
    /// By the clock.
    clock: Vec<f64>,
    /// Spent computing, over all threads: what hardly depends on what else the machine does.
    processor: Vec<f64>,
}

impl Times {
    /// One that was timed once or computed.
    fn once(seconds: f64) -> Self {
        Self { clock: vec![seconds], processor: vec![f64::NAN] }
    }

    /// Takes the times of an answer.
    fn take(&mut self, answer: &Value) -> Result<()> {
        self.push(number(answer, "seconds")?, answer["processor"].as_f64().unwrap_or(f64::NAN));
        Ok(())
    }

    fn push(&mut self, clock: f64, processor: f64) {
        self.clock.push(clock);
        self.processor.push(processor);
    }

    fn median(&self) -> f64 {
        median(&self.clock)
    }

    /// A line of a report: the median, and between which times it lies.
    fn line(&self, name: &str) -> String {
        let most = self.clock.iter().copied().fold(f64::NAN, f64::max);
        let least = self.clock.iter().copied().fold(f64::NAN, f64::min);
        let (scale, unit) = if self.median() < 0.1 { (1e3, "ms") } else { (1.0, "s ") };
        let [middle, least, most] = [self.median(), least, most].map(|seconds| seconds * scale);
        let mut line = format!("  {name:<22} {middle:10.3} {unit}   {least:.3} to {most:.3}");
        let processor = median(&self.processor);
        if processor.is_finite() {
            line += &format!("; {:.3} of processors", processor * scale);
        }
        line
    }
}

/// A line of a report: by how much ours is faster, and what it should be.
fn goal(name: &str, peer: &Times, ours: &Times, least: f64) -> String {
    let ratio = peer.median() / ours.median();
    let met = if ratio >= least { "met" } else { "missed" };
    let mut line = format!("  {name:<22} {ratio:10.2}      goal: at least {least}, {met}");
    let by_processor = median(&peer.processor) / median(&ours.processor);
    if by_processor.is_finite() {
        line += &format!("; {by_processor:.2} by processor time");
    }
    line
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

fn numbers(json: &Value, name: &str) -> Result<Vec<f64>> {
    let list = json[name].as_array().with_context(|| format!("no {name} in {json}"))?;
    Ok(list.iter().filter_map(Value::as_f64).collect())
}

/// `‖a − b‖ / ‖b‖`
fn difference(a: &[f64], b: &[f64]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    let length = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    length(&mut a.iter().zip(b).map(|(a, b)| a - b)) / length(&mut b.iter().copied())
}

/// Six contexts, as many and as long as MEMIT's published sampler makes.
const SIX_CONTEXTS: &[&str] = &[
    "{}",
    "The most important part of this question is how. {}",
    "Therefore, the number of people who live in. {}",
    "Because the house stood at the end of the. {}",
    "I do not know what to say about the. {}",
    "You will find the answer in the second book. {}",
];

/// Settings of a loop that looks for a value.
fn value(contexts: &[&str], steps: usize, v_lr: f64, clamp_norm_factor: f64) -> Value {
    json!({
        "v_num_grad_steps": steps, "v_lr": v_lr, "v_weight_decay": 0.5, "clamp_norm_factor": clamp_norm_factor,
        "kl_factor": 0.0625, "contexts": { "given": contexts },
    })
}

/// With so small a rate the loss never falls to where a search stops early, so that all steps are run.
const NO_RATE: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn a_difference_is_relative() {
        assert_eq!(difference(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
        assert_eq!(difference(&[3.0, 9.0], &[3.0, 4.0]), 1.0);
        assert_eq!(difference(&[3.0], &[3.0, 4.0]), f64::INFINITY);
    }

    #[test]
    fn a_line_has_the_median_and_the_extremes() {
        let times = Times { clock: vec![0.2, 0.1, 0.4], processor: vec![f64::NAN; 3] };
        assert_eq!(times.line("ours"), "  ours                        0.200 s    0.100 to 0.400");
    }
}
