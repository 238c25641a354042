//! `rectify trace`.

use std::{
    fmt::Write as _,
    io::Write,
    path::{Path, PathBuf},
};

use rectify_figures::trace::picture;
use rectify_protocol::{Command, Event, Failure, ModelInfo, Noise, TraceReport, TraceSpec};
use serde::Serialize;

use super::{Desk, Place, ask::read_delta, unexpected};
use crate::{
    device::DeviceKind,
    facts::EditSet,
    io,
    output::{self, OutDir},
};

const EXAMPLE: &str = "\
Example:
  rectify trace --model openai-community/gpt2 --prompt \"The Space Needle is in the city of\" \\
      --subject \"The Space Needle\" --out needle";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// A bundled model's id, a folder, or owner/name on the Hugging Face Hub
    #[arg(long)]
    model: String,
    /// The text whose next token is traced
    #[arg(long)]
    prompt: String,
    /// What becomes unrecognisable, exactly as it stands in the prompt
    #[arg(long)]
    subject: String,
    /// Corrupted runs, over which probabilities are averaged
    #[arg(long, default_value_t = TraceSpec::default().samples)]
    samples: usize,
    /// The noise's standard deviation: a number, or with an s in front so many of those that the embeddings have
    #[arg(long, default_value_t = TraceSpec::default().noise, value_name = "sN|NUMBER")]
    noise: Noise,
    /// Facts whose subjects' embeddings --noise sN is about. Default: the subject alone
    #[arg(long, value_name = "FILE")]
    facts: Option<PathBuf>,
    /// Neighbouring layers whose MLP's or attention's output is put back together
    #[arg(long, default_value_t = TraceSpec::default().window)]
    window: usize,
    /// Seeds the noise
    #[arg(long, default_value_t = TraceSpec::default().seed)]
    seed: u64,
    /// Apply this folder's delta.safetensors, or this file, before tracing
    #[arg(long, value_name = "DIR|FILE")]
    edits: Option<PathBuf>,
    /// Write trace.json and trace.svg into this folder
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
struct Document<'a> {
    schema: u32,
    program: &'a str,
    model: ModelInfo,
    applied: Option<&'a Path>,
    #[serde(flatten)]
    report: &'a TraceReport,
}

pub(super) fn run(args: &Args, place: &Place, out: &mut dyn Write) -> Result<(), Failure> {
    // Whatever is wrong with the input is said before a model is read.
    let spec = args.spec()?;
    let delta = args.edits.as_deref().map(read_delta).transpose()?;
    let folder = args.out.as_deref().map(|folder| OutDir::prepare(folder, output::Kind::Trace)).transpose()?;
    let mut desk = Desk::open(&args.model, place, args.device)?;
    if let Some((path, bytes)) = &delta {
        desk.session.apply_delta(&path.display().to_string(), bytes)?;
    }
    if io::ends_in_space(&args.prompt) {
        io::warn_of_space("the prompt");
    }
    let report = match desk.handle(Command::Trace(spec))? {
        Event::Traced(report) => *report,
        other => return Err(unexpected(&other)),
    };
    let document = Document {
        schema: 1,
        program: crate::PROGRAM,
        model: desk.info(),
        applied: args.edits.as_deref(),
        report: &report,
    };
    let json = io::to_json(&document)?;
    drop(desk);
    if let Some(folder) = folder {
        folder.write(output::TRACE, json.as_bytes())?;
        folder.write("trace.svg", picture(&report).as_bytes())?;
        folder.commit()?;
        io::say(&format!("written to {}", args.out.as_deref().unwrap_or(Path::new("")).display()));
    }
    io::print(out, &if args.json { json } else { table(&report) })
}

impl Args {
    fn spec(&self) -> Result<TraceSpec, Failure> {
        let subjects = match &self.facts {
            None => Vec::new(),
            Some(path) => {
                let text = io::read_text(path)?;
                let set = EditSet::read(&path.display().to_string(), &text)?;
                set.facts(0..set.len())?.into_iter().map(|fact| fact.subject).collect()
            }
        };
        let spec = TraceSpec {
            prompt: self.prompt.clone(),
            subject: self.subject.clone(),
            samples: self.samples,
            noise: self.noise,
            subjects,
            window: self.window,
            seed: self.seed,
        };
        spec.validate()?;
        Ok(spec)
    }
}

/// In each layer the token that brings back most.
fn table(report: &TraceReport) -> String {
    let TraceReport { spec, answer, high, low, sigma, .. } = report;
    let percent = |p: f64| format!("{:.2}%", p * 100.0);
    let mut text = format!("{} → {answer:?} {}\n", spec.prompt, percent(*high));
    let _ = writeln!(
        text,
        "{} with noise of deviation {sigma:.4} on {:?}, mean of {}\n\n\
         What one token's state brings back, where that is most; outputs of MLP and attention in windows of {} layers:\n",
        percent(*low),
        spec.subject,
        spec.samples,
        spec.window
    );
    let labels = report.labels();
    let widest = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0).max("attention".len());
    let heading = |(name, _)| format!("{:>8}  {name:<widest$}", "");
    let _ = writeln!(text, "layer{}", report.maps().map(heading).concat().trim_end());
    for layer in 0..report.states.first().map_or(0, Vec::len) {
        let best = |(_, map): (_, &[Vec<f64>])| {
            let best = map.iter().zip(&labels).max_by(|(a, _), (b, _)| a[layer].total_cmp(&b[layer]));
            best.map_or(String::new(), |(row, label)| format!("{:>8}  {label:<widest$}", percent(row[layer])))
        };
        let _ = writeln!(text, "{layer:>5}{}", report.maps().map(best).concat().trim_end());
    }
    let _ = writeln!(text, "\n* a token of the subject");
    text
}
