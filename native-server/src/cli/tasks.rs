//! `rectify tasks`: what abilities can be asked for.

use std::io::Write;

use rectify_core::task::{MORE, TASKS, Task};
use rectify_protocol::Failure;
use serde_json::json;

use crate::{hub::sets::DataSet, io, tasks};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommands {
    /// List the tasks: their ids, the files they read, and where such files come from
    List {
        /// Print one JSON document on stdout
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(command: &Subcommands, out: &mut dyn Write) -> Result<(), Failure> {
    let Subcommands::List { json } = command;
    let all = || TASKS.iter().map(|task| (task, true)).chain(MORE.iter().map(|task| (task, false)));
    let set = |task: &Task| DataSet::of_task(tasks::id_of(task)).map(|set| set.id);
    if *json {
        let list: Vec<_> = all()
            .map(|(task, in_all)| {
                json!({ "id": task.id, "name": task.name, "in_all": in_all, "file": tasks::beginnings(task),
                    "new_tokens": task.new_tokens, "data_set": set(task) })
            })
            .collect();
        return io::print(out, &io::to_json(&list)?);
    }
    let wide = all().map(|(task, _)| task.id.len()).max().unwrap_or(0);
    let line = |(task, in_all): (&Task, bool)| {
        let file = tasks::beginnings(task).join("* or ");
        let from = set(task).map_or_else(String::new, |set| format!("; rectify data fetch {set}"));
        let more = if in_all { "" } else { "; not in all" };
        format!("{:wide$}  {} ({file}*{from}{more})\n", task.id, task.name)
    };
    io::print(out, &all().map(line).collect::<String>())
}
