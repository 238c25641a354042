//! Checkpoints' files written anew: in another type, with changes added to some tensors.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use memmap2::Mmap;
use rectify_core::model::open;
use rectify_protocol::Failure;
use safetensors::{Dtype, SafeTensors, View, tensor::TensorView};
use serde::Serialize;

use crate::{io, models::Source, output::OutDir};

/// A model's files of weights, mapped.
pub struct Shards(Vec<(String, Mmap)>);

impl Shards {
    /// Those of a model.
    pub fn of(source: &Source) -> Result<Self, Failure> {
        let map = |path: PathBuf| Ok((path.display().to_string(), io::map(&path)?));
        Ok(Self(source.shards()?.into_iter().map(map).collect::<Result<_, Failure>>()?))
    }

    /// All tensors, by name.
    ///
    /// # Errors
    ///
    /// When a file is malformed, or a tensor is in two of them.
    pub fn tensors(&self) -> Result<BTreeMap<String, TensorView<'_>>, Failure> {
        let mut all = BTreeMap::new();
        for (file, bytes) in &self.0 {
            for (name, view) in open(file, bytes)?.tensors() {
                if all.insert(name.clone(), view).is_some() {
                    return Err(Failure::bad_input(format!("{file}: the tensor {name:?} is in another file too")));
                }
            }
        }
        Ok(all)
    }
}

/// Matrices of 32-bit floats as one safetensors file with one line of metadata.
pub fn file(
    tensors: impl Iterator<Item = (String, [usize; 2], Vec<f32>)>,
    (key, value): (&str, &str),
) -> Result<Vec<u8>, Failure> {
    let bytes = |values: Vec<f32>| values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    let tensors: Vec<_> = tensors.map(|(name, shape, values)| (name, shape, bytes(values))).collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).expect("there are as many numbers as its shape says"))
    });
    safetensors::serialize(views, Some([(key.to_owned(), value.to_owned())].into()))
        .map_err(|error| io::internal(error.to_string()))
}

/// A change to a tensor, in the orientation of the checkpoint's file.
#[derive(Debug)]
pub struct Change {
    /// Rows and columns.
    pub shape: [usize; 2],
    /// What is added, row by row.
    pub values: Vec<f32>,
}

/// What was written where a change was added.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Written {
    /// The tensor.
    pub name: String,
    /// The type it is stored in.
    pub dtype: Dtype,
    /// What rounding, of the sum and to that type, did to it, as a share of the change: Frobenius norms.
    pub rounding: f64,
}

/// Writes a shard into `folder`, with `changes`, which fit their tensors, taken out and added where they belong. `dtype` is the type of every
/// float; each keeps its own when absent.
///
/// # Errors
///
/// When a number is none, or cannot be held by the type.
pub fn rewrite(
    path: &Path,
    dtype: Option<Dtype>,
    changes: &mut BTreeMap<String, Change>,
    folder: &OutDir,
) -> Result<Vec<Written>, Failure> {
    let bad = |problem: String| Failure::bad_input(format!("{}: {problem}", path.display()));
    let bytes = io::map(path)?;
    let tensors = open(&path.display().to_string(), &bytes)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| bad(error.to_string()))?;
    let (mut rewritten, mut written) = (Vec::new(), Vec::new());
    for (name, view) in tensors.tensors() {
        let change = changes.remove(&name);
        let tensor = Rewritten { dtype: dtype.filter(|_| is_float(&view)).unwrap_or(view.dtype()), view, change };
        if let Some(problem) = tensor.problem() {
            return Err(bad(format!("the tensor {name:?} {problem}")));
        }
        if let Some(rounding) = tensor.rounding() {
            written.push(Written { name: name.clone(), dtype: tensor.dtype, rounding });
        }
        rewritten.push((name, tensor));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    safetensors::serialize_to_file(rewritten, header.metadata().clone(), &folder.path(&name)).map_err(|error| {
        match error {
            safetensors::SafeTensorError::IoError(error) => folder.cannot_write(&name, &error),
            other => bad(other.to_string()),
        }
    })?;
    folder.publish(&name)?;
    Ok(written)
}

/// A tensor in a type of its own, with a change added; what is no float stays as it is.
struct Rewritten<'a> {
    view: TensorView<'a>,
    change: Option<Change>,
    dtype: Dtype,
}

impl Rewritten<'_> {
    /// Whether the file's bytes can be taken as they are.
    fn is_same(&self) -> bool {
        self.change.is_none() && self.dtype == self.view.dtype()
    }

    /// The sums, before they are stored.
    fn sums(&self) -> Option<impl Iterator<Item = f32>> {
        let added = self.change.iter().flat_map(|change| change.values.iter().copied());
        Some(floats(&self.view)?.zip(added.chain(std::iter::repeat(0.0))).map(|(value, change)| value + change))
    }

    /// What cannot be stored.
    fn problem(&self) -> Option<&'static str> {
        let most = if self.dtype == Dtype::F16 { f16::MAX.to_f32() } else { f32::MAX };
        match self.sums()?.find(|value| !value.is_finite() || value.abs() > most)? {
            value if value.is_finite() => Some("has values that f16 cannot hold"),
            _ => Some("holds numbers that are not finite"),
        }
    }

    /// See [`Written::rounding`].
    fn rounding(&self) -> Option<f64> {
        let change = self.change.as_ref()?;
        let added = change.values.iter();
        let lost = floats(&self.view)?.zip(added).map(|(value, change)| {
            let kept = f64::from(stored(value + change, self.dtype));
            (kept - (f64::from(value) + f64::from(*change))).powi(2)
        });
        let lost: f64 = lost.sum();
        let all: f64 = change.values.iter().map(|value| f64::from(*value).powi(2)).sum();
        Some(if all > 0.0 { (lost / all).sqrt() } else { 0.0 })
    }
}

/// A number as its type holds it.
fn stored(value: f32, dtype: Dtype) -> f32 {
    match dtype {
        Dtype::F16 => f16::from_f32(value).to_f32(),
        Dtype::BF16 => bf16::from_f32(value).to_f32(),
        _ => value,
    }
}

impl View for Rewritten<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        self.view.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self.sums().filter(|_| !self.is_same()) {
            None => self.view.data().into(),
            Some(sums) => match self.dtype {
                Dtype::F16 => sums.flat_map(|value| f16::from_f32(value).to_le_bytes()).collect(),
                Dtype::BF16 => sums.flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect(),
                Dtype::F64 => sums.flat_map(|value| f64::from(value).to_le_bytes()).collect(),
                _ => sums.flat_map(f32::to_le_bytes).collect(),
            },
        }
    }

    fn data_len(&self) -> usize {
        match self.is_same() {
            true => self.view.data().len(),
            false => self.view.shape().iter().product::<usize>() * self.dtype.bitsize() / 8,
        }
    }
}

fn is_float(view: &TensorView<'_>) -> bool {
    matches!(view.dtype(), Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
}

/// A tensor's values, if they are floats.
pub fn floats<'a>(view: &TensorView<'a>) -> Option<Box<dyn Iterator<Item = f32> + 'a>> {
    let data = view.data();
    Some(match view.dtype() {
        Dtype::F16 => Box::new(data.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32())),
        Dtype::BF16 => Box::new(data.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32())),
        Dtype::F32 => Box::new(data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))),
        Dtype::F64 => Box::new(data.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32)),
        _ => return None,
    })
}
