//! Settings by file and by the environment. What a flag says wins over the environment, the environment over the file, and
//! the file over what is built in.
//!
//! The file is TOML. A key is a flag's name and stands for it in every command that has it; a table is a command's name
//! and holds keys for that command alone:
//!
//! ```toml
//! device = "cuda"
//! precision = "f16"
//! [serve]
//! listen = "0.0.0.0:8080"
//! ```

use std::{
    cell::Cell,
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches, parser::ValueSource};
use rectify_protocol::{Failure, nearest, unknown};
use toml::{Table, Value};

use super::Cli;
use crate::io;

/// What stands for no file, where somebody wants none.
pub const NONE: &str = "none";

/// The variable that names the file.
const FILE: &str = "RECTIFY_CONFIG";

/// The flags that a variable can set: `RECTIFY_` and the flag in capitals.
const BY_VARIABLE: &[&str] = &[
    "static",
    "precision",
    "messages",
    "device",
    "listen",
    "site",
    "sweeps",
    "jobs",
    "at-once",
    "slurm",
    "token-file",
    "server",
];

impl Cli {
    /// What the command line, the environment and the file say. Ends the program where clap does: at `--help` and at what
    /// it cannot read.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or names no command or no flag.
    pub fn settled() -> Result<Self, Failure> {
        let words: Vec<OsString> = env::args_os().collect();
        let file = file(&words);
        let mut command = Self::command();
        // Who asks what there is gets an answer, whatever is wrong with the file.
        let informs = ["--help", "-h", "--version", "-V", "help", "completions", "man"];
        if let Some(path) =
            file.as_ref().filter(|_| !words.iter().skip(1).any(|word| informs.iter().any(|it| word == it)))
        {
            command = by_file(command, path)?;
        }
        command = by_variable(command);
        let read = |matches: ArgMatches| {
            let by_hand = given_by_hand(&matches);
            Self::from_arg_matches(&matches).map(|cli| Self { by_hand, ..cli })
        };
        let cli = command.try_get_matches_from(words).and_then(read);
        cli.map_err(|error| {
            if let Some(path) = file.filter(|_| error.use_stderr()) {
                io::say(&format!("settings are also read from {}", path.display()));
            }
            error.exit()
        })
    }
}

/// The flags that stand on the command line.
fn given_by_hand(matches: &ArgMatches) -> Vec<String> {
    let mut leaf = matches;
    while let Some((_, below)) = leaf.subcommand() {
        leaf = below;
    }
    let by_hand = |id: &&clap::Id| leaf.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    leaf.ids().filter(by_hand).map(|id| id.as_str().to_owned()).collect()
}

/// The file that somebody names, or the one where such files usually are.
pub(super) fn file(words: &[OsString]) -> Option<PathBuf> {
    let named = words.iter().enumerate().take_while(|(_, word)| *word != "--").find_map(|(at, word)| {
        if word == "--config" {
            words.get(at + 1).cloned()
        } else {
            Some(word.to_str()?.strip_prefix("--config=")?.into())
        }
    });
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
    let named = named.or_else(|| variable(FILE));
    let usual = || {
        let folder =
            variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".config")))?;
        // A link that leads nowhere is a mistake, and not no file.
        Some(folder.join("rectify/config.toml")).filter(|path| path.symlink_metadata().is_ok())
    };
    named.map(PathBuf::from).or_else(usual).filter(|path| path.as_os_str() != NONE)
}

/// A variable counts as what the file says does: it stands where no flag does.
fn by_variable(mut command: Command) -> Command {
    for flag in BY_VARIABLE {
        let variable = format!("RECTIFY_{}", flag.to_uppercase().replace('-', "_"));
        // An empty variable is one that is not set.
        if let Some(value) = env::var(variable).ok().filter(|value| !value.is_empty()) {
            (command, _) = with_flag(command, flag, &|arg| arg.default_value(value.clone()).required(false));
        }
    }
    command
}

fn by_file(command: Command, path: &Path) -> Result<Command, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::bad_input(format!("{}: {error}", path.display()));
    let table = io::read_text(path)?.parse::<Table>().map_err(|error| wrong(&error))?;
    by_table(command, &table).map_err(|failure| wrong(&failure))
}

fn by_table(mut command: Command, table: &Table) -> Result<Command, Failure> {
    for (key, value) in table {
        let Value::Table(inner) = value else {
            let values = match value {
                Value::Array(list) => list.iter().map(text).collect::<Result<Vec<_>, _>>()?,
                one => vec![text(one)?],
            };
            let flag = key.replace('_', "-");
            let takes_one = Cell::new(false);
            let set = |arg: clap::Arg| {
                let many = arg.get_value_delimiter().is_some() || matches!(arg.get_action(), ArgAction::Append);
                takes_one.set(takes_one.get() || !many);
                arg.default_values(values.clone()).required(false)
            };
            let found;
            (command, found) = with_flag(command, &flag, &set);
            if !found || flag == "config" {
                let mut flags = Vec::new();
                all_flags(&command, &mut flags);
                let guess = nearest(&flag, &flags).map(|flag| format!("; did you mean {flag:?}?"));
                return Err(Failure::bad_input(format!("unknown setting {key:?}{}", guess.unwrap_or_default())));
            }
            if values.is_empty() || takes_one.get() && values.len() > 1 {
                let wanted = if values.is_empty() { "a value" } else { "one value" };
                return Err(Failure::bad_input(format!("{key} is a list of {}; {wanted} is expected", values.len())));
            }
            if table.keys().any(|other| other != key && other.replace('_', "-") == flag) {
                return Err(Failure::bad_input(format!("{flag} stands there twice")));
            }
            continue;
        };
        let names: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        if !names.contains(&key.as_str()) {
            return Err(Failure::bad_input(unknown("command", key, &names)));
        }
        let below = command.find_subcommand(key).expect("it is one of them").clone();
        let below = by_table(below, inner).map_err(|failure| failure.at(format_args!("[{key}]")))?;
        command = command.mut_subcommand(key, |_| below);
    }
    Ok(command)
}

fn all_flags<'a>(command: &'a Command, flags: &mut Vec<&'a str>) {
    flags.extend(command.get_arguments().filter_map(clap::Arg::get_long));
    command.get_subcommands().for_each(|below| all_flags(below, flags));
}

fn text(value: &Value) -> Result<String, Failure> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Ok(value.to_string()),
        _ => Err(Failure::bad_input(format!("{value} is no text, number, true, false or list of them"))),
    }
}

/// The command with a flag changed wherever it has it, and whether it has it anywhere.
fn with_flag(mut command: Command, flag: &str, change: &dyn Fn(clap::Arg) -> clap::Arg) -> (Command, bool) {
    let own = command.get_arguments().find(|arg| arg.get_long() == Some(flag));
    let id = own.map(|arg| arg.get_id().clone());
    let mut found = id.is_some();
    if let Some(id) = id {
        command = command.mut_arg(id, change);
    }
    let names: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(&name, |below| {
            let (below, has) = with_flag(below, flag, change);
            found |= has;
            below
        });
    }
    (command, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(file: &str, words: &str) -> Result<ArgMatches, String> {
        let table = file.parse::<Table>().map_err(|error| error.to_string())?;
        let command = by_table(Cli::command(), &table).map_err(|failure| failure.message)?;
        command.try_get_matches_from(words.split_whitespace()).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check(file: &str, words: &str, flag: &str, expected: &str) {
        let matches = settled(file, words).unwrap();
        let mut matches = &matches;
        while let Some((_, below)) = matches.subcommand() {
            matches = below;
        }
        let found: Vec<&str> = matches.get_raw(flag).unwrap().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(found.join(" "), expected);
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_what_is_built_in() {
        let serve = "rectify serve";
        check("", serve, "listen", "127.0.0.1:8080");
        check("[serve]\nlisten = \"127.0.0.1:9\"", serve, "listen", "127.0.0.1:9");
        check("[serve]\nlisten = \"127.0.0.1:9\"", "rectify serve --listen 127.0.0.1:7", "listen", "127.0.0.1:7");
        check("at_once = 3", serve, "at_once", "3");
        check("device = \"cpu\"\n[eval]\ndevice = \"auto\"", serve, "device", "cpu");
        let eval = "rectify eval --model m --data d";
        check("device = \"cpu\"\n[eval]\ndevice = \"auto\"", eval, "device", "auto");
        check("[eval]\ntasks = [\"nli\", \"ner\"]", eval, "tasks", "nli ner");
        check("[eval]\nmodel = \"m\"", "rectify eval --data d", "model", "m");
        check("[eval]\njson = true", eval, "json", "true");
        check("[mend.train]\nsteps = 7", "rectify mend train --model m --facts f --validation v --out o", "steps", "7");
    }

    #[test]
    fn what_the_file_cannot_mean_is_named() {
        let complaint = |file: &str| settled(file, "rectify serve").unwrap_err();
        assert!(complaint("devise = \"cpu\"").contains("did you mean \"device\"?"));
        assert!(complaint("[serv]\nlisten = \"x\"").contains("did you mean \"serve\"?"));
        assert!(complaint("[serve]\nmodel = \"m\"").contains("[serve]: unknown setting"));
        assert!(complaint("device = 1979-05-27").contains("is no text"));
        assert!(complaint("device =").contains("TOML parse error"));
        assert!(complaint("config = \"other.toml\"").contains("unknown setting"));
        assert!(
            complaint("precision = [\"f16\", \"int8\"]").contains("precision is a list of 2; one value is expected")
        );
        assert!(complaint("[eval]\ntasks = []").contains("[eval]: tasks is a list of 0"));
        assert!(complaint("[serve]\nat-once = 2\nat_once = 3").contains("stands there twice"));
        assert!(complaint("[serve]\nlisten = \"nowhere\"").contains("invalid value 'nowhere'"));
    }
}
