//! `rectify eval`.

use std::{
    fmt::Write as _,
    io::Write,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use rectify_core::Error;
use rectify_protocol::{EvalReport, Failure, Item, TaskReport, TaskScores};

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
    /// Write report.json into this folder
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
    // A model whose numbers are none answers too, and is wrong everywhere: that is no measurement.
    if let Some(prompt) = loaded.iter().flat_map(|task| &task.questions).flat_map(|(_, asked)| asked.prompts()).next() {
        let (of, model) = desk.session.loaded().zip(desk.session.model()).expect("a desk opens with a model");
        desk.drive(async {
            match model.candidates(&of.tokenizer, &of.tokenizer.encode(&prompt)?, 1).await {
                Err(error @ Error::NotFinite { .. }) => Err(error),
                _ => Ok(()),
            }
        })?;
    }
    let mut reports = Vec::with_capacity(loaded.len());
    for records in loaded {
        let (task, questions) = (records.task, records.asked());
        let total = questions.iter().map(|question| question.prompts().len()).sum::<usize>() as u64;
        let mut watch = |done| desk.line.show_count(task.name, done as u64, total);
        let (of, model) = desk.session.loaded().zip(desk.session.model()).expect("a desk opens with a model");
        let models = std::slice::from_ref(model);
        let mut judged = desk.drive(tasks::judge(of, models, task, &questions, &mut watch))?;
        let judgements = judged.judgements.remove(0);
        if let Some(folder) = folder.as_ref().filter(|_| args.log_samples) {
            write_samples(folder, task.id, &records.items(&judged.continuations[0]))?;
        }
        reports.push(TaskReport {
            task: task.id.into(),
            name: task.name.into(),
            file: [records.file.clone(), records.hash.clone()],
            skipped: judgements.iter().filter(|judgement| judgement.is_none()).count(),
            scores: TaskScores::of(judgements.iter().flatten()),
            seconds: judged.seconds,
            tokens: judged.tokens,
        });
    }
    let report = EvalReport {
        schema: 1,
        program: crate::PROGRAM_IN_FULL.into(),
        model: args.model.clone(),
        model_hash: desk.info().hash,
        edits: args.edits.as_ref().map(|path| path.display().to_string()),
        ignored: desk.info().ignored,
        precision: desk.info().precision,
        tasks: reports,
    };
    drop(desk);
    let json = io::to_json(&report)?;
    if let Some(folder) = folder {
        folder.write(output::REPORT, json.as_bytes())?;
        folder.commit()?;
        io::say(&format!("written to {}", args.out.as_deref().unwrap_or(Path::new("")).display()));
    }
    io::print(out, &if args.json { json } else { table(&report) })
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
