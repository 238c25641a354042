//! One file per page.

pub mod edit;
