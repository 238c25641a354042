//! Which published settings belong to which model: `hparams/models.toml`, and the files it names.

use std::path::Path;

use rectify_core::model::LoadedModel;
use rectify_protocol::{ArchitectureKind, Failure};
use serde::Deserialize;

use crate::io;

/// `hparams/models.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    models: Vec<Known>,
}

/// A model that somebody has published settings for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// The name of its files, `METHOD/SETTINGS.toml`.
    settings: String,
    architecture: ArchitectureKind,
    layers: usize,
    d_model: usize,
    d_mlp: usize,
    context: Option<usize>,
    /// Tokens of the vocabulary, which may be fewer than the embedding has rows.
    tokens: Option<usize>,
}

impl Known {
    fn fits(&self, loaded: &LoadedModel) -> bool {
        let (shape, is) = (loaded.model.shape(), |wanted: Option<usize>, found| wanted.is_none_or(|n| n == found));
        self.architecture == loaded.model.architecture()
            && (self.layers, self.d_model, self.d_mlp) == (shape.layers, shape.d_model, shape.d_mlp)
            && is(self.context, shape.context)
            && is(self.tokens, loaded.tokenizer.vocab_size())
    }
}

/// Changes a model's presets to what is published for it, and notes the file of each method that has one.
///
/// A bundled model has files of its id. Any other has those of the model in `models.toml` whose shape it has, whatever its
/// folder is called; failing that, files of the folder's name, for settings of one's own.
///
/// # Errors
///
/// When a file cannot be read, or says something that is no setting.
pub(crate) fn apply(hparams: &Path, name: &str, bundled: bool, loaded: &mut LoadedModel) -> Result<(), Failure> {
    let known = if bundled { Some(name.to_owned()) } else { settings_of(hparams, name, loaded)? };
    let Some(known) = known else { return Ok(()) };
    for editor in &mut loaded.editors {
        let path = hparams.join(editor.method()).join(format!("{known}.toml"));
        if path.is_file() {
            *editor = editor.clone().with_toml(&path.display().to_string(), &io::read_text(&path)?)?;
            let method = editor.method();
            loaded.settings.insert(method.to_owned(), format!("hparams/{method}/{known}.toml"));
        }
    }
    Ok(())
}

/// The name of the files that hold a model's settings.
fn settings_of(hparams: &Path, name: &str, loaded: &LoadedModel) -> Result<Option<String>, Failure> {
    let table = table(hparams)?;
    if let Some(known) = table.models.iter().find(|known| known.fits(loaded)) {
        return Ok(Some(known.settings.clone()));
    }
    let folder = Path::new(name).file_name().and_then(|name| name.to_str());
    let own = |folder: &&str| table.models.iter().all(|known| known.settings != **folder);
    Ok(folder.filter(own).map(str::to_owned))
}

fn table(hparams: &Path) -> Result<Table, Failure> {
    let path = hparams.join("models.toml");
    if !path.is_file() {
        return Ok(Table::default());
    }
    toml::from_str(&io::read_text(&path)?).map_err(|error| Failure::bad_input(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::PathBuf};

    use rectify_protocol::EditorSpec;

    use super::*;
    use crate::{
        device::DeviceKind,
        engine::{self, Cancel},
        models::Static,
    };

    fn shipped() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../static/hparams")
    }

    fn nano() -> LoadedModel {
        let statics = Static::open(&shipped().join("..")).unwrap();
        let source = statics.bundled("demo-nano").unwrap();
        let session = engine::open(&source, DeviceKind::Flex, &Cancel::default(), &mut |_| {}).unwrap().unwrap();
        session.loaded().unwrap().clone()
    }

    /// A folder of settings in which `entry` names a model with demo-nano's shape.
    fn folder(loaded: &LoadedModel, more: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let shape = loaded.model.shape();
        let entry = format!(
            "[[models]]\nsettings = \"published\"\narchitecture = \"gpt2\"\nlayers = {}\nd_model = {}\nd_mlp = {}\n{more}",
            shape.layers, shape.d_model, shape.d_mlp
        );
        fs::write(folder.path().join("models.toml"), entry).unwrap();
        for (file, layer) in [("published", 1), ("mine", 0)] {
            let path = folder.path().join(format!("rome/{file}.toml"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("layers = [{layer}]\n")).unwrap();
        }
        folder
    }

    /// The layer that ROME edits in a model of this name, and whether a file said so.
    #[track_caller]
    fn check(more: &str, name: &str, bundled: bool, layer: Option<usize>) {
        let mut loaded = LoadedModel { settings: Default::default(), ..nano() };
        let folder = folder(&loaded, more);
        apply(folder.path(), name, bundled, &mut loaded).unwrap();
        assert_eq!(loaded.settings.contains_key("rome"), layer.is_some(), "{:?}", loaded.settings);
        if let Some(layer) = layer {
            let rome = loaded.editors.iter().find(|editor| editor.method() == "rome").unwrap();
            assert_eq!(rome.layers(), Some([layer].as_slice()));
        }
    }

    #[test]
    fn a_shape_decides_and_a_folder_s_name_does_not() {
        check("", "models/anything", false, Some(1));
        check("", "models/mine", false, Some(1));
        check("context = 7\n", "models/published", false, None);
        check("tokens = 7\n", "models/published", false, None);
        check("context = 7\n", "models/mine", false, Some(0));
        check("", "mine", true, Some(0));
        check("", "demo-nano", true, None);
    }

    /// The command line looks for the file, the page for the method in `models.json`.
    #[test]
    fn a_bundled_model_lists_the_methods_it_has_settings_for() {
        let text = fs::read_to_string(shipped().join("../models.json")).unwrap();
        let catalog: rectify_protocol::Catalog = serde_json::from_str(&text).unwrap();
        for model in &catalog.models {
            for method in EditorSpec::METHODS {
                let file = shipped().join(format!("{method}/{}.toml", model.id));
                let listed = model.hparams.iter().any(|known| known == method);
                assert_eq!(file.is_file(), listed, "{}: {method}", model.id);
            }
        }
    }

    #[test]
    fn what_is_wrong_with_the_table_or_a_file_is_named() {
        let mut loaded = nano();
        let at = folder(&loaded, "contxt = 1\n");
        let failure = apply(at.path(), "x", false, &mut loaded).unwrap_err();
        assert!(failure.message.contains("models.toml") && failure.message.contains("contxt"), "{failure}");
        let at = folder(&loaded, "");
        fs::write(at.path().join("rome/published.toml"), "layer = 2").unwrap();
        let failure = apply(at.path(), "x", false, &mut loaded).unwrap_err();
        for part in ["published.toml", "did you mean \"layers\"?"] {
            assert!(failure.message.contains(part), "{failure}\nlacks {part:?}");
        }
    }

    #[test]
    fn every_file_of_settings_is_in_order_and_says_where_each_value_is_from() {
        let known = table(&shipped()).unwrap().models;
        let (mut n, mut used) = (0, BTreeSet::new());
        for method in EditorSpec::METHODS {
            let Ok(files) = fs::read_dir(shipped().join(method)) else { continue };
            for file in files {
                let path = file.unwrap().path();
                let name = path.display().to_string();
                let model = path.file_stem().unwrap().to_str().unwrap().to_owned();
                let kind = match known.iter().find(|known| known.settings == model) {
                    Some(known) => known.architecture,
                    None if model == "demo-llama" => ArchitectureKind::Llama,
                    None => {
                        assert!(model.starts_with("demo-"), "{name} is no model's of models.toml");
                        ArchitectureKind::Gpt2
                    }
                };
                let text = io::read_text(&path).unwrap();
                let editor = EditorSpec::published(method, kind).unwrap().with_toml(&name, &text).unwrap();
                editor.validate().unwrap();
                for line in text.lines().filter(|line| line.contains('=') && !line.starts_with('#')) {
                    assert!(line.contains(" # "), "{name}: {line:?} does not say where it is from");
                }
                if let Some(known) = known.iter().find(|known| known.settings == model) {
                    let layers = editor.layers().unwrap_or_default();
                    assert!(layers.iter().all(|layer| *layer < known.layers), "{name}: {layers:?}");
                }
                used.insert(model);
                n += 1;
            }
        }
        assert!(n >= 40, "{n}");
        assert!(known.iter().all(|known| used.contains(&known.settings)), "an entry without files");
    }
}
