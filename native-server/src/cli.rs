//! The commands. Each has a file with its arguments on top and `run` below; all of them answer on `out` and say
//! everything else on stderr.

mod ask;
pub(crate) mod config;
mod data;
mod delta;
mod doctor;
mod edit;
mod eval;
mod import;
mod jobs;
mod mend;
mod models;
mod report;
mod serve;
mod settings;
mod shell;
mod stats;
mod sweep;
mod tasks;
mod trace;

use std::{io::Write, path::PathBuf};

use clap::{Parser, Subcommand};
use rectify_core::Session;
use rectify_protocol::{Command, Event, Failure, Kind, ModelInfo, Precision, Progress};

use crate::{
    device::DeviceKind,
    engine::{self, Cancel},
    io::{self, Messages},
    models::{Source, Static, resolve},
    progress::Line,
};

/// Edits facts inside language models and shows what else changes.
///
/// Exit codes: 0, done; 2, bad usage or bad input; 75, a part is done and the same command finishes the rest; 130,
/// stopped by Ctrl-C; 1, anything else.
#[derive(Debug, Parser)]
#[command(name = "rectify", version = crate::VERSION, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Subcommands,
    #[command(flatten)]
    place: Place,
    /// The flags that stand on the command line, and not only in a file of settings or a variable.
    #[arg(skip)]
    by_hand: Vec<String>,
}

/// Where models come from, and how they are read.
#[derive(Debug, Default, clap::Args)]
struct Place {
    /// The folder with models.json and the bundled models. Default: ./static, or what is installed
    /// with this program
    #[arg(long = "static", global = true, value_name = "DIR")]
    static_folder: Option<PathBuf>,
    /// Ignore a key of config.json or a tensor that would be refused; reports say so. May be repeated
    #[arg(long, global = true, value_name = "NAME")]
    ignore: Vec<String>,
    /// How matrices are stored: f32, f16 for half the memory, or int8 for a third; sums and edits stay in 32 bits, and
    /// reports say so
    #[arg(long, global = true, default_value_t, value_name = "f32|f16|int8")]
    precision: Precision,
    /// A file of settings; also RECTIFY_CONFIG. Default: rectify/config.toml where such files are, as ~/.config. Flags win
    /// over the environment, the environment over the file
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How stderr is written: as text, or as json for programs: each line an object with progress, say, warning or failure
    #[arg(long, global = true, default_value = "text", value_name = "text|json", hide_possible_values = true)]
    messages: Messages,
}

impl Place {
    /// The model of this name.
    fn model(&self, name: &str) -> Result<Source, Failure> {
        let source = resolve(Static::find(self.static_folder.as_deref()), name)?;
        Ok(Source { ignore: self.ignore.clone(), precision: self.precision, ..source })
    }
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Complete a prompt, with an edit applied if you like
    Ask(ask::Args),
    /// Write facts into a model and measure before and after
    Edit(edit::Args),
    /// Find the states that carry what a model says: causal tracing
    Trace(trace::Args),
    /// Run the eight tasks on a model, edited or not
    Eval(eval::Args),
    /// Measure a grid of editors, regularizers and seeds; resumes after a stop
    Sweep(sweep::Args),
    /// Draw the paper's figures and tables from a sweep's rows
    Report(report::Args),
    /// Gather the second moment of keys that `edit --covariance` reads
    Stats(stats::Command),
    /// Train the hypernetwork that `edit --method mend` needs
    #[command(subcommand)]
    Mend(mend::Subcommands),
    /// List the tasks that `eval` asks
    #[command(subcommand)]
    Tasks(tasks::Subcommands),
    /// What another program changed in a model, as edits that can be measured here
    Delta(delta::Args),
    /// List, check, convert and merge models
    #[command(subcommand)]
    Models(models::Subcommands),
    /// List data sets with their licences, and fetch them
    #[command(subcommand)]
    Data(data::Subcommands),
    /// Serve the page, the bundled models, sessions and heavy runs on this machine
    Serve(serve::Args),
    /// What this machine can compute with, what is installed, and what is missing
    Doctor(doctor::Args),
    /// Heavy runs on a server: ask for them, follow them, fetch what they found
    #[command(subcommand)]
    Jobs(jobs::Subcommands),
    /// Print a script that completes commands: rectify completions bash > FILE
    Completions(shell::Completions),
    /// Write manual pages
    Man(shell::Man),
}

impl Subcommands {
    /// Whether there is a model whose keys and tensors [`Place::ignore`] could name.
    fn reads_a_model(&self) -> bool {
        matches!(
            self,
            Self::Ask(_)
                | Self::Edit(_)
                | Self::Trace(_)
                | Self::Eval(_)
                | Self::Sweep(_)
                | Self::Stats(_)
                | Self::Mend(_)
                | Self::Delta(_)
        )
    }
}

/// Runs the program.
pub fn run(cli: Cli, out: &mut dyn Write) -> Result<(), Failure> {
    let place = &cli.place;
    place.messages.speak();
    let is_asked = matches!(cli.command, Subcommands::Jobs(_));
    let flags = [("--ignore", !place.ignore.is_empty()), ("--precision", !place.precision.is_default() && !is_asked)];
    for (flag, set) in flags {
        // What is set for all commands means nothing to the others.
        let given = set && cli.by_hand.iter().any(|id| flag.trim_start_matches('-') == id);
        if given && !cli.command.reads_a_model() {
            return Err(Failure::bad_input(format!(
                "{flag} is for commands that read a model: ask, edit, trace, eval, sweep, stats, mend, delta"
            )));
        }
    }
    match cli.command {
        Subcommands::Ask(args) => ask::run(&args, place, out),
        Subcommands::Edit(args) => edit::run(&args, place, out),
        Subcommands::Trace(args) => trace::run(&args, place, out),
        Subcommands::Eval(args) => eval::run(&args, place, out),
        Subcommands::Sweep(args) => sweep::run(&args, place, out),
        Subcommands::Report(args) => report::run(&args, out),
        Subcommands::Stats(args) => stats::run(&args, place, out),
        Subcommands::Mend(command) => mend::run(&command, place, out),
        Subcommands::Delta(args) => delta::run(&args, place, out),
        Subcommands::Models(command) => models::run(&command, place, out),
        Subcommands::Data(command) => data::run(&command, out),
        Subcommands::Serve(args) => serve::run(&args, place),
        Subcommands::Doctor(args) => doctor::run(&args, place, out),
        Subcommands::Tasks(command) => tasks::run(&command, out),
        Subcommands::Completions(args) => shell::completions(&args, out),
        Subcommands::Man(args) => shell::man(&args, out),
        Subcommands::Jobs(command) => jobs::run(&command, place.precision, out),
    }
}

/// A session on this thread, that Ctrl-C cancels.
struct Desk {
    session: Session,
    line: Line,
    cancel: Cancel,
}

impl Desk {
    fn open(model: &str, place: &Place, device: DeviceKind) -> Result<Self, Failure> {
        let source = place.model(model)?;
        let cancel = cancel_on_interrupt()?;
        let line = Line::new();
        let session = engine::open(&source, device, &cancel, &mut |progress| line.show(&progress));
        let session = session.ok_or_else(cancelled)??;
        let desk = Self { session, line, cancel };
        desk.info().ignored.iter().for_each(|name| io::warn(&format!("{name:?} of {model} is ignored")));
        Ok(desk)
    }

    /// Says where the settings of a method come from.
    fn say_settings(&self, method: &str) {
        io::say(&match self.info().settings.get(method) {
            Some(file) => format!("settings of {method}: {file}"),
            None => format!("settings of {method}: the rule for this family; nobody has published any for this model"),
        });
    }

    fn info(&self) -> ModelInfo {
        self.session.info().expect("a desk opens with a model")
    }

    fn handle(&mut self, command: Command) -> Result<Event, Failure> {
        let mut watch = |progress: Progress| self.line.show(&progress);
        let ended = engine::drive(self.session.handle(command, &mut watch), &self.cancel);
        Ok(ended.ok_or_else(cancelled)??)
    }

    /// Runs work of the session to its end, unless Ctrl-C is pressed.
    fn drive<T>(&self, work: impl Future<Output = rectify_core::Result<T>>) -> Result<T, Failure> {
        Ok(engine::drive(work, &self.cancel).ok_or_else(cancelled)??)
    }

    /// What the edits so far changed, as a file.
    fn export(&self) -> Result<Vec<u8>, Failure> {
        self.drive(self.session.export_delta())
    }
}

fn cancelled() -> Failure {
    Failure::new(Kind::Cancelled, "cancelled")
}

/// A session answered with an event of another command.
fn unexpected(event: &Event) -> Failure {
    io::internal(format!("the session answered out of turn: {event:?}"))
}

/// The variable that ties a process to the one that started it: it stops when its standard input ends.
pub const ENDS_WITH_STDIN: &str = "RECTIFY_ENDS_WITH_STDIN";

/// Sets the wish when standard input ends, which it does when the process at its other end ends, however that is. Work
/// that does not see the wish in time ends without it: what it wrote is on its way to the disk.
fn cancel_with_stdin(wish: Cancel) {
    let mut stdin = std::io::stdin();
    // What comes in means nothing; nor does an error mean anything but the end.
    while std::io::Read::read(&mut stdin, &mut [0; 64]).is_ok_and(|read| read > 0) {}
    wish.set();
    std::thread::sleep(std::time::Duration::from_secs(5));
    std::process::exit(75);
}

/// The first Ctrl-C asks; the second ends the program.
fn cancel_on_interrupt() -> Result<Cancel, Failure> {
    let cannot = |error: std::io::Error| io::internal(format!("cannot watch for Ctrl-C: {error}"));
    let cancel = Cancel::default();
    if std::env::var_os(ENDS_WITH_STDIN).is_some() {
        let wish = cancel.clone();
        std::thread::Builder::new().name("parent".into()).spawn(move || cancel_with_stdin(wish)).map_err(cannot)?;
    }
    let wish = cancel.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(cannot)?;
    let watch = move || {
        runtime.block_on(async {
            while interrupted().await.is_ok() {
                if wish.is_set() {
                    std::process::exit(130);
                }
                wish.set();
            }
        });
    };
    std::thread::Builder::new().name("interrupt".into()).spawn(watch).map_err(cannot)?;
    Ok(cancel)
}

/// Waits for Ctrl-C, or for the word that a cluster sends before it kills.
async fn interrupted() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            pressed = tokio::signal::ctrl_c() => pressed,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[track_caller]
    fn check_usage(line: &str, parts: &[&str]) {
        match Cli::try_parse_from(line.split(' ')) {
            Ok(_) => assert!(parts.is_empty(), "accepted: {line}"),
            Err(error) => {
                assert_eq!(error.exit_code(), 2, "{error}");
                assert!(!parts.is_empty(), "{error}");
                for part in parts {
                    assert!(error.to_string().contains(part), "{error}\nlacks {part:?}");
                }
            }
        }
    }

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_contract_is_accepted() {
        check_usage("rectify ask --model M --prompt TEXT --tokens 20 --top 5 --edits DIR --json", &[]);
        check_usage("rectify edit --model M --facts FILE --index 0..3 --method rome --layer 5 --contexts 7", &[]);
        check_usage("rectify edit --model M --facts F --method rome --covariance none --key mean --set v_lr=0.1", &[]);
        check_usage("rectify edit --model M --facts F --method rome --set v_lr=0.1 --set kl_factor=0 --seed 3", &[]);
        check_usage("rectify edit --model M --method rome --subject S --prompt P --target-new T", &[]);
        check_usage(
            "rectify edit --model M --method rome --subject S --prompt P --target-new T --target-true T --paraphrase A \
             --paraphrase B --neighbor N",
            &[],
        );
        check_usage("rectify edit --model M --facts F --method rome --regularizer rect --keep 40% --json", &[]);
        check_usage("rectify edit --model M --facts F --method rome --mode sequential --device flex --out D", &[]);
        for method in rectify_protocol::EditorSpec::METHODS {
            check_usage(&format!("rectify edit --model M --facts F --method {method} --covariance identity"), &[]);
        }
        check_usage("rectify edit --model M --facts F --method memit --layer 3,4,5 --mode batch --allow-harm", &[]);
        check_usage("rectify stats --model M --text FILE --layers 4,5 --tokens 100 --out DIR", &[]);
        check_usage("rectify eval --model M --tasks nli,ner --data DIR --limit 9 --edits DIR --json", &[]);
        check_usage("rectify trace --model M --prompt P --subject S", &[]);
        check_usage("rectify trace --model M --facts F --index 0..3 --out D", &[]);
        check_usage(
            "rectify trace --model M --prompt P --subject S --samples 3 --noise s2.5 --facts F --window 4",
            &[],
        );
        check_usage(
            "rectify trace --model M --prompt P --subject S --noise 0.1 --seed 1 --edits E --out D --json",
            &[],
        );
        check_usage("rectify sweep ONE.toml TWO.toml --out DIR --report", &[]);
        check_usage("rectify report DIR --title T", &[]);
        check_usage("rectify edit --model M --facts F --method mend --hypernetwork FILE --set released=true", &[]);
        check_usage("rectify mend train --model M --facts F --validation V --out FILE", &[]);
        check_usage(
            "rectify mend train --model M --facts F --validation V --out FILE --steps 9 --rank 64 --seed 3",
            &[],
        );
        check_usage("rectify mend train --model M --facts F --validation V --out FILE --outer prompt --lr 1e-3", &[]);
        check_usage("rectify models list", &[]);
        check_usage("rectify models where --messages json", &[]);
        check_usage("rectify models check --json", &[]);
        check_usage("rectify models convert --model M --dtype f16 --out DIR", &[]);
        check_usage("rectify models hash DIR", &[]);
        check_usage("rectify models fetch openai-community/gpt2@main", &[]);
        check_usage("rectify models merge --model M --edits DIR --out DIR --dtype f32 --json", &[]);
        check_usage("rectify models merge --model M --edits DIR --out DIR --format lora --rank 4", &[]);
        check_usage("rectify delta BASE EDITED --out DIR --json", &[]);
        check_usage("rectify data list", &[]);
        check_usage("rectify data fetch", &[]);
        check_usage("rectify data fetch gsm8k boolq --accept-licences --out DIR", &[]);
        check_usage("rectify data fetch gsm8k --yes --out DIR", &[]);
        check_usage("rectify sweep ONE.toml --out DIR --part 3/8", &[]);
        check_usage("rectify serve --listen 127.0.0.1:0 --data DIR --site DIR", &[]);
        check_usage("rectify serve --jobs DIR --at-once 2 --token-file FILE", &[]);
        check_usage("rectify serve --slurm=--partition=gpu,--gres=gpu:1", &[]);
        check_usage("rectify jobs submit demo-figure-8 --seeds 0,1 --index 0..9 --parts 4 --server http://h:1", &[]);
        check_usage("rectify jobs watch 0123456789ab --json", &[]);
    }

    #[test]
    fn bad_usage_is_named() {
        let edit = |rest: &str| format!("rectify edit --model M --facts F {rest}");
        check_usage(&edit("--method rom"), &["unknown method \"rom\"; did you mean \"rome\"?"]);
        check_usage(&edit("--method rome --regularizer rekt"), &["did you mean \"rect\"?"]);
        check_usage(&edit("--method rome --mode sequentail"), &["did you mean \"sequential\"?"]);
        check_usage(&edit("--method rome --device vulcan"), &["did you mean \"vulkan\"?"]);
        check_usage(&edit("--method rome --key men"), &["did you mean \"mean\"?"]);
        check_usage(&edit("--method rome --index 3..1"), &["holds nothing"]);
        check_usage(&edit("--method rome --index x"), &["0..3"]);
        for keep in ["-1", "0", "NaN", "101%", "1.01", "inf", "forty"] {
            check_usage(&edit(&format!("--method rome --regularizer rect --keep {keep}")), &["--keep", keep]);
        }
        check_usage(&edit("--method rome --set v_lr"), &["NAME=VALUE"]);
        check_usage(&edit(""), &["--method"]);
        check_usage(&edit("--method rome --subject S --prompt P --target-new T"), &["--facts", "cannot be used with"]);
        check_usage("rectify edit --model M --method rome", &["--facts"]);
        check_usage("rectify edit --model M --method rome --subject S --prompt P", &["--target-new"]);
        check_usage("rectify edit --model M --method rome --facts F --paraphrase P", &["--subject"]);
        let train = |rest: &str| format!("rectify mend train --model M --facts F --out O {rest}");
        check_usage(&train(""), &["--validation"]);
        check_usage(&train("--validation V --outer rephrse"), &["unknown outer prompt", "did you mean \"rephrase\"?"]);
        check_usage(&train("--validation V --steps 0"), &["--steps", "0"]);
        check_usage(&train("--validation V --lr fast"), &["--lr", "fast"]);
        check_usage("rectify mend", &["train"]);
        check_usage("rectify trace --model M --prompt P", &["--subject"]);
        check_usage("rectify trace --model M --subject S --facts F", &["--prompt"]);
        check_usage("rectify trace --model M", &["--prompt"]);
        check_usage("rectify trace --model M --prompt P --subject S --index 3", &["--facts"]);
        for noise in ["x", "s", "s-1", "NaN"] {
            check_usage(
                &format!("rectify trace --model M --prompt P --subject S --noise {noise}"),
                &["--noise", noise],
            );
        }
        check_usage("rectify data fetch gsm8k", &["--out"]);
        check_usage("rectify edits", &["unrecognized subcommand"]);
    }
}
