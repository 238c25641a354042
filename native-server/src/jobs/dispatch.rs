//! What starts processes and looks after them.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

use rectify_protocol::Failure;

/// Processes to start: one for each part, all with the same command but for their number.
#[derive(Clone, Debug)]
pub struct Order {
    /// A name of its own, by which what was begun is found again.
    pub name: String,
    /// The program and its arguments; empty where it is only looked for. `--part` follows where the work is divided.
    pub command: Vec<OsString>,
    /// Which parts.
    pub parts: Vec<usize>,
    /// Of how many; none where there is one, which does everything.
    pub of: Option<usize>,
    /// Where each writes what it says, `PART.log`, and how it ended, `PART.end`.
    pub folder: PathBuf,
}

impl Order {
    /// What a part says.
    pub fn log(&self, part: usize) -> PathBuf {
        self.folder.join(format!("{part}.log"))
    }
}

/// Where a process stands. What an engine says is advice: whether the work is done is seen from the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It will be started.
    Waiting,
    /// It runs.
    Running,
    /// It ended with this code; none where a signal ended it.
    Ended(Option<i32>),
    /// Nobody knows it any more.
    Gone,
}

/// An engine that runs processes, on this machine or on many.
pub trait Dispatcher: Send {
    /// Its name.
    fn name(&self) -> &'static str;

    /// How many processes run at a time, where that is said here.
    fn at_once(&self) -> Option<usize>;

    /// Begins what is ordered. The answer is what it is known by.
    ///
    /// # Errors
    ///
    /// When it cannot be begun.
    fn submit(&mut self, order: &Order) -> Result<String, Failure>;

    /// What an order of this name is known by, if it was begun: for whoever did not live to hear it.
    ///
    /// # Errors
    ///
    /// When the engine does not answer.
    fn find(&mut self, name: &str) -> Result<Option<String>, Failure>;

    /// Where its processes stand.
    ///
    /// # Errors
    ///
    /// When the engine does not answer.
    fn look(&mut self, handle: &str, order: &Order) -> Result<BTreeMap<usize, Standing>, Failure>;

    /// Ends them; they stand still some time later.
    ///
    /// # Errors
    ///
    /// When the engine does not answer.
    fn cancel(&mut self, handle: &str) -> Result<(), Failure>;
}
