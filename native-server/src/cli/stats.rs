//! `rectify stats`.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use rectify_core::{
    edit::moments::{Accumulator, Corpus, corpus_hash, too_few},
    model::LoadedModel,
};
use rectify_protocol::Failure;

use super::{Desk, Place, import};
use crate::{
    device::DeviceKind,
    io,
    models::moment_file,
    output::{self, OutDir},
};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Command {
    #[command(subcommand)]
    import: Option<Subcommands>,
    #[command(flatten)]
    args: Option<Args>,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommands {
    /// Take over what ROME's and MEMIT's own programs gathered: FILE.npz
    Import(import::Args),
}

#[derive(Debug, clap::Args)]
struct Args {
    /// A bundled model's id, a folder, or owner/name on the Hugging Face Hub
    #[arg(long)]
    model: String,
    /// The corpus: UTF-8 text, one document per line
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
    /// Round what is written to 32 bits, at half the size
    #[arg(long)]
    small: bool,
    /// cpu, gpu (the best card this program was built for), auto (gpu or else cpu), wgpu, vulkan or cuda
    #[arg(long, default_value = "cpu")]
    device: DeviceKind,
}

/// Documents that go by between two looks at the clock.
const GROUP: usize = 100;
/// How often what was summed so far is written down.
const KEEP_EVERY: Duration = Duration::from_secs(30);

pub(super) fn run(command: &Command, place: &Place, out: &mut dyn std::io::Write) -> Result<(), Failure> {
    match command {
        Command { import: Some(Subcommands::Import(args)), .. } => import::run(args, place, out),
        Command { args: Some(args), .. } => gather(args, place, out),
        _ => Err(Failure::bad_input("name a model, a text and layers; see `rectify stats --help`")),
    }
}

fn gather(args: &Args, place: &Place, out: &mut dyn std::io::Write) -> Result<(), Failure> {
    let text = io::read_text(&args.text)?;
    let documents: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    if documents.is_empty() {
        return Err(Failure::bad_input(format!("{} holds no text", args.text.display())));
    }
    let mut layers = args.layers.clone();
    layers.sort_unstable();
    layers.dedup();
    let folder = OutDir::prepare(&args.out, output::Kind::Moments)?;
    let name = args.text.file_name().unwrap_or(args.text.as_os_str()).to_string_lossy().into_owned();
    let corpus = Corpus { name, hash: corpus_hash(&documents) };

    let desk = Desk::open(&args.model, place, args.device)?;
    let of = desk.session.loaded().expect("a desk opens with a model");
    let limit = args.tokens.get();
    let mut sums = Sums::open(args.out.join(PARTIAL), of, &layers, &corpus)?;
    if sums.so_far.tokens() > limit {
        let name = args.out.join(PARTIAL).display().to_string();
        return Err(io::another_s(&name, &format!("holds the sums of {} tokens already", sums.so_far.tokens())));
    }
    while sums.so_far.tokens() < limit && sums.so_far.documents() < documents.len() {
        let group = &documents[sums.so_far.documents()..];
        let group = &group[..group.len().min(GROUP)];
        let ids = group.iter().map(|text| of.tokenizer.encode(text)).collect::<Result<Vec<_>, _>>()?;
        let mut watch = |done| desk.line.show_count("tokens", done as u64, limit as u64);
        desk.drive(sums.so_far.add(of, &ids, limit, &mut watch))?;
        // The last document may have been cut at the limit, with which nobody can go on.
        if sums.so_far.tokens() < limit {
            sums.keep_now_and_then(of, &corpus)?;
        }
    }
    for (layer, moment) in sums.so_far.moments()? {
        folder.write(&moment_file(layer), &moment.to_bytes(of, layer, &corpus, args.small)?)?;
    }
    folder.commit()?;
    let few = too_few(sums.so_far.tokens(), of.model.shape().d_mlp);
    sums.remove();
    drop(desk);
    few.iter().for_each(|warning| io::warn(warning));
    let written = layers.iter().map(|layer| format!("{}\n", args.out.join(moment_file(*layer)).display()));
    io::print(out, &written.collect::<String>())
}

/// What was summed so far, and the file to go on from after a stop.
struct Sums {
    so_far: Accumulator,
    file: PathBuf,
    kept: Option<Instant>,
}

/// Beside the results while there are none.
const PARTIAL: &str = "moment.partial.safetensors";

impl Sums {
    /// Nothing, or what an earlier run with the same model, text and layers left.
    fn open(file: PathBuf, of: &LoadedModel, layers: &[usize], corpus: &Corpus) -> Result<Self, Failure> {
        let mut so_far = Accumulator::new(of, layers)?;
        if file.is_file() {
            let name = file.display().to_string();
            match Accumulator::from_bytes(&name, &io::read_bytes(&file)?, of, layers, corpus)? {
                Some(found) => so_far = found,
                None => {
                    return Err(io::another_s(
                        &name,
                        "holds the sums of another model, precision or text, or of other layers",
                    ));
                }
            }
        }
        Ok(Self { so_far, file, kept: None })
    }

    /// The first time at once: a folder that cannot be written to is better known now than in half a minute.
    fn keep_now_and_then(&mut self, of: &LoadedModel, corpus: &Corpus) -> Result<(), Failure> {
        if self.kept.is_some_and(|then| then.elapsed() < KEEP_EVERY) {
            return Ok(());
        }
        self.kept = Some(Instant::now());
        if let Some(folder) = self.file.parent() {
            std::fs::create_dir_all(folder).map_err(|error| io::cannot_write(folder, &error))?;
        }
        io::write(&self.file, &self.so_far.to_bytes(of, corpus)?)
    }

    fn remove(self) {
        // There may be none, where an earlier run had already seen all of the text.
        let _ = std::fs::remove_file(self.file);
    }
}
