//! Rows of sweeps in, the paper's figures and tables out: as SVG, HTML, Markdown and CSV, for a page and for files alike.
//!
//! [`Study`] makes numbers of rows, [`figure`] arranges them as the paper does with the paper's own beside them where the
//! model is the same, [`draw`] makes pictures of that, and [`html`] puts everything on a page. It reads and writes no
//! file and knows no model.

pub mod draw;
pub mod figure;
pub mod findings;
pub mod heat;
pub mod html;
pub mod paper;
mod study;
pub mod table;
pub mod trace;

#[cfg(test)]
mod tests;

pub use study::{Editor, MEASURES, Measure, Point, Score, Study, Sweep, above};
