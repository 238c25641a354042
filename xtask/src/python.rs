//! Environments of Python's, for what is tested or made by its programs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::shell::{find, output_of, run, run_within, say};

/// How long pip may take: a machine without a network should know soon.
const PATIENCE: Duration = Duration::from_secs(150);

/// The Python that environments are made of, 3.10 or newer.
pub fn interpreter() -> Option<PathBuf> {
    let named = std::env::var_os("RECTIFY_PYTHON").map(PathBuf::from);
    let found = named.or_else(|| ["python3", "python"].into_iter().find_map(find))?;
    let new_enough = "import sys, venv; sys.exit(sys.version_info < (3, 10))";
    output_of(&found, &["-c", new_enough]).map(|_| found)
}

/// Where the environment in a folder has a program.
fn program_in(folder: &Path, name: &str) -> PathBuf {
    let programs = folder.join(if cfg!(windows) { "Scripts" } else { "bin" });
    programs.join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

/// A program of this version from PyPI, installed into `folder` if need be; `None` where it cannot be had.
///
/// # Errors
///
/// When an environment cannot be made.
pub fn from_pypi(package: &str, version: &str, program: &str, folder: &Path) -> Result<Option<PathBuf>> {
    let own = program_in(folder, program);
    let has = |program: &PathBuf| output_of(program, &["--version"]).is_some_and(|text| text.ends_with(version));
    if let Some(found) = [Some(own.clone()), find(program)].into_iter().flatten().find(has) {
        return Ok(Some(found));
    }
    if interpreter().is_none() {
        return Ok(None);
    }
    say(format!("{package} {version}: pip installs it into {}", folder.display()));
    let installed = Environment::new(folder)?.install(&[&format!("{package}=={version}")])?;
    Ok(Some(own).filter(|own| installed && has(own)))
}

/// A virtual environment of Python's.
pub struct Environment(PathBuf);

impl Environment {
    /// A new one.
    pub fn new(folder: &Path) -> Result<Self> {
        let python = interpreter().context("there is no Python 3.10 or newer with the module venv")?;
        run(Command::new(&python).args(["-m", "venv", "--clear"]).arg(folder))?;
        Ok(Self(folder.to_owned()))
    }

    /// A new one, which sees what the Python it is made of has: torch is too large to be fetched for a test.
    pub fn on_theirs(folder: &Path) -> Result<Self> {
        let python = interpreter().context("there is no Python 3.10 or newer with the module venv")?;
        let environment = Self::new(folder)?;
        let site = "import site; print('\\n'.join(site.getsitepackages()))";
        let theirs = output_of(&python, &["-c", site]).context("a Python says where its packages are")?;
        let own = "import sysconfig; print(sysconfig.get_path('purelib'))";
        let own = output_of(environment.python(), &["-c", own]).context("a Python says where its packages are")?;
        fs::write(Path::new(&own).join("what_it_is_made_of.pth"), theirs)?;
        Ok(environment)
    }

    /// Where one of its programs is.
    pub fn program(&self, name: &str) -> PathBuf {
        program_in(&self.0, name)
    }

    fn python(&self) -> PathBuf {
        self.program("python")
    }

    /// Its Python with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.python());
        command.args(arguments).env_remove("RECTIFY_STATIC").env_remove("PYTHONPATH");
        command
    }

    /// Whether a module can be imported.
    pub fn has(&self, module: &str) -> bool {
        output_of(self.python(), &["-c", &format!("import {module}")]).is_some()
    }

    /// Installs packages; `false` where pip cannot.
    pub fn install(&self, packages: &[&str]) -> Result<bool> {
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        run_within(self.command(&pip).args(packages), PATIENCE)
    }
}
