//! The Python package: a wheel with the program and what comes with it, and its tests in an environment of their own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    Args,
    python::{Environment, from_pypi},
    setup::{tools, write_program},
    shell::{cargo, root, run, say, target_dir},
    test, web,
};

/// What makes wheels of Rust programs.
const MATURIN: &str = "1.16.0";

/// `cargo xtask wheel`.
pub fn wheel(args: &mut Args) -> Result<()> {
    let release = args.flag("--release");
    args.done()?;
    let maturin = maturin()?.with_context(|| {
        format!("maturin {MATURIN} is not there, and pip could not install it: wheels are made by it")
    })?;
    build(&maturin, release).map(drop)
}

/// `cargo xtask python`.
pub fn python(args: &mut Args) -> Result<()> {
    args.done()?;
    check()
}

/// Types and tests of the package, as whoever installs the wheel has it. What cannot be had is skipped, loudly.
pub fn check() -> Result<()> {
    let Some(maturin) = maturin()? else {
        say(format!("Python: SKIPPED, for there is no Python 3.10 or no maturin {MATURIN}, and pip cannot fetch it"));
        return Ok(());
    };
    let wheel = build(&maturin, false)?;
    let environment = Environment::on_theirs(&target_dir().join("python"))?;
    let mut needs = vec!["pytest>=8", "pandas>=2", "mypy>=1.11"];
    if environment.has("torch") && environment.has("transformers") {
        needs.extend(["ipykernel", "matplotlib", "nbclient", "nbformat"]);
    } else {
        say("edits in transformers and PEFT, and the notebook: SKIPPED, for the Python has no torch and transformers");
    }
    if !environment.install(&needs)? {
        say(format!("Python: SKIPPED, for pip cannot install {}", needs.join(", ")));
        return Ok(());
    }
    let beside_it = |arguments: &[&str]| {
        let mut command = environment.command(arguments);
        command.current_dir(package());
        command
    };
    let install = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--force-reinstall"];
    run(beside_it(&install).arg(&wheel))?;
    run(&mut beside_it(&["-m", "mypy"]))?;
    run(&mut beside_it(&["-m", "pytest", "--quiet", "-rs"]))
}

/// Makes `dist-wheel/*.whl`, and says how large it is.
fn build(maturin: &Path, release: bool) -> Result<PathBuf> {
    stage()?;
    let to = root().join("dist-wheel");
    if to.is_dir() {
        fs::remove_dir_all(&to)?;
    }
    let mut build = Command::new(maturin);
    build.args(["build", "--locked", "--out"]).arg(&to).current_dir(package());
    build.env("CARGO_TARGET_DIR", target_dir());
    if release {
        build.args(["--release", "--strip"]);
    } else if !cfg!(windows) {
        build.env("CARGO", stand_in()?);
    }
    run(&mut build)?;
    let made = fs::read_dir(&to)?.filter_map(|entry| Some(entry.ok()?.path()));
    let made = made.filter(|path| path.extension().is_some_and(|extension| extension == "whl")).collect::<Vec<_>>();
    let [wheel] = &made[..] else { bail!("maturin made {} wheels in {}", made.len(), to.display()) };
    say(format!("{}: {:.1} MB", wheel.display(), fs::metadata(wheel)?.len() as f64 / 1e6));
    Ok(wheel.clone())
}

/// The package's folder.
fn package() -> PathBuf {
    root().join("python")
}

/// Puts beside the package what goes into the wheel with it: licences, models and their company, and the page, if it is
/// built. The program looks for the last two in `share/rectify`.
fn stage() -> Result<()> {
    let share = package().join("data/data/share/rectify");
    if share.is_dir() {
        fs::remove_dir_all(&share)?;
    }
    copy(&root().join("static"), &share.join("static"))?;
    if web::dist().join("index.html").is_file() {
        copy(&web::dist(), &share.join("site"))?;
    } else {
        say("the wheel has no page, for none is built: `cargo xtask web` builds it");
    }
    for licence in ["LICENSE", "LICENSE-APACHE", "LICENSE-MIT"] {
        fs::copy(root().join(licence), package().join(licence))?;
    }
    Ok(())
}

/// A folder with all that is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry?.path();
        let to = to.join(path.file_name().context("a file has a name")?);
        if path.is_dir() {
            copy(&path, &to)?;
        } else {
            fs::copy(&path, &to)?;
        }
    }
    Ok(())
}

/// What maturin takes for cargo while developing: it builds the program as the tests do, so that nothing is compiled twice.
fn stand_in() -> Result<PathBuf> {
    let file = target_dir().join("cargo-for-maturin");
    let cargo = cargo();
    let cargo = cargo.get_program().to_string_lossy();
    let packages = test::packages().collect::<Vec<_>>().join(" ");
    let text = format!(
        "#!/bin/sh\n# Written by `cargo xtask`. maturin asks for one package, which would choose other features.\n\
         cd '{root}' || exit 1\n\
         case \"$1\" in\n\
         rustc) exec '{cargo}' build --locked {packages} --bin rectify --message-format json-render-diagnostics ;;\n\
         *) exec '{cargo}' \"$@\" ;;\n\
         esac\n",
        root = root().display()
    );
    fs::create_dir_all(target_dir())?;
    write_program(&file, &text)?;
    Ok(file)
}

/// maturin of our version, installed if need be; `None` where it cannot be had.
fn maturin() -> Result<Option<PathBuf>> {
    from_pypi("maturin", MATURIN, "maturin", &tools().join("python"))
}
