//! Other programs: finding them, running them, reading what they print.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// One line about what happens now.
pub fn say(text: impl AsRef<str>) {
    println!("▸ {}", text.as_ref());
}

/// The repository.
pub fn root() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&package).parent().expect("xtask lies in the repository").to_owned()
}

/// Whether this runs in continuous integration.
pub fn in_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty())
}

/// Where everything goes that outlives a clone: tools, and in CI what was built.
pub fn cache() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    base.unwrap_or_else(|| home().join(".cache")).join("rectify")
}

fn home() -> PathBuf {
    env::var_os("HOME").or_else(|| env::var_os("USERPROFILE")).map_or_else(env::temp_dir, PathBuf::from)
}

/// Where cargo builds for this machine: `CARGO_TARGET_DIR`, in CI a folder that outlives the clone, else `target/`.
pub fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None if in_ci() => cache().join("target"),
        None => root().join("target"),
    }
}

/// Where cargo builds for the browser: possibly another compiler, so a folder of its own.
pub fn web_target_dir() -> PathBuf {
    let native = target_dir();
    match native.parent() {
        Some(parent) if native != root().join("target") => parent.join("target-web"),
        _ => native.join("web"),
    }
}

/// Cargo for this machine, in the repository.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).env("CARGO_TARGET_DIR", target_dir());
    command
}

/// The program's place on `PATH`.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// `PATH` with `first` before everything else.
pub fn path_with(first: &[PathBuf]) -> std::ffi::OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths(first.iter().cloned().chain(env::split_paths(&path))).expect("a PATH can be made from a PATH")
}

/// What the program prints, when it exists and succeeds.
pub fn output_of(program: impl AsRef<OsStr>, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Shows the command, runs it, and fails when it fails.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    println!("$ {shown}");
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// The same, given up after `limit`. Returns whether it succeeded in time.
pub fn run_within(command: &mut Command, limit: Duration) -> Result<bool> {
    let shown = shown(command);
    println!("$ {shown}  (at most {} s)", limit.as_secs());
    let mut child = command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot start `{shown}`"))?;
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// The same as [`run`], handing each line that the program prints to `watch` as it comes. Returns whether it succeeded.
pub fn run_watched(command: &mut Command, watch: &mut dyn FnMut(&str)) -> Result<bool> {
    let shown = shown(command);
    println!("$ {shown}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let lines = BufReader::new(child.stdout.take().expect("stdout was piped"));
    for line in lines.split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        watch(&line);
    }
    Ok(child.wait()?.success())
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    std::iter::once(name).chain(command.get_args()).map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
