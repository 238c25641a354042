//! What jobs may be made of: the grids and the models that this machine has. Whoever asks names them by their ids; paths
//! stay here.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rectify_core::task::{MORE, TASKS};
use rectify_protocol::{
    ArchitectureKind, EditorSpec, Failure, Kind, OfferedModel, SweepChange, SweepSpec, Template, nearest,
};

use crate::{
    hub, io,
    models::Static,
    output,
    sweep::{
        self, Share, Sweep, beside,
        grid::{self, Asked},
    },
    tasks,
};

/// Files or folders by their ids.
type Listed = BTreeMap<String, PathBuf>;

/// The grids and models of this machine.
#[derive(Clone, Debug)]
pub struct Shelf {
    statics: Arc<Static>,
    /// Where grids are, each a file.
    folder: PathBuf,
}

impl Shelf {
    /// What is in the static folder.
    pub fn new(statics: Arc<Static>) -> Self {
        Self { folder: statics.folder.join("sweeps"), statics }
    }

    /// The static folder, which processes are told of.
    pub fn statics(&self) -> &Path {
        &self.statics.folder
    }

    /// Every grid, by its id.
    ///
    /// # Errors
    ///
    /// When the folder cannot be listed.
    pub fn templates(&self) -> Result<Vec<Template>, Failure> {
        let listed = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.map_err(|error| io::cannot_read(&self.folder, &error))?,
        };
        let mut paths: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        Ok(paths.iter().filter_map(|path| self.template(path)).collect())
    }

    /// What a file says of itself; nothing where it is no grid.
    fn template(&self, path: &Path) -> Option<Template> {
        let id = path.file_name()?.to_str()?.strip_suffix(".toml")?.to_owned();
        let text = io::read_text(path).ok()?;
        let spec = SweepSpec::from_toml(&id, &text).ok()?;
        let title = text.lines().next().and_then(|line| line.strip_prefix('#'));
        let method = |editor: &serde_json::Map<_, serde_json::Value>| Some(editor.get("method")?.as_str()?.to_owned());
        Some(Template {
            title: title.unwrap_or(&id).trim().to_owned(),
            missing: self.missing(&spec),
            model: spec.model,
            mode: spec.mode,
            methods: spec.editors.iter().filter_map(method).collect(),
            regularizers: spec.regularizers,
            edits: spec.edits,
            tasks: spec.tasks,
            id,
        })
    }

    /// What a grid names that is not there.
    fn missing(&self, spec: &SweepSpec) -> Option<String> {
        let named = [Some(&spec.facts), spec.data.as_ref(), spec.snippets.as_ref(), spec.covariance.as_ref()];
        let named = named.into_iter().flatten().filter(|name| *name != "identity");
        let mut lacks: Vec<String> =
            named.filter(|name| !beside(&self.grid(""), name).exists()).map(|name| file_name(name)).collect();
        if !self.has_model(&spec.model) {
            lacks.push(spec.model.clone());
        }
        (!lacks.is_empty()).then(|| lacks.join(", "))
    }

    fn has_model(&self, name: &str) -> bool {
        self.statics.catalog.models.iter().any(|entry| entry.id == name)
            || beside(&self.grid(""), name).is_dir()
            || hub::models::Name::parse(name).is_some_and(|name| hub::models::is_here(&name))
    }

    fn grid(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.toml"))
    }

    /// The models that may take a template's place: the bundled ones, and those of other grids that are here.
    ///
    /// # Errors
    ///
    /// When the folder of grids cannot be listed.
    pub fn models(&self) -> Result<Vec<OfferedModel>, Failure> {
        let bundled = self.statics.catalog.models.iter().map(|entry| OfferedModel {
            id: entry.id.clone(),
            name: entry.name.clone(),
            memory_edit: Some(entry.memory_edit).filter(|bytes| *bytes > 0),
        });
        let mut models: Vec<OfferedModel> = bundled.collect();
        for template in self.templates()? {
            if self.has_model(&template.model) && models.iter().all(|model| model.id != template.model) {
                let (id, name) = (template.model.clone(), template.model);
                models.push(OfferedModel { id, name, memory_edit: None });
            }
        }
        Ok(models)
    }

    /// Edit sets: JSON files in `facts` and in `data`, where `rectify data fetch` puts them.
    pub fn facts(&self) -> Listed {
        let is_task = |name: &str| TASKS.iter().chain(MORE).any(|task| tasks::is_for(task, name));
        let set = |path: &Path, name: &str| {
            path.is_file() && (name.ends_with(".json") || name.ends_with(".jsonl")) && !is_task(name)
        };
        self.listed(&["data", "facts"], set)
    }

    /// Folders with files of tasks: those in `tasks`, and `data` itself.
    pub fn tasks(&self) -> Listed {
        let holds_some = |path: &Path| TASKS.iter().any(|task| tasks::files(task, path).is_ok_and(|it| !it.is_empty()));
        let mut folders = self.listed(&["tasks"], |path, _| holds_some(path));
        let data = self.statics.folder.join("data");
        if holds_some(&data) {
            folders.insert("data".into(), data);
        }
        folders
    }

    /// Corpora: text files in `data`.
    pub fn texts(&self) -> Listed {
        self.listed(&["data"], |path, name| path.is_file() && name.ends_with(".txt"))
    }

    /// Edits of models: what `rectify edit --out` wrote into a folder of `edits`.
    pub fn edits(&self) -> Listed {
        self.listed(&["edits"], |path, _| path.join(output::REPORT).is_file())
    }

    /// What is in these folders of the static one, by names without their endings. The last folder wins.
    fn listed(&self, folders: &[&str], is_one: impl Fn(&Path, &str) -> bool) -> Listed {
        let mut listed = Listed::new();
        for folder in folders {
            // A folder that is not there holds nothing.
            let Ok(entries) = fs::read_dir(self.statics.folder.join(folder)) else { continue };
            for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
                let name = path.file_name().and_then(|name| name.to_str());
                let Some(name) = name.filter(|name| !name.starts_with('.') && is_one(&path, name)) else { continue };
                let id = if path.is_dir() { name } else { name.rsplit_once('.').map_or(name, |(stem, _)| stem) };
                listed.insert(id.to_owned(), path.clone());
            }
        }
        listed
    }

    /// What `--model` takes for a model of this id.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn model(&self, id: &str) -> Result<String, Failure> {
        self.check_model(id)?;
        Ok(self.placed_model(id))
    }

    /// The file of an edit set.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn facts_of(&self, id: &str) -> Result<PathBuf, Failure> {
        pick("facts", id, self.facts())
    }

    /// A folder with files of tasks.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn tasks_of(&self, id: &str) -> Result<PathBuf, Failure> {
        pick("folder of tasks", id, self.tasks())
    }

    /// The file of a corpus.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn text(&self, id: &str) -> Result<PathBuf, Failure> {
        pick("text", id, self.texts())
    }

    /// The folder of a model's edits.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn edits_of(&self, id: &str) -> Result<PathBuf, Failure> {
        pick("edits", id, self.edits())
    }

    /// The grid that a template with changes stands for, with the paths of this machine in it. They are absolute: it is
    /// read elsewhere.
    ///
    /// # Errors
    ///
    /// When there is no such template or model, or the changed grid is none.
    pub fn spec(&self, template: &str, change: &SweepChange) -> Result<SweepSpec, Failure> {
        self.check_ids(template, change)?;
        let path = self.grid(template);
        let spec = SweepSpec::from_toml(template, &io::read_text(&path)?)?;
        let mut spec = change.of(spec)?;
        if let Some(missing) = self.missing(&spec) {
            return Err(Failure::bad_input(format!("template {template:?} names what this server has not: {missing}")));
        }
        let folder = self.folder.canonicalize().map_err(|error| io::cannot_read(&self.folder, &error))?;
        let placed = |name: String| folder.join(name).display().to_string();
        spec.model = self.placed_model(&spec.model);
        spec.facts = placed(spec.facts);
        spec.data = spec.data.map(placed);
        spec.snippets = spec.snippets.map(placed);
        spec.covariance = spec.covariance.map(|name| if name == "identity" { name } else { placed(name) });
        Ok(spec)
    }

    fn check_ids(&self, template: &str, change: &SweepChange) -> Result<(), Failure> {
        let templates = self.templates()?;
        let ids: Vec<&str> = templates.iter().map(|template| template.id.as_str()).collect();
        known("template", template, &ids)?;
        change.model.as_ref().map_or(Ok(()), |model| self.check_model(model))
    }

    fn check_model(&self, id: &str) -> Result<(), Failure> {
        let models = self.models()?;
        known("model", id, &models.iter().map(|model| model.id.as_str()).collect::<Vec<_>>())
    }

    /// A model's name, or the folder that a grid calls so.
    fn placed_model(&self, name: &str) -> String {
        let folder = self.folder.canonicalize().unwrap_or_else(|_| self.folder.clone()).join(name);
        let bundled = self.statics.catalog.models.iter().any(|entry| entry.id == name);
        if !bundled && folder.is_dir() { folder.display().to_string() } else { name.to_owned() }
    }

    /// The grid in a job's folder with everything it reads; rows go to `folder`.
    ///
    /// # Errors
    ///
    /// When something is missing or is not what it should be.
    pub fn sweep(&self, spec: SweepSpec, folder: &Path) -> Result<Sweep, Failure> {
        let asked =
            Asked { folder: folder.to_owned(), device: "", skip_bad: false, repair: false, share: Share::WHOLE };
        // What a model's own settings are decides numbers, not which names there are.
        let preset = |method: &&str| EditorSpec::published(method, ArchitectureKind::Gpt2);
        let presets: Vec<EditorSpec> = EditorSpec::METHODS.iter().filter_map(preset).collect();
        for settings in &spec.editors {
            sweep::editor(settings, &presets)?;
        }
        // Every path in it is absolute, so that it does not matter where it lies.
        Ok(grid::read(Path::new("spec.toml"), spec, asked)?.0)
    }
}

fn file_name(path: &str) -> String {
    Path::new(path).file_name().unwrap_or(path.as_ref()).to_string_lossy().into_owned()
}

/// What is listed under an id.
fn pick(what: &str, id: &str, mut listed: Listed) -> Result<PathBuf, Failure> {
    known(what, id, &listed.keys().map(String::as_str).collect::<Vec<_>>())?;
    Ok(listed.remove(id).expect("it is listed"))
}

/// Complains about an id that is not listed.
fn known(what: &str, id: &str, ids: &[&str]) -> Result<(), Failure> {
    if ids.contains(&id) {
        return Ok(());
    }
    let guess = nearest(id, ids).map(|best| format!("; did you mean {best:?}?")).unwrap_or_default();
    Err(Failure::new(Kind::NotFound, format!("this server has no {what} {id:?}{guess}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf() -> Shelf {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../static");
        Shelf::new(Arc::new(Static::open(&folder).unwrap()))
    }

    fn spec(template: &str, change: &str) -> Result<SweepSpec, Failure> {
        shelf().spec(template, &serde_json::from_str(change).unwrap())
    }

    #[test]
    fn every_bundled_grid_is_offered_and_says_what_it_lacks() {
        let templates = shelf().templates().unwrap();
        let of = |id: &str| templates.iter().find(|template| template.id == id).unwrap();
        let demo = of("demo-figure-8");
        assert_eq!((demo.missing.as_deref(), &demo.methods[..]), (None, &["rome".to_owned()][..]));
        assert!(demo.title.starts_with("Figure 8 and Table 1"), "{}", demo.title);
        assert!(templates.len() > 30);
        let models = shelf().models().unwrap();
        assert!(models.iter().any(|model| model.id == "demo-gpt2" && model.memory_edit.is_some()));
    }

    #[test]
    fn a_grid_leaves_with_absolute_paths_and_is_read_anywhere() {
        let shelf = shelf();
        let spec = spec("demo-figure-8", r#"{"seeds": [5], "limit": 7, "model": "demo-nano"}"#).unwrap();
        assert!(Path::new(&spec.facts).is_absolute() && Path::new(spec.data.as_ref().unwrap()).is_absolute());
        assert_eq!((&spec.model[..], &spec.seeds[..], spec.limit), ("demo-nano", &[5][..], Some(7)));
        let text = toml::to_string(&spec).unwrap();
        let again = SweepSpec::from_toml("spec.toml", &text).unwrap();
        let sweep = shelf.sweep(again, Path::new("/nowhere")).unwrap();
        // Seven regularizers; stops at 0, 5, 10, 15 and 20 edits, each with four tasks of 7 records.
        assert_eq!(sweep.rows(), 7 * (5 + 10 + 15 + 20 + 20 + 5 * 4 * 7));
    }

    #[track_caller]
    fn check(template: &str, change: &str, part: &str) {
        let failure = spec(template, change).unwrap_err();
        assert!(failure.message.contains(part), "{failure}\nlacks {part:?}");
    }

    #[test]
    fn what_is_not_listed_is_not_there() {
        check("demo-figure-9", "{}", "did you mean");
        for path in ["../sweeps/demo-figure-8", "/etc/passwd", "..", "", "demo-figure-8.toml", "demo-figure-8\0"] {
            check(path, "{}", "has no template");
        }
        for model in ["/etc", "../models/demo-gpt2", "http://169.254.169.254/", "file:///etc", "demo"] {
            check("demo-figure-8", &format!("{{\"model\": {model:?}}}"), "has no model");
        }
        check("demo-figure-8", r#"{"edits": [30, 20]}"#, "ascending");
        for id in ["", "..", "../models.json", "/etc/passwd", "demo/..", "demo\0"] {
            for found in [shelf().facts_of(id), shelf().tasks_of(id), shelf().text(id), shelf().edits_of(id)] {
                assert_eq!(found.unwrap_err().kind, Kind::NotFound, "{id:?}");
            }
        }
    }

    #[test]
    fn what_a_folder_holds_is_offered_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "{}").unwrap();
        };
        for name in ["data/wikipedia.txt", "data/zsre_eval.json", "data/gsm8k.jsonl", "facts/mine.json"] {
            write(name);
        }
        for name in ["tasks/small/rte.jsonl", "tasks/empty/readme", "edits/first/report.json", "edits/second/x"] {
            write(name);
        }
        fs::write(folder.path().join("models.json"), "{\"models\": []}").unwrap();
        let shelf = Shelf::new(Arc::new(Static::open(folder.path()).unwrap()));
        let ids = |listed: Listed| listed.into_keys().collect::<Vec<_>>();
        assert_eq!(ids(shelf.facts()), ["mine", "zsre_eval"]);
        assert_eq!(ids(shelf.tasks()), ["data", "small"]);
        assert_eq!(ids(shelf.texts()), ["wikipedia"]);
        assert_eq!(ids(shelf.edits()), ["first"]);
        assert!(shelf.tasks_of("smal").unwrap_err().message.contains("did you mean \"small\"?"));
    }
}
