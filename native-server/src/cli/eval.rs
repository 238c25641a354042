//! `rectify eval`.

use std::{
    fmt::Write as _,
    io::Write,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use rectify_core::{Error, task::Records};
use rectify_protocol::{EvalReport, Failure, Item, TaskReport, TaskScores};
use serde::{Deserialize, Serialize};

use super::{Desk, Place, ask::read_delta};
use crate::{
    device::DeviceKind,
    io,
    output::{self, OutDir},
    tasks,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A bundled model's id, a folder, or owner/name on the Hugging Face Hub
    #[arg(long)]
    model: String,
    #[arg(long, value_delimiter = ',', default_value = "all", help = tasks::words())]
    tasks: Vec<String>,
    #[arg(long, value_name = "DIR", help = tasks::words_about_files())]
    data: PathBuf,
    /// Use at most this many records of each, evenly spaced through the file
    #[arg(long)]
    limit: Option<NonZeroUsize>,
    /// Apply the change that `edit --out` wrote
    #[arg(long, value_name = "DIR|FILE")]
    edits: Option<PathBuf>,
    /// Write report.json into this folder; after a stop the same command goes on with the next task
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write also samples.TASK.jsonl: each record's prompts, right answers, replies and how they were judged
    #[arg(long, requires = "out")]
    log_samples: bool,
    /// cpu, gpu (the best card this program was built for), auto (gpu or else cpu), wgpu, vulkan or cuda
    #[arg(long, default_value = "cpu")]
    device: DeviceKind,
    /// Print one JSON document on stdout
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, place: &Place, out: &mut dyn Write) -> Result<(), Failure> {
    // Whatever is wrong with the files is said before a model is read.
    let loaded = tasks::named(&args.tasks)?;
    let loaded = loaded.into_iter().map(|task| tasks::load(task, &args.data, args.limit.map(NonZeroUsize::get)));
    let loaded = loaded.collect::<Result<Vec<_>, _>>()?;
    let delta = args.edits.as_deref().map(read_delta).transpose()?;
    let folder = args.out.as_deref().map(|folder| OutDir::prepare(folder, output::Kind::Eval)).transpose()?;
    let mut desk = Desk::open(&args.model, place, args.device)?;
    if let Some((path, bytes)) = &delta {
        desk.session.apply_delta(&path.display().to_string(), bytes)?;
    }
    check_numbers(&desk, &loaded)?;
    let mut report = EvalReport {
        schema: 1,
        program: crate::PROGRAM_IN_FULL.into(),
        model: args.model.clone(),
        model_hash: desk.info().hash,
        edits: args.edits.as_ref().map(|path| path.display().to_string()),
        ignored: desk.info().ignored,
        precision: desk.info().precision,
        tasks: vec![],
    };
    let delta = delta.map(|(_, bytes)| io::sha256_of(&bytes));
    let asked: Vec<_> = loaded.iter().map(|records| (records.task.id, &records.hash)).collect();
    let about = io::to_json(&(&report, delta, asked, args.limit, args.log_samples, args.device.name()))?;
    let mut so_far = SoFar::open(args.out.as_deref(), io::sha256_of(about.as_bytes()))?;
    for records in &loaded {
        if !so_far.has(records.task.id) {
            so_far.keep(measured(&desk, records, args.log_samples)?)?;
        }
    }
    drop(desk);
    let samples: Vec<Vec<Item>>;
    (report.tasks, samples) = so_far.kept.done.into_iter().unzip();
    let json = io::to_json(&report)?;
    if let Some(folder) = folder {
        for (task, items) in report.tasks.iter().zip(&samples).filter(|_| args.log_samples) {
            write_samples(&folder, &task.task, items)?;
        }
        folder.write(output::REPORT, json.as_bytes())?;
        folder.commit()?;
        io::say(&format!("written to {}", args.out.as_deref().unwrap_or(Path::new("")).display()));
    }
    io::print(out, &if args.json { json } else { table(&report) })
}

/// A model whose numbers are none answers too, and is wrong everywhere: that is no measurement.
fn check_numbers(desk: &Desk, loaded: &[Records]) -> Result<(), Failure> {
    let mut prompts = loaded.iter().flat_map(|task| &task.questions).flat_map(|(_, asked)| asked.prompts());
    let Some(prompt) = prompts.next() else { return Ok(()) };
    let (of, model) = desk.session.loaded().zip(desk.session.model()).expect("a desk opens with a model");
    desk.drive(async {
        match model.candidates(&of.tokenizer, &of.tokenizer.encode(&prompt)?, 1).await {
            Err(error @ Error::NotFinite { .. }) => Err(error),
            _ => Ok(()),
        }
    })
}

/// A task's scores and, where they are wanted, its records with what was said.
fn measured(desk: &Desk, records: &Records, with_samples: bool) -> Result<(TaskReport, Vec<Item>), Failure> {
    let (task, questions) = (records.task, records.asked());
    let total = questions.iter().map(|question| question.prompts().len()).sum::<usize>() as u64;
    let mut watch = |done| desk.line.show_count(task.name, done as u64, total);
    let (of, model) = desk.session.loaded().zip(desk.session.model()).expect("a desk opens with a model");
    let models = std::slice::from_ref(model);
    let mut judged = desk.drive(tasks::judge(of, models, task, &questions, &mut watch))?;
    let judgements = judged.judgements.remove(0);
    let samples = if with_samples { records.items(&judged.continuations[0]) } else { Vec::new() };
    let scores = TaskReport {
        task: task.id.into(),
        name: task.name.into(),
        file: [records.file.clone(), records.hash.clone()],
        skipped: judgements.iter().filter(|judgement| judgement.is_none()).count(),
        scores: TaskScores::of(judgements.iter().flatten()),
        seconds: judged.seconds,
        tokens: judged.tokens,
    };
    Ok((scores, samples))
}

/// What was measured, and the file to go on from after a stop, where results go to a folder.
struct SoFar {
    file: Option<PathBuf>,
    kept: Kept,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    /// Hash of everything that decides the numbers of all tasks.
    of: String,
    /// Each task that is done, and its records.
    done: Vec<(TaskReport, Vec<Item>)>,
    /// Hash of those: a file that somebody changed is none that was measured.
    hash: String,
}

impl SoFar {
    /// Nothing, or what an earlier run of the same evaluation left.
    fn open(folder: Option<&Path>, of: String) -> Result<Self, Failure> {
        let file = folder.map(|folder| folder.join(output::PARTIAL));
        let Some(found) = file.as_ref().filter(|file| file.is_file()) else {
            return Ok(Self { file, kept: Kept { of, done: Vec::new(), hash: String::new() } });
        };
        let name = found.display().to_string();
        let kept: Kept = serde_json::from_str(&io::read_text(found)?)
            .map_err(|_| io::another_s(&name, "is no stopped evaluation of this program"))?;
        if kept.of != of {
            return Err(io::another_s(&name, "is the evaluation of another model or edit, or of other records"));
        }
        if kept.hash != kept.hashed()? {
            return Err(io::another_s(&name, "was changed since it was measured"));
        }
        let done: Vec<&str> = kept.done.iter().map(|(task, _)| task.name.as_str()).collect();
        io::say(&format!("resuming after {}", done.join(", ")));
        Ok(Self { file, kept })
    }

    fn has(&self, task: &str) -> bool {
        self.kept.done.iter().any(|(done, _)| done.task == task)
    }

    fn keep(&mut self, done: (TaskReport, Vec<Item>)) -> Result<(), Failure> {
        self.kept.done.push(done);
        self.kept.hash = self.kept.hashed()?;
        let Some(file) = &self.file else { return Ok(()) };
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(|error| io::cannot_write(folder, &error))?;
        }
        io::write(file, io::to_json(&self.kept)?.as_bytes())
    }
}

impl Kept {
    fn hashed(&self) -> Result<String, Failure> {
        Ok(io::sha256_of(io::to_json(&self.done)?.as_bytes()))
    }
}

/// A line a record.
fn write_samples(folder: &OutDir, task: &str, items: &[Item]) -> Result<(), Failure> {
    let line = |item| serde_json::to_string(item).map_err(|error| io::internal(format!("cannot write JSON: {error}")));
    let lines = items.iter().map(line).collect::<Result<Vec<_>, _>>()?;
    folder.write(&format!("samples.{task}.jsonl"), (lines.join("\n") + "\n").as_bytes())
}

fn table(report: &EvalReport) -> String {
    let score = |score: Option<f64>| score.map_or_else(|| "–".into(), |score| format!("{score:.3}"));
    let widest = report.tasks.iter().map(|task| task.name.chars().count()).max().unwrap_or(0).max("task".len());
    let mut text =
        format!("{:<widest$} {:>6} {:>8} {:>8} {:>9} {:>9}\n", "task", "n", "paper", "strict", "unparsed", "tokens/s");
    for task in &report.tasks {
        let scores = &task.scores;
        let _ = writeln!(
            text,
            "{:<widest$} {:>6} {:>8} {:>8} {:>9} {:>9.0}",
            task.name,
            scores.n,
            score(scores.paper),
            score(scores.strict),
            scores.sum.strict.unparsed,
            task.tokens as f64 / task.seconds.max(1e-9)
        );
        if task.skipped > 0 {
            let of = scores.n + task.skipped;
            let _ =
                writeln!(text, "  {} of {of} records do not fit the model's context and were skipped", task.skipped);
        }
    }
    text
}
