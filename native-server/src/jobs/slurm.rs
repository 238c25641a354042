//! Job arrays of a Slurm cluster whose nodes share the folder of jobs.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fmt::Write,
    process::{Command, Stdio},
};

use rectify_protocol::Failure;

use super::dispatch::{Dispatcher, Order, Standing};
use crate::io;

/// Submits arrays, a task for each part. Slurm forgets what has ended after minutes and uses its numbers again, so a task
/// that is not in its queue is [`Standing::Gone`] unless it left a note of how it ended.
#[derive(Debug)]
pub struct Slurm {
    /// More of `sbatch`'s arguments: a partition, a card, a time limit.
    arguments: Vec<String>,
}

impl Slurm {
    /// Submits with these arguments of `sbatch` beside our own.
    pub fn new(arguments: Vec<String>) -> Self {
        Self { arguments }
    }
}

impl Dispatcher for Slurm {
    fn name(&self) -> &'static str {
        "slurm"
    }

    fn at_once(&self) -> Option<usize> {
        None
    }

    fn submit(&mut self, order: &Order) -> Result<String, Failure> {
        let parts: Vec<String> = order.parts.iter().map(usize::to_string).collect();
        let mut command = Command::new("sbatch");
        command.args(["--parsable", "--requeue", "--open-mode=append", "--signal=TERM@30"]);
        command.arg(format!("--job-name={}", order.name)).arg(format!("--array={}", parts.join(",")));
        command.arg(format!("--output={}", order.folder.join("%a.log").display())).args(&self.arguments);
        command.arg("--wrap").arg(script(order)?);
        let answer = asked(command)?;
        // JOB, or JOB;CLUSTER.
        let job = answer.trim().split(';').next().unwrap_or_default();
        match job.parse::<u64>() {
            Ok(_) => Ok(job.to_owned()),
            Err(_) => Err(io::internal(format!("sbatch answered {answer:?}, which is no number of a job"))),
        }
    }

    fn find(&mut self, name: &str) -> Result<Option<String>, Failure> {
        let mut command = Command::new("squeue");
        command.args(["--noheader", "--format=%F"]).arg(format!("--name={name}"));
        Ok(asked(command)?.lines().next().map(|line| line.trim().to_owned()))
    }

    fn look(&mut self, handle: &str, order: &Order) -> Result<BTreeMap<usize, Standing>, Failure> {
        let mut command = Command::new("squeue");
        // By name and not by number: a number that it has forgotten is an error.
        command.args(["--noheader", "--array", "--format=%F %K %T"]).arg(format!("--name={}", order.name));
        let queue = asked(command)?;
        let mut found: BTreeMap<usize, Standing> = order.parts.iter().map(|part| (*part, Standing::Gone)).collect();
        for line in queue.lines() {
            let mut words = line.split_whitespace();
            let (Some(job), Some(task), Some(state)) = (words.next(), words.next(), words.next()) else { continue };
            if let Some(standing) = task.parse().ok().filter(|_| job == handle).and_then(|task| found.get_mut(&task)) {
                *standing = standing_of(state);
            }
        }
        for (part, standing) in found.iter_mut().filter(|(_, standing)| **standing == Standing::Gone) {
            // The shell wrote it when the program had ended.
            let note = std::fs::read_to_string(order.folder.join(format!("{part}.end"))).unwrap_or_default();
            if let Ok(code) = note.trim().parse() {
                *standing = Standing::Ended(Some(code));
            }
        }
        Ok(found)
    }

    fn cancel(&mut self, handle: &str) -> Result<(), Failure> {
        let mut command = Command::new("scancel");
        command.args(["--signal=TERM", "--full"]).arg(handle);
        // What runs is asked to stop, what waits is taken away; one that has ended meanwhile is no complaint.
        let told = asked(command);
        let mut waiting = Command::new("scancel");
        waiting.args(["--state=PENDING"]).arg(handle);
        asked(waiting)
            .and(told)
            .map(drop)
            .or_else(|failure| if failure.message.contains("Invalid job id") { Ok(()) } else { Err(failure) })
    }
}

/// Slurm's words for where a task stands; a finished one leaves the queue within minutes.
fn standing_of(state: &str) -> Standing {
    match state {
        "PENDING" | "CONFIGURING" | "REQUEUED" | "REQUEUE_HOLD" | "SPECIAL_EXIT" | "SUSPENDED" => Standing::Waiting,
        "RUNNING" | "COMPLETING" | "SIGNALING" | "STAGE_OUT" | "RESIZING" | "STOPPED" => Standing::Running,
        _ => Standing::Gone,
    }
}

/// What a task runs: the program, and then a note of how it ended.
fn script(order: &Order) -> Result<String, Failure> {
    let mut script = String::new();
    for word in &order.command {
        let _ = write!(script, "{} ", quoted(word)?);
    }
    if let Some(of) = order.of {
        let _ = write!(script, "--part auto/{of} ");
    }
    let end = quoted(order.folder.as_os_str())?;
    // `exec` would leave nobody to write the note; the shell passes on what Slurm sends to the whole step.
    let _ = write!(
        script,
        "& child=$!; trap 'kill -TERM $child' TERM; wait $child; code=$?; \
         [ $code -gt 128 ] && {{ wait $child; code=$?; }}; \
         echo $code > {end}/$SLURM_ARRAY_TASK_ID.end; exit $code"
    );
    Ok(script)
}

/// A word for a shell.
fn quoted(word: &OsStr) -> Result<String, Failure> {
    let word = word.to_str().ok_or_else(|| Failure::bad_input(format!("{} is not UTF-8", word.display())))?;
    Ok(format!("'{}'", word.replace('\'', r"'\''")))
}

/// What one of Slurm's programs answers.
fn asked(mut command: Command) -> Result<String, Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| io::internal(format!("cannot run {program}: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::internal(format!("{program} failed: {}", said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_runs_the_program_with_its_words_whole_and_notes_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let order = Order {
            name: "n".into(),
            command: ["sh", "-c", "printf '%s\\n' \"$0\" \"$@\"; exit 75", "it's $HOME", "a b"]
                .map(Into::into)
                .to_vec(),
            parts: vec![3],
            of: Some(5),
            folder: folder.path().to_owned(),
        };
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script(&order).unwrap()).env("SLURM_ARRAY_TASK_ID", "3");
        let output = shell.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "it's $HOME\na b\n--part\nauto/5\n");
        assert_eq!(output.status.code(), Some(75));
        assert_eq!(std::fs::read_to_string(folder.path().join("3.end")).unwrap(), "75\n");
    }

    #[test]
    fn a_task_that_is_told_to_stop_lets_the_program_end() {
        let folder = tempfile::tempdir().unwrap();
        let order = Order {
            name: "n".into(),
            command: ["sh", "-c", "trap 'sleep 0.2; exit 75' TERM; while :; do sleep 0.05; done"]
                .map(Into::into)
                .to_vec(),
            parts: vec![0],
            of: None,
            folder: folder.path().to_owned(),
        };
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script(&order).unwrap()).env("SLURM_ARRAY_TASK_ID", "0");
        let mut child = shell.spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(75));
        assert_eq!(std::fs::read_to_string(folder.path().join("0.end")).unwrap(), "75\n");
    }
}
