//! Who carries jobs on: begins what waits, looks where it stands, and says when it is done. One thread; the record and the
//! rows are all it knows, so that another one goes on where it was killed.

use std::{
    collections::HashMap,
    fs,
    io::{BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use rectify_protocol::{Failure, JobPart, JobState, JobWork, Kind};

use super::{
    Settings, Shared,
    dispatch::{Dispatcher, Order, Standing},
    store::{Record, Run},
    work::{self, Place},
};
use crate::{io, sweep::rows};

/// After so many attempts in a row that added no row and ended by themselves, a job has failed.
const FRUITLESS: u32 = 3;
/// The same, where something else ended them: a server that was started again, a cluster that took its node away.
const INTERRUPTED: u32 = 50;
/// Seconds that are waited at most before an attempt that follows fruitless ones; the first waits two.
const LONGEST_WAIT: u64 = 60;

/// The thread's own.
pub(super) struct Foreman {
    pub(super) shared: std::sync::Arc<Shared>,
    pub(super) dispatcher: Box<dyn Dispatcher>,
    /// How far each file of rows was counted: bytes, and lines in them.
    pub(super) counted: HashMap<PathBuf, (u64, usize)>,
    /// Of each job the attempt that was seen first, when that was, and how many rows there were: clocks of the day jump.
    pub(super) paces: HashMap<String, (u32, Instant, usize)>,
}

impl Foreman {
    /// Looks after every job once. What one of them complains about is its own.
    pub(super) fn round(&mut self) -> Result<(), Failure> {
        // The oldest first: what came first is begun first.
        for record in self.shared.store.records()?.into_iter().rev().filter(|record| !record.job.state.has_ended()) {
            if self.shared.ending.load(Ordering::Relaxed) {
                break;
            }
            let id = record.job.id.clone();
            if let Err(failure) = self.look_after(record) {
                self.shared.change(&id, |record| {
                    record.job.note = Some(failure.message.clone());
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    fn look_after(&mut self, record: Record) -> Result<(), Failure> {
        let id = record.job.id.clone();
        let place = Place::of(&self.shared.settings.folder, &id, &record.job.request.work);
        let rows = match record.job.request.work {
            JobWork::Sweep { .. } => self.count(&place.results),
            _ => work::count(&record.job.request.work, &place),
        };
        match &record.run {
            None if record.cancel => self.end(&id, JobState::Cancelled, rows, None),
            None if is_early(now(), record.not_before) => Ok(()),
            None => self.begin(record, &place, rows),
            Some(Run { handle: None, .. }) => self.find(record, &place),
            Some(Run { handle: Some(handle), .. }) => {
                let handle = handle.clone();
                self.look(record, &handle, &place, rows)
            }
        }
    }

    /// Writes down what is about to be begun, begins it, and writes down what it is known by.
    fn begin(&mut self, record: Record, place: &Place, rows: usize) -> Result<(), Failure> {
        room_in(&self.shared.settings.folder)?;
        let parts = |record: &Record| -> Vec<usize> {
            let parts = record.job.parts.iter().enumerate();
            parts.filter(|(_, part)| **part != JobPart::Done).map(|(number, _)| number).collect()
        };
        self.shared.change(&record.job.id, |record| {
            record.job.attempt += 1;
            record.run =
                Some(Run { parts: parts(record), handle: None, rows_before: rows, kept_before: work::trace(place) });
            Ok(())
        })?;
        let Some(record) = self.shared.store.record(&record.job.id)? else { return Ok(()) };
        self.submit(&record, place)
    }

    fn submit(&mut self, record: &Record, place: &Place) -> Result<(), Failure> {
        let mut order = self.order(record, place);
        let Settings { program, shelf, device, .. } = &self.shared.settings;
        order.command.push(program.into());
        order.command.extend(work::arguments(shelf, &record.job.request, place, device.name())?);
        fs::create_dir_all(&order.folder).map_err(|error| io::cannot_write(&order.folder, &error))?;
        let handle = self.dispatcher.submit(&order)?;
        self.known_by(&record.job.id, handle)
    }

    /// After a stop between the intent and its answer: what was begun is looked for before it is begun again.
    fn find(&mut self, record: Record, place: &Place) -> Result<(), Failure> {
        match self.dispatcher.find(&self.order(&record, place).name)? {
            Some(handle) => self.known_by(&record.job.id, handle),
            None => self.submit(&record, place),
        }
    }

    fn known_by(&self, id: &str, handle: String) -> Result<(), Failure> {
        let known = self.shared.change(id, |record| {
            record.job.note = None;
            if let Some(run) = &mut record.run {
                run.handle = Some(handle);
            }
            Ok(())
        });
        known.map(drop)
    }

    fn look(&mut self, record: Record, handle: &str, place: &Place, rows: usize) -> Result<(), Failure> {
        let order = self.order(&record, place);
        if record.cancel {
            self.dispatcher.cancel(handle)?;
        }
        let standings = self.dispatcher.look(handle, &order)?;
        let never = standings.iter().find(|(_, standing)| **standing == Standing::Ended(Some(2)));
        let refused = never.map(|(part, _)| last_words(&order.log(*part)));
        if refused.is_some() {
            self.dispatcher.cancel(handle)?;
        }
        let stands = |standing: &Standing| matches!(standing, Standing::Ended(_) | Standing::Gone);
        let all_stand = standings.values().all(stands);
        let attempt = record.job.attempt;
        let pace = self.paces.entry(record.job.id.clone()).or_insert((attempt, Instant::now(), rows));
        if pace.0 != attempt {
            *pace = (attempt, Instant::now(), rows);
        }
        let (_, since, rows_then) = *pace;
        self.shared.change(&record.job.id, |record| {
            let (job, run) = (&mut record.job, record.run.as_mut().expect("a run is looked at"));
            for (part, standing) in &standings {
                job.parts[*part] = match standing {
                    Standing::Running => JobPart::Running,
                    Standing::Ended(Some(0)) => JobPart::Done,
                    Standing::Waiting | Standing::Ended(_) | Standing::Gone => JobPart::Queued,
                };
            }
            let moves = rows > run.rows_before || job.parts.contains(&JobPart::Running);
            job.state = if moves { JobState::Running } else { job.state };
            if rows != job.rows {
                job.rows = rows;
                let new = rows.saturating_sub(rows_then);
                let left = job.expected.saturating_sub(rows) as f64;
                job.seconds_left = (new > 0).then(|| since.elapsed().as_secs_f64() / new as f64 * left);
            }
            // Rows show how far a grid is; of what is one file there is only what the process says.
            if order.of.is_none() && job.parts[0] == JobPart::Running {
                job.note = Some(last_words(&order.log(0))).filter(|words| !words.is_empty());
            }
            Ok(())
        })?;
        if !all_stand {
            return Ok(());
        }
        match refused {
            _ if record.cancel => self.end(&record.job.id, JobState::Cancelled, rows, None),
            Some(words) => self.end(&record.job.id, JobState::Failed, rows, Some(words)),
            None => {
                // 75 and 130 are the program's words for having been stopped.
                let by_itself = |standing: &Standing| match standing {
                    Standing::Ended(code) => !matches!(code, Some(0 | 75 | 130)),
                    _ => false,
                };
                let limit = if standings.values().any(by_itself) { FRUITLESS } else { INTERRUPTED };
                // What nobody knows any more went with its server; what ended may end again.
                let ended = standings.values().any(|standing| matches!(standing, Standing::Ended(_)));
                self.judge(&record.job.id, &order, (limit, ended), place, rows)
            }
        }
    }

    /// Whether a job is done of which nothing runs any more: the rows decide.
    fn judge(
        &mut self,
        id: &str,
        order: &Order,
        (limit, ended): (u32, bool),
        place: &Place,
        rows: usize,
    ) -> Result<(), Failure> {
        let Some(record) = self.shared.store.record(id)? else { return Ok(()) };
        let said_done = record.job.parts.iter().all(|part| *part == JobPart::Done);
        // What is not shared writes its results at once, when it is done.
        let may_be = said_done || order.of.is_none();
        let Settings { shelf, .. } = &self.shared.settings;
        if may_be && work::is_finished(shelf, &record.job.request.work, place)? {
            return self.end(id, JobState::Done, rows, None);
        }
        let fruitful = record.run.is_some_and(|run| rows > run.rows_before || work::trace(place) != run.kept_before);
        let fruitless = if fruitful { 0 } else { record.fruitless + 1 };
        if fruitless >= limit {
            let words = order.parts.iter().map(|part| last_words(&order.log(*part))).find(|words| !words.is_empty());
            let words = words.unwrap_or_else(|| "its processes said nothing".into());
            let note = format!("{fruitless} attempts in a row added nothing: {words}");
            return self.end(id, JobState::Failed, rows, Some(note));
        }
        let again = self.shared.change(id, |record| {
            record.fruitless = fruitless;
            if ended && fruitless > 0 {
                record.not_before = now() + LONGEST_WAIT.min(1 << fruitless.min(16));
            }
            record.run = None;
            record.job.state = JobState::Queued;
            if said_done {
                record.job.parts.fill(JobPart::Queued);
            }
            Ok(())
        });
        again.map(drop)
    }

    fn end(&mut self, id: &str, state: JobState, rows: usize, note: Option<String>) -> Result<(), Failure> {
        self.paces.remove(id);
        let ended = self.shared.change(id, |record| {
            record.run = None;
            record.cancel = false;
            let job = &mut record.job;
            job.parts.iter_mut().filter(|part| **part == JobPart::Running).for_each(|part| *part = JobPart::Queued);
            (job.state, job.rows, job.note) = (state, rows, note);
            (job.ended, job.seconds_left) = (Some(now()), None);
            Ok(())
        });
        ended.map(drop)
    }

    /// What was begun, by which it is looked for. The command is added where it is begun: finding what it names reads
    /// every grid.
    fn order(&self, record: &Record, place: &Place) -> Order {
        let job = &record.job;
        Order {
            name: format!("rectify-{}-{}", job.id, job.attempt),
            command: Vec::new(),
            parts: record.run.as_ref().map(|run| run.parts.clone()).unwrap_or_default(),
            of: job.has_rows().then_some(job.parts.len()),
            folder: place.logs.join(job.attempt.to_string()),
        }
    }

    /// How many rows are in a folder, by the ends of lines that were added since it was last asked.
    fn count(&mut self, folder: &Path) -> usize {
        let mut rows = 0;
        for path in rows::files(folder).unwrap_or_default() {
            let (seen, lines) = self.counted.entry(path.clone()).or_default();
            if let Ok((size, more)) = ends_of_lines(&path, *seen) {
                (*seen, *lines) = (size, *lines + more);
            }
            // The first says what the others are about.
            rows += lines.saturating_sub(1);
        }
        rows
    }
}

fn ends_of_lines(path: &Path, from: u64) -> std::io::Result<(u64, usize)> {
    let mut file = fs::File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let (mut at, mut lines) = (from, 0);
    let mut reader = BufReader::new(file);
    let mut buffer = [0; 1 << 16];
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            return Ok((at, lines));
        }
        at += read as u64;
        lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count();
    }
}

/// The end of what a process said: why it stopped.
fn last_words(log: &Path) -> String {
    let tail = io::tail(log, 4096);
    let line = tail.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim().trim_start_matches("error: ").to_owned()
}

/// Bytes that must be free for a process to be started: what it says and measures has to go somewhere.
const ROOM: u64 = 32 << 20;

/// Whether there is room for results where jobs are kept.
///
/// # Errors
///
/// When there is not.
pub(super) fn room_in(folder: &Path) -> Result<(), Failure> {
    // Who cannot be asked may have room.
    let free = fs4::available_space(folder).unwrap_or(u64::MAX);
    if free >= ROOM {
        return Ok(());
    }
    let words = format!("waits for room: less than {} MiB are free in {}", ROOM >> 20, folder.display());
    Err(Failure::new(Kind::Device, words))
}

/// Whether a job that is to wait still does. A clock that was set back makes nobody wait longer.
fn is_early(now: u64, not_before: u64) -> bool {
    (1..=LONGEST_WAIT).contains(&not_before.saturating_sub(now))
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A complaint about a job that is not there.
pub(super) fn no_such_job(id: &str) -> Failure {
    Failure::new(Kind::NotFound, format!("there is no job {id:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_keeps_nobody_waiting() {
        const NOW: u64 = 1_800_000_000;
        assert!(is_early(NOW, NOW + 2) && is_early(NOW, NOW + LONGEST_WAIT));
        assert!(!is_early(NOW, NOW) && !is_early(NOW, 0));
        assert!(!is_early(NOW + 3600, NOW + 2), "it was set forward");
        assert!(!is_early(NOW - 3600, NOW + 2), "it was set back");
    }
}
