//! What others' code must satisfy: licences, sources, no wildcard, no known hole. `deny.toml` has the rules.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::{
    Args,
    setup::cargo_deny,
    shell::{root, run, run_within, say},
};

/// `cargo xtask deny`.
pub fn deny(args: &mut Args) -> Result<()> {
    args.done()?;
    check()
}

/// Runs cargo-deny; known holes are skipped, loudly, where the list of them cannot be fetched.
pub fn check() -> Result<()> {
    let program = cargo_deny()?;
    let deny = |arguments: &[&str]| {
        let mut deny = std::process::Command::new(&program);
        deny.current_dir(root()).arg("--log-level=error").args(arguments);
        deny
    };
    run(&mut deny(&["check", "bans", "licenses", "sources"]))?;
    if !run_within(&mut deny(&["fetch", "db"]), Duration::from_secs(60))? {
        say("advisories: SKIPPED, for the list of known holes, github.com/RustSec/advisory-db, cannot be fetched");
        return Ok(());
    }
    if run_within(&mut deny(&["--offline", "check", "advisories"]), Duration::from_secs(120))? {
        return Ok(());
    }
    bail!("a crate that we use has a known hole; `cargo deny check advisories` says which")
}
