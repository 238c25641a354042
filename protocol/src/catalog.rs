use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ArchitectureKind;

/// `static/models.json`: the models a page or command line can name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// The first is the one to start with.
    pub models: Vec<CatalogModel>,
}

/// A model before it is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogModel {
    /// What [`crate::ModelSource::Bundled`] names.
    pub id: String,
    /// What a person reads.
    pub name: String,
    /// Where its files are, relative to the catalog: `models/demo-gpt2`.
    pub folder: String,
    /// One or two sentences on what it knows and where it comes from.
    pub description: String,
    /// GPT-2 or LLaMA.
    pub architecture: ArchitectureKind,
    /// SPDX expression.
    pub licence: String,
    /// Number of blocks.
    pub layers: usize,
    /// Tokens that fit the context.
    pub context: usize,
    /// Bytes of memory that loading takes at its peak.
    pub memory_load: u64,
    /// Bytes of memory that one edit takes at its peak, the weights included.
    pub memory_edit: u64,
    /// Method to the layers it edits when none is named.
    #[serde(default)]
    pub default_layers: BTreeMap<String, Vec<usize>>,
    /// Everything to fetch: config.json, tokenizer.json, safetensors, their index if there are several.
    pub files: Vec<CatalogFile>,
}

/// A file of a model, and how to tell that it arrived whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogFile {
    /// Relative to the model's folder.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

impl CatalogModel {
    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}
