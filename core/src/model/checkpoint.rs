//! Safetensors bytes to tensors: names, shapes, types and finiteness are checked before anything is used.

use std::collections::HashMap;

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{
    LoadedModel, Model,
    embedding::{Embedding, rows_per_shard},
    gpt2::{Gpt2, Gpt2Config},
    llama::{Llama, LlamaConfig},
    presets::presets,
};
use crate::{Error, Result, tokenizer::Tokenizer};

const CONFIG: &str = "config.json";

/// Takes a checkpoint file by file and makes a model of it.
pub struct Loader {
    config: Config,
    ends: Vec<u32>,
    tokenizer: Tokenizer,
    tensors: Tensors,
    hashes: Vec<[u8; 32]>,
}

enum Config {
    Gpt2(Gpt2Config),
    Llama(LlamaConfig),
}

/// What every architecture's `config.json` has.
#[derive(Deserialize)]
struct Common {
    model_type: String,
    eos_token_id: Option<EndTokens>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum EndTokens {
    One(u32),
    Several(Vec<u32>),
}

impl Loader {
    /// Reads `config.json` and `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// When either is malformed, or the architecture is one we do not have.
    pub fn new(config: &[u8], tokenizer: &[u8], device: &Device) -> Result<Self> {
        let Common { model_type, eos_token_id } = parse(config)?;
        let config = match model_type.as_str() {
            "gpt2" => Config::Gpt2(parse(config)?),
            "llama" => Config::Llama(parse(config)?),
            other => {
                return Err(Error::bad_file(
                    CONFIG,
                    format!("model_type is {other:?}; \"gpt2\" and \"llama\" can be edited"),
                ));
            }
        };
        match &config {
            Config::Gpt2(config) => config.check()?,
            Config::Llama(config) => config.check()?,
        }
        let ends = match eos_token_id {
            None => Vec::new(),
            Some(EndTokens::One(id)) => vec![id],
            Some(EndTokens::Several(ids)) => ids,
        };
        Ok(Self {
            config,
            ends,
            tokenizer: Tokenizer::from_json(tokenizer)?,
            tensors: Tensors { device: device.clone(), by_name: HashMap::new() },
            hashes: Vec::new(),
        })
    }

    /// The shards' file names in order, from the bytes of `model.safetensors.index.json`.
    pub fn shard_names(index: &[u8]) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: HashMap<String, String>,
        }
        let index: Index = serde_json::from_slice(index)
            .map_err(|error| Error::bad_file("model.safetensors.index.json", error.to_string()))?;
        let mut names: Vec<String> = index.weight_map.into_values().collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Takes one whole safetensors file; `file` is its name in messages.
    ///
    /// # Errors
    ///
    /// When the file is not well-formed, holds a type we do not read, a tensor twice, or a number that is not finite.
    pub fn add_shard(&mut self, file: &str, bytes: &[u8]) -> Result<()> {
        self.hashes.push(Sha256::digest(bytes).into());
        let shard = open(file, bytes)?;
        for (name, view) in shard.iter() {
            self.tensors.add(file, name, &view)?;
        }
        Ok(())
    }

    /// The model, when every tensor it needs has come.
    ///
    /// # Errors
    ///
    /// When a tensor is missing or has another shape than `config.json` says.
    pub fn finish(mut self, id: &str) -> Result<LoadedModel> {
        let model = match self.config {
            Config::Gpt2(config) => Model::Gpt2(Gpt2::load(config, &mut self.tensors)?),
            Config::Llama(config) => Model::Llama(Llama::load(config, &mut self.tensors)?),
        };
        let vocab = model.shape().vocab;
        if self.tokenizer.vocab_size() > vocab {
            return Err(Error::bad_file(
                "tokenizer.json",
                format!("has {} tokens, but the embedding only {vocab} rows", self.tokenizer.vocab_size()),
            ));
        }
        let hash = match self.hashes.as_slice() {
            [only] => hex(only),
            several => hex(&Sha256::digest(several.concat()).into()),
        };
        let (editors, tokenizer, ends) = (presets(&model), self.tokenizer, self.ends);
        Ok(LoadedModel { id: id.into(), model, tokenizer, ends, hash, editors })
    }
}

fn parse<'a, T: Deserialize<'a>>(config: &'a [u8]) -> Result<T> {
    serde_json::from_slice(config).map_err(|error| Error::bad_file(CONFIG, error.to_string()))
}

/// A hash in hexadecimal.
pub(crate) fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Opens a safetensors file, saying in plain words what is wrong with one that is none.
pub(crate) fn open<'a>(file: &str, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    let refuse = |problem: String| Err(Error::bad_file(file, problem));
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02") || bytes.starts_with(b"\x93NUMPY") {
        return refuse("is a pickle, zip or numpy file; only safetensors is read".into());
    }
    if bytes.starts_with(b"<") {
        return refuse("is a web page, not a safetensors file; the download went wrong".into());
    }
    SafeTensors::deserialize(bytes)
        .or_else(|error| refuse(format!("is not a whole safetensors file of {} bytes: {error}", bytes.len())))
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

/// The tensors of a checkpoint by name, on the device.
pub(super) struct Tensors {
    device: Device,
    by_name: HashMap<String, Stored>,
}

enum Stored {
    Vector(Tensor<1>),
    Matrix(Tensor<2>),
    Rows(Vec<Tensor<2>>),
}

impl Tensors {
    fn add(&mut self, file: &str, name: &str, view: &TensorView<'_>) -> Result<()> {
        let stored = match *view.shape() {
            [n] => Stored::Vector(Tensor::from_data(TensorData::new(floats(file, name, view)?, [n]), &self.device)),
            [rows, columns] if is_embedding(name) => {
                let values = floats(file, name, view)?;
                let shards = values.chunks(rows_per_shard(columns) * columns);
                let shards = shards.map(|shard| {
                    let data = TensorData::new(shard.to_vec(), [shard.len() / columns, columns]);
                    Tensor::from_data(data, &self.device)
                });
                debug_assert_eq!(values.len(), rows * columns, "safetensors checks sizes");
                Stored::Rows(shards.collect())
            }
            [rows, columns] => {
                let data = TensorData::new(floats(file, name, view)?, [rows, columns]);
                Stored::Matrix(Tensor::from_data(data, &self.device))
            }
            // Buffers such as GPT-2's causal mask, [1, 1, 1024, 1024], are not weights.
            _ => return Ok(()),
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

    /// The matrix of this name and shape, as it is stored.
    pub(super) fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>> {
        match self.take(name)? {
            Stored::Matrix(matrix) if matrix.dims() == shape => Ok(matrix),
            other => Err(wrong_shape(name, &other, &shape)),
        }
    }

    /// The embedding of this name and shape.
    pub(super) fn embedding(&mut self, name: &str, shape: [usize; 2]) -> Result<Embedding> {
        match self.take(name)? {
            Stored::Rows(shards) if dims(&Stored::Rows(shards.clone())) == shape => Ok(Embedding::new(shards)),
            other => Err(wrong_shape(name, &other, &shape)),
        }
    }

    fn take(&mut self, name: &str) -> Result<Stored> {
        self.by_name.remove(name).ok_or_else(|| Error::bad_file("the checkpoint", format!("has no tensor {name:?}")))
    }
}

/// Embeddings are large and only ever read by rows, so they alone are split.
fn is_embedding(name: &str) -> bool {
    super::gpt2::is_embedding(name) || super::llama::is_embedding(name)
}

fn dims(stored: &Stored) -> Vec<usize> {
    match stored {
        Stored::Vector(vector) => vector.dims().to_vec(),
        Stored::Matrix(matrix) => matrix.dims().to_vec(),
        Stored::Rows(shards) => vec![shards.iter().map(|shard| shard.dims()[0]).sum(), shards[0].dims()[1]],
    }
}

fn wrong_shape(name: &str, found: &Stored, expected: &[usize]) -> Error {
    let found = dims(found);
    Error::bad_file("the checkpoint", format!("tensor {name:?} is {found:?}; {CONFIG} makes it {expected:?}"))
}
