//! `rectify models`: what is bundled, whether it is intact, and in which precision it is stored.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use rectify_core::model::open;
use rectify_protocol::{CatalogFile, CatalogModel, Failure};
use safetensors::{Dtype, SafeTensors, View, tensor::TensorView};
use serde::Serialize;

use super::Place;
use crate::{
    io,
    models::{Source, Static},
    output::{self, OutDir},
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
    /// Write a model's weights as f16 or f32
    Convert(Convert),
    /// Print the `files` of models.json for a folder
    #[command(hide = true)]
    Hash {
        /// The model's folder
        folder: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Convert {
    /// A bundled model's id or a folder
    #[arg(long)]
    model: String,
    /// f16 or f32
    #[arg(long, value_parser = precision)]
    dtype: Dtype,
    /// A new or empty folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
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
        Subcommands::Convert(args) => convert(&place.model(&args.model)?, args.dtype, &args.out),
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

/// What goes along with the weights, where it exists.
const COMPANIONS: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "model.safetensors.index.json",
];

fn convert(source: &Source, dtype: Dtype, out: &Path) -> Result<(), Failure> {
    let shards = source.shards()?;
    let config_path = source.folder.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&io::read_bytes(&config_path)?)
        .map_err(|error| Failure::bad_input(format!("{}: {error}", config_path.display())))?;
    let fields = config.as_object_mut();
    let fields = fields.ok_or_else(|| Failure::bad_input(format!("{} is no JSON object", config_path.display())))?;
    let name = if dtype == Dtype::F16 { "float16" } else { "float32" };
    // As the file has it: transformers from 5 on writes `dtype`, what came before `torch_dtype`.
    let keys = ["dtype", "torch_dtype"].map(|key| (key, fields.contains_key(key)));
    for (key, _) in keys.into_iter().filter(|(key, there)| *there || *key == "torch_dtype" && !keys[0].1) {
        fields.insert(key.into(), name.into());
    }

    let folder = OutDir::prepare(out, output::Kind::Model)?;
    for shard in &shards {
        convert_shard(shard, dtype, &folder)?;
    }
    for name in COMPANIONS {
        let path = source.folder.join(name);
        let of_shards = name.ends_with(".index.json");
        if path.is_file() && !(of_shards && shards[0].ends_with("model.safetensors")) {
            folder.write(name, &io::read_bytes(&path)?)?;
        }
    }
    folder.write("config.json", io::to_json(&config)?.as_bytes())?;
    folder.commit()
}

fn convert_shard(path: &Path, dtype: Dtype, folder: &OutDir) -> Result<(), Failure> {
    let bad = |problem: String| Failure::bad_input(format!("{}: {problem}", path.display()));
    let bytes = io::map(path)?;
    let tensors = open(&path.display().to_string(), &bytes)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| bad(error.to_string()))?;
    let mut converted = Vec::new();
    for (name, view) in tensors.tensors() {
        let lost = |value: &f32| !value.is_finite() || dtype == Dtype::F16 && value.abs() > f16::MAX.to_f32();
        match floats(&view).and_then(|mut values| values.find(lost)) {
            None => {}
            Some(value) if value.is_finite() => {
                return Err(bad(format!("the tensor {name:?} has values that f16 cannot hold")));
            }
            Some(_) => return Err(bad(format!("the tensor {name:?} holds numbers that are not finite"))),
        }
        converted.push((name, Converted { view, dtype }));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    safetensors::serialize_to_file(converted, header.metadata().clone(), &folder.path(&name)).map_err(|error| {
        match error {
            safetensors::SafeTensorError::IoError(error) => folder.cannot_write(&name, &error),
            other => bad(other.to_string()),
        }
    })
}

/// A tensor in another precision; what is no float stays as it is.
struct Converted<'a> {
    view: TensorView<'a>,
    dtype: Dtype,
}

impl View for Converted<'_> {
    fn dtype(&self) -> Dtype {
        if floats(&self.view).is_some() { self.dtype } else { self.view.dtype() }
    }

    fn shape(&self) -> &[usize] {
        self.view.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match floats(&self.view) {
            Some(values) if self.dtype == Dtype::F16 => {
                values.flat_map(|value| f16::from_f32(value).to_le_bytes()).collect::<Vec<u8>>().into()
            }
            Some(values) => values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>().into(),
            None => self.view.data().into(),
        }
    }

    fn data_len(&self) -> usize {
        match floats(&self.view) {
            Some(_) => self.view.shape().iter().product::<usize>() * if self.dtype == Dtype::F16 { 2 } else { 4 },
            None => self.view.data().len(),
        }
    }
}

/// A tensor's values, if they are floats.
fn floats<'a>(view: &TensorView<'a>) -> Option<Box<dyn Iterator<Item = f32> + 'a>> {
    let data = view.data();
    Some(match view.dtype() {
        Dtype::F16 => Box::new(data.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32())),
        Dtype::BF16 => Box::new(data.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32())),
        Dtype::F32 => Box::new(data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))),
        Dtype::F64 => Box::new(data.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
