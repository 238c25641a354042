//! `rectify ask`.

use std::{
    fmt::Write as _,
    io::Write,
    path::{Path, PathBuf},
};

use rectify_protocol::{Answer, Command, Event, Failure, ModelInfo};
use serde::Serialize;

use super::{Desk, Place, unexpected};
use crate::{device::DeviceKind, io};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A bundled model's id, a folder, or owner/name on the Hugging Face Hub
    #[arg(long)]
    model: String,
    /// The text to complete
    #[arg(long)]
    prompt: String,
    /// How many tokens to generate
    #[arg(long, default_value_t = 20)]
    tokens: usize,
    /// How many candidates for the next token to list
    #[arg(long, default_value_t = 5)]
    top: usize,
    /// Apply this folder's delta.safetensors, or this file, before answering
    #[arg(long, value_name = "DIR|FILE")]
    edits: Option<PathBuf>,
    /// cpu, gpu (the best card this program was built for), auto (gpu or else cpu), wgpu, vulkan or cuda
    #[arg(long, default_value = "cpu")]
    device: DeviceKind,
    /// Print one JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    model: ModelInfo,
    edits: Option<&'a Path>,
    #[serde(flatten)]
    answer: Answer,
}

pub(super) fn run(args: &Args, place: &Place, out: &mut dyn Write) -> Result<(), Failure> {
    let delta = args.edits.as_deref().map(read_delta).transpose()?;
    let mut desk = Desk::open(&args.model, place, args.device)?;
    if let Some((path, bytes)) = &delta {
        desk.session.apply_delta(&path.display().to_string(), bytes)?;
    }
    if io::ends_in_space(&args.prompt) {
        io::warn_of_space("the prompt");
    }
    let command = Command::Ask { prompt: args.prompt.clone(), tokens: args.tokens, top: args.top };
    let answer = match desk.handle(command)? {
        Event::Answered(answer) => answer,
        other => return Err(unexpected(&other)),
    };
    let text = if args.json {
        io::to_json(&Document { schema: 1, model: desk.info(), edits: args.edits.as_deref(), answer })?
    } else {
        table(&answer)
    };
    drop(desk);
    io::print(out, &text)
}

/// The file of a folder that `edit --out` wrote, or the file itself.
pub(super) fn read_delta(path: &Path) -> Result<(PathBuf, Vec<u8>), Failure> {
    let file = if path.is_dir() { path.join("delta.safetensors") } else { path.to_owned() };
    if path.is_dir() && !file.is_file() {
        return Err(Failure::bad_input(format!(
            "{} holds no delta.safetensors; where each fact was edited by itself, name one fact's file: delta.0.safetensors",
            path.display()
        )));
    }
    let bytes = io::read_bytes(&file)?;
    Ok((file, bytes))
}

fn table(answer: &Answer) -> String {
    let mut text = format!("{}{}\n\n", answer.prompt, answer.text);
    for candidate in &answer.top {
        let _ = writeln!(text, "{:>7.2}%  {:?}", candidate.1 * 100.0, candidate.0);
    }
    text
}
