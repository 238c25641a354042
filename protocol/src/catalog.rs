use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ArchitectureKind;

/// `static/models.json`: the models a page or command line can name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// The first is the one to start with.
    pub models: Vec<CatalogModel>,
    /// What these models can be measured with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub worlds: Vec<World>,
}

/// Facts to write and tasks to ask that belong together, for models that know what they are about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    /// What [`CatalogModel::world`] names.
    pub id: String,
    /// A list of [`crate::Fact`], to be written one after another. Paths are relative to the catalog.
    pub facts: CatalogFile,
    /// The file of records of each task, by the task's id.
    pub tasks: BTreeMap<String, CatalogFile>,
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
    /// The world it knows: one of [`Catalog::worlds`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub world: Option<String>,
    /// Methods with settings of their own for this model, in `hparams/METHOD/ID.toml` beside the catalog.
    #[serde(default)]
    pub hparams: Vec<String>,
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

/// What a file of a model is for, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRole {
    /// All weights, or some: any other `safetensors`.
    Weights,
    /// The second moment of one layer's keys: `moment.4.safetensors`.
    Moment(usize),
    /// What MEND learnt: `mend.safetensors`.
    Hypernetwork,
    /// Configuration, vocabulary, an index.
    Other,
}

impl CatalogFile {
    /// What the file is for.
    pub fn role(&self) -> FileRole {
        let Some(name) = self.path.strip_suffix(".safetensors") else { return FileRole::Other };
        match name.strip_prefix("moment.").map(str::parse) {
            Some(Ok(layer)) => FileRole::Moment(layer),
            _ if name == "mend" => FileRole::Hypernetwork,
            _ => FileRole::Weights,
        }
    }
}

impl Catalog {
    /// The world of the model called `id`.
    pub fn world_of(&self, id: &str) -> Option<&World> {
        let model = self.models.iter().find(|model| model.id == id)?;
        self.worlds.iter().find(|world| Some(&world.id) == model.world.as_ref())
    }
}

impl CatalogModel {
    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: FileRole) {
        assert_eq!(CatalogFile { path: path.into(), size: 0, sha256: String::new() }.role(), expected);
    }

    #[test]
    fn a_file_is_known_by_its_name() {
        check("model.safetensors", FileRole::Weights);
        check("model-00001-of-00002.safetensors", FileRole::Weights);
        check("moment.12.safetensors", FileRole::Moment(12));
        check("mend.safetensors", FileRole::Hypernetwork);
        check("tokenizer.json", FileRole::Other);
    }
}
