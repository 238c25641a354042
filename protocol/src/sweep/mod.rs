//! Grids of edits: what one is asked for ([`SweepSpec`]), and the rows that come out.

mod rows;
mod spec;

pub use rows::{Cell, Key, Measured, Row, TextScores};
pub use spec::SweepSpec;
