//! `rectify edit`.

use std::{
    fmt::Write as _,
    io::Write,
    ops::Range,
    path::{Path, PathBuf},
};

use rectify_core::edit::moments::Moment;
use rectify_protocol::{
    Command, EditMode, EditReport, EditSpec, EditorSpec, Event, Fact, FactReport, Failure, ProbabilityMeans,
    RunCommand, RunReport, Summary, WeightChange, unknown,
};

use super::{
    Desk,
    settings::{Covariance, Settings, index},
    unexpected,
};
use crate::{
    device::DeviceKind,
    facts::EditSet,
    io,
    models::moment_file,
    output::{self, OutDir},
    progress::Line,
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
    #[arg(long, default_value = "single", value_parser = mode)]
    mode: EditMode,
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

fn mode(text: &str) -> Result<EditMode, String> {
    text.parse().map_err(|()| unknown("mode", text, EditMode::NAMES))
}

pub(super) fn run(args: &Args, statics: Option<&Path>, out: &mut dyn Write) -> Result<(), Failure> {
    // Whatever is wrong with the input is said before a model is read.
    args.settings.check()?;
    let text = io::read_text(&args.facts)?;
    let set = EditSet::read(&args.facts.display().to_string(), &text)?;
    let range = args.index.clone().unwrap_or(0..set.len());
    let facts = set.facts(range.clone())?;
    let folder = args.out.as_deref().map(|folder| OutDir::prepare(folder, output::Kind::Edit)).transpose()?;

    let mut desk = Desk::open(&args.model, statics, args.device)?;
    let spec = args.settings.spec(&desk.info().editors)?;
    add_moments(&mut desk, args.settings.covariance(), &spec.editor)?;
    if let Some(path) = &args.settings.hypernetwork {
        desk.session.add_hypernetwork(&path.display().to_string(), &io::map(path)?)?;
    }
    let mut job = Job { desk, spec: spec.clone(), first: range.start, folder };
    let operations = match args.mode {
        EditMode::Single => job.single(&facts)?,
        EditMode::Sequential => job.sequential(&facts)?,
        EditMode::Batch => job.batch(&facts)?,
    };
    let sequential = args.mode == EditMode::Sequential;
    let final_measure = sequential.then(|| job.measure(facts)).transpose()?;
    let final_weights = sequential.then(|| job.changes()).transpose()?;

    let seconds = operations.iter().map(|operation| operation.seconds).sum();
    let document = RunReport {
        schema: RunReport::SCHEMA,
        command: RunCommand {
            program: super::program(),
            facts: args.facts.display().to_string(),
            format: set.format.name().into(),
            index: [range.start, range.end],
            mode: args.mode,
            covariance: match args.settings.covariance() {
                Covariance::Folder(folder) => Some(folder.display().to_string()),
                Covariance::Identity => Some("identity".into()),
                Covariance::Bundled | Covariance::None => None,
            },
            spec,
            device: args.device.name().into(),
        },
        model: job.desk.info(),
        summary: Summary::of(operations.iter().flat_map(|operation| &operation.facts), seconds),
        final_summary: final_measure.as_ref().map(|facts| Summary::of(facts, seconds)),
        operations,
        final_measure,
        final_weights,
    };
    let json = io::to_json(&document)?;
    if let Some(folder) = job.folder.take() {
        folder.write(output::REPORT, json.as_bytes())?;
        folder.commit()?;
    }
    drop(job); // Takes the progress line away before anything is printed.
    io::print(out, &if args.json { json } else { table(&document) })
}

/// Hands the session the second moments that the editor needs, each with its factor, which is kept beside it.
pub(super) fn add_moments(desk: &mut Desk, from: Covariance<'_>, editor: &EditorSpec) -> Result<(), Failure> {
    if !editor.needs_moments() {
        return Ok(());
    }
    for &layer in editor.layers().unwrap_or_default() {
        match from {
            Covariance::Bundled | Covariance::None => {}
            Covariance::Identity => desk.session.approximate_moment(layer)?,
            Covariance::Folder(folder) => {
                let path = folder.join(moment_file(layer));
                let bytes = io::map(&path)?;
                for warning in desk.session.add_moment(layer, &path.display().to_string(), &bytes)? {
                    io::warn(&warning);
                }
                let moment = desk.session.moment(layer).expect("just added");
                keep_factor(moment, &folder.join(format!("factor.{layer}.safetensors")), &mut desk.line)?;
            }
        }
    }
    Ok(())
}

/// Reads the factor of a second moment, or finds it and writes it down: for a large model that takes a while.
fn keep_factor(moment: &Moment, path: &Path, line: &mut Line) -> Result<(), Failure> {
    let name = path.display().to_string();
    if path.is_file() && moment.take_factor(&name, &io::map(path)?)? {
        return Ok(());
    }
    line.about("factoring the second moment");
    let bytes = moment.factor_to_bytes()?;
    // It can always be found again, so a folder that cannot be written to is no reason to stop.
    if let Err(failure) = io::write(path, &bytes) {
        io::warn(&format!("{failure}; the factor is found anew each time"));
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

    fn changes(&mut self) -> Result<Vec<WeightChange>, Failure> {
        match self.desk.handle(Command::Changes)? {
            Event::Changed(weights) => Ok(weights),
            other => Err(unexpected(&other)),
        }
    }

    fn save(&self, name: &str) -> Result<(), Failure> {
        let Some(folder) = &self.folder else { return Ok(()) };
        folder.write(name, &self.desk.export()?)
    }
}

fn table(document: &RunReport) -> String {
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
    let _ = write!(
        text,
        "  reliability {}   generalization {}   locality {}",
        score(Some(fact.reliability)),
        score(fact.generalization),
        score(fact.locality)
    );
    if fact.portability.is_some() {
        let _ = write!(text, "   portability {}", score(fact.portability));
    }
    text.push('\n');
}

fn describe_summary(text: &mut String, when: &str, summary: &Summary) {
    let _ = write!(
        text,
        "{} facts, {when}: reliability {}, generalization {}, locality {}",
        summary.n,
        score(summary.reliability),
        score(summary.generalization),
        score(summary.locality),
    );
    if summary.portability.is_some() {
        let _ = write!(text, ", portability {}", score(summary.portability));
    }
    let _ = writeln!(text, " ({:.2} s of editing)", summary.seconds);
    if let Some(ProbabilityMeans { means, s }) = &summary.probability {
        let [es, ps, ns, s] = [Some(means.es), means.ps, means.ns, *s].map(score);
        let _ = writeln!(text, "  by probabilities: ES {es}, PS {ps}, NS {ns}, score S {s}");
    }
}

fn score(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), |value| format!("{value:.3}"))
}
