//! What `rectify --version` says beside the number: the commit, the devices that are compiled in, and the target.

#![allow(clippy::print_stdout, reason = "how a build script speaks to cargo")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Names the commit where there is no git to ask: in an archive of the sources, in a packager's build.
const COMMIT: &str = "RECTIFY_COMMIT";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={COMMIT}");
    let named = env::var(COMMIT).ok().filter(|commit| !commit.is_empty());
    // While the program is being worked on, a commit is no reason to build it again.
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = named.or_else(|| is_release.then(checked_out)?);
    let commit = match commit {
        Some(commit) => format!("commit {commit}"),
        None if is_release => "unknown commit".into(),
        None => "development build".into(),
    };
    let cards = ["wgpu", "vulkan", "cuda"];
    let cards =
        cards.into_iter().filter(|card| env::var_os(format!("CARGO_FEATURE_{}", card.to_uppercase())).is_some());
    let devices = ["cpu"].into_iter().chain(cards).collect::<Vec<_>>().join(", ");
    let [version, target] = ["CARGO_PKG_VERSION", "TARGET"].map(|name| env::var(name).expect("cargo sets it"));
    println!("cargo:rustc-env=RECTIFY_VERSION={version} ({commit}; {devices}; {target})");
}

/// The commit that is checked out. Cargo builds again when another one is, and not for any other change.
fn checked_out() -> Option<String> {
    let root = Path::new("..").canonicalize().ok()?;
    // An archive may lie in somebody else's repository, whose commits are not ours.
    if fs::canonicalize(git(&["rev-parse", "--show-toplevel"])?).ok()? != root {
        return None;
    }
    let file = |name: &str| git(&["rev-parse", "--git-path", name]).map(PathBuf::from);
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    // A file that is not there would have cargo build each time: a branch may be packed, and gets a file at its next commit.
    let watched = [file("HEAD"), branch.and_then(|branch| file(&branch)), file("packed-refs")];
    for path in watched.into_iter().flatten().filter(|path| path.is_file()) {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
