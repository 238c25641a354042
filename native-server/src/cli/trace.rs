//! `rectify trace`.

use std::{
    fmt::Write as _,
    io::Write,
    ops::Range,
    path::{Path, PathBuf},
};

use rectify_core::trace::sigma;
use rectify_figures::trace;
use rectify_protocol::{Command, Event, Fact, Failure, ModelInfo, Noise, TraceAverage, TraceReport, TraceSpec};
use serde::Serialize;

use super::{Desk, Place, ask::read_delta, settings::index, unexpected};
use crate::{
    device::DeviceKind,
    facts::EditSet,
    io,
    output::{self, OutDir},
};

const EXAMPLES: &str = "\
Examples:
  rectify trace --model openai-community/gpt2 --prompt \"The Space Needle is in the city of\" \\
      --subject \"The Space Needle\" --out needle
  rectify trace --model demo-gpt2 --facts static/facts/demo_counterfact.json --window 3 --out average";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// A bundled model's id, a folder, or owner/name on the Hugging Face Hub
    #[arg(long)]
    model: String,
    /// The text whose next token is traced
    #[arg(long, requires = "subject", required_unless_present = "facts")]
    prompt: Option<String>,
    /// What becomes unrecognisable, exactly as it stands in the prompt
    #[arg(long, requires = "prompt")]
    subject: Option<String>,
    /// Facts whose subjects' embeddings --noise sN is about; without --prompt, the mean is taken over those of them whose
    /// true object the model says
    #[arg(long, value_name = "FILE")]
    facts: Option<PathBuf>,
    /// Which of these facts, from 0: a number or a half-open range such as 0..3. Default: all
    #[arg(long, value_parser = index, value_name = "N|N..M", allow_hyphen_values = true, requires = "facts")]
    index: Option<Range<usize>>,
    /// Corrupted runs, over which probabilities are averaged; 10 are published and few: a mean over 100 and more moves less. At most 1000, and 4096 tokens in all
    #[arg(long, default_value_t = TraceSpec::default().samples)]
    samples: usize,
    /// The noise's standard deviation: a number, or with an s in front so many of those that the embeddings have
    #[arg(long, default_value_t = TraceSpec::default().noise, value_name = "sN|NUMBER")]
    noise: Noise,
    /// Neighbouring layers whose MLP's or attention's output is put back together
    #[arg(long, default_value_t = TraceSpec::default().window)]
    window: usize,
    /// Seeds the noise
    #[arg(long, default_value_t = TraceSpec::default().seed)]
    seed: u64,
    /// Apply this folder's delta.safetensors, or this file, before tracing
    #[arg(long, value_name = "DIR|FILE")]
    edits: Option<PathBuf>,
    /// Write trace.json and trace.svg into this folder, and of several facts traces.jsonl
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// cpu, gpu (the best card this program was built for), auto (gpu or else cpu), wgpu, vulkan or cuda
    #[arg(long, default_value = "cpu")]
    device: DeviceKind,
    /// Print one JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// What `--json` prints, and `trace.json` holds.
#[derive(Serialize)]
struct Document<'a, Found> {
    schema: u32,
    program: &'a str,
    model: ModelInfo,
    applied: Option<&'a Path>,
    #[serde(flatten)]
    found: Found,
}

/// What was found of several facts.
#[derive(Serialize)]
struct Average {
    /// The settings, without a prompt and the facts' subjects.
    spec: TraceSpec,
    sigma: f64,
    /// The file, and the records in it that were looked at and traced.
    file: PathBuf,
    index: [usize; 2],
    records: Vec<usize>,
    #[serde(flatten)]
    average: TraceAverage,
}

/// A line of `traces.jsonl`.
#[derive(Serialize)]
struct Line<'a> {
    record: usize,
    #[serde(flatten)]
    report: &'a TraceReport,
}

pub(super) fn run(args: &Args, place: &Place, out: &mut dyn Write) -> Result<(), Failure> {
    // Whatever is wrong with the input is said before a model is read.
    let (range, facts) = args.facts()?;
    let subjects = facts.iter().map(|fact| fact.subject.clone()).collect();
    let spec = TraceSpec {
        prompt: args.prompt.clone().unwrap_or_default(),
        subject: args.subject.clone().unwrap_or_default(),
        samples: args.samples,
        noise: args.noise,
        subjects,
        window: args.window,
        seed: args.seed,
    };
    let alone = args.prompt.is_some();
    if alone { spec.clone() } else { of_fact(&spec, &facts[0]) }.validate()?;
    let delta = args.edits.as_deref().map(read_delta).transpose()?;
    let folder = args.out.as_deref().map(|folder| OutDir::prepare(folder, output::Kind::Trace)).transpose()?;
    let mut desk = Desk::open(&args.model, place, args.device)?;
    if let Some((path, bytes)) = &delta {
        desk.session.apply_delta(&path.display().to_string(), bytes)?;
    }
    let job = Job { args, desk, spec, folder };
    if alone { job.one(out) } else { job.several(range.start, &facts, out) }
}

impl Args {
    /// The facts of the file, and which they are.
    fn facts(&self) -> Result<(Range<usize>, Vec<Fact>), Failure> {
        let Some(path) = &self.facts else { return Ok((0..0, Vec::new())) };
        let text = io::read_text(path)?;
        let set = EditSet::read(&path.display().to_string(), &text)?;
        let range = self.index.clone().unwrap_or(0..set.len());
        Ok((range.clone(), set.facts(range)?))
    }
}

/// What is traced, with everything that takes.
struct Job<'a> {
    args: &'a Args,
    desk: Desk,
    spec: TraceSpec,
    folder: Option<OutDir>,
}

impl Job<'_> {
    /// The prompt.
    fn one(mut self, out: &mut dyn Write) -> Result<(), Failure> {
        if io::ends_in_space(&self.spec.prompt) {
            io::warn_of_space("the prompt");
        }
        let report = traced(&mut self.desk, self.spec.clone())?;
        self.finish(&report, &trace::picture(&report), &said_of_one(&report), out)
    }

    /// The facts that the model knows, of which the first is the file's record `first`.
    fn several(mut self, first: usize, facts: &[Fact], out: &mut dyn Write) -> Result<(), Failure> {
        let (of, model) = self.desk.session.loaded().zip(self.desk.session.model()).expect("a desk opens with a model");
        let sigma = self.desk.drive(sigma(model, &of.tokenizer, &self.spec))?;
        let spec = TraceSpec { subjects: Vec::new(), ..self.spec.clone() };
        let (records, reports) =
            known(&mut self.desk, &TraceSpec { noise: Noise::Sigma(sigma), ..spec.clone() }, first, facts)?;
        let found = Average {
            spec,
            sigma,
            file: self.args.facts.clone().unwrap_or_default(),
            index: [first, first + facts.len()],
            records,
            average: TraceAverage::of(&reports),
        };
        if let Some(folder) = &self.folder {
            let line = |(record, report): (&usize, _)| serde_json::to_string(&Line { record: *record, report });
            let lines: Result<Vec<String>, _> = found.records.iter().zip(&reports).map(line).collect();
            let lines = lines.map_err(|error| io::internal(format!("cannot write JSON: {error}")))?;
            folder.write("traces.jsonl", (lines.join("\n") + "\n").as_bytes())?;
        }
        let picture = trace::average(&found.average, self.spec.window);
        self.finish(&found, &picture, &said_of_several(&found, facts.len()), out)
    }

    /// Writes what was found where it is wanted.
    fn finish(self, found: &impl Serialize, picture: &str, said: &str, out: &mut dyn Write) -> Result<(), Failure> {
        let Self { args, desk, folder, .. } = self;
        let applied = args.edits.as_deref();
        let json = io::to_json(&Document { schema: 1, program: crate::PROGRAM, model: desk.info(), applied, found })?;
        drop(desk);
        if let Some((folder, path)) = folder.zip(args.out.as_deref()) {
            folder.write(output::TRACE, json.as_bytes())?;
            folder.write("trace.svg", picture.as_bytes())?;
            folder.commit()?;
            io::say(&format!("written to {}", path.display()));
        }
        io::print(out, if args.json { &json } else { said })
    }
}

fn of_fact(spec: &TraceSpec, fact: &Fact) -> TraceSpec {
    TraceSpec { prompt: fact.prompt.clone(), subject: fact.subject.clone(), ..spec.clone() }
}

fn traced(desk: &mut Desk, spec: TraceSpec) -> Result<TraceReport, Failure> {
    match desk.handle(Command::Trace(spec))? {
        Event::Traced(report) => Ok(*report),
        other => Err(unexpected(&other)),
    }
}

/// The traces of those facts whose true object the model says, with the numbers of their records; the first fact's is
/// `first`.
fn known(
    desk: &mut Desk,
    spec: &TraceSpec,
    first: usize,
    facts: &[Fact],
) -> Result<(Vec<usize>, Vec<TraceReport>), Failure> {
    let (mut records, mut reports) = (Vec::new(), Vec::new());
    for (i, fact) in facts.iter().enumerate() {
        let record = first + i;
        desk.line.about(&format!("fact {} of {}", i + 1, facts.len()));
        let at = |failure: Failure| failure.at(format_args!("record {record}"));
        if !says_the_true_object(desk, fact).map_err(at)? {
            continue;
        }
        reports.push(traced(desk, of_fact(spec, fact)).map_err(at)?);
        records.push(record);
    }
    if reports.is_empty() {
        let n = facts.len();
        return Err(Failure::bad_input(format!("the model says the true object of none of the {n} facts")));
    }
    Ok((records, reports))
}

/// Whether the likeliest next token begins the object that is true.
fn says_the_true_object(desk: &mut Desk, fact: &Fact) -> Result<bool, Failure> {
    let Some(object) = &fact.target_true else { return Ok(false) };
    match desk.handle(Command::Ask { prompt: fact.prompt.clone(), tokens: 0, top: 1 })? {
        Event::Answered(answer) => Ok(answer.top.first().is_some_and(|candidate| {
            let said = candidate.0.trim_start();
            !said.is_empty() && object.trim_start().starts_with(said)
        })),
        other => Err(unexpected(&other)),
    }
}

fn percent(p: f64) -> String {
    format!("{:.2}%", p * 100.0)
}

fn said_of_one(report: &TraceReport) -> String {
    let TraceReport { spec, answer, high, low, sigma, .. } = report;
    format!(
        "{} → {answer:?} {}\n{} with noise of deviation {sigma:.4} on {:?}, mean of {}\n\n{}\n* a token of the subject\n",
        spec.prompt,
        percent(*high),
        percent(*low),
        spec.subject,
        spec.samples,
        table(&report.labels(), &report.maps(), spec.window)
    )
}

fn said_of_several(found: &Average, of: usize) -> String {
    let Average { average, spec, sigma, .. } = found;
    let TraceAverage { facts, high, low, rows, .. } = average;
    format!(
        "{facts} of {of} facts, whose true object the model says: {}\n\
         {} with noise of deviation {sigma:.4} on their subjects, mean of {}\n\n{}",
        percent(*high),
        percent(*low),
        spec.samples,
        table(rows, &average.maps(), spec.window)
    )
}

/// In each layer the token that brings back most.
fn table(labels: &[String], maps: &[(&str, &[Vec<f64>]); 3], window: usize) -> String {
    let widest = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0).max("attention".len());
    let headings: String = maps.iter().map(|(name, _)| format!("{:>8}  {name:<widest$}", "")).collect();
    let mut text = format!(
        "What one token's state brings back, where that is most; outputs of MLP and attention in windows of {window} \
         layers:\n\nlayer{}\n",
        headings.trim_end()
    );
    for layer in 0..maps[0].1.first().map_or(0, Vec::len) {
        let best = |(_, map): &(&str, &[Vec<f64>])| {
            let best = map.iter().zip(labels).max_by(|(a, _), (b, _)| a[layer].total_cmp(&b[layer]));
            best.map_or(String::new(), |(row, label)| format!("{:>8}  {label:<widest$}", percent(row[layer])))
        };
        let best: String = maps.iter().map(best).collect();
        let _ = writeln!(text, "{layer:>5}{}", best.trim_end());
    }
    text
}
