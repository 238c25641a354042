//! Safetensors bytes to tensors: names, shapes, types and finiteness are checked before anything is used.

use std::collections::HashMap;

use burn::tensor::{DType, Device, Tensor, TensorData};
use half::f16;
use rectify_protocol::Precision;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sha2::{Digest, Sha256};

use super::{
    config::CONFIG,
    embedding::{Embedding, rows_per_shard},
};
use crate::{
    Error, Result,
    kernels::{Blocks, Weight, wide},
};

/// A hash in hexadecimal.
pub(crate) fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Opens a safetensors file; `file` is its name in messages.
///
/// # Errors
///
/// When the bytes are no whole safetensors file: what they seem to be instead is said in plain words.
pub fn open<'a>(file: &str, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    // A safetensors file begins with a length, which may be any bytes: whoever can read it asks no further.
    SafeTensors::deserialize(bytes).map_err(|error| {
        Error::bad_file(
            file,
            match kind(bytes) {
                Some(kind) => format!("is {kind}; only safetensors is read"),
                None => format!("is not a whole safetensors file of {} bytes: {error}", bytes.len()),
            },
        )
    })
}

/// What bytes that are no safetensors file seem to be.
fn kind(bytes: &[u8]) -> Option<&'static str> {
    let is = |start: &[u8]| bytes.starts_with(start);
    match () {
        () if is(b"PK\x03\x04") => Some("a zip archive, as numpy's .npz and PyTorch's .pt are"),
        () if is(b"\x93NUMPY") => Some("a numpy array"),
        () if is(b"\x80") && bytes.get(1).is_some_and(|protocol| *protocol <= 5) => Some("a Python pickle"),
        () if is(b"<") => Some("a web page, so the download went wrong"),
        () => None,
    }
}

/// What a safetensors file says about itself beside its tensors; nothing where it says nothing.
pub(crate) fn metadata(bytes: &[u8]) -> HashMap<String, String> {
    SafeTensors::read_metadata(bytes).ok().and_then(|(_, metadata)| metadata.metadata().clone()).unwrap_or_default()
}

/// The numbers of a stored tensor as f32.
///
/// # Errors
///
/// When the type is not a float or a number is not finite: it is named with its position.
pub(crate) fn floats(file: &str, name: &str, view: &TensorView<'_>) -> Result<Vec<f32>> {
    let bytes = view.data();
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => bytes.as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
        other => {
            return Err(Error::bad_file(file, format!("tensor {name:?} is {other:?}; F32, F16 and BF16 are read")));
        }
    };
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(i) => Err(Error::bad_file(file, format!("tensor {name:?} holds {} at element {i}", values[i]))),
    }
}

/// The numbers of a stored tensor in half precision.
///
/// # Errors
///
/// Also when one of them is larger than half precision holds.
fn halves(file: &str, name: &str, view: &TensorView<'_>) -> Result<Vec<f16>> {
    let values: Vec<f16> = match view.dtype() {
        Dtype::F16 => view.data().as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b)).collect(),
        _ => floats(file, name, view)?.into_iter().map(f16::from_f32).collect(),
    };
    let Some(i) = values.iter().position(|value| !value.is_finite()) else { return Ok(values) };
    let value = floats(file, name, view)?[i];
    let problem = format!("tensor {name:?} holds {value} at element {i}, more than half precision can");
    Err(Error::bad_file(file, problem))
}

/// The tensors of a checkpoint by name, on the device.
pub(super) struct Tensors {
    device: Device,
    precision: Precision,
    is_embedding: fn(&str) -> bool,
    /// Whether the file's matrices are `[d_out, d_in]`.
    turned: bool,
    by_name: HashMap<String, Stored>,
}

enum Stored {
    Vector(Tensor<1>),
    /// Its shape in the file, and what it is to those who compute with it, `[d_in, d_out]`.
    Matrix([usize; 2], Weight),
    /// An embedding, and the hash of its bytes. Embeddings are large and only ever read by rows, so they alone are split.
    Rows(Vec<Tensor<2>>, [u8; 32]),
    /// Of a shape that no weight has.
    Other(Vec<usize>),
}

impl Tensors {
    /// None yet.
    ///
    /// # Errors
    ///
    /// When the device cannot store in this precision.
    pub(super) fn new(
        device: &Device,
        is_embedding: fn(&str) -> bool,
        turned: bool,
        precision: Precision,
    ) -> Result<Self> {
        if precision == Precision::F16 && !device.supports_dtype(DType::F16) {
            return Err(Error::bad_input(
                "this device has no 16-bit floats: load the model with precision int8 or f32",
            ));
        }
        Ok(Self { device: device.clone(), precision, is_embedding, turned, by_name: HashMap::new() })
    }

    /// How matrices are stored.
    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    /// Rows of a stored matrix on the device, in pieces of so many.
    fn rows(
        &self,
        file: &str,
        name: &str,
        view: &TensorView<'_>,
        columns: usize,
        each: usize,
    ) -> Result<Vec<Tensor<2>>> {
        let dims = |len: usize| [len / columns, columns];
        Ok(match self.precision {
            // Of embeddings only rows are read, and heads say how likely each token is: eight bits are for blocks.
            Precision::F32 | Precision::Int8 => {
                let values = floats(file, name, view)?;
                let pieces =
                    values.chunks(each * columns).map(|piece| TensorData::new(piece.to_vec(), dims(piece.len())));
                pieces.map(|piece| Tensor::from_data(piece, &self.device)).collect()
            }
            Precision::F16 => {
                let values = halves(file, name, view)?;
                let pieces =
                    values.chunks(each * columns).map(|piece| TensorData::new(piece.to_vec(), dims(piece.len())));
                pieces.map(|piece| Tensor::from_data(piece, (&self.device, DType::F16))).collect()
            }
        })
    }

    /// A matrix of a block, as it is computed with.
    fn matrix_of(&self, file: &str, name: &str, view: &TensorView<'_>, [rows, columns]: [usize; 2]) -> Result<Weight> {
        if self.precision != Precision::Int8 {
            let matrix = self.rows(file, name, view, columns, rows)?.remove(0);
            return Ok(Weight::Floats(if self.turned { matrix.transpose() } else { matrix }));
        }
        let values = floats(file, name, view)?;
        Ok(Weight::Blocks(match self.turned {
            true => Blocks::of(&values, columns, &self.device),
            false => {
                let output = |i: usize| values[i..].iter().step_by(columns).copied();
                Blocks::of(&(0..columns).flat_map(output).collect::<Vec<f32>>(), rows, &self.device)
            }
        }))
    }

    /// Takes one tensor of a file.
    pub(super) fn add(&mut self, file: &str, name: &str, view: &TensorView<'_>) -> Result<()> {
        let stored = match *view.shape() {
            [n] => Stored::Vector(Tensor::from_data(TensorData::new(floats(file, name, view)?, [n]), &self.device)),
            [rows, columns] if rows > 0 && columns > 0 && (self.is_embedding)(name) => {
                let shards = self.rows(file, name, view, columns, rows_per_shard(columns))?;
                Stored::Rows(shards, Sha256::digest(view.data()).into())
            }
            [rows, columns] if rows > 0 && columns > 0 => {
                Stored::Matrix([rows, columns], self.matrix_of(file, name, view, [rows, columns])?)
            }
            _ => Stored::Other(view.shape().to_vec()),
        };
        match self.by_name.insert(name.into(), stored) {
            None => Ok(()),
            Some(_) => Err(Error::bad_file(file, format!("tensor {name:?} came before, in another file"))),
        }
    }

    /// Whether there is a tensor of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The vector of this name and length.
    pub(super) fn vector(&mut self, name: &str, len: usize) -> Result<Tensor<1>> {
        match self.take(name)? {
            Stored::Vector(vector) if vector.dims() == [len] => Ok(vector),
            other => Err(wrong_shape(name, &other, &[len])),
        }
    }

    /// The matrix of this name, `[d_in, d_out]`, whichever way the file has it.
    pub(super) fn matrix(&mut self, name: &str, [d_in, d_out]: [usize; 2]) -> Result<Weight> {
        let expected = if self.turned { [d_out, d_in] } else { [d_in, d_out] };
        match self.take(name)? {
            Stored::Matrix(shape, weight) if shape == expected => Ok(weight),
            other => Err(wrong_shape(name, &other, &expected)),
        }
    }

    /// An embedding of something else than tokens, in 32 bits.
    pub(super) fn table(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>> {
        match self.take(name)? {
            Stored::Rows(shards, _) if dims_of_rows(&shards) == shape => Ok(wide(Tensor::cat(shards, 0))),
            other => Err(wrong_shape(name, &other, &shape)),
        }
    }

    /// A token embedding and the output head, which is the embedding again where they are tied.
    ///
    /// # Errors
    ///
    /// Also when they are tied and the checkpoint stores a head that is not the embedding.
    pub(super) fn embedding_and_head(
        &mut self,
        embedding: &str,
        head: &str,
        shape: [usize; 2],
        tied: bool,
    ) -> Result<(Embedding, Embedding)> {
        let (tokens, hash) = self.embedding(embedding, shape)?;
        if tied && !self.has(head) {
            return Ok((tokens.clone(), tokens));
        }
        let (own, hash_of_head) = self.embedding(head, shape)?;
        if !tied {
            return Ok((tokens, own));
        }
        if hash != hash_of_head {
            let problem = format!("tie_word_embeddings is true, but the tensors {embedding:?} and {head:?} differ");
            return Err(Error::bad_file(CONFIG, problem));
        }
        Ok((tokens.clone(), tokens))
    }

    fn embedding(&mut self, name: &str, shape: [usize; 2]) -> Result<(Embedding, [u8; 32])> {
        match self.take(name)? {
            Stored::Rows(shards, hash) if dims_of_rows(&shards) == shape => Ok((Embedding::new(shards), hash)),
            other => Err(wrong_shape(name, &other, &shape)),
        }
    }

    /// Complains about tensors that nobody took: a bias, a norm or a head that would be left out.
    pub(super) fn finish(&self) -> Result<()> {
        const NAMED: usize = 3;
        let mut left: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
        left.sort_unstable();
        if left.is_empty() {
            return Ok(());
        }
        let more = left.len().saturating_sub(NAMED);
        let named: Vec<String> = left.iter().take(NAMED).map(|name| format!("{name:?}")).collect();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Err(Error::bad_file(
            "the checkpoint",
            format!("holds {}{more}, which this architecture does not compute with", named.join(", ")),
        ))
    }

    fn take(&mut self, name: &str) -> Result<Stored> {
        self.by_name.remove(name).ok_or_else(|| Error::bad_file("the checkpoint", format!("has no tensor {name:?}")))
    }
}

fn dims_of_rows(shards: &[Tensor<2>]) -> [usize; 2] {
    [shards.iter().map(|shard| shard.dims()[0]).sum(), shards[0].dims()[1]]
}

fn wrong_shape(name: &str, found: &Stored, expected: &[usize]) -> Error {
    let found = match found {
        Stored::Vector(vector) => vector.dims().to_vec(),
        Stored::Matrix(shape, _) => shape.to_vec(),
        Stored::Rows(shards, _) => dims_of_rows(shards).to_vec(),
        Stored::Other(shape) => shape.clone(),
    };
    Error::bad_file("the checkpoint", format!("tensor {name:?} is {found:?}; {CONFIG} makes it {expected:?}"))
}
