//! Editors: from a model and facts to changes of its weights. **plan → regularise → apply → measure.**
//!
//! [`rome::plan`] gives a [`WeightDelta`]; [`regularize()`] maps it to one that changes fewer entries;
//! [`crate::model::Model::apply`] gives the edited model. Which method made a delta never reaches a regularizer.

pub mod contexts;
mod delta;
pub mod moments;
mod regularize;
pub mod rome;
pub mod value;

pub use delta::{Delta, WeightDelta};
pub use regularize::{n_kept, random, rect, regularize};
