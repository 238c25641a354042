//! `rectify models`: what is bundled, whether it is intact, and in which precision it is stored.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use rectify_protocol::{CatalogFile, CatalogModel, Failure};
use safetensors::Dtype;
use serde::Serialize;

use super::{Place, ask::read_delta};
use crate::{
    edited::{Adapted, Edits, write_adapter, write_model},
    hub, io,
    models::Static,
    shards::Written,
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommands {
    /// List the bundled models
    List {
        /// Print one JSON document on stdout
        #[arg(long)]
        json: bool,
    },
    /// Compare every bundled file with the size and SHA-256 in models.json
    Check {
        /// Print one JSON document on stdout
        #[arg(long)]
        json: bool,
    },
    /// Print the folder of what comes with the program: models, facts, tasks, grids and settings
    Where,
    /// Fetch a model of the Hugging Face Hub into its cache, and print its folder; for machines that will have no network
    Fetch {
        /// owner/name, or owner/name@revision
        name: String,
    },
    /// Write a model's weights as f16 or f32
    Convert(Convert),
    /// Write a model with edits in it, whole or as a LoRA adapter, for transformers, PEFT and others
    Merge(Merge),
    /// Print the `files` of models.json for a folder
    #[command(hide = true)]
    Hash {
        /// The model's folder
        folder: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Convert {
    /// A bundled model's id, a folder, or owner/name on the Hugging Face Hub
    #[arg(long)]
    model: String,
    /// f16 or f32
    #[arg(long, value_parser = precision)]
    dtype: Dtype,
    /// A new or empty folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct Merge {
    /// A bundled model's id, a folder, or owner/name on the Hugging Face Hub
    #[arg(long)]
    model: String,
    /// The change that `edit --out` wrote
    #[arg(long, value_name = "DIR|FILE")]
    edits: PathBuf,
    /// A new or empty folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// model (config, vocabulary and all weights) or lora (an adapter for PEFT)
    #[arg(long, default_value = "model")]
    format: Form,
    /// f16 or f32; each tensor keeps its type when absent
    #[arg(long, value_parser = precision, conflicts_with = "rank")]
    dtype: Option<Dtype>,
    /// The adapter's rank; the smallest that leaves out nothing but noise when absent
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    rank: Option<u32>,
    /// Print one JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// How an edited model is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    Model,
    Lora,
}

fn precision(text: &str) -> Result<Dtype, String> {
    match text {
        "f16" => Ok(Dtype::F16),
        "f32" => Ok(Dtype::F32),
        _ => Err(rectify_protocol::unknown("dtype", text, &["f16", "f32"])),
    }
}

pub(super) fn run(command: &Subcommands, place: &Place, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        Subcommands::List { json } => {
            let statics = Static::find(place.static_folder.as_deref())?;
            io::print(out, &if *json { io::to_json(&statics.catalog)? } else { list(&statics) })
        }
        Subcommands::Check { json } => {
            let statics = Static::find(place.static_folder.as_deref())?;
            let mut report = Vec::new();
            for entry in &statics.catalog.models {
                report.push(Checked { id: &entry.id, problems: problems(&statics.folder, entry)? });
            }
            io::print(out, &if *json { io::to_json(&report)? } else { check_table(&report) })?;
            match report.iter().filter(|model| !model.problems.is_empty()).count() {
                0 => Ok(()),
                n => Err(io::internal(format!("{n} of {} models are not as models.json says", report.len()))),
            }
        }
        Subcommands::Where => {
            let folder = Static::find(place.static_folder.as_deref())?.folder;
            let folder = fs::canonicalize(&folder).map_err(|error| io::cannot_read(&folder, &error))?;
            io::print(out, &format!("{}\n", folder.display()))
        }
        Subcommands::Fetch { name } => {
            let not = || Failure::bad_input(format!("{name:?} is no name of the Hub: expected owner/name"));
            let folder = hub::models::folder(&hub::models::Name::parse(name).ok_or_else(not)?)?;
            io::print(out, &format!("{}\n", folder.display()))
        }
        Subcommands::Convert(args) => {
            write_model(&place.model(&args.model)?, None, Some(args.dtype), &args.out).map(drop)
        }
        Subcommands::Merge(args) => merge(args, place, out),
        Subcommands::Hash { folder } => io::print(out, &io::to_json(&hash(folder)?)?),
    }
}

fn list(statics: &Static) -> String {
    let mut text = String::new();
    for entry in &statics.catalog.models {
        let _ = writeln!(text, "{:<20} {:>9.1} MB  {}", entry.id, entry.size() as f64 / 1e6, entry.name);
    }
    text
}

/// What is wrong with one model.
#[derive(Serialize)]
struct Checked<'a> {
    id: &'a str,
    problems: Vec<String>,
}

fn check_table(report: &[Checked<'_>]) -> String {
    let mut text = String::new();
    for model in report {
        let _ = writeln!(text, "{}: {}", model.id, if model.problems.is_empty() { "intact" } else { "not intact" });
        for problem in &model.problems {
            let _ = writeln!(text, "  {problem}");
        }
    }
    text
}

/// How a model's folder differs from its list of files.
fn problems(statics: &Path, entry: &CatalogModel) -> Result<Vec<String>, Failure> {
    let folder = statics.join(&entry.folder);
    if !folder.is_dir() {
        return Ok(vec![format!("the folder {} is missing", folder.display())]);
    }
    let found: BTreeMap<String, CatalogFile> =
        hash(&folder)?.into_iter().map(|file| (file.path.clone(), file)).collect();
    let listed: BTreeMap<&str, &CatalogFile> = entry.files.iter().map(|file| (file.path.as_str(), file)).collect();
    let mut problems = Vec::new();
    for (path, expected) in &listed {
        match found.get(*path) {
            None => problems.push(format!("{path} is missing")),
            Some(file) if file.size != expected.size => {
                problems.push(format!("{path} has {} bytes; expected {}", file.size, expected.size));
            }
            Some(file) if !file.sha256.eq_ignore_ascii_case(&expected.sha256) => {
                problems.push(format!("{path} has SHA-256 {}; expected {}", file.sha256, expected.sha256));
            }
            Some(_) => {}
        }
    }
    let unlisted = found.keys().filter(|path| !listed.contains_key(path.as_str()));
    problems.extend(unlisted.map(|path| format!("{path} is there but not listed")));
    Ok(problems)
}

/// Every file below a folder, by path, with `/` between its parts.
fn hash(folder: &Path) -> Result<Vec<CatalogFile>, Failure> {
    let mut files = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        let here = folder.join(&relative);
        let entries = fs::read_dir(&here).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        for entry in entries.map_err(|error| io::cannot_read(&here, &error))? {
            let relative = relative.join(entry.file_name());
            if entry.path().is_dir() {
                open.push(relative);
                continue;
            }
            let (sha256, size) = io::sha256(&entry.path())?;
            let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
            files.push(CatalogFile { path: parts.join("/"), size, sha256 });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// What `merge --json` prints.
#[derive(Serialize)]
struct Merged<'a> {
    schema: u32,
    out: &'a Path,
    format: Form,
    /// A whole model's changed tensors.
    tensors: Vec<Written>,
    /// An adapter's modules.
    modules: Vec<Adapted>,
}

/// Writes a model with edits in it, and says what became of them.
fn merge(args: &Merge, place: &Place, out: &mut dyn Write) -> Result<(), Failure> {
    let (path, bytes) = read_delta(&args.edits)?;
    let edits = Edits::read(path, &bytes)?;
    let source = place.model(&args.model)?;
    let mut merged =
        Merged { schema: 1, out: &args.out, format: args.format, tensors: Vec::new(), modules: Vec::new() };
    match args.format {
        Form::Lora if args.dtype.is_some() => {
            return Err(Failure::bad_input("--dtype is for whole models; an adapter is of f32"));
        }
        Form::Model if args.rank.is_some() => return Err(Failure::bad_input("--rank is for --format lora")),
        Form::Lora => {
            merged.modules = write_adapter(&source, &edits, args.rank.map(|rank| rank as usize), &args.out)?;
        }
        Form::Model => merged.tensors = write_model(&source, Some(edits), args.dtype, &args.out)?,
    }
    say_what_is_lost(&merged);
    io::say(&format!("written to {}", args.out.display()));
    if args.json { io::print(out, &io::to_json(&merged)?) } else { Ok(()) }
}

fn say_what_is_lost(merged: &Merged<'_>) {
    for Adapted { module, rank, error } in &merged.modules {
        io::say(&format!("{module}: rank {rank}, which leaves out {:.3}% of the change", error * 100.0));
        if *error > WORTH_A_WARNING {
            io::warn("a larger --rank keeps more of the change; the adapter does not answer exactly as the edit does");
        }
    }
    for Written { name, dtype, rounding } in &merged.tensors {
        io::say(&format!("{name}: stored as {dtype:?}, whose rounding changes the edit by {:.3}%", rounding * 100.0));
        if *rounding > WORTH_A_WARNING {
            io::warn("the model will answer slightly otherwise than the edit does; --dtype f32 keeps all of the edit");
        }
    }
}

/// What is lost of a change, as a share of it, that a person should know of.
const WORTH_A_WARNING: f64 = 0.01;

#[cfg(test)]
mod tests {
    use safetensors::{SafeTensors, tensor::TensorView};

    use super::*;
    use crate::models::Source;

    fn convert(source: &Source, dtype: Dtype, out: &Path) -> Result<(), Failure> {
        write_model(source, None, Some(dtype), out).map(drop)
    }

    fn write_shard(path: &Path, values: &[f32]) {
        let floats: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensors = [
            ("weight", TensorView::new(Dtype::F32, vec![values.len()], &floats).unwrap()),
            ("mask", TensorView::new(Dtype::U8, vec![2], &[1, 0]).unwrap()),
        ];
        safetensors::serialize_to_file(tensors, None, path).unwrap();
    }

    fn source(folder: &Path, values: &[f32]) -> Source {
        write_shard(&folder.join("model.safetensors"), values);
        fs::write(folder.join("config.json"), r#"{"model_type": "gpt2"}"#).unwrap();
        fs::write(folder.join("tokenizer.json"), "{}").unwrap();
        Source::new("x", folder)
    }

    #[test]
    fn numbers_that_are_none_are_not_converted() {
        let here = tempfile::tempdir().unwrap();
        for dtype in [Dtype::F16, Dtype::F32] {
            let out = here.path().join("out");
            let failure = convert(&source(here.path(), &[0.5, f32::NAN]), dtype, &out).unwrap_err();
            assert!(failure.message.contains("not finite"), "{failure}");
            assert!(!out.exists());
        }
    }

    #[test]
    fn converting_there_and_back_keeps_what_f16_can_hold() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (half, full) = (there.path().join("half"), there.path().join("full"));
        convert(&source(here.path(), &[0.5, -2.0, 65504.0]), Dtype::F16, &half).unwrap();
        let source = Source::new("y", &half);
        convert(&source, Dtype::F32, &full).unwrap();
        assert!(fs::read_to_string(half.join("config.json")).unwrap().contains("float16"));
        let [before, after] = [here.path(), &full].map(|folder| fs::read(folder.join("model.safetensors")).unwrap());
        let [before, after] = [&before, &after].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
        for name in ["weight", "mask"] {
            assert_eq!(before.tensor(name).unwrap(), after.tensor(name).unwrap());
        }
    }

    #[test]
    fn what_f16_cannot_hold_is_named_and_nothing_is_written() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let failure = convert(&source(here.path(), &[1e6]), Dtype::F16, &there.path().join("out")).unwrap_err();
        assert!(failure.message.contains("\"weight\" has values that f16 cannot hold"), "{failure}");
        assert_eq!(fs::read_dir(there.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_check_names_each_difference() {
        let here = tempfile::tempdir().unwrap();
        let folder = here.path().join("m");
        fs::create_dir(&folder).unwrap();
        for name in ["good", "short", "wrong", "extra"] {
            fs::write(folder.join(name), name).unwrap();
        }
        let mut files = hash(&folder).unwrap();
        files.retain(|file| file.path != "extra");
        files[1].size = 99;
        files[2].sha256 = "00".into();
        files.push(CatalogFile { path: "gone".into(), size: 1, sha256: "00".into() });
        let entry: CatalogModel = serde_json::from_value(serde_json::json!({
            "id": "m", "name": "M", "folder": "m", "description": "", "licence": "MIT", "architecture": "gpt2",
            "layers": 1, "context": 8, "memory_load": 0, "memory_edit": 0, "files": files,
        }))
        .unwrap();
        let problems = problems(here.path(), &entry).unwrap();
        let parts = ["gone is missing", "short has 5 bytes; expected 99", "wrong has SHA-256", "extra is there but"];
        assert_eq!(problems.len(), parts.len(), "{problems:?}");
        for (problem, part) in problems.iter().zip(parts) {
            assert!(problem.contains(part), "{problem}\nlacks {part:?}");
        }
    }
}
