//! What Rectify's page, worker, server and files say to each other.
//!
//! Plain values with public fields; no tensor, no file, no logic but validation.
//!
//! One edit in the browser, and the same edit on a server:
//!
//! ```text
//! page ── Request { id, Command::Load }  ─▶ worker         page ── POST /api/sessions/{key}/commands ─▶ server
//!      ◀─ Reply { id, Event::Progress } ──                      ◀─ server-sent Reply { id, Progress } ──
//!      ◀─ Reply { id, Event::Loaded }   ──                      ◀─ … Reply { id, Edited }            ──
//!      ── Request { id, Command::Edit } ─▶
//!      ◀─ Reply { id, Event::Progress } ──   once per optimisation step
//!      ── Request { Command::Cancel { id } } ▶  drops that request; nothing was changed yet
//!      ◀─ Reply { id, Event::Edited }   ──   or Failed, or Cancelled: always exactly one last event
//! ```
//!
//! Every command gets any number of [`Event::Progress`] and then exactly one last event.
//! Begin reading at [`Command`] and [`Event`].

mod ability;
mod architecture;
pub mod bounds;
mod catalog;
mod command;
mod eval;
mod event;
mod fact;
mod failure;
mod job;
mod precision;
mod report;
mod run;
mod spec;
mod sweep;
mod task;
mod trace;

pub use ability::{Ability, Item, Play, PlayReport};
pub use architecture::ArchitectureKind;
pub use catalog::{Catalog, CatalogFile, CatalogModel, FileRole, World};
pub use command::{Command, ModelSource, Over, Request, SessionOpened};
pub use eval::{EvalReport, TaskReport};
pub use event::{Event, Progress, Reply};
pub use fact::{Consequence, Fact, Neighbor};
pub use failure::{Failure, Kind};
pub use job::{
    Job, JobOffer, JobPart, JobRequest, JobState, JobWork, Machine, OfferedModel, RowsFile, SweepChange, Template,
};
pub use precision::Precision;
pub use report::{
    Above, Answer, Blocks, Candidate, EditReport, FactReport, FactScores, Measure, ModelInfo, Percentile,
    ProbabilityMeans, ProbabilityScores, Probe, Step, WeightChange,
};
pub use run::{EditMode, FailedRecord, RunCommand, RunReport, Summary};
pub use spec::{
    Contexts, EditSpec, Guards, MendTraining, OuterPrompt, Regularizer, ValueSpec, editors::*, nearest, unknown,
};
pub use sweep::{Cell, Key, Measured, Row, SweepSpec, TextScores};
pub use task::{Continuation, Judgement, Tally, TaskScores, Verdict};
pub use trace::{Noise, TraceAverage, TraceReport, TraceSpec};
