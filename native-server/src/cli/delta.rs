//! `rectify delta`.

use std::{collections::BTreeMap, fmt::Write as _, io::Write, path::PathBuf};

use rectify_core::{edit::Factors, model::Layout};
use rectify_protocol::{Command, Event, Failure, WeightChange};
use safetensors::tensor::TensorView;
use serde::Serialize;

use super::{Desk, Place, unexpected};
use crate::{
    device::DeviceKind,
    edited::layout,
    io,
    models::Source,
    output::{self, OutDir},
    shards::{self, Change, Shards, floats},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The unedited model: a bundled model's id or a folder
    base: String,
    /// The same model after some program edited it: a folder
    edited: String,
    /// Write delta.safetensors into this folder, for --edits of the other commands
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// cpu, gpu (the best card this program was built for), auto (gpu or else cpu), wgpu, vulkan or cuda
    #[arg(long, default_value = "cpu")]
    device: DeviceKind,
    /// Print one JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// What differs in one matrix.
#[derive(Serialize)]
struct Difference {
    #[serde(flatten)]
    change: WeightChange,
    /// The smallest rank of a change that leaves out nothing but noise, and how much it leaves out.
    rank: usize,
    rank_error: f64,
}

pub(super) fn run(args: &Args, place: &Place, out: &mut dyn Write) -> Result<(), Failure> {
    let (base, edited) = (place.model(&args.base)?, place.model(&args.edited)?);
    let [layout, other] = [layout(&base)?, layout(&edited)?];
    if layout.family != other.family {
        return Err(Failure::bad_input(format!("{} and {} are of different architectures", args.base, args.edited)));
    }
    same_settings(&base, &edited)?;
    let changes = differences(layout, &Shards::of(&base)?, &Shards::of(&edited)?)?;
    if changes.is_empty() {
        return Err(Failure::bad_input(format!("{} and {} have the same weights", args.base, args.edited)));
    }
    let folder = OutDir::prepare(&args.out, output::Kind::Edit)?;
    let mut desk = Desk::open(&args.base, place, args.device)?;
    let bytes = file(&changes, &desk.info().hash)?;
    // Checks that editors could have changed these matrices.
    desk.session.apply_delta(&args.edited, &bytes)?;
    let weights = match desk.handle(Command::Changes)? {
        Event::Changed(weights) => weights,
        other => return Err(unexpected(&other)),
    };
    let mut found = Vec::with_capacity(weights.len());
    for mut change in weights {
        change.blocks = None;
        let Change { shape, values } = &changes[&change.name];
        let factors = Factors::of(values, *shape, None)?;
        found.push(Difference { change, rank: factors.rank, rank_error: factors.error });
    }
    drop(desk);
    folder.write("delta.safetensors", &bytes)?;
    folder.commit()?;
    io::say(&format!("written to {}", args.out.display()));
    io::print(out, &if args.json { io::to_json(&found)? } else { table(&found) })
}

/// By tensor, in the orientation of the files.
type Changes = BTreeMap<String, Change>;

/// Keys of `config.json` that say nothing of what is computed.
const HARMLESS: [&str; 6] =
    ["dtype", "torch_dtype", "transformers_version", "_name_or_path", "architectures", "use_cache"];

/// Says so where two models' settings differ, which would make them answer differently whatever their weights.
fn same_settings(base: &Source, edited: &Source) -> Result<(), Failure> {
    let read = |source: &Source| {
        let path = source.folder.join("config.json");
        let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&io::read_bytes(&path)?)
            .map_err(|error| Failure::bad_input(format!("{}: {error}", path.display())))?;
        Ok::<_, Failure>(fields)
    };
    let (base, edited) = (read(base)?, read(edited)?);
    // A program that saves a model may add keys at their defaults; what both say must be the same.
    let differs = base.iter().find(|(key, value)| {
        !HARMLESS.contains(&key.as_str()) && edited.get(*key).is_some_and(|other| !same(value, other))
    });
    match differs {
        None => Ok(()),
        Some((key, value)) => Err(Failure::bad_input(format!(
            "config.json says {key} = {value} in the one model and {} in the other; only weights may differ",
            edited[key]
        ))),
    }
}

/// `1` is `1.0`.
fn same(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    a == b || a.as_f64().is_some_and(|number| Some(number) == b.as_f64())
}

/// By how much tensors differ, of those that do. What both store must be the same otherwise.
///
/// Names are the base's. One of the files may leave out what the whole model's names begin with, and either may store
/// tables that old checkpoints have.
fn differences(layout: Layout, base: &Shards, edited: &Shards) -> Result<Changes, Failure> {
    let short = |name: &str| name.strip_prefix(layout.root).unwrap_or(name).to_owned();
    let base = base.tensors()?;
    let edited = edited.tensors()?.into_iter().filter(|(name, _)| !(layout.is_buffer)(name));
    let mut edited: BTreeMap<String, TensorView<'_>> = edited.map(|(name, view)| (short(&name), view)).collect();
    let mut changes = Changes::new();
    for (name, before) in base.iter().filter(|(name, _)| !(layout.is_buffer)(name)) {
        let refuse = |what: String| Failure::bad_input(format!("the tensor {name:?} {what}"));
        let after = edited.remove(&short(name)).ok_or_else(|| refuse("is missing in the edited model".into()))?;
        if before.shape() != after.shape() {
            return Err(refuse(format!("is {:?} in the edited model and was {:?}", after.shape(), before.shape())));
        }
        if before.dtype() == after.dtype() && before.data() == after.data() {
            continue;
        }
        let (Some(old), Some(new)) = (floats(before), floats(&after)) else {
            return Err(refuse("is another one in the edited model, and holds no floats".into()));
        };
        let change: Vec<f32> = old.zip(new).map(|(old, new)| new - old).collect();
        if change.iter().all(|change| *change == 0.0) {
            continue;
        }
        if change.iter().any(|change| !change.is_finite()) {
            return Err(refuse("holds numbers that are not finite in the edited model".into()));
        }
        let [rows, columns] = *before.shape() else {
            return Err(refuse(format!("differs, and is no matrix but {:?}", before.shape())));
        };
        changes.insert(name.clone(), Change { shape: [rows, columns], values: change });
    }
    match edited.keys().next() {
        Some(name) => Err(Failure::bad_input(format!("the tensor {name:?} is only in the edited model"))),
        None => Ok(changes),
    }
}

/// The changes as `edit --out` writes them.
fn file(changes: &Changes, hash: &str) -> Result<Vec<u8>, Failure> {
    let tensors = changes.iter().map(|(name, Change { shape, values })| (name.clone(), *shape, values.clone()));
    shards::file(tensors, ("model_hash", hash))
}

/// The paper's Table 1 for these matrices, with their ranks.
fn table(found: &[Difference]) -> String {
    let widest = found.iter().map(|found| found.change.name.len()).max().unwrap_or(0).max("matrix".len());
    let [low, high] = WeightChange::THRESHOLDS;
    let mut text = format!(
        "{:<widest$} {:>12} {:>12} {:>9} {:>9} {:>6}\n",
        "matrix",
        "‖ΔW‖₁",
        "‖ΔW‖₂",
        format!(">{low}"),
        format!(">{high}"),
        "rank"
    );
    for Difference { change, rank, .. } in found {
        let above = |threshold: f64| {
            let above = change.above.iter().find(|above| above.threshold == threshold);
            above.map_or_else(|| "–".into(), |above| format!("{:.1}%", above.share * 100.0))
        };
        let _ = writeln!(
            text,
            "{:<widest$} {:>12.4} {:>12.4} {:>9} {:>9} {:>6}",
            change.name,
            change.manhattan,
            change.frobenius,
            above(low),
            above(high),
            rank
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use safetensors::Dtype;

    use super::*;

    fn write(folder: &Path, name: &str, values: &[f32], shape: &[usize]) -> Source {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, shape.to_vec(), &bytes).unwrap();
        std::fs::create_dir_all(folder).unwrap();
        safetensors::serialize_to_file([(name, view)], None, &folder.join("model.safetensors")).unwrap();
        Source::new("x", folder)
    }

    #[test]
    fn what_differs_otherwise_than_a_matrix_is_refused_by_name() {
        let here = tempfile::tempdir().unwrap();
        let make = |folder: &str, name, values: &[f32], shape: &[usize]| {
            Shards::of(&write(&here.path().join(folder), name, values, shape)).unwrap()
        };
        let base = make("base", "w", &[1.0, 2.0], &[1, 2]);
        let same = make("same", "w", &[1.0, 2.0], &[1, 2]);
        let layout = Layout::of(br#"{"model_type": "gpt2"}"#).unwrap();
        let differences = |base: &Shards, edited: &Shards| differences(layout, base, edited);
        let values = |base: &Shards, edited: &Shards| {
            let change = differences(base, edited).unwrap().remove("w").unwrap();
            assert_eq!(change.shape, [1, 2]);
            change.values
        };
        assert!(differences(&base, &same).unwrap().is_empty());
        // As transformers saves it.
        let whole = make("whole", "transformer.w", &[1.0, 2.5], &[1, 2]);
        assert_eq!(values(&base, &whole), [0.0, 0.5]);
        let broken = make("broken", "w", &[1.0, f32::NAN], &[1, 2]);
        assert!(differences(&base, &broken).unwrap_err().message.contains("not finite in the edited model"));
        let other = make("other", "w", &[1.5, 2.0], &[1, 2]);
        assert_eq!(values(&base, &other), [0.5, 0.0]);
        for (edited, complaint) in [
            (make("shape", "w", &[1.0, 2.0], &[2, 1]), "\"w\" is [2, 1] in the edited model and was [1, 2]"),
            (make("name", "v", &[1.0, 2.0], &[1, 2]), "\"w\" is missing in the edited model"),
        ] {
            let failure = differences(&base, &edited).unwrap_err();
            assert!(failure.message.contains(complaint), "{failure}");
        }
        let (base, norm) = (make("b", "n", &[1.0], &[1]), make("n", "n", &[2.0], &[1]));
        assert!(differences(&base, &norm).unwrap_err().message.contains("\"n\" differs, and is no matrix"));
    }
}
