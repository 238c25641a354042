//! The record of jobs: an SQLite file beside their folders. It says what was asked for and what was begun; what was
//! measured is in the rows.

use std::{
    fs::{File, TryLockError},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rectify_protocol::{Failure, Job};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::io;

/// A job as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What is shown of it.
    pub job: Job,
    /// What was begun last; none where nothing runs.
    pub run: Option<Run>,
    /// Attempts in a row that added nothing.
    pub fruitless: u32,
    /// Whether somebody wants it to stop.
    pub cancel: bool,
    /// Seconds since 1970 before which nothing is begun.
    #[serde(default)]
    pub not_before: u64,
}

/// Processes that were begun together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The parts they do.
    pub parts: Vec<usize>,
    /// How the dispatcher knows them. None between the intent and its answer, and then what was begun is looked for by
    /// name.
    pub handle: Option<String>,
    /// Rows that were there before.
    pub rows_before: usize,
    /// What was kept of work that has no rows.
    #[serde(default)]
    pub kept_before: Option<String>,
}

/// Something that happened to a job, for those who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// Its number among all events of the record.
    pub number: i64,
    /// The job as it was then, as JSON.
    pub job: String,
}

/// What became of a request.
#[derive(Debug, PartialEq)]
pub enum Submitted {
    /// It is kept.
    New,
    /// It is the request of this job, sent again.
    Again(String),
    /// Its key belongs to another request.
    Other,
}

/// The open file. One process has it: a lock that the system frees when that process ends, however it ends.
#[derive(Debug)]
pub struct Store {
    database: Mutex<Connection>,
    /// Tells this record's events from those of one that was begun anew.
    pub epoch: String,
    _lock: File,
}

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS epoch (name TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, key TEXT UNIQUE, request TEXT NOT NULL,
        record TEXT NOT NULL, forgotten INTEGER NOT NULL DEFAULT 0) STRICT;
    CREATE TABLE IF NOT EXISTS events (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, job TEXT NOT NULL)
        STRICT;
    CREATE INDEX IF NOT EXISTS events_of_a_job ON events (id, number);
";

/// As many events of a job are kept; who missed more begins with the job as it is.
const KEPT: i64 = 200;

/// As many events are read at a time: each watcher holds as many.
const AT_ONCE: i64 = 8;

impl Store {
    /// Opens or begins the record in a folder.
    ///
    /// # Errors
    ///
    /// When another process has it, or the file cannot be read or written.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(folder).map_err(|error| io::cannot_write(folder, &error))?;
        let lock_file = folder.join("jobs.lock");
        let lock = File::create(&lock_file).map_err(|error| io::cannot_write(&lock_file, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let folder = folder.display();
                return Err(Failure::bad_input(format!(
                    "another server keeps its jobs in {folder}; name another folder with --jobs"
                )));
            }
            Err(TryLockError::Error(error)) => return Err(io::cannot_write(&lock_file, &error)),
        }
        let path = folder.join("jobs.sqlite");
        let open = || {
            let database = Connection::open(&path)?;
            database.busy_timeout(Duration::from_secs(10))?;
            database.pragma_update(None, "journal_mode", "WAL")?;
            database.execute_batch(SCHEMA)?;
            let known = database.query_row("SELECT name FROM epoch", [], |row| row.get(0)).optional()?;
            Ok((database, known))
        };
        let wrong = |error: rusqlite::Error| io::internal(format!("cannot open {}: {error}", path.display()));
        let (database, known): (Connection, Option<String>) = open().map_err(wrong)?;
        let epoch = match known {
            Some(epoch) => epoch,
            None => {
                let epoch = io::nobody_else_s()?;
                database.execute("INSERT INTO epoch VALUES (?1)", [&epoch]).map_err(wrong)?;
                epoch
            }
        };
        Ok(Self { database: Mutex::new(database), epoch, _lock: lock })
    }

    /// Keeps a new job, unless its key is known. `request` is the body as it came, of which a hash is kept.
    ///
    /// # Errors
    ///
    /// When the record cannot be written.
    pub fn submit(&self, key: Option<&str>, request: &str, record: &Record) -> Result<Submitted, Failure> {
        let request = &io::sha256_of(request.as_bytes());
        let text = json(record)?;
        // What could not be read back would be in everybody's way.
        parsed(&text).map_err(|failure| Failure::bad_input(format!("the request cannot be kept: {failure}")))?;
        let mut database = self.database();
        let transaction = database.transaction().map_err(broken)?;
        if let Some(key) = key {
            let known = "SELECT id, request FROM jobs WHERE key = ?1";
            let known = transaction.query_row(known, [key], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)));
            if let Some((id, before)) = known.optional().map_err(broken)? {
                return Ok(if before == *request { Submitted::Again(id) } else { Submitted::Other });
            }
        }
        let id = &record.job.id;
        let insert = "INSERT INTO jobs (id, key, request, record) VALUES (?1, ?2, ?3, ?4)";
        transaction.execute(insert, params![id, key, request, text]).map_err(broken)?;
        happened(&transaction, &record.job)?;
        transaction.commit().map_err(broken)?;
        Ok(Submitted::New)
    }

    /// Every job, the newest first. One whose record cannot be read is left out, and the log says so.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn records(&self) -> Result<Vec<Record>, Failure> {
        let database = self.database();
        let all = "SELECT record FROM jobs WHERE forgotten = 0 ORDER BY number DESC";
        let mut all = database.prepare_cached(all).map_err(broken)?;
        let texts = all.query_map([], |row| row.get::<_, String>(0)).map_err(broken)?;
        let mut records = Vec::new();
        for text in texts {
            match parsed(&text.map_err(broken)?) {
                Ok(record) => records.push(record),
                Err(failure) => tracing::error!(%failure, "a job is left out"),
            }
        }
        Ok(records)
    }

    /// One job.
    ///
    /// # Errors
    ///
    /// When the record cannot be read.
    pub fn record(&self, id: &str) -> Result<Option<Record>, Failure> {
        found(&self.database(), id)
    }

    /// Changes a job, and tells those who watch where something can be seen of it. `None` when there is no such job.
    ///
    /// # Errors
    ///
    /// What `change` complains about, or that the record cannot be written; then nothing is changed.
    pub fn change<T>(
        &self,
        id: &str,
        change: impl FnOnce(&mut Record) -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        let mut database = self.database();
        let transaction = database.transaction().map_err(broken)?;
        let Some(before) = found(&transaction, id)? else { return Ok(None) };
        let mut after = before.clone();
        let answer = change(&mut after)?;
        if after != before {
            let update = "UPDATE jobs SET record = ?2 WHERE id = ?1";
            transaction.execute(update, params![id, json(&after)?]).map_err(broken)?;
            if after.job != before.job {
                happened(&transaction, &after.job)?;
            }
            transaction.commit().map_err(broken)?;
        }
        Ok(Some(answer))
    }

    /// Forgets a job. A key stays taken, so that its request does not come to life again.
    ///
    /// # Errors
    ///
    /// When the record cannot be written.
    pub fn forget(&self, id: &str) -> Result<(), Failure> {
        let mut database = self.database();
        let transaction = database.transaction().map_err(broken)?;
        transaction.execute("DELETE FROM jobs WHERE id = ?1 AND key IS NULL", [id]).map_err(broken)?;
        let forget = "UPDATE jobs SET forgotten = 1, record = '' WHERE id = ?1";
        transaction.execute(forget, [id]).map_err(broken)?;
        transaction.execute("DELETE FROM events WHERE id = ?1", [id]).map_err(broken)?;
        transaction.commit().map_err(broken)
    }

    /// The next that happened to a job after the event of this number, a few at a time; `None` when that is not known any more, or was never an
    /// event.
    ///
    /// # Errors
    ///
    /// When the record cannot be read.
    pub fn after(&self, id: &str, number: i64) -> Result<Option<Vec<Happened>>, Failure> {
        let database = self.database();
        let known = "SELECT 1 FROM events WHERE id = ?1 AND number = ?2";
        if database.query_row(known, params![id, number], |_| Ok(())).optional().map_err(broken)?.is_none() {
            return Ok(None);
        }
        let after = "SELECT number, job FROM events WHERE id = ?1 AND number > ?2 ORDER BY number LIMIT ?3";
        let mut after = database.prepare_cached(after).map_err(broken)?;
        let events = after.query_map(params![id, number, AT_ONCE], event).map_err(broken)?;
        events.collect::<Result<_, _>>().map(Some).map_err(broken)
    }

    /// The last that happened to a job.
    ///
    /// # Errors
    ///
    /// When the record cannot be read.
    pub fn last(&self, id: &str) -> Result<Option<Happened>, Failure> {
        let last = "SELECT number, job FROM events WHERE id = ?1 ORDER BY number DESC LIMIT 1";
        self.database().query_row(last, [id], event).optional().map_err(broken)
    }

    /// What the lock guards is whole between any two statements, so a panic elsewhere does not spoil it.
    fn database(&self) -> MutexGuard<'_, Connection> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn event(row: &rusqlite::Row<'_>) -> rusqlite::Result<Happened> {
    Ok(Happened { number: row.get(0)?, job: row.get(1)? })
}

fn found(database: &Connection, id: &str) -> Result<Option<Record>, Failure> {
    let one = "SELECT record FROM jobs WHERE id = ?1 AND forgotten = 0";
    let text = database.query_row(one, [id], |row| row.get::<_, String>(0)).optional().map_err(broken)?;
    text.map(|text| parsed(&text)).transpose()
}

/// Adds an event, and lets the oldest go.
fn happened(database: &Connection, job: &Job) -> Result<(), Failure> {
    let insert = "INSERT INTO events (id, job) VALUES (?1, ?2)";
    database.execute(insert, params![job.id, json(job)?]).map_err(broken)?;
    let prune = "DELETE FROM events WHERE id = ?1 AND number <=
        (SELECT number FROM events WHERE id = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)";
    database.execute(prune, params![job.id, KEPT]).map(drop).map_err(broken)
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| io::internal(error.to_string()))
}

fn parsed(text: &str) -> Result<Record, Failure> {
    serde_json::from_str(text).map_err(|error| io::internal(format!("the record of jobs holds no job: {error}")))
}

fn broken(error: rusqlite::Error) -> Failure {
    io::internal(format!("the record of jobs: {error}"))
}

#[cfg(test)]
mod tests {
    use rectify_protocol::{JobRequest, JobState, JobWork, SweepChange};

    use super::*;

    fn record(id: &str) -> Record {
        let work = JobWork::Sweep { template: "t".into(), change: SweepChange::default() };
        let job = Job {
            id: id.into(),
            request: JobRequest { work, parts: 1, precision: rectify_protocol::Precision::F32 },
            state: JobState::Queued,
            parts: vec![],
            attempt: 0,
            rows: 0,
            expected: 9,
            created: 0,
            ended: None,
            seconds_left: None,
            note: None,
        };
        Record { job, run: None, fruitless: 0, cancel: false, not_before: 0 }
    }

    #[test]
    fn a_key_stands_for_one_request() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let submit = |key, body, id| store.submit(key, body, &record(id)).unwrap();
        assert_eq!(submit(Some("k"), "{}", "a"), Submitted::New);
        assert_eq!(submit(Some("k"), "{}", "b"), Submitted::Again("a".into()));
        assert_eq!(submit(Some("k"), "{ }", "b"), Submitted::Other);
        assert_eq!(submit(None, "{}", "b"), Submitted::New);
        let broken = "INSERT INTO jobs (id, request, record) VALUES ('z', '', '{}')";
        store.database().execute(broken, []).unwrap();
        let ids: Vec<String> = store.records().unwrap().into_iter().map(|record| record.job.id).collect();
        assert_eq!(ids, ["b", "a"], "one that cannot be read is in nobody's way");
        store.forget("a").unwrap();
        assert_eq!(store.record("a").unwrap(), None);
        assert_eq!(submit(Some("k"), "{}", "c"), Submitted::Again("a".into()), "it does not come to life again");
    }

    #[test]
    fn what_happened_is_told_from_any_event_on_while_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.submit(None, "{}", &record("a")).unwrap();
        let first = store.last("a").unwrap().unwrap().number;
        let advance = |rows| {
            let set = |record: &mut Record| {
                record.job.rows = rows;
                Ok(())
            };
            store.change("a", set).unwrap().unwrap();
        };
        (1..=3).for_each(advance);
        advance(3); // Nothing that can be seen.
        let numbers = |after| -> Option<Vec<i64>> {
            Some(store.after("a", after).unwrap()?.into_iter().map(|event| event.number).collect())
        };
        assert_eq!(numbers(first), Some(vec![first + 1, first + 2, first + 3]));
        assert_eq!(numbers(first + 3), Some(vec![]));
        assert_eq!(numbers(first + 4), None, "there was no such event");
        (4..KEPT as usize + 10).for_each(advance);
        assert_eq!(numbers(first), None, "it was let go");
        assert_eq!(numbers(store.last("a").unwrap().unwrap().number - 1).map(|events| events.len()), Some(1));
        assert_eq!(store.change("b", |_| Ok(())).unwrap(), None);
        // What complains has changed nothing.
        let before = store.record("a").unwrap();
        let complain = |record: &mut Record| {
            record.job.rows = 0;
            Err::<(), _>(Failure::bad_input("no"))
        };
        assert!(store.change("a", complain).is_err());
        assert_eq!(store.record("a").unwrap(), before);
    }

    #[test]
    fn one_process_has_the_record_and_the_next_finds_it_whole() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert!(Store::open(folder.path()).unwrap_err().message.contains("another server"));
        store.submit(None, "{}", &record("a")).unwrap();
        let epoch = store.epoch.clone();
        drop(store);
        let store = Store::open(folder.path()).unwrap();
        assert_eq!((store.record("a").unwrap(), &store.epoch), (Some(record("a")), &epoch));
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Store::open(other.path()).unwrap().epoch, epoch);
    }
}
