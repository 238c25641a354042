//! `rectify data`: which data sets there are, on which terms, and how they come here.

use std::{fmt::Write as _, io::Write, path::PathBuf};

use rectify_protocol::{Failure, unknown};

use crate::{
    hub::{
        fetch,
        sets::{DataSet, SETS},
    },
    io,
    progress::Line,
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommands {
    /// List the data sets for the tasks and for editing, with their sources and licences
    List,
    /// Fetch data sets into a folder
    Fetch(Fetch),
}

#[derive(Debug, clap::Args)]
pub(super) struct Fetch {
    /// Data sets by id, or all; with none given, print the list
    #[arg(requires = "out")]
    ids: Vec<String>,
    /// The folder to put them in, to be given to `eval --data` later
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Confirm that you have read and accept the licence of each; without this nothing is fetched
    #[arg(long, visible_alias = "yes", alias = "accept")]
    accept_licences: bool,
}

pub(super) fn run(command: &Subcommands, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        Subcommands::Fetch(Fetch { ids, out: Some(folder), accept_licences }) if !ids.is_empty() => {
            get(&named(ids)?, folder, *accept_licences, out)
        }
        Subcommands::List | Subcommands::Fetch(_) => {
            let all: Vec<&DataSet> = SETS.iter().collect();
            io::print(out, &terms(&all))
        }
    }
}

/// The data sets of these ids, each once.
fn named(ids: &[String]) -> Result<Vec<&'static DataSet>, Failure> {
    let known: Vec<&str> = SETS.iter().map(|set| set.id).chain(["all"]).collect();
    if let Some(id) = ids.iter().find(|id| !known.contains(&id.as_str())) {
        return Err(Failure::bad_input(unknown("data set", id, &known)));
    }
    Ok(SETS.iter().filter(|set| ids.iter().any(|id| id == "all" || id == set.id)).collect())
}

fn terms(sets: &[&DataSet]) -> String {
    sets.iter().map(|set| set.terms()).collect::<Vec<_>>().join("\n")
}

fn get(sets: &[&DataSet], folder: &std::path::Path, accepted: bool, out: &mut dyn Write) -> Result<(), Failure> {
    // Terms come first, whether or not they were accepted already.
    io::say(&terms(sets));
    if !accepted {
        return Err(Failure::bad_input(
            "nothing was fetched; add --accept-licences if you accept the licence of each of the data sets above",
        ));
    }
    let line = Line::new();
    let mut missing = Vec::new();
    for set in sets {
        match fetch::fetch(set, folder, &line) {
            Ok(placed) => {
                let mut text = format!("{}  {} records", placed.path.display(), placed.records);
                if placed.usable < placed.records {
                    let _ = write!(text, ", {} of them can be edited", placed.usable);
                }
                text += if placed.found { ", was there already\n" } else { "\n" };
                io::print(out, &text)?;
            }
            Err(reason) => {
                line.say(&(fetch::by_hand(set, folder, &reason) + "\n"));
                missing.push(set.id);
            }
        }
    }
    drop(line);
    if missing.is_empty() {
        return Ok(());
    }
    let (n, of) = (missing.len(), sets.len());
    Err(io::internal(format!(
        "{n} of {of} data sets were not fetched: {}; what to place where is said above",
        missing.join(", ")
    )))
}
