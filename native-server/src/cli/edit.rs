//! `rectify edit`.

use std::{
    fmt::Write as _,
    io::Write,
    ops::Range,
    path::{Path, PathBuf},
};

use rectify_core::edit::moments::Moment;
use rectify_protocol::{
    Command, EditMode, EditReport, EditSpec, EditorSpec, Event, Fact, FactReport, FailedRecord, Failure, Kind,
    Neighbor, ProbabilityMeans, RunCommand, RunReport, Summary, WeightChange, unknown,
};

use super::{
    Desk, Place,
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
    /// A bundled model's id, a folder, or owner/name on the Hugging Face Hub
    #[arg(long)]
    model: String,
    /// An edit set: zsRE, CounterFact (either form), KnowEdit or Rectify's own JSON; - is stdin
    #[arg(long, value_name = "FILE", required_unless_present = "subject", conflicts_with = "subject")]
    facts: Option<PathBuf>,
    #[command(flatten)]
    fact: OneFact,
    /// Which records, from 0: a number or a half-open range such as 0..3. Default: all
    #[arg(long, value_parser = index, value_name = "N|N..M", allow_hyphen_values = true)]
    index: Option<Range<usize>>,
    #[command(flatten)]
    settings: Settings,
    /// single (each fact from the untouched model), sequential (one on top of the other) or batch (all in one edit)
    #[arg(long, default_value = "single", value_parser = mode)]
    mode: EditMode,
    /// Leave out records that cannot be edited and go on; otherwise the run stops there and keeps the edits made before
    #[arg(long)]
    skip_bad: bool,
    /// cpu, gpu (the best card this program was built for), auto (gpu or else cpu), wgpu, vulkan or cuda
    #[arg(long, default_value = "cpu")]
    device: DeviceKind,
    /// Write report.json and delta.safetensors (where each fact is edited by itself, delta.RECORD.safetensors) into this
    /// folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print one JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// A fact without a file.
#[derive(Debug, clap::Args)]
struct OneFact {
    /// Edit one fact, given here: what it is about
    #[arg(long, requires_all = ["prompt", "target_new"])]
    subject: Option<String>,
    /// The text that ends where the answer begins; {} stands for the subject
    #[arg(long, requires = "subject")]
    prompt: Option<String>,
    /// What the model should answer
    #[arg(long, requires = "subject", value_name = "TEXT")]
    target_new: Option<String>,
    /// What it answers now, to be compared with
    #[arg(long, requires = "subject", value_name = "TEXT")]
    target_true: Option<String>,
    /// Another way to ask, for generalization. May be repeated
    #[arg(long, requires = "subject", value_name = "PROMPT")]
    paraphrase: Vec<String>,
    /// A question about something else, for locality. May be repeated
    #[arg(long, requires = "subject", value_name = "PROMPT")]
    neighbor: Vec<String>,
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// What reports call a fact that was given on the command line.
const GIVEN: &str = "the command line";

impl OneFact {
    /// The fact as the text of a file.
    fn text(&self) -> Option<Result<String, Failure>> {
        let subject = self.subject.clone()?;
        let filled = |text: &String| text.replace("{}", &subject);
        let neighbor = |prompt: &String| Neighbor { prompt: prompt.clone(), target: None };
        let fact = Fact {
            prompt: self.prompt.as_ref().map(filled).unwrap_or_default(),
            target_new: self.target_new.clone().unwrap_or_default(),
            target_true: self.target_true.clone(),
            paraphrases: self.paraphrase.iter().map(filled).collect(),
            neighbors: self.neighbor.iter().map(neighbor).collect(),
            subject,
            ..Fact::default()
        };
        Some(io::to_json(&[fact]))
    }
}

fn mode(text: &str) -> Result<EditMode, String> {
    text.parse().map_err(|()| unknown("mode", text, EditMode::NAMES))
}

impl Args {
    /// What messages and reports call the facts' file.
    fn facts_name(&self) -> String {
        match &self.facts {
            None => GIVEN.to_owned(),
            Some(path) if is_stdin(path) => "standard input".to_owned(),
            Some(path) => path.display().to_string(),
        }
    }

    fn facts_text(&self) -> Result<String, Failure> {
        match (&self.facts, self.fact.text()) {
            (Some(path), _) if is_stdin(path) => io::read_stdin(),
            (Some(path), _) => io::read_text(path),
            (None, text) => text.unwrap_or_else(|| Err(Failure::bad_input("no facts are named"))),
        }
    }

    /// What was asked for, as a report says it.
    fn command(&self, format: &str, range: Range<usize>, spec: EditSpec) -> RunCommand {
        let covariance = match self.settings.covariance() {
            Covariance::Folder(folder) => Some(folder.display().to_string()),
            Covariance::Identity => Some("identity".into()),
            Covariance::Bundled | Covariance::None => None,
        };
        RunCommand {
            program: crate::PROGRAM_IN_FULL.into(),
            facts: self.facts_name(),
            format: format.into(),
            index: [range.start, range.end],
            mode: self.mode,
            skip_bad: self.skip_bad,
            covariance,
            spec,
            device: self.device.name().into(),
        }
    }
}

pub(super) fn run(args: &Args, place: &Place, out: &mut dyn Write) -> Result<(), Failure> {
    // Whatever is wrong with the input is said before a model is read.
    args.settings.check()?;
    let text = args.facts_text()?;
    let set = EditSet::read(&args.facts_name(), &text)?;
    let range = args.index.clone().unwrap_or(0..set.len());
    let (facts, bad) = set.usable(range.clone())?;
    warn_of_spaces(&facts);
    let folder = args.out.as_deref().map(|folder| OutDir::prepare(folder, output::Kind::Edit)).transpose()?;
    let mut job =
        Job { skip_bad: args.skip_bad, folder, operations: Vec::new(), failed: Vec::new(), carried: Vec::new() };
    bad.into_iter().try_for_each(|(record, failure)| job.fail(record, failure))?;

    let mut desk = Desk::open(&args.model, place, args.device)?;
    let spec = args.settings.spec(&desk.info().editors)?;
    add_moments(&mut desk, args.settings.covariance(), &spec.editor)?;
    if let Some(path) = &args.settings.hypernetwork {
        desk.session.add_hypernetwork(&path.display().to_string(), &io::map(path)?)?;
    }
    desk.session.check_ready(&spec.editor)?;
    desk.say_settings(spec.editor.method());
    let edited = match args.mode {
        EditMode::Single => job.single(&mut desk, &spec, &facts),
        EditMode::Sequential => job.sequential(&mut desk, &spec, &facts),
        EditMode::Batch => job.batch(&mut desk, &spec, &facts),
    };
    if let Err(failure) = &edited
        && job.operations.is_empty()
    {
        return Err(failure.clone());
    }
    // What was done before a failure is worth having, an interruption's too.
    desk.cancel.clear();
    let sequential = args.mode == EditMode::Sequential;
    let final_measure = sequential.then(|| measure(&mut desk, job.carried.clone())).transpose()?;
    let final_weights = sequential.then(|| changes(&mut desk)).transpose()?;
    if args.mode != EditMode::Single {
        job.save(&desk, "delta.safetensors")?;
    }

    let seconds = job.operations.iter().map(|operation| operation.seconds).sum();
    let document = RunReport {
        schema: RunReport::SCHEMA,
        command: args.command(set.format.name(), range, spec),
        model: desk.info(),
        summary: Summary::of(job.operations.iter().flat_map(|operation| &operation.facts), seconds),
        final_summary: final_measure.as_ref().map(|facts| Summary::of(facts, seconds)),
        operations: job.operations,
        failed: job.failed,
        final_measure,
        final_weights,
    };
    drop(desk); // Takes the progress line away before anything is printed.
    let json = io::to_json(&document)?;
    if let Some(folder) = job.folder {
        folder.write(output::REPORT, json.as_bytes())?;
        folder.commit()?;
    }
    say_what_failed(&document);
    args.out.iter().for_each(|folder| say_where(folder, args.mode == EditMode::Single && facts.len() > 1));
    io::print(out, &if args.json { json } else { table(&document) })?;
    edited.map_err(|failure| partly(failure, &document, args.out.is_some()))
}

/// Where results are, and how they are divided.
fn say_where(folder: &Path, each_by_itself: bool) {
    let each = if each_by_itself { "; each fact has a file of its own, delta.RECORD.safetensors" } else { "" };
    io::say(&format!("written to {}{each}", folder.display()));
}

/// An edit that was made and did not take is no failure of the program, but a person should not overlook it.
fn say_what_failed(document: &RunReport) {
    let facts = document.operations.iter().flat_map(|operation| &operation.facts);
    let missed: Vec<&FactReport> = facts.filter(|fact| fact.reliability < 1.0).collect();
    let all: usize = document.operations.iter().map(|operation| operation.facts.len()).sum();
    let Some(first) = missed.first() else { return };
    let optimises = document.command.spec.editor.value().is_some();
    let steps = if optimises { ", more steps (--set v_num_grad_steps=…)" } else { "" };
    io::warn(&format!(
        "{} of {all} edits did not take: the model does not answer {:?} to {:?}; other layers{steps} or another \
         method may do it",
        missed.len(),
        first.target_new,
        first.prompt
    ));
}

/// A failure after some edits, with a word about those.
fn partly(failure: Failure, document: &RunReport, written: bool) -> Failure {
    let n = document.operations.len();
    let s = if n == 1 { "" } else { "s" };
    let kept = if written { "written and reported" } else { "reported" };
    let hint = if document.failed.is_empty() { "" } else { "; --skip-bad leaves such records out" };
    let message = format!("{failure}; the {n} edit{s} made before are {kept}{hint}");
    Failure { message, ..failure }
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
                if matches!(editor, EditorSpec::AlphaEdit(_)) {
                    continue; // It reads eigenvectors, and its statistics may be singular: nothing is factored.
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
        io::warn(&format!("{failure}; the factor will be computed again each time"));
    }
    Ok(())
}

/// Facts on their way into a model, and what became of them.
struct Job {
    skip_bad: bool,
    folder: Option<OutDir>,
    operations: Vec<EditReport>,
    failed: Vec<FailedRecord>,
    /// The facts that were edited.
    carried: Vec<Fact>,
}

impl Job {
    /// Each fact from the untouched model, with a delta of its own.
    fn single(&mut self, desk: &mut Desk, spec: &EditSpec, facts: &[(usize, Fact)]) -> Result<(), Failure> {
        for (i, (record, fact)) in facts.iter().enumerate() {
            desk.line.about(&format!("fact {} of {}", i + 1, facts.len()));
            if !self.one(desk, spec, *record, fact)? {
                continue;
            }
            let name = match facts.len() {
                1 => "delta.safetensors".into(),
                _ => format!("delta.{record}.safetensors"),
            };
            self.save(desk, &name)?;
            match desk.handle(Command::Undo)? {
                Event::Undone { edits: 0 } => {}
                other => return Err(unexpected(&other)),
            }
        }
        Ok(())
    }

    /// One on top of the other.
    fn sequential(&mut self, desk: &mut Desk, spec: &EditSpec, facts: &[(usize, Fact)]) -> Result<(), Failure> {
        for (i, (record, fact)) in facts.iter().enumerate() {
            desk.line.about(&format!("fact {} of {}", i + 1, facts.len()));
            self.one(desk, spec, *record, fact)?;
        }
        Ok(())
    }

    /// All facts in one operation, which is made of all or not at all.
    fn batch(&mut self, desk: &mut Desk, spec: &EditSpec, facts: &[(usize, Fact)]) -> Result<(), Failure> {
        let all = |facts: &[(usize, Fact)]| facts.iter().map(|(_, fact)| fact.clone()).collect::<Vec<_>>();
        match edit(desk, spec, all(facts)) {
            Ok(report) => self.operations.push(report),
            Err(failure) if failure.kind == Kind::BadInput => {
                // One of them cannot be asked: say which.
                let mut good = Vec::new();
                for (record, fact) in facts {
                    match measure(desk, vec![fact.clone()]) {
                        Ok(_) => good.push((*record, fact.clone())),
                        Err(failure) => self.fail(*record, failure.at(format_args!("record {record}")))?,
                    }
                }
                if good.len() == facts.len() || good.is_empty() {
                    return Err(failure);
                }
                self.operations.push(edit(desk, spec, all(&good))?);
            }
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    /// `false` where the record cannot be edited and is left out.
    fn one(&mut self, desk: &mut Desk, spec: &EditSpec, record: usize, fact: &Fact) -> Result<bool, Failure> {
        match edit(desk, spec, vec![fact.clone()]) {
            Ok(report) => {
                self.operations.push(report);
                self.carried.push(fact.clone());
                Ok(true)
            }
            Err(failure) if matches!(failure.kind, Kind::BadInput | Kind::Harmful) => {
                self.fail(record, failure.at(format_args!("record {record}"))).map(|()| false)
            }
            Err(failure) => Err(failure.at(format_args!("record {record}"))),
        }
    }

    /// Notes a record that cannot be edited, which is a failure of the run unless such records are left out.
    fn fail(&mut self, record: usize, failure: Failure) -> Result<(), Failure> {
        self.failed.push(FailedRecord { record, failure: failure.clone() });
        if !self.skip_bad {
            let more = if failure.kind == Kind::Harmful { "; --allow-harm edits anyway" } else { "" };
            return Err(Failure { message: format!("{}{more}", failure.message), ..failure });
        }
        io::warn(&format!("{failure}; it is left out"));
        Ok(())
    }

    fn save(&self, desk: &Desk, name: &str) -> Result<(), Failure> {
        let Some(folder) = &self.folder else { return Ok(()) };
        folder.write(name, &desk.export()?)
    }
}

fn edit(desk: &mut Desk, spec: &EditSpec, facts: Vec<Fact>) -> Result<EditReport, Failure> {
    match desk.handle(Command::Edit { facts, spec: spec.clone() })? {
        Event::Edited(report) => Ok(report),
        other => Err(unexpected(&other)),
    }
}

fn measure(desk: &mut Desk, facts: Vec<Fact>) -> Result<Vec<FactReport>, Failure> {
    desk.line.about("all edits");
    match desk.handle(Command::Measure { facts })? {
        Event::Measured(facts) => Ok(facts),
        other => Err(unexpected(&other)),
    }
}

fn changes(desk: &mut Desk) -> Result<Vec<WeightChange>, Failure> {
    match desk.handle(Command::Changes)? {
        Event::Changed(weights) => Ok(weights),
        other => Err(unexpected(&other)),
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
    let when = if document.command.mode == EditMode::Batch { "after the edit" } else { "right after each edit" };
    describe_summary(&mut text, when, &document.summary);
    if let Some(summary) = &document.final_summary {
        describe_summary(&mut text, "with all edits", summary);
    }
    text
}

fn describe_fact(text: &mut String, fact: &FactReport) {
    let top = |measure: &rectify_protocol::Measure| {
        let tokens = measure.top.iter().take(3).map(|token| format!("{:?} {:.1}%", token.0, token.1 * 100.0));
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

fn warn_of_spaces(facts: &[(usize, Fact)]) {
    let mut spaced = facts.iter().filter(|(_, fact)| io::ends_in_space(&fact.prompt)).map(|(number, _)| number);
    let Some(first) = spaced.next() else { return };
    let more = match spaced.count() {
        0 => String::new(),
        more => format!(" (and of {more} records more)"),
    };
    io::warn_of_space(&format!("record {first}: the prompt{more}"));
}

fn describe_summary(text: &mut String, when: &str, summary: &Summary) {
    let _ = write!(
        text,
        "{} {}, {when}: reliability {}, generalization {}, locality {}",
        summary.n,
        if summary.n == 1 { "fact" } else { "facts" },
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
