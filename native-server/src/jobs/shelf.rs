//! What jobs may be made of: the grids and the models that this machine has. Whoever asks names them by their ids; paths
//! stay here.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rectify_protocol::{
    ArchitectureKind, EditorSpec, Failure, JobWork, Kind, OfferedModel, SweepChange, SweepSpec, Template, nearest,
};

use crate::{
    hub, io,
    models::Static,
    sweep::{
        self, Share, Sweep, beside,
        grid::{self, Asked},
    },
};

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

    /// The grid that work stands for, with the paths of this machine in it. They are absolute: it is read elsewhere.
    ///
    /// # Errors
    ///
    /// When there is no such template or model, or the changed grid is none.
    pub fn spec(&self, work: &JobWork) -> Result<SweepSpec, Failure> {
        let JobWork::Sweep { template, change } = work;
        self.check_ids(template, change)?;
        let path = self.grid(template);
        let spec = SweepSpec::from_toml(template, &io::read_text(&path)?)?;
        let mut spec = change.of(spec)?;
        if let Some(missing) = self.missing(&spec) {
            return Err(Failure::bad_input(format!("template {template:?} names what this server has not: {missing}")));
        }
        let folder = self.folder.canonicalize().map_err(|error| io::cannot_read(&self.folder, &error))?;
        let placed = |name: String| folder.join(name).display().to_string();
        let model = folder.join(&spec.model);
        if self.statics.catalog.models.iter().all(|entry| entry.id != spec.model) && model.is_dir() {
            spec.model = model.display().to_string();
        }
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
        let Some(model) = &change.model else { return Ok(()) };
        let models = self.models()?;
        known("model", model, &models.iter().map(|model| model.id.as_str()).collect::<Vec<_>>())
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

    fn work(template: &str, change: &str) -> JobWork {
        JobWork::Sweep { template: template.into(), change: serde_json::from_str(change).unwrap() }
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
        let spec = shelf.spec(&work("demo-figure-8", r#"{"seeds": [5], "limit": 7, "model": "demo-nano"}"#)).unwrap();
        assert!(Path::new(&spec.facts).is_absolute() && Path::new(spec.data.as_ref().unwrap()).is_absolute());
        assert_eq!((&spec.model[..], &spec.seeds[..], spec.limit), ("demo-nano", &[5][..], Some(7)));
        let text = toml::to_string(&spec).unwrap();
        let again = SweepSpec::from_toml("spec.toml", &text).unwrap();
        let sweep = shelf.sweep(again, Path::new("/nowhere")).unwrap();
        // Seven regularizers; stops at 0, 5, 10, 15 and 20 edits, each with four tasks of 7 records.
        assert_eq!(sweep.rows(), 7 * (5 + 10 + 15 + 20 + 20 + 5 * 4 * 7));
    }

    #[track_caller]
    fn check(work: &JobWork, part: &str) {
        let failure = shelf().spec(work).unwrap_err();
        assert!(failure.message.contains(part), "{failure}\nlacks {part:?}");
    }

    #[test]
    fn what_is_not_listed_is_not_there() {
        check(&work("demo-figure-9", "{}"), "did you mean");
        for path in ["../sweeps/demo-figure-8", "/etc/passwd", "..", "", "demo-figure-8.toml", "demo-figure-8\0"] {
            check(&work(path, "{}"), "has no template");
        }
        for model in ["/etc", "../models/demo-gpt2", "http://169.254.169.254/", "file:///etc", "demo"] {
            check(&work("demo-figure-8", &format!("{{\"model\": {model:?}}}")), "has no model");
        }
        check(&work("demo-figure-8", r#"{"edits": [30, 20]}"#), "ascending");
    }
}
