//! Rectify's core: language models, editors of the facts in them, and the measure of what an edit changed.
//!
//! One pipeline of values: **plan → regularise → apply → measure**. An editor reads a model and plans a change;
//! [`edit::rect`] keeps of it what changes most; [`model::Model::apply`] gives a new model that shares every other
//! weight; [`metrics`] compares the two. Nothing is changed in place, so undo is keeping the old model and cancelling
//! is dropping the future.
//!
//! The core is pure but for the device it is handed: it opens no file, reads no clock, starts no thread, prints
//! nothing, and waits for the device in one place only. Begin reading at [`Session`].
#![deny(missing_docs)]

mod ability;
mod answer;
pub mod edit;
mod error;
pub mod fluency;
mod guard;
mod history;
mod kernels;
mod linalg;
pub mod metrics;
pub mod model;
mod play;
mod random;
mod read;
mod session;
pub mod task;
pub mod tokenizer;
pub mod trace;

pub use answer::{Answered, Batches, Reply, answer};
pub use error::{Error, Result};
pub use session::Session;
