//! What measures on a machine that has a graphics card and nothing else of ours.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    Args,
    setup::Web,
    shell::{cargo, root, run, say, target_dir},
    web,
};

/// The kit may not be larger than this, packed.
const LARGEST: u64 = 55 << 20;

/// `cargo xtask card-kit DIR`: programs, scripts and the page's worker, packed into `DIR/card-kit.tar.xz`.
pub fn kit(args: &mut Args) -> Result<()> {
    let devices = args.value("--devices")?.unwrap_or_else(|| "vulkan".into());
    let with_page = !args.flag("--no-page");
    let to = PathBuf::from(args.word().context("card-kit takes the folder to pack into")?);
    args.done()?;
    fs::create_dir_all(&to)?;
    let kit = target_dir().join("card-kit");
    if kit.is_dir() {
        fs::remove_dir_all(&kit)?;
    }
    fs::create_dir_all(kit.join("bin"))?;
    programs(&kit.join("bin"), &devices)?;
    for script in ["tools/card", "tools/peer"] {
        copy(&root().join(script), &kit.join(script))?;
    }
    fs::rename(kit.join("tools/card/run.sh"), kit.join("run.sh"))?;
    fs::copy(root().join("static/models/demo-gpt2/tokenizer.json"), kit.join("tokenizer.json"))?;
    if with_page {
        web::webgpu_worker(&Web::find_or_install()?, true)?;
        copy(&web::dist().join(web::WEBGPU), &kit.join("page").join(web::WEBGPU))?;
    }
    let packed = to.join("card-kit.tar.xz");
    let folder = kit.parent().context("the kit lies in a folder")?;
    run(Command::new("tar").arg("-cJf").arg(&packed).arg("-C").arg(folder).arg("card-kit").env("XZ_OPT", "-6"))?;
    let size = fs::metadata(&packed)?.len();
    say(format!("{}: {:.1} MiB; unpack it there and start card-kit/run.sh", packed.display(), size as f64 / 1048576.0));
    if size > LARGEST {
        bail!("{} is larger than {} MiB", packed.display(), LARGEST >> 20);
    }
    Ok(())
}

/// Our side of the benchmark, the tests that can run on a card, and this program.
fn programs(to: &Path, devices: &str) -> Result<()> {
    let features: Vec<String> = devices
        .split(',')
        .flat_map(|device| ["rectify-tests", "rectify-parity"].map(|package| format!("{package}/{device}")))
        .collect();
    say("building the programs, for many minutes the first time");
    let mut messages = Vec::new();
    for what in [&["build", "--bins"][..], &["test", "--no-run", "--lib", "--test", "parity"]] {
        let mut build = cargo();
        build.args(what).args(["--release", "--message-format", "json", "--features", &features.join(",")]);
        for package in ["rectify-core", "rectify-parity", "rectify-tests", "xtask"] {
            build.args(["--package", package]);
        }
        let output = build.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
        if !output.status.success() {
            bail!("the programs could not be built");
        }
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        messages.extend(lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()));
    }
    let names = [
        ("rectify_core", true, "kernels"),
        ("parity", true, "parity"),
        ("bench", false, "bench"),
        ("xtask", false, "xtask"),
    ];
    for (target, test, name) in names {
        let made = messages.iter().rev().find_map(|message| {
            let is = message["target"]["name"] == target && message["profile"]["test"] == test;
            message["executable"].as_str().filter(|_| is)
        });
        let made = made.with_context(|| format!("cargo built no {target}"))?;
        run(Command::new("strip").arg("-o").arg(to.join(name)).arg(made))?;
    }
    Ok(())
}

/// The files of a folder, and of no folder inside it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry?.path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().context("a file has a name")?))?;
        }
    }
    Ok(())
}
