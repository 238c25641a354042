//! A checkpoint's files to a model with what belongs to it.

use std::collections::{BTreeMap, HashMap};

use burn::tensor::Device;
use rectify_protocol::{EditorSpec, Precision};
use sha2::{Digest, Sha256};

use super::{
    Model,
    architecture::{Build, Family},
    config::{CONFIG, Config, end_tokens},
    families::FAMILIES,
    presets::presets,
    tensors::{Tensors, hex, open},
};
use crate::{Error, Result, tokenizer::Tokenizer};

/// A model with what belongs to it.
#[derive(Clone)]
pub struct LoadedModel {
    /// The id or folder it was loaded by.
    pub id: String,
    /// The weights.
    pub model: Model,
    /// Its vocabulary.
    pub tokenizer: Tokenizer,
    /// The tokens that end a text.
    pub ends: Vec<u32>,
    /// Keys of `config.json` and tensors that were left out of account, because someone said so.
    pub ignored: Vec<String>,
    /// How its matrices are stored.
    pub precision: Precision,
    /// SHA-256 of the weights' file, or of its shards' hashes in order; hexadecimal.
    pub hash: String,
    /// Each method's settings for it, layers filled in; [`presets`] unless an edge knows better.
    pub editors: Vec<EditorSpec>,
    /// The file that a method's settings were read from, for those that an edge knew better.
    pub settings: BTreeMap<String, String>,
}

/// The small files of a checkpoint.
#[derive(Clone, Copy)]
pub struct Description<'a> {
    /// `config.json`
    pub config: &'a [u8],
    /// `generation_config.json`, where there is one: it names the tokens that end a text.
    pub generation_config: Option<&'a [u8]>,
    /// `tokenizer.json`
    pub tokenizer: &'a [u8],
    /// Keys of `config.json` and tensors to leave out of account.
    pub ignore: &'a [String],
    /// How matrices are to be stored.
    pub precision: Precision,
}

impl<'a> Description<'a> {
    /// The two files that every checkpoint has.
    pub fn new(config: &'a [u8], tokenizer: &'a [u8]) -> Self {
        Self { config, generation_config: None, tokenizer, ignore: &[], precision: Precision::F32 }
    }
}

/// How a family's checkpoints name and store a block's matrices.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// What `config.json` calls the family.
    pub family: &'static str,
    /// What names begin with in the whole model: `transformer.`. A checkpoint's file may leave it out, as GPT-2's do.
    pub root: &'static str,
    /// Whether matrices are stored `[d_out, d_in]`.
    pub transposed: bool,
    /// Whether a tensor is an embedding or an output head.
    pub is_embedding: fn(&str) -> bool,
    /// Whether a tensor is a table that old checkpoints store and that is computed.
    pub is_buffer: fn(&str) -> bool,
}

impl Layout {
    /// By the bytes of `config.json`.
    ///
    /// # Errors
    ///
    /// When the file is malformed or names a family we do not have.
    pub fn of(config: &[u8]) -> Result<Self> {
        let family = family(&mut Config::from_json(config)?)?;
        Ok(Self {
            family: family.model_type,
            root: family.root,
            transposed: family.stores_transposed,
            is_embedding: family.is_embedding,
            is_buffer: family.is_buffer,
        })
    }
}

fn family(config: &mut Config) -> Result<&'static Family> {
    let found = config.value("model_type").unwrap_or_default();
    let known = || FAMILIES.iter().map(|family| format!("{:?}", family.model_type)).collect::<Vec<_>>().join(", ");
    match FAMILIES.iter().find(|family| found == family.model_type) {
        Some(family) => Ok(family),
        None => config.refuse("model_type", &found, &format!("these can be edited: {}", known())),
    }
}

/// The hash that names a model: SHA-256 of its weights' only file, or of its shards' hashes in order; hexadecimal.
pub fn model_hash(shards: &[[u8; 32]]) -> String {
    match shards {
        [only] => hex(only),
        several => hex(&Sha256::digest(several.concat()).into()),
    }
}

/// Takes a checkpoint file by file and makes a model of it.
pub struct Loader {
    family: &'static Family,
    build: Build,
    ends: Vec<u32>,
    tokenizer: Tokenizer,
    tensors: Tensors,
    hashes: Vec<[u8; 32]>,
    /// What is to be left out of account, and whether there was something of that name.
    ignore: Vec<(String, bool)>,
}

impl Loader {
    /// Reads the small files.
    ///
    /// # Errors
    ///
    /// When one of them is malformed, the architecture is one we do not have, or a key of `config.json` asks for
    /// something that is not computed.
    pub fn new(files: &Description<'_>, device: &Device) -> Result<Self> {
        let mut config = Config::from_json(files.config)?;
        let ignore = files.ignore.iter().map(|name| (name.clone(), config.ignore(name))).collect();
        let family = family(&mut config)?;
        let build = (family.read)(&mut config)?;
        let ends = end_tokens(&mut config, files.generation_config)?;
        config.finish()?;
        Ok(Self {
            family,
            build,
            ends,
            tokenizer: Tokenizer::from_json(files.tokenizer)?,
            tensors: Tensors::new(device, family.is_embedding, family.stores_transposed, files.precision)?,
            hashes: Vec::new(),
            ignore,
        })
    }

    /// The shards' file names in order, from the bytes of `model.safetensors.index.json`.
    pub fn shard_names(index: &[u8]) -> Result<Vec<String>> {
        #[derive(serde::Deserialize)]
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
            match self.ignore.iter_mut().find(|(ignored, _)| ignored == name) {
                Some((_, there)) => *there = true,
                None if (self.family.is_buffer)(name) => {}
                None => self.tensors.add(file, name, &view)?,
            }
        }
        Ok(())
    }

    /// The model, when every tensor it needs has come.
    ///
    /// # Errors
    ///
    /// When a tensor is missing, has another shape than `config.json` says, or belongs to nothing that is computed.
    pub fn finish(mut self, id: &str) -> Result<LoadedModel> {
        let model = Model::loaded(self.family.kind, (self.build)(&mut self.tensors)?);
        self.tensors.finish()?;
        if let Some((name, _)) = self.ignore.iter().find(|(_, there)| !there) {
            return Err(Error::bad_input(format!(
                "{name:?} cannot be ignored: no key of {CONFIG} and no tensor is called so"
            )));
        }
        let vocab = model.shape().vocab;
        if self.tokenizer.vocab_size() > vocab {
            return Err(Error::bad_file(
                "tokenizer.json",
                format!("has {} tokens, but the embedding only {vocab} rows", self.tokenizer.vocab_size()),
            ));
        }
        if let Some(id) = self.tokenizer.begin().iter().find(|id| **id as usize >= vocab) {
            let problem = format!("puts the token {id} before every text, but the embedding has only {vocab} rows");
            return Err(Error::bad_file("tokenizer.json", problem));
        }
        let hash = model_hash(&self.hashes);
        let (editors, tokenizer, ends) = (presets(&model), self.tokenizer, self.ends);
        let precision = self.tensors.precision();
        let ignored = self.ignore.into_iter().map(|(name, _)| name).collect();
        Ok(LoadedModel {
            id: id.into(),
            model,
            tokenizer,
            ends,
            ignored,
            precision,
            hash,
            editors,
            settings: BTreeMap::new(),
        })
    }
}
