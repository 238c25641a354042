//! The command line as a person or a script meets it: exit codes, documents, files, and what bad input is told.

mod data;
mod desk;
#[cfg(unix)]
mod docs;
mod edit;
mod eval;
mod hub;
mod import;
mod installed;
mod jobs;
mod kinds;
mod machine;
mod merge;
mod precision;
#[cfg(unix)]
mod serve;
#[cfg(unix)]
mod slurm;
mod sweep;
mod trace;
