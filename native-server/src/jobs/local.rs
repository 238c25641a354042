//! Processes of this machine, a few at a time.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rectify_protocol::Failure;

use super::dispatch::{Dispatcher, Order, Standing};
use crate::{cli::ENDS_WITH_STDIN, io};

/// Starts children of this process. Each holds the end of a pipe from here, and stops when it closes: however the server
/// ends, no child is left behind, and what it measured is in its rows.
#[derive(Debug)]
pub struct Local {
    at_once: usize,
    /// In the order in which they came.
    orders: Vec<Order>,
    parts: BTreeMap<(String, usize), Standing>,
    children: BTreeMap<(String, usize), Process>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    /// When it was told to stop.
    told: Option<Instant>,
}

/// How long a child may take to stop before it is killed. It loses no row.
const PATIENCE: Duration = Duration::from_secs(10);

impl Local {
    /// Runs so many processes at a time.
    pub fn new(at_once: usize) -> Self {
        Self { at_once, orders: Vec::new(), parts: BTreeMap::new(), children: BTreeMap::new() }
    }

    /// Reaps who has ended and starts who can be.
    fn pump(&mut self) -> Result<(), Failure> {
        let mut ended = Vec::new();
        for (key, process) in &mut self.children {
            let status = process.child.try_wait().map_err(|error| io::internal(format!("a child: {error}")))?;
            if let Some(status) = status {
                ended.push((key.clone(), Standing::Ended(status.code())));
            } else if process.told.is_some_and(|told| told.elapsed() > PATIENCE) {
                let _ = process.child.kill(); // It has just ended, or will be seen as killed.
            }
        }
        for (key, standing) in ended {
            self.children.remove(&key);
            self.parts.insert(key, standing);
        }
        while self.children.len() < self.at_once {
            let waits = |order: &Order| {
                let waits = |part: &usize| self.parts.get(&(order.name.clone(), *part)) == Some(&Standing::Waiting);
                order.parts.iter().copied().find(waits).map(|part| (order.clone(), part))
            };
            let Some((order, part)) = self.orders.iter().find_map(waits) else { break };
            let started = start(&order, part);
            let name = order.name;
            match started {
                Ok(child) => {
                    self.parts.insert((name.clone(), part), Standing::Running);
                    self.children.insert((name, part), Process { child, told: None });
                }
                // Its own affair: the next one may start.
                Err(failure) => {
                    tracing::warn!(order = name, part, %failure, "a process could not be started");
                    self.parts.insert((name, part), Standing::Ended(None));
                }
            }
        }
        Ok(())
    }
}

fn start(order: &Order, part: usize) -> Result<Child, Failure> {
    let path = order.log(part);
    let log = OpenOptions::new().create(true).append(true).open(&path);
    let log = log.map_err(|error| io::cannot_write(&path, &error))?;
    let mut command = Command::new(&order.command[0]);
    command.args(&order.command[1..]);
    if let Some(of) = order.of {
        command.arg("--part").arg(format!("{part}/{of}"));
    }
    command.env(ENDS_WITH_STDIN, "1").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
    command.spawn().map_err(|error| io::internal(format!("cannot start {}: {error}", order.command[0].display())))
}

impl Dispatcher for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn at_once(&self) -> Option<usize> {
        Some(self.at_once)
    }

    fn submit(&mut self, order: &Order) -> Result<String, Failure> {
        self.orders.push(order.clone());
        self.parts.extend(order.parts.iter().map(|part| ((order.name.clone(), *part), Standing::Waiting)));
        self.pump()?;
        Ok(order.name.clone())
    }

    fn find(&mut self, name: &str) -> Result<Option<String>, Failure> {
        Ok(self.orders.iter().find(|order| order.name == name).map(|order| order.name.clone()))
    }

    fn look(&mut self, handle: &str, order: &Order) -> Result<BTreeMap<usize, Standing>, Failure> {
        self.pump()?;
        let standing = |part: &usize| {
            // What a server before this one started has ended with it.
            (*part, self.parts.get(&(handle.to_owned(), *part)).copied().unwrap_or(Standing::Gone))
        };
        let found: BTreeMap<usize, Standing> = order.parts.iter().map(standing).collect();
        if found.values().all(|standing| matches!(standing, Standing::Ended(_))) {
            self.orders.retain(|order| order.name != handle);
            self.parts.retain(|(name, _), _| name != handle);
        }
        Ok(found)
    }

    fn cancel(&mut self, handle: &str) -> Result<(), Failure> {
        for ((name, _), standing) in &mut self.parts {
            if name == handle && *standing == Standing::Waiting {
                *standing = Standing::Ended(None);
            }
        }
        for ((name, _), process) in &mut self.children {
            if name == handle && process.told.is_none() {
                drop(process.child.stdin.take());
                process.told = Some(Instant::now());
            }
        }
        self.pump()
    }
}

impl Drop for Local {
    /// Tells every child to stop and waits a little, so that nothing runs on behind the server's back.
    fn drop(&mut self) {
        for process in self.children.values_mut() {
            drop(process.child.stdin.take());
        }
        let until = Instant::now() + PATIENCE;
        for process in self.children.values_mut() {
            while matches!(process.child.try_wait(), Ok(None)) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}
