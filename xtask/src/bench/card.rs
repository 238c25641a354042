//! Edits on a graphics card, beside PyTorch's on the same card: models of known shapes, with numbers by chance.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Result, bail};

use super::{Ours, Peer, Setting, rome};
use crate::{
    Args,
    shell::{root, run, say, target_dir},
};

/// What is compared with what: how our matrices are stored, and the peer's type.
const PAIRS: [(&str, &str); 2] = [("f32", "float32"), ("f16", "bfloat16")];

/// `cargo xtask bench card`. Every comparison is made, so that one failure does not hide another.
pub fn bench(setting: Setting, args: &mut Args) -> Result<()> {
    let list = |text: String| -> Vec<String> { text.split(',').map(str::to_owned).collect() };
    let shapes = list(args.value("--shapes")?.unwrap_or_else(|| "small,xl,7b".into()));
    let devices = list(args.value("--devices")?.unwrap_or_else(|| "cuda".into()));
    let tokenizer = args.value("--tokenizer")?.map(PathBuf::from);
    let tokenizer = tokenizer.unwrap_or_else(|| root().join("static/models/demo-gpt2/tokenizer.json"));
    args.done()?;
    let peer_device = if setting.peer.device == "cpu" { "cuda".into() } else { setting.peer.device.clone() };
    let folder = target_dir().join("card");
    let mut failed = Vec::new();
    for shape in &shapes {
        say(format!("a model of the shape {shape}"));
        let model = folder.join(shape);
        let make = root().join("tools/card/make.py");
        run(Command::new(&setting.peer.python).arg(make).args([&model, &PathBuf::from(shape), &tokenizer]))?;
        for device in &devices {
            for (precision, dtype) in PAIRS {
                // Nobody computes seven billion weights in 32 bits to edit them.
                if shape == "7b" && precision == "f32" {
                    continue;
                }
                let setting = Setting {
                    model: model.clone(),
                    repeats: setting.repeats,
                    ours: Ours { device: device.clone(), precision: precision.into(), ..setting.ours.clone() },
                    peer: Peer { device: peer_device.clone(), dtype: dtype.into(), ..setting.peer.clone() },
                };
                if let Err(error) = rome::bench(setting, &mut Args::none()) {
                    say(format!("{shape} on {device} in {precision} FAILED: {error:#}"));
                    failed.push(format!("{shape} on {device} in {precision}"));
                }
            }
        }
        fs::remove_dir_all(&model)?;
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join("; "));
    }
    Ok(())
}
