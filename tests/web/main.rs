//! The page in a real browser. `cargo xtask test` builds the page, finds Chromium and runs this.
//!
//! [`page`] does what a visitor does, by mouse and keyboard. [`numbers`] speaks to the page's workers directly and
//! compares digits: with the golden files, with the same answers before an edit, and between devices. [`embed`] and
//! [`links`] open demonstrations in others' pages and links in others' browsers. [`runs`] sends heavy runs to a server.
//! [`faults`] takes the graphics card away.

mod driver;
mod embed;
mod faults;
mod host;
#[path = "../../frontend/src/ids.rs"]
#[allow(dead_code, reason = "the page's own list of ids; no test uses all of them")]
mod ids;
mod links;
mod numbers;
mod page;
mod runs;
mod site;
mod worker;
