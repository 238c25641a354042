//! `rectify mend train`.

use std::{
    io::Write,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rectify_core::{
    edit::mend::{
        Origin,
        train::{Example, Losses, Trainer},
    },
    model::LoadedModel,
};
use rectify_protocol::{Fact, Failure, MendTraining, OuterPrompt, unknown};

use super::{Desk, Place};
use crate::{device::DeviceKind, facts::EditSet, io};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommands {
    /// Train a hypernetwork on facts; a stopped run resumes where it left off
    Train(Args),
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A bundled model's id, a folder, or owner/name on the Hugging Face Hub
    #[arg(long)]
    model: String,
    /// The facts to train on: an edit set as `rectify edit` reads it, with other questions whose answers should stay
    #[arg(long, value_name = "FILE")]
    facts: PathBuf,
    /// The facts by which to choose the best hypernetwork
    #[arg(long, value_name = "FILE")]
    validation: PathBuf,
    /// Write the best hypernetwork to this file; mend.safetensors beside the model's weights is found automatically
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// Maximum number of steps, one fact each
    #[arg(long, default_value = "100000")]
    steps: NonZeroUsize,
    #[command(flatten)]
    settings: Settings,
    /// cpu, gpu (the best card this program was built for), auto (gpu or else cpu), wgpu, vulkan or cuda
    #[arg(long, default_value = "cpu")]
    device: DeviceKind,
}

/// What differs from the model's default: the published settings, or quicker ones where the model is small.
#[derive(Debug, clap::Args)]
struct Settings {
    /// Rank of the hypernetwork's layers. Default: 1920, or 64 for a small model
    #[arg(long)]
    rank: Option<usize>,
    /// Adam's learning rate. Default: 1e-6, or 1e-4 for a small model
    #[arg(long)]
    lr: Option<f64>,
    /// Initial step size of every matrix. Default: 1e-4
    #[arg(long)]
    edit_lr: Option<f64>,
    /// Weight of the edit's loss. Default: 0.1
    #[arg(long)]
    cedit: Option<f64>,
    /// Weight of the divergence elsewhere. Default: 1
    #[arg(long)]
    cloc: Option<f64>,
    /// What the edited model is asked: rephrase (a rephrasing) or prompt (the edited prompt itself). Default: rephrase
    #[arg(long, value_parser = outer)]
    outer: Option<OuterPrompt>,
    /// Steps per update. Default: 10
    #[arg(long)]
    accumulate: Option<usize>,
    /// Norm above which an update's gradient is scaled down. Default: 100
    #[arg(long)]
    clip: Option<f64>,
    /// Steps between validations. Default: 1000, or 500 for a small model
    #[arg(long)]
    validate_every: Option<usize>,
    /// Stop after this many steps without a better validation. Default: 20000, or 5000 for a small model
    #[arg(long)]
    patience: Option<usize>,
    /// Seeds the hypernetwork and the order of the facts. Default: 0
    #[arg(long)]
    seed: Option<u64>,
}

fn outer(text: &str) -> Result<OuterPrompt, String> {
    match text {
        "rephrase" => Ok(OuterPrompt::Rephrase),
        "prompt" => Ok(OuterPrompt::Prompt),
        _ => Err(unknown("outer prompt", text, OuterPrompt::NAMES)),
    }
}

impl Settings {
    /// These on top of a model's default.
    fn on(&self, default: MendTraining) -> MendTraining {
        MendTraining {
            rank: self.rank.unwrap_or(default.rank),
            lr: self.lr.unwrap_or(default.lr),
            edit_lr: self.edit_lr.unwrap_or(default.edit_lr),
            cedit: self.cedit.unwrap_or(default.cedit),
            cloc: self.cloc.unwrap_or(default.cloc),
            outer: self.outer.unwrap_or(default.outer),
            accumulate: self.accumulate.unwrap_or(default.accumulate),
            clip: self.clip.unwrap_or(default.clip),
            validate_every: self.validate_every.unwrap_or(default.validate_every),
            patience: self.patience.unwrap_or(default.patience),
            seed: self.seed.unwrap_or(default.seed),
        }
    }
}

/// How often a training is written down.
const KEEP_EVERY: Duration = Duration::from_secs(30);

pub(super) fn run(command: &Subcommands, place: &Place, out: &mut dyn Write) -> Result<(), Failure> {
    let Subcommands::Train(args) = command;
    // Whatever is wrong with the input is said before a model is read.
    args.settings.on(MendTraining::default()).validate()?;
    check_out(&args.out)?;
    let (facts, validation) = (read_facts(&args.facts)?, read_facts(&args.validation)?);

    let desk = Desk::open(&args.model, place, args.device)?;
    let of = desk.session.loaded().expect("a desk opens with a model");
    let settings = args.settings.on(MendTraining::for_width(of.model.shape().d_model));
    let examples = examples(of, &args.facts, &facts, settings.outer)?;
    let held_out = self::examples(of, &args.validation, &validation, settings.outer)?;
    let origin = Origin { settings, data: name_of(&args.facts), data_hash: hash(&facts, &validation)?, steps: 0 };

    let mut training = Training::open(&args.out, of, origin)?;
    let ended = training.run(&desk, args.steps.get(), &examples, &held_out);
    if desk.cancel.is_set() {
        training.keep()?;
        return Err(io::internal(format!(
            "stopped after {} steps; the same command goes on from there ({})",
            training.trainer.steps(),
            training.file.display()
        )));
    }
    ended?;
    let text = training.finish(&desk, &args.out)?;
    drop(desk);
    io::print(out, &text)
}

/// Nothing that took hours is overwritten, and nothing is trained for hours that cannot be written.
fn check_out(path: &Path) -> Result<(), Failure> {
    if path.exists() {
        return Err(Failure::bad_input(format!("{} exists; name another file or remove it", path.display())));
    }
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|error| io::cannot_write(path, &error))?;
    // What an earlier run left there shows that it can be written, and is still needed.
    if partial(path).exists() {
        return Ok(());
    }
    let probe = path.with_added_extension(format!("{}.part", io::nobody_else_s()?));
    io::write(&probe, b"")?;
    std::fs::remove_file(&probe).map_err(|error| io::cannot_write(&probe, &error))
}

fn read_facts(path: &Path) -> Result<Vec<Fact>, Failure> {
    let text = io::read_text(path)?;
    let set = EditSet::read(&path.display().to_string(), &text)?;
    set.facts(0..set.len())
}

fn examples(of: &LoadedModel, path: &Path, facts: &[Fact], outer: OuterPrompt) -> Result<Vec<Example>, Failure> {
    let example = |(i, fact): (usize, &Fact)| {
        Example::new(of, fact, outer).map_err(|error| {
            let failure = Failure::from(error);
            failure.at(format_args!("{}: record {i}", path.display()))
        })
    };
    facts.iter().enumerate().map(example).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Of the facts to train on and those to choose by: with others, a training is another one.
fn hash(facts: &[Fact], validation: &[Fact]) -> Result<String, Failure> {
    Ok(io::sha256_of(io::to_json(&[facts, validation])?.as_bytes()))
}

/// Where a training is kept while it is not at its end: beside the result.
fn partial(out: &Path) -> PathBuf {
    out.with_extension("partial.safetensors")
}

/// A training, and the file to go on from after a stop.
struct Training {
    trainer: Trainer,
    file: PathBuf,
    kept: Instant,
}

impl Training {
    /// From the beginning, or from where an earlier run with the same model, facts and settings was stopped.
    fn open(out: &Path, of: &LoadedModel, origin: Origin) -> Result<Self, Failure> {
        let file = partial(out);
        let mut earlier = None;
        if file.is_file() {
            let name = file.display().to_string();
            earlier = Trainer::from_bytes(&name, &io::read_bytes(&file)?, of, &origin)?;
            if earlier.is_none() {
                return Err(io::another_s(&name, "is the training of another model, or with other facts or settings"));
            }
        }
        let trainer = match earlier {
            Some(earlier) => earlier,
            None => Trainer::new(of, origin)?,
        };
        if trainer.steps() > 0 {
            io::say(&format!("resuming after {} steps", trainer.steps()));
        }
        Ok(Self { trainer, file, kept: Instant::now() })
    }

    fn run(&mut self, desk: &Desk, limit: usize, examples: &[Example], held_out: &[Example]) -> Result<(), Failure> {
        loop {
            if self.trainer.owes_validation(limit) {
                let mut watch = |done| desk.line.show_count("validating", done as u64, held_out.len() as u64);
                let losses = desk.drive(self.trainer.validate(held_out, &mut watch))?;
                desk.line.say(&self.describe("validation", &losses));
            } else if self.trainer.steps() >= limit || self.trainer.has_stalled() {
                return Ok(());
            } else {
                let task = self.trainer.draw(examples);
                let losses = desk.drive(self.trainer.step(&task))?;
                desk.line.show_count(&self.describe("training", &losses), self.trainer.steps() as u64, limit as u64);
            }
            if self.kept.elapsed() >= KEEP_EVERY {
                self.keep()?;
            }
        }
    }

    fn describe(&self, what: &str, losses: &Losses) -> String {
        let Losses { edit, locality, accuracy } = losses;
        let steps = self.trainer.steps();
        format!("step {steps}, {what}: edit {edit:.3}, elsewhere {locality:.4}, accuracy {accuracy:.3}")
    }

    /// Writes down where the training is. Ctrl-C does not stop that.
    fn keep(&mut self) -> Result<(), Failure> {
        self.kept = Instant::now();
        io::write(&self.file, &on_this_thread(self.trainer.to_bytes())?)
    }

    /// Writes the best hypernetwork, and says how it did.
    fn finish(self, desk: &Desk, out: &Path) -> Result<String, Failure> {
        let Some(best) = self.trainer.best() else {
            return Err(Failure::bad_input("no validation gave finite losses; a smaller --lr may help"));
        };
        let model = &desk.session.loaded().expect("a desk opens with a model").model;
        io::write(out, &on_this_thread(best.network.to_bytes(model))?)?;
        // There may be none: a short run keeps nothing.
        let _ = std::fs::remove_file(&self.file);
        let Losses { edit, locality, accuracy } = best.losses;
        Ok(format!(
            "{}\nafter {} steps of {} ({} left out): edit {edit:.3}, elsewhere {locality:.4}, accuracy {accuracy:.3}\n",
            out.display(),
            best.network.origin.steps,
            self.trainer.steps(),
            self.trainer.skipped()
        ))
    }
}

/// Runs work to its end that nobody cancels.
fn on_this_thread<T>(work: impl Future<Output = rectify_core::Result<T>>) -> Result<T, Failure> {
    let ended = crate::engine::drive(work, &crate::engine::Cancel::default());
    Ok(ended.expect("nobody cancels it")?)
}
