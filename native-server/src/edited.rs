//! Edited models for other programs: whole checkpoints, and adapters.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use rectify_core::{
    edit::Factors,
    model::{Layout, model_hash, open},
};
use rectify_protocol::{Failure, RunReport, Summary};
use safetensors::{Dtype, tensor::TensorView};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    io,
    models::Source,
    output::{self, OutDir},
    shards::{self, Change, Shards, Written, floats},
};

/// A change that `edit --out` wrote, and what is known of it.
pub struct Edits {
    /// The file.
    pub path: PathBuf,
    /// By tensor, as the checkpoint stores it.
    changes: BTreeMap<String, Change>,
    /// The report beside it, where there is one.
    report: Option<RunReport>,
    /// The model it belongs to.
    model_hash: Option<String>,
}

impl Edits {
    /// Reads a change from the bytes of its file.
    ///
    /// # Errors
    ///
    /// When it is no file of changes.
    pub fn read(path: PathBuf, bytes: &[u8]) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let tensors = open(&name, bytes)?;
        let mut changes = BTreeMap::new();
        for (tensor, view) in tensors.iter() {
            let not = |what: String| Failure::bad_input(format!("{name}: {tensor:?} {what}"));
            let [rows, columns] = *view.shape() else {
                return Err(not(format!("is {:?}, not a matrix", view.shape())));
            };
            let values =
                floats(&view).ok_or_else(|| not(format!("is of type {:?}", view.dtype())))?.collect::<Vec<_>>();
            if values.iter().any(|value| !value.is_finite()) {
                return Err(not("holds numbers that are not finite".into()));
            }
            changes.insert(tensor.to_owned(), Change { shape: [rows, columns], values });
        }
        if changes.is_empty() {
            return Err(Failure::bad_input(format!("{name} changes nothing")));
        }
        let model_hash: Option<String> = safetensors::SafeTensors::read_metadata(bytes)
            .ok()
            .and_then(|(_, header)| header.metadata().as_ref()?.get("model_hash").cloned());
        let report = report_of(&path).filter(|report: &RunReport| Some(&report.model.hash) == model_hash.as_ref());
        Ok(Self { path, changes, report, model_hash })
    }

    /// The model's hash. Says so when these edits belong to another model, or a change is of no matrix that editors
    /// change or of another shape.
    fn check(&self, source: &Source, shards: &[PathBuf], layout: Layout) -> Result<String, Failure> {
        let hash = |path: &PathBuf| Ok(Sha256::digest(io::map(path)?).into());
        let found = model_hash(&shards.iter().map(hash).collect::<Result<Vec<[u8; 32]>, Failure>>()?);
        if let Some(theirs) = self.model_hash.as_ref().filter(|theirs| **theirs != found) {
            return Err(Failure::bad_input(format!(
                "{} changes the model with hash {theirs}; {} has {found}",
                self.path.display(),
                source.id
            )));
        }
        let model = Shards::of(source)?;
        let tensors = model.tensors()?;
        for (name, change) in &self.changes {
            let refuse = |problem: String| Err(Failure::bad_input(format!("{}: {problem}", self.path.display())));
            match tensors.get(name).map(TensorView::shape) {
                None => return refuse(format!("{} has no tensor {name:?}", source.id)),
                Some(shape) if shape != change.shape => {
                    return refuse(format!("{name:?} is {shape:?}, but its change is {:?}", change.shape));
                }
                Some(_) if (layout.is_embedding)(name) => {
                    return refuse(format!("{name:?} is an embedding or a head, which no editor changes"));
                }
                Some(_) => {}
            }
        }
        Ok(found)
    }
}

/// The report beside a file that `edit --out` wrote, without the operations of other files: where each fact was edited by
/// itself, each has one. None beside a file of another name, and where someone else's is called so.
fn report_of(path: &Path) -> Option<RunReport> {
    let name = path.file_name()?.to_str()?;
    let report: RunReport = serde_json::from_slice(&std::fs::read(path.with_file_name(output::REPORT)).ok()?).ok()?;
    if name == "delta.safetensors" {
        return Some(report);
    }
    let record: usize = name.strip_prefix("delta.")?.strip_suffix(".safetensors")?.parse().ok()?;
    let [from, to] = report.command.index;
    let failed: Vec<usize> = report.failed.iter().map(|failed| failed.record).collect();
    let place = (from..to).filter(|other| !failed.contains(other)).position(|other| other == record)?;
    let operations = vec![report.operations.get(place)?.clone()];
    let summary = Summary::of(&operations[0].facts, operations[0].seconds);
    Some(RunReport { operations, summary, ..report })
}

/// What goes along with the weights, where it exists.
const COMPANIONS: [&str; 11] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
    "LICENSE",
    INDEX,
];
const INDEX: &str = "model.safetensors.index.json";

/// Writes a whole model: `edits` added where there are any, every float as `dtype` or as it was.
///
/// # Errors
///
/// When a change belongs to another model or to no tensor, or a number cannot be stored.
pub fn write_model(
    source: &Source,
    edits: Option<Edits>,
    dtype: Option<Dtype>,
    out: &Path,
) -> Result<Vec<Written>, Failure> {
    let shards = source.shards()?;
    let config = config(source, dtype)?;
    let folder = OutDir::prepare(out, output::Kind::Model)?;
    let hash = edits.as_ref().map(|edits| edits.check(source, &shards, layout(source)?)).transpose()?;
    let (mut changes, report) = edits.map(|edits| (edits.changes, edits.report)).unwrap_or_default();
    let mut written = Vec::new();
    for shard in &shards {
        written.extend(shards::rewrite(shard, dtype, &mut changes, &folder)?);
    }
    for name in COMPANIONS {
        let path = source.folder.join(name);
        if !path.is_file() || name == INDEX && shards[0].ends_with("model.safetensors") {
            continue;
        }
        let bytes = io::read_bytes(&path)?;
        let bytes = if name == INDEX { with_size(&bytes, &folder, &shards)? } else { bytes };
        folder.write(name, &bytes)?;
    }
    folder.write("config.json", io::to_json(&config)?.as_bytes())?;
    if let Some(hash) = &hash {
        let card = card(source, hash, report.as_ref(), &written, None);
        folder.write("README.md", card.as_bytes())?;
    }
    folder.commit()?;
    Ok(written)
}

/// An index of shards with the size that their tensors have now, where it says one.
fn with_size(index: &[u8], folder: &OutDir, shards: &[PathBuf]) -> Result<Vec<u8>, Failure> {
    let Ok(mut index) = serde_json::from_slice::<serde_json::Value>(index) else { return Ok(index.to_vec()) };
    let mut size = 0;
    for shard in shards {
        let path = folder.path(&shard.file_name().unwrap_or_default().to_string_lossy());
        let bytes = io::map(&path)?;
        size += open(&path.display().to_string(), &bytes)?.iter().map(|(_, view)| view.data().len()).sum::<usize>();
    }
    if let Some(total) = index.get_mut("metadata").and_then(|metadata| metadata.get_mut("total_size")) {
        *total = size.into();
    }
    Ok(io::to_json(&index)?.into_bytes())
}

/// `config.json`, which names the type of the weights where that is another one.
fn config(source: &Source, dtype: Option<Dtype>) -> Result<serde_json::Value, Failure> {
    let path = source.folder.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&io::read_bytes(&path)?)
        .map_err(|error| Failure::bad_input(format!("{}: {error}", path.display())))?;
    let fields = config.as_object_mut();
    let fields = fields.ok_or_else(|| Failure::bad_input(format!("{} is no JSON object", path.display())))?;
    if let Some(dtype) = dtype {
        let name = if dtype == Dtype::F16 { "float16" } else { "float32" };
        // As the file has it: transformers from 5 on writes `dtype`, what came before `torch_dtype`.
        let keys = ["dtype", "torch_dtype"].map(|key| (key, fields.contains_key(key)));
        for (key, _) in keys.into_iter().filter(|(key, there)| *there || *key == "torch_dtype" && !keys[0].1) {
            fields.insert(key.into(), name.into());
        }
    }
    Ok(config)
}

/// How the model's family names and stores matrices.
pub fn layout(source: &Source) -> Result<Layout, Failure> {
    Layout::of(&io::read_bytes(&source.folder.join("config.json"))?)
        .map_err(|error| Failure::from(error).at(source.folder.display()))
}

/// What an adapter holds of one matrix.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Adapted {
    /// The module.
    pub module: String,
    /// Its rank.
    pub rank: usize,
    /// The Frobenius norm of what it leaves out, as a share of the change's.
    pub error: f64,
}

/// Writes edits as an adapter in PEFT's layout, of the smallest rank that leaves out nothing but noise, or of this one.
///
/// PEFT adds `lora_B · lora_A`, `[d_out, rank] · [rank, d_in]`, times `lora_alpha / r`, which is 1 here, to a matrix
/// `[d_out, d_in]`; where a module stores `[d_in, d_out]`, as GPT-2's do, `fan_in_fan_out` has it transposed.
///
/// # Errors
///
/// When the edits belong to another model or to another family.
pub fn write_adapter(source: &Source, edits: &Edits, rank: Option<usize>, out: &Path) -> Result<Vec<Adapted>, Failure> {
    let layout = layout(source)?;
    let folder = OutDir::prepare(out, output::Kind::Model)?;
    let hash = edits.check(source, &source.shards()?, layout)?;
    let (mut adapted, mut tensors) = (Vec::new(), Vec::new());
    for (name, change) in &edits.changes {
        let module = name.strip_suffix(".weight").unwrap_or(name);
        let module = match module.starts_with(layout.root) {
            true => module.to_owned(),
            false => format!("{}{module}", layout.root),
        };
        // Stored [d_out, d_in] or [d_in, d_out]: either way the left factor belongs to the rows of the file.
        let factors = Factors::of(&change.values, change.shape, rank)?;
        let [rows, columns] = change.shape;
        let (a, b) = match layout.transposed {
            true => ((factors.right, columns), (factors.left, rows)),
            false => ((transposed(&factors.left, factors.rank), rows), (transposed(&factors.right, columns), columns)),
        };
        let key = |part: &str| format!("base_model.model.{module}.{part}.weight");
        tensors.push((key("lora_A"), [factors.rank, a.1], a.0));
        tensors.push((key("lora_B"), [b.1, factors.rank], b.0));
        adapted.push(Adapted { module, rank: factors.rank, error: factors.error });
    }
    let file = shards::file(tensors.into_iter(), ("format", "pt"))?;
    folder.write("adapter_model.safetensors", &file)?;
    folder.write("adapter_config.json", io::to_json(&adapter_config(source, layout, &adapted))?.as_bytes())?;
    folder.write("README.md", card(source, &hash, edits.report.as_ref(), &[], Some(&adapted)).as_bytes())?;
    folder.commit()?;
    Ok(adapted)
}

fn adapter_config(source: &Source, layout: Layout, adapted: &[Adapted]) -> serde_json::Value {
    let ranks = |first: usize| -> BTreeMap<&str, usize> {
        let others = adapted.iter().filter(|adapted| adapted.rank != first);
        others.map(|adapted| (adapted.module.as_str(), adapted.rank)).collect()
    };
    let rank = adapted.first().map_or(1, |adapted| adapted.rank);
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": source.id,
        "r": rank,
        "lora_alpha": rank,
        // Each module's own, so that alpha / r is 1 everywhere.
        "rank_pattern": ranks(rank),
        "alpha_pattern": ranks(rank),
        "target_modules": adapted.iter().map(|adapted| &adapted.module).collect::<Vec<_>>(),
        "fan_in_fan_out": !layout.transposed,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": true,
    })
}

/// `[rows, columns]` to `[columns, rows]`, both row by row.
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    let rows = values.len() / columns;
    (0..columns).flat_map(|j| (0..rows).map(move |i| (i, j))).map(|(i, j)| values[i * columns + j]).collect()
}

/// The model card: what was edited, how, and what was measured.
fn card(
    source: &Source,
    hash: &str,
    report: Option<&RunReport>,
    written: &[Written],
    adapted: Option<&[Adapted]>,
) -> String {
    let library = if adapted.is_some() { "peft" } else { "transformers" };
    // A JSON text is a YAML text too.
    let quoted = serde_json::Value::from(source.id.as_str()).to_string();
    let mut text = format!(
        "---\nbase_model: {}\nlibrary_name: {library}\ntags:\n- model-editing\n---\n\n# {} with edited facts\n\n\
         Edited with {}. The SHA-256 of the unedited weights is `{hash}`. Their licence applies to these weights as well.\n",
        quoted,
        source.id,
        crate::PROGRAM
    );
    for Written { name, dtype, rounding } in written {
        let _ = write!(text, "\n- `{name}` ({dtype:?}): rounding changed the edit by {:.2}%", rounding * 100.0);
    }
    for Adapted { module, rank, error } in adapted.unwrap_or_default() {
        let _ = write!(text, "\n- `{module}`: rank {rank}, which leaves out {:.3}% of the change", error * 100.0);
    }
    let Some(report) = report else { return text + "\n" };
    let facts: Vec<_> = report.operations.iter().flat_map(|operation| &operation.facts).collect();
    let _ = write!(text, "\n\n## Facts\n\n| prompt | was | is |\n|---|---|---|\n");
    const SHOWN: usize = 100;
    // Whatever a text holds, it stays in its cell.
    let cell = |text: &str| text.replace(char::is_control, " ").replace('\\', "\\\\").replace('|', "\\|");
    for fact in facts.iter().take(SHOWN) {
        let was = fact.target_true.as_deref().unwrap_or("–");
        let _ = writeln!(text, "| {} | {} | {} |", cell(&fact.prompt), cell(was), cell(&fact.target_new));
    }
    if facts.len() > SHOWN {
        let _ = writeln!(text, "\nand {} more.", facts.len() - SHOWN);
    }
    let settings = serde_json::to_string_pretty(&report.command.spec).unwrap_or_default();
    let whole = adapted.unwrap_or_default().iter().all(|adapted| adapted.error < Factors::NEGLIGIBLE);
    let of = if whole {
        ""
    } else {
        "These scores are those of the whole edit, not of this adapter, which lacks a part of it.\n\n"
    };
    let _ = write!(text, "\n## How\n\n```json\n{settings}\n```\n\n## Measured\n\n{of}");
    let summary = report.final_summary.as_ref().unwrap_or(&report.summary);
    for (name, score) in [
        ("reliability", summary.reliability),
        ("generalization", summary.generalization),
        ("locality", summary.locality),
        ("portability", summary.portability),
    ] {
        if let Some(score) = score {
            let _ = writeln!(text, "- {name}: {score:.3}");
        }
    }
    let n = if summary.n == 1 { "one fact".to_owned() } else { format!("{} facts", summary.n) };
    let _ = write!(text, "\nMeans over {n}. `rectify eval --edits` measures what else the edit cost.\n");
    text
}
