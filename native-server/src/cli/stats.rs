//! `rectify stats`.

use std::path::{Path, PathBuf};

use rectify_protocol::Failure;

use super::{Desk, cancelled};
use crate::{
    device::DeviceKind,
    engine, io,
    output::{self, OutDir},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A bundled model's id or a folder
    #[arg(long)]
    model: String,
    /// The corpus: UTF-8 text, one document a line
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Which layers: 4,5
    #[arg(long, value_delimiter = ',', required = true)]
    layers: Vec<usize>,
    /// How many tokens to average over
    #[arg(long)]
    tokens: std::num::NonZeroUsize,
    /// Write moment.LAYER.safetensors into this folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// flex (the CPU), vulkan or cuda
    #[arg(long, default_value = "flex")]
    device: DeviceKind,
}

pub(super) fn run(args: &Args, statics: Option<&Path>, out: &mut dyn std::io::Write) -> Result<(), Failure> {
    let text = io::read_text(&args.text)?;
    let documents: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    if documents.is_empty() {
        return Err(Failure::bad_input(format!("{} holds no text", args.text.display())));
    }
    let mut layers = args.layers.clone();
    layers.sort_unstable();
    layers.dedup();
    let folder = OutDir::prepare(&args.out, output::Kind::Moments)?;
    let corpus = args.text.file_name().unwrap_or(args.text.as_os_str()).to_string_lossy();

    let desk = Desk::open(&args.model, statics, args.device)?;
    let tokens = args.tokens.get();
    let mut watch = |done| desk.line.show_count("tokens", done as u64, tokens as u64);
    let work = desk.session.moments(&corpus, &documents, &layers, tokens, &mut watch);
    let moments = engine::drive(work, &desk.cancel).ok_or_else(cancelled)??;
    for (layer, bytes) in &moments {
        folder.write(&file_name(*layer), bytes)?;
    }
    folder.commit()?;
    drop(desk);
    let written = moments.iter().map(|(layer, _)| format!("{}\n", args.out.join(file_name(*layer)).display()));
    io::print(out, &written.collect::<String>())
}

fn file_name(layer: usize) -> String {
    format!("moment.{layer}.safetensors")
}
