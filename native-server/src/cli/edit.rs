//! `rectify edit`.

use std::{
    fmt::Write as _,
    io::Write,
    ops::Range,
    path::{Path, PathBuf},
};

use rectify_protocol::{Command, EditReport, EditSpec, EditorSpec, Event, Fact, FactReport, Failure, ModelInfo};
use serde::Serialize;

use super::{
    Desk,
    settings::{Settings, index},
    unexpected,
};
use crate::{
    device::{DeviceKind, unknown},
    facts::EditSet,
    io,
    output::{self, OutDir},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A bundled model's id or a folder
    #[arg(long)]
    model: String,
    /// An edit set: zsRE, CounterFact (either form), KnowEdit or Rectify's own JSON
    #[arg(long, value_name = "FILE")]
    facts: PathBuf,
    /// Which records, from 0: a number or a half-open range such as 0..3. Default: all
    #[arg(long, value_parser = index, value_name = "N|N..M", allow_hyphen_values = true)]
    index: Option<Range<usize>>,
    #[command(flatten)]
    settings: Settings,
    /// single (each fact from the untouched model), sequential (one on top of the other) or batch (all in one edit)
    #[arg(long, default_value = "single")]
    mode: Mode,
    /// flex (the CPU), vulkan or cuda
    #[arg(long, default_value = "flex")]
    device: DeviceKind,
    /// Write report.json and delta.safetensors into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// How several facts meet one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Single,
    Sequential,
    Batch,
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "single" => Ok(Self::Single),
            "sequential" => Ok(Self::Sequential),
            "batch" => Ok(Self::Batch),
            _ => Err(unknown("mode", text, &["single", "sequential", "batch"])),
        }
    }
}

/// `report.json`, and what `--json` prints.
#[derive(Serialize)]
struct Document {
    /// Version of this shape.
    schema: u32,
    /// The command in full: enough to run it again.
    command: Ran,
    model: ModelInfo,
    /// Each editing operation with its facts right after it.
    operations: Vec<EditReport>,
    /// Sequential mode: every fact once more, of the model that carries all edits.
    #[serde(skip_serializing_if = "Option::is_none")]
    final_measure: Option<Vec<FactReport>>,
    /// Means over the operations' facts.
    summary: Summary,
    /// Means over `final_measure`.
    #[serde(skip_serializing_if = "Option::is_none")]
    final_summary: Option<Summary>,
}

#[derive(Serialize)]
struct Ran {
    program: String,
    facts: PathBuf,
    /// The format the file was taken for.
    format: &'static str,
    /// The records that were edited: from the first, to before the second.
    index: [usize; 2],
    mode: Mode,
    covariance: Option<PathBuf>,
    spec: EditSpec,
    device: &'static str,
}

/// Means over facts; a score that no fact has is absent.
#[derive(Serialize)]
struct Summary {
    n: usize,
    reliability: Option<f64>,
    generalization: Option<f64>,
    locality: Option<f64>,
    /// Of editing alone, without measuring.
    seconds: f64,
}

pub(super) fn run(args: &Args, statics: Option<&Path>, out: &mut dyn Write) -> Result<(), Failure> {
    // Whatever is wrong with the input is said before a model is read.
    let (spec, covariance) = args.settings.spec()?;
    let text = io::read_text(&args.facts)?;
    let set = EditSet::read(&args.facts.display().to_string(), &text)?;
    let range = args.index.clone().unwrap_or(0..set.len());
    let facts = set.facts(range.clone())?;
    let folder = args.out.as_deref().map(|folder| OutDir::prepare(folder, output::Kind::Edit)).transpose()?;

    let mut desk = Desk::open(&args.model, statics, args.device)?;
    let spec = fill(&desk, spec);
    if let Some(folder) = &covariance {
        add_moments(&mut desk, folder, &spec)?;
    }
    let mut job = Job { desk, spec: spec.clone(), first: range.start, folder };
    let operations = match args.mode {
        Mode::Single => job.single(&facts)?,
        Mode::Sequential => job.sequential(&facts)?,
        Mode::Batch => job.batch(&facts)?,
    };
    let final_measure = (args.mode == Mode::Sequential).then(|| job.measure(facts)).transpose()?;

    let seconds = operations.iter().map(|operation| operation.seconds).sum();
    let document = Document {
        schema: EditReport::SCHEMA,
        command: Ran {
            program: format!("rectify {}", env!("CARGO_PKG_VERSION")),
            facts: args.facts.clone(),
            format: set.format.name(),
            index: [range.start, range.end],
            mode: args.mode,
            covariance,
            spec,
            device: args.device.name(),
        },
        model: job.desk.info(),
        summary: summarize(operations.iter().flat_map(|operation| &operation.facts), seconds),
        final_summary: final_measure.as_ref().map(|facts| summarize(facts, seconds)),
        operations,
        final_measure,
    };
    let json = io::to_json(&document)?;
    if let Some(folder) = job.folder.take() {
        folder.write(output::REPORT, json.as_bytes())?;
        folder.commit()?;
    }
    drop(job); // Takes the progress line away before anything is printed.
    io::print(out, &if args.json { json } else { table(&document) })
}

/// The settings with the layer filled in.
fn fill(desk: &Desk, mut spec: EditSpec) -> EditSpec {
    let layer = desk.info().default_layer;
    let EditorSpec::Rome(rome) = &mut spec.editor;
    rome.layers.get_or_insert_with(|| vec![layer]);
    spec
}

fn add_moments(desk: &mut Desk, folder: &Path, spec: &EditSpec) -> Result<(), Failure> {
    let EditorSpec::Rome(rome) = &spec.editor;
    for &layer in rome.layers.iter().flatten() {
        let path = folder.join(format!("moment.{layer}.safetensors"));
        let bytes = io::map(&path)?;
        for warning in desk.session.add_moment(layer, &path.display().to_string(), &bytes)? {
            io::warn(&warning);
        }
    }
    Ok(())
}

/// Facts on their way into a model.
struct Job {
    desk: Desk,
    spec: EditSpec,
    /// The first fact's place in its file.
    first: usize,
    folder: Option<OutDir>,
}

impl Job {
    /// Each fact from the untouched model, with a delta of its own.
    fn single(&mut self, facts: &[Fact]) -> Result<Vec<EditReport>, Failure> {
        let mut operations = Vec::new();
        for (i, fact) in facts.iter().enumerate() {
            operations.push(self.edit_one(i, facts.len(), fact)?);
            let name = match facts.len() {
                1 => "delta.safetensors".into(),
                _ => format!("delta.{}.safetensors", self.first + i),
            };
            self.save(&name)?;
            match self.desk.handle(Command::Undo)? {
                Event::Undone { edits: 0 } => {}
                other => return Err(unexpected(&other)),
            }
        }
        Ok(operations)
    }

    /// One on top of the other, and one delta of all.
    fn sequential(&mut self, facts: &[Fact]) -> Result<Vec<EditReport>, Failure> {
        let edit = |(i, fact)| self.edit_one(i, facts.len(), fact);
        let operations = facts.iter().enumerate().map(edit).collect::<Result<_, _>>()?;
        self.save("delta.safetensors")?;
        Ok(operations)
    }

    /// All facts in one operation.
    fn batch(&mut self, facts: &[Fact]) -> Result<Vec<EditReport>, Failure> {
        let report = self.edit(facts.to_vec())?;
        self.save("delta.safetensors")?;
        Ok(vec![report])
    }

    fn edit_one(&mut self, i: usize, n: usize, fact: &Fact) -> Result<EditReport, Failure> {
        self.desk.line.about(&format!("fact {} of {n}", i + 1));
        let record = self.first + i;
        self.edit(vec![fact.clone()])
            .map_err(|failure| Failure { message: format!("record {record}: {failure}"), ..failure })
    }

    fn edit(&mut self, facts: Vec<Fact>) -> Result<EditReport, Failure> {
        match self.desk.handle(Command::Edit { facts, spec: self.spec.clone() })? {
            Event::Edited(report) => Ok(report),
            other => Err(unexpected(&other)),
        }
    }

    fn measure(&mut self, facts: Vec<Fact>) -> Result<Vec<FactReport>, Failure> {
        self.desk.line.about("all edits");
        match self.desk.handle(Command::Measure { facts })? {
            Event::Measured(facts) => Ok(facts),
            other => Err(unexpected(&other)),
        }
    }

    fn save(&self, name: &str) -> Result<(), Failure> {
        let Some(folder) = &self.folder else { return Ok(()) };
        folder.write(name, &self.desk.export()?)
    }
}

fn summarize<'a>(facts: impl IntoIterator<Item = &'a FactReport>, seconds: f64) -> Summary {
    let facts: Vec<&FactReport> = facts.into_iter().collect();
    let mean = |score: fn(&FactReport) -> Option<f64>| {
        let scores: Vec<f64> = facts.iter().filter_map(|fact| score(fact)).collect();
        (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
    };
    Summary {
        n: facts.len(),
        reliability: mean(|fact| Some(fact.reliability)),
        generalization: mean(|fact| fact.generalization),
        locality: mean(|fact| fact.locality),
        seconds,
    }
}

fn table(document: &Document) -> String {
    let mut text = String::new();
    for operation in &document.operations {
        operation.facts.iter().for_each(|fact| describe_fact(&mut text, fact));
        let _ = writeln!(
            text,
            "  {} steps in {:.2} s, ‖ΔW‖ {:.3}, {} entries changed",
            operation.steps, operation.seconds, operation.delta_norm, operation.kept
        );
        for note in &operation.notes {
            let _ = writeln!(text, "  note: {note}");
        }
        text.push('\n');
    }
    if let Some(facts) = &document.final_measure {
        text.push_str("With all edits in place:\n\n");
        facts.iter().for_each(|fact| describe_fact(&mut text, fact));
        text.push('\n');
    }
    describe_summary(&mut text, "right after each edit", &document.summary);
    if let Some(summary) = &document.final_summary {
        describe_summary(&mut text, "with all edits", summary);
    }
    text
}

fn describe_fact(text: &mut String, fact: &FactReport) {
    let top = |measure: &rectify_protocol::Measure| {
        let tokens = measure.top.iter().take(3).map(|token| format!("{:?} {:.1} %", token.0, token.1 * 100.0));
        tokens.collect::<Vec<_>>().join(", ")
    };
    let _ = writeln!(text, "{} → {}", fact.prompt, fact.target_new);
    let _ = writeln!(text, "  before  {}", top(&fact.before));
    let _ = writeln!(text, "  after   {}", top(&fact.after));
    let _ = writeln!(text, "  p(new)  {:.4} → {:.4}", fact.before.p_new, fact.after.p_new);
    let _ = writeln!(
        text,
        "  reliability {}   generalization {}   locality {}",
        score(Some(fact.reliability)),
        score(fact.generalization),
        score(fact.locality)
    );
}

fn describe_summary(text: &mut String, when: &str, summary: &Summary) {
    let _ = writeln!(
        text,
        "{} facts, {when}: reliability {}, generalization {}, locality {} ({:.2} s of editing)",
        summary.n,
        score(summary.reliability),
        score(summary.generalization),
        score(summary.locality),
        summary.seconds
    );
}

fn score(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), |value| format!("{value:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(reliability: f64, locality: Option<f64>) -> FactReport {
        let measure = rectify_protocol::Measure { p_new: 0.5, p_true: None, top: vec![], text: String::new() };
        FactReport {
            subject: "Ada".into(),
            prompt: "Ada is".into(),
            target_new: "x".into(),
            target_true: None,
            before: measure.clone(),
            after: measure,
            reliability,
            generalization: None,
            locality,
            paraphrases: vec![],
            neighbors: vec![],
        }
    }

    #[test]
    fn a_mean_is_over_the_facts_that_have_the_score() {
        let summary = summarize(&[fact(1.0, None), fact(0.5, Some(0.8)), fact(0.0, Some(0.4))], 2.0);
        assert_eq!(summary.reliability, Some(0.5));
        assert_eq!(summary.generalization, None);
        assert!((summary.locality.unwrap() - 0.6).abs() < 1e-12);
        assert_eq!(summary.n, 3);
    }

    #[test]
    fn a_score_that_does_not_exist_is_a_dash() {
        let mut text = String::new();
        describe_fact(&mut text, &fact(1.0, None));
        assert!(text.contains("reliability 1.000   generalization –   locality –"), "{text}");
    }
}
