//! Which published settings belong to which model: `hparams/models.toml`, and the files it names.

use std::path::Path;

use rectify_core::model::LoadedModel;
use rectify_protocol::{ArchitectureKind, EditorSpec, Failure};
use serde::Deserialize;
use serde_json::{Map, Number, Value};

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

/// Settings that were written for another program: `editor` with what `path` says, and the keys that say nothing here.
///
/// By the file's ending: EasyEdit's YAML, the JSON of ROME's and MEMIT's releases, our own TOML. Their names of
/// hyper-parameters are ours; what they also say of paths, devices and modules has no meaning here, and neither has what
/// is always so: the loss is read after the last layer, statistics are in 32 bits.
///
/// # Errors
///
/// When the file cannot be read, is for another method, or gives a hyper-parameter a value it cannot have.
pub(crate) fn from_elsewhere(path: &Path, editor: &EditorSpec) -> Result<(EditorSpec, Vec<String>), Failure> {
    let file = path.display().to_string();
    let wrong = |problem: String| Failure::bad_input(format!("{file}: {problem}"));
    let text = io::read_text(path)?;
    let fields: Map<String, Value> = match path.extension().and_then(|ending| ending.to_str()) {
        Some("yaml" | "yml") => serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?,
        Some("json") => serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?,
        Some("toml") => return Ok((editor.with_toml(&file, &text)?, Vec::new())),
        _ => return Err(wrong("its name ends in none of .yaml, .yml, .json, .toml".into())),
    };
    if let Some(theirs) = fields.get("alg_name").and_then(Value::as_str)
        && !theirs.eq_ignore_ascii_case(editor.method())
    {
        return Err(wrong(format!("is for {theirs}, not for {}", editor.method())));
    }
    let (mut editor, mut unused, mut used) = (editor.clone(), Vec::new(), 0);
    for (name, value) in fields {
        if name == "alg_name" {
            continue;
        }
        if !editor.has(&name) {
            unused.push(name);
            continue;
        }
        editor = editor.with(&name, number(value)).map_err(|failure| wrong(failure.message))?;
        used += 1;
    }
    if used == 0 {
        return Err(wrong(format!("has no hyper-parameter of {}", editor.method())));
    }
    editor.validate().map_err(|failure| wrong(failure.message))?;
    Ok((editor, unused))
}

/// YAML of before 1.2 reads `5e-1` as a text, and files count on a program that makes a number of it.
fn number(value: Value) -> Value {
    match value.as_str().and_then(|text| text.parse::<f64>().ok()).and_then(Number::from_f64) {
        Some(number) => Value::Number(number),
        None => value,
    }
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

    const EASYEDIT: &str = "# EasyEdit/hparams/ROME/gpt2-xl.yaml\nalg_name: \"ROME\"\nmodel_name: \"./hugging_cache/gpt2-xl\"\n\
        stats_dir: \"./data/stats\"\ndevice: 0\nlayers: [17]\nfact_token: \"subject_last\"\nv_num_grad_steps: 20\n\
        v_lr: 5e-1\nv_loss_layer: 47\nv_weight_decay: 0.5\nclamp_norm_factor: 4\nkl_factor: 0.0625\n\
        mom2_adjustment: false\ncontext_template_length_params: [[5, 10], [10, 10]]\n\
        mom2_dataset: \"wikipedia\"\nmom2_n_samples: 100000\n";

    fn elsewhere(ending: &str, text: &str, method: &str) -> Result<(EditorSpec, Vec<String>), Failure> {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join(format!("settings.{ending}"));
        std::fs::write(&path, text).unwrap();
        from_elsewhere(&path, &EditorSpec::published(method, ArchitectureKind::Gpt2).unwrap())
    }

    #[test]
    fn settings_of_other_programs_are_read_by_their_names() {
        let (editor, unused) = elsewhere("yaml", EASYEDIT, "rome").unwrap();
        let EditorSpec::Rome(rome) = editor else { panic!("another method") };
        assert_eq!((rome.layers, rome.mom2_adjustment), (Some(vec![17]), false));
        assert_eq!((rome.value.v_lr, rome.value.v_weight_decay, rome.value.v_num_grad_steps), (0.5, 0.5, 20));
        for name in ["model_name", "device", "v_loss_layer", "context_template_length_params", "mom2_dataset"] {
            assert!(unused.iter().any(|unused| unused == name), "{unused:?} lacks {name}");
        }
        let json = r#"{"layers": [3, 4], "v_lr": 0.1, "mom2_update_weight": 15000, "layer_selection": "all"}"#;
        let (editor, unused) = elsewhere("json", json, "memit").unwrap();
        let json = serde_json::to_value(editor).unwrap();
        assert_eq!((&json["layers"], &json["mom2_update_weight"]), (&serde_json::json!([3, 4]), &15000.0.into()));
        assert_eq!(unused, ["layer_selection"]);
        assert!(elsewhere("toml", "v_lr = 0.25", "rome").is_ok());
    }

    #[test]
    fn a_file_that_is_for_something_else_is_refused_by_name() {
        for (ending, text, parts) in [
            ("yaml", EASYEDIT.replace("ROME\"", "MEMIT\""), &["settings.yaml", "is for MEMIT, not for rome"][..]),
            ("yaml", EASYEDIT.replace("5e-1", "fast"), &["v_lr", "fast"]),
            ("yaml", "[1, 2".into(), &["settings.yaml"]),
            ("json", "{\"batch\": 1}".into(), &["has no hyper-parameter of rome"]),
            ("json", "[]".into(), &["settings.json"]),
            ("ini", String::new(), &["none of .yaml"]),
            ("toml", "v_lrr = 1".into(), &["did you mean \"v_lr\"?"]),
        ] {
            let failure = elsewhere(ending, &text, "rome").unwrap_err();
            for part in parts {
                assert!(failure.message.contains(part), "{failure}\nlacks {part:?}");
            }
        }
    }
}
