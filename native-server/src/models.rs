//! Which models there are, and where: `static/models.json` and folders in Hugging Face's layout.

use std::path::{Path, PathBuf};

use rectify_core::{
    Session,
    model::{Description, LoadedModel, Loader},
    task::{Records, TASKS, Task},
};
use rectify_protocol::{Catalog, CatalogModel, Failure, Kind, Precision, Progress, nearest};

use crate::{engine, hparams, hub, installed, io};

/// The folder with what is shipped as it is, and its catalog.
#[derive(Clone, Debug)]
pub struct Static {
    /// The folder itself.
    pub folder: PathBuf,
    /// What its `models.json` says.
    pub catalog: Catalog,
}

const NAME_IT: &str = "name the folder that holds it with --static or RECTIFY_STATIC";

/// The list of the bundled models, by which the static folder is known.
const CATALOG: &str = "models.json";

impl Static {
    /// Finds the folder: the flag's, `./static`, the one that is installed with this program, or the one
    /// it was built beside.
    pub fn find(flag: Option<&Path>) -> Result<Self, Failure> {
        if let Some(folder) = flag {
            return Self::open(folder);
        }
        let mut places = installed::places("static", "static");
        places.extend(Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(|built_beside| built_beside.join("static")));
        let folder = installed::first_with(CATALOG, &places);
        Self::open(&folder.map_err(|problem| Failure::new(Kind::NotFound, format!("{problem}; {NAME_IT}")))?)
    }

    /// Reads `models.json` of this folder.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(CATALOG);
        let text =
            io::read_text(&path).map_err(|failure| Failure { message: format!("{failure}; {NAME_IT}"), ..failure })?;
        let catalog = serde_json::from_str(&text)
            .map_err(|error| Failure::bad_input(format!("{} is not a list of models: {error}", path.display())))?;
        Ok(Self { folder: folder.to_owned(), catalog })
    }

    /// The bundled model with this id.
    pub fn bundled(&self, id: &str) -> Result<Source, Failure> {
        let entry =
            self.catalog.models.iter().find(|entry| entry.id == id).ok_or_else(|| self.unknown(id, "no model"))?;
        Ok(Source {
            folder: self.folder.join(&entry.folder),
            entry: Some(entry.clone()),
            ..self.unlisted(id, Path::new(""))
        })
    }

    /// The tasks that a bundled model can be asked; none where the catalog names no world for it.
    pub fn tasks(&self, id: &str) -> Result<Vec<Records>, Failure> {
        let Some(world) = self.catalog.world_of(id) else { return Ok(Vec::new()) };
        let read = |task: &'static Task| {
            let file = world.tasks.get(task.id)?;
            let path = self.folder.join(&file.path);
            Some(io::read_text(&path).and_then(|text| {
                let (hash, _) = io::sha256(&path)?;
                Ok(Records::read(task, &path.display().to_string(), &text, hash)?)
            }))
        };
        TASKS.iter().filter_map(read).collect()
    }

    /// A model that is not in the catalog, in `folder`.
    fn unlisted(&self, id: &str, folder: &Path) -> Source {
        let hparams = Some(self.folder.join("hparams"));
        Source { hparams, ..Source::new(id, folder) }
    }

    fn unknown(&self, id: &str, what: &str) -> Failure {
        let ids: Vec<&str> = self.catalog.models.iter().map(|entry| entry.id.as_str()).collect();
        let guess = nearest(id, &ids).map(|best| format!("; did you mean {best:?}?")).unwrap_or_default();
        let known = if ids.is_empty() { "none".into() } else { ids.join(", ") };
        Failure::new(Kind::NotFound, format!("{what} {id:?}{guess} (bundled models: {known})"))
    }
}

/// The file with what MEND learnt for a model.
pub const HYPERNETWORK: &str = "mend.safetensors";

/// The file with the second moment of one layer's keys.
pub fn moment_file(layer: usize) -> String {
    format!("moment.{layer}.safetensors")
}

/// A model that was asked for.
#[derive(Clone, Debug)]
pub struct Source {
    /// What reports call it.
    pub id: String,
    /// Where its files are.
    pub folder: PathBuf,
    /// What `models.json` says about it, if it is bundled.
    pub entry: Option<CatalogModel>,
    /// The folder of hyper-parameters, if there is one.
    pub hparams: Option<PathBuf>,
    /// Keys of `config.json` and tensors to leave out of account.
    pub ignore: Vec<String>,
    /// How matrices are to be stored.
    pub precision: Precision,
}

/// The model `name` stands for: a bundled id or, failing that, a folder; failing that, one of the Hugging Face Hub's.
pub fn resolve(statics: Result<Static, Failure>, name: &str) -> Result<Source, Failure> {
    let folder = Path::new(name);
    match statics {
        Ok(statics) => statics.bundled(name).or_else(|_| {
            if folder.is_dir() {
                return Ok(statics.unlisted(name, folder));
            }
            match from_hub(name) {
                Some(folder) => Ok(statics.unlisted(name, &folder?)),
                None => Err(statics.unknown(name, "no bundled model and no folder")),
            }
        }),
        Err(_) if folder.is_dir() => Ok(Source::new(name, folder)),
        Err(failure) => Err(Failure {
            message: format!("{name:?} is not a folder, and the bundled models are unknown: {failure}"),
            ..failure
        }),
    }
}

/// The folder of a model of the hub, where the text can be a name of one.
fn from_hub(name: &str) -> Option<Result<PathBuf, Failure>> {
    let known = hub::models::Name::parse(name)?;
    let folder = hub::models::folder(&known);
    let beside = |failure: Failure| Failure {
        message: format!("{name:?} is no bundled model and no folder, and {failure}"),
        ..failure
    };
    Some(folder.map_err(beside))
}

impl Source {
    /// A folder that no catalog lists, read as it is.
    pub fn new(id: &str, folder: &Path) -> Self {
        Self {
            id: id.to_owned(),
            folder: folder.to_owned(),
            entry: None,
            hparams: None,
            ignore: Vec::new(),
            precision: Precision::default(),
        }
    }

    /// The weights' files, in order.
    pub fn shards(&self) -> Result<Vec<PathBuf>, Failure> {
        let whole = self.folder.join("model.safetensors");
        let index = self.folder.join("model.safetensors.index.json");
        if whole.is_file() {
            return Ok(vec![whole]);
        }
        if !index.is_file() {
            return Err(Failure::bad_input(format!(
                "{} holds neither model.safetensors nor model.safetensors.index.json",
                self.folder.display()
            )));
        }
        let names = Loader::shard_names(&io::read_bytes(&index)?)?;
        let shard = |name: String| {
            let plain = Path::new(&name).components().count() == 1 && !name.starts_with('.');
            let plain = plain && name.ends_with(".safetensors");
            let path = self.folder.join(&name);
            match plain && path.is_file() {
                true => Ok(path),
                false => {
                    Err(Failure::bad_input(format!("{} names the shard {name:?}, which is missing", index.display())))
                }
            }
        };
        names.into_iter().map(shard).collect()
    }

    /// Reads the model. May be dropped between files.
    pub async fn load(
        &self,
        device: &burn::tensor::Device,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<LoadedModel, Failure> {
        let config = io::read_bytes(&self.folder.join("config.json"))?;
        let tokenizer = io::read_bytes(&self.folder.join("tokenizer.json"))?;
        let shards = self.shards()?.into_iter().map(|path| io::map(&path).map(|map| (path, map)));
        let shards = shards.collect::<Result<Vec<_>, _>>()?;
        let total = shards.iter().map(|(_, map)| map.len() as u64).sum();
        let mut done = 0;
        let generation_config = self.folder.join("generation_config.json");
        let generation_config = generation_config.is_file().then(|| io::read_bytes(&generation_config)).transpose()?;
        let description = Description {
            generation_config: generation_config.as_deref(),
            ignore: &self.ignore,
            precision: self.precision,
            ..Description::new(&config, &tokenizer)
        };
        // Core knows these files by their names alone.
        let here = |error: rectify_core::Error| Failure::from(error).at(self.folder.display());
        let mut loader = Loader::new(&description, device).map_err(here)?;
        for (path, map) in &shards {
            watch(Progress::Fetching { file: path.display().to_string(), done, total: Some(total) });
            engine::pause().await;
            loader.add_shard(&path.display().to_string(), map)?;
            done += map.len() as u64;
        }
        watch(Progress::Preparing);
        let mut loaded = loader.finish(&self.id).map_err(here)?;
        if let Some(folder) = &self.hparams {
            hparams::apply(folder, &self.id, self.entry.is_some(), &mut loaded)?;
        }
        Ok(loaded)
    }

    /// Hands a session what lies beside the weights: second moments of keys, and what MEND learnt.
    pub fn add_companions(&self, session: &mut Session) -> Result<(), Failure> {
        for layer in 0..session.info().map_or(0, |info| info.layers) {
            let path = self.folder.join(moment_file(layer));
            if path.is_file() {
                for warning in session.add_moment(layer, &path.display().to_string(), &io::map(&path)?)? {
                    io::warn(&warning);
                }
            }
        }
        let path = self.folder.join(HYPERNETWORK);
        if path.is_file() {
            session.add_hypernetwork(&path.display().to_string(), &io::map(&path)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const LIST: &str = r#"{"models": [{"id": "demo-small", "name": "Demo", "folder": "models/demo", "licence": "MIT",
        "description": "", "architecture": "gpt2", "layers": 4, "context": 64, "memory_load": 0, "memory_edit": 0,
        "files": [{"path": "config.json", "size": 2, "sha256": "00"}]}]}"#;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("models.json"), LIST).unwrap();
        folder
    }

    #[track_caller]
    fn check_refused<T>(result: Result<T, Failure>, parts: &[&str]) {
        let failure = result.err().expect("it was accepted");
        for part in parts {
            assert!(failure.message.contains(part), "{failure}\nlacks {part:?}");
        }
    }

    #[test]
    fn a_model_is_a_bundled_id_or_a_folder() {
        let folder = folder();
        let statics = || Static::open(folder.path());
        assert_eq!(resolve(statics(), "demo-small").unwrap().folder, folder.path().join("models/demo"));
        let path = folder.path().display().to_string();
        assert_eq!(resolve(statics(), &path).unwrap().id, path);
        assert!(resolve(Static::open(Path::new("/nowhere")), &path).is_ok());
        check_refused(resolve(statics(), "demo-smal"), &["no bundled model and no folder", "mean \"demo-small\""]);
        check_refused(statics().unwrap().bundled(&path), &["no model", "bundled models: demo-small"]);
        check_refused(resolve(Static::open(Path::new("/nowhere")), "demo"), &["/nowhere/models.json", "--static"]);
    }

    /// The page reads facts and tasks as the command line does, or their numbers would not be the same.
    #[test]
    fn a_world_is_what_the_command_line_reads() {
        let statics = Static::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../static")).unwrap();
        let world = statics.catalog.world_of("demo-gpt2").unwrap();
        let text = |file: &str| fs::read_to_string(statics.folder.join(file)).unwrap();
        let sequence: Vec<rectify_protocol::Fact> = serde_json::from_str(&text(&world.facts.path)).unwrap();
        let zsre = text("facts/demo_zsre.json");
        let zsre = crate::facts::EditSet::read("demo_zsre.json", &zsre).unwrap();
        for (number, fact) in sequence.iter().enumerate() {
            assert_eq!(*fact, zsre.facts(number..number + 1).unwrap()[0], "{number}");
        }
        let tasks = statics.tasks("demo-gpt2").unwrap();
        assert_eq!(tasks.len(), TASKS.len());
        for records in tasks {
            assert_eq!(records.hash, world.tasks[records.task.id].sha256, "{}", records.file);
            let loaded = crate::tasks::load(records.task, &statics.folder.join("tasks/demo"), Some(24)).unwrap();
            let numbers = |records: &Records| records.questions.iter().map(|(n, _)| *n).collect::<Vec<_>>();
            assert_eq!(numbers(&records.sample(24)), numbers(&loaded), "{}", records.file);
        }
    }

    #[test]
    fn a_folder_without_weights_says_what_is_missing() {
        let folder = folder();
        let source = Source::new("x", folder.path());
        check_refused(source.shards(), &["holds neither model.safetensors nor model.safetensors.index.json"]);
        fs::write(folder.path().join("model.safetensors"), "").unwrap();
        assert_eq!(source.shards().unwrap(), [folder.path().join("model.safetensors")]);
    }

    #[test]
    fn a_missing_shard_is_named_with_its_index() {
        let folder = folder();
        let source = Source::new("x", folder.path());
        let index = |shard: &str| {
            let text = format!(r#"{{"weight_map": {{"a": "{shard}"}}}}"#);
            fs::write(folder.path().join("model.safetensors.index.json"), text).unwrap();
        };
        index("model-1.safetensors");
        check_refused(source.shards(), &["model.safetensors.index.json names the shard \"model-1.safetensors\""]);
        index("../models.json");
        check_refused(source.shards(), &["names the shard \"../models.json\", which is missing"]);
    }
}
