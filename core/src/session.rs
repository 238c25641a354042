//! Commands to events: the same conversation in a browser's worker, on a server and on the command line.

use std::{collections::BTreeMap, sync::Arc};

use burn::tensor::{Device, Tensor, TensorData};
use rectify_protocol::{
    Answer, Command, Contexts, EditReport, EditSpec, EditorSpec, Event, Fact, FactReport, Guards, ModelInfo, Progress,
    WeightChange, bounds,
};
use safetensors::{Dtype, serialize, tensor::TensorView};
use sha2::{Digest, Sha256};

use crate::{
    Error, Result, ability,
    edit::{
        self, Delta, Input, WeightDelta,
        contexts::{self, Sampling},
        mend::Hypernetwork,
        moments::Moment,
    },
    guard,
    history::{self, History},
    metrics,
    model::{LoadedModel, Model, floats, hex, metadata, open},
    read::read,
    task::Records,
    trace,
};

/// An edit that the session does not carry yet.
struct Prepared {
    edit: history::Edit,
    report: EditReport,
    /// Context texts that were sampled for it.
    sampled: Option<(Sampling, Vec<String>)>,
    own_perplexity: Option<f64>,
}

/// One model, its history of edits, and what editing it needs.
///
/// A session runs one command at a time and changes only at its end: dropping the future of [`Session::handle`]
/// cancels the command and leaves everything as it was.
pub struct Session {
    device: Device,
    device_name: String,
    /// Seconds since any moment; core reads no clock itself.
    clock: fn() -> f64,
    opened: Option<Opened>,
    /// What the model can be asked to show what an edit cost.
    tasks: Arc<Vec<Records>>,
}

/// A model and everything that belongs to it.
#[derive(Clone)]
struct Opened {
    loaded: LoadedModel,
    history: History,
    /// Second moments of keys, by layer.
    moments: BTreeMap<usize, Arc<Moment>>,
    /// What MEND learnt for this model.
    hypernetwork: Option<Arc<Hypernetwork>>,
    /// Context texts sampled from the unedited model, by seed.
    contexts: BTreeMap<(Sampling, u64), Vec<String>>,
    /// Perplexity of the unedited model on a text of its own, once measured.
    own_perplexity: Option<f64>,
}

impl Session {
    /// A session without a model. `device_name` goes to reports; `clock` gives seconds since any moment.
    pub fn new(device: Device, device_name: &str, clock: fn() -> f64) -> Self {
        Self { device, device_name: device_name.into(), clock, opened: None, tasks: Arc::default() }
    }

    /// The device that computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Takes up a model; the history starts anew.
    pub fn open(&mut self, model: LoadedModel) -> ModelInfo {
        let opened = Opened {
            history: History::new(model.model.clone(), bounds::UNDO_DEPTH),
            loaded: model,
            moments: BTreeMap::new(),
            hypernetwork: None,
            contexts: BTreeMap::new(),
            own_perplexity: None,
        };
        let info = self.describe(&opened);
        self.opened = Some(opened);
        info
    }

    /// The model's description, when one is loaded.
    pub fn info(&self) -> Option<ModelInfo> {
        self.opened.as_ref().map(|opened| self.describe(opened))
    }

    /// Another session on the same unedited model, sharing its weights, with an empty history.
    pub fn fork(&self) -> Self {
        self.forked(bounds::UNDO_DEPTH)
    }

    /// The same, of which no edit can be taken back or regularised anew: it keeps only the weights as they are now.
    pub fn fork_without_undo(&self) -> Self {
        self.forked(0)
    }

    fn forked(&self, undo_depth: usize) -> Self {
        let opened = self.opened.clone();
        let opened = opened
            .map(|opened| Opened { history: History::new(opened.history.pristine().clone(), undo_depth), ..opened });
        Self {
            device: self.device.clone(),
            device_name: self.device_name.clone(),
            clock: self.clock,
            opened,
            tasks: self.tasks.clone(),
        }
    }

    /// Runs one command and returns its last event; `watch` is told how far it is.
    ///
    /// Dropping the future cancels: nothing has changed. `Load` and `Cancel` belong to the edge and are refused here.
    ///
    /// # Errors
    ///
    /// Whatever the command cannot do; the session is as it was.
    pub async fn handle(&mut self, command: Command, watch: &mut dyn FnMut(Progress)) -> Result<Event> {
        match command {
            Command::Load(_) | Command::Cancel { .. } => {
                Err(Error::bad_input("load and cancel are served by the edge"))
            }
            Command::Ask { prompt, tokens, top } => self.ask(prompt, tokens, top).await.map(Event::Answered),
            Command::Edit { facts, spec } => self.edit(&facts, spec, watch).await.map(Event::Edited),
            Command::Measure { facts } => self.measure(&facts, watch).await.map(Event::Measured),
            Command::Regularize { regularizer, over, seed } => {
                let history = self.opened()?.history.regularized(regularizer, over, seed).await?;
                let weights = changes(&history, false).await?;
                self.opened_mut()?.history = history;
                Ok(Event::Changed(weights))
            }
            Command::Changes => self.changes().await.map(Event::Changed),
            Command::Evaluate { task, records, unedited } => {
                let records = ability::sample(&self.tasks, &task, records)?;
                let opened = self.opened()?;
                let (model, edits) = match unedited {
                    true => (opened.history.pristine(), 0),
                    false => (opened.history.now(), opened.history.len()),
                };
                ability::evaluate(&opened.loaded, model, edits, &records, watch).await.map(Event::Evaluated)
            }
            Command::Play(play) => Ok(Event::Played(Box::new(self.play(*play, watch).await?))),
            Command::Trace(spec) => {
                let Opened { loaded, history, .. } = self.opened()?;
                let traced = trace::trace(loaded, history.now(), history.len(), spec, watch).await?;
                Ok(Event::Traced(Box::new(traced)))
            }
            Command::Undo => {
                let history = &mut self.opened_mut()?.history;
                history.undo()?;
                Ok(Event::Undone { edits: history.len() })
            }
        }
    }

    /// How far each edited matrix is from the unedited one, with pictures.
    pub(crate) async fn changes(&self) -> Result<Vec<WeightChange>> {
        changes(&self.opened()?.history, true).await
    }

    async fn ask(&self, prompt: String, tokens: usize, top: usize) -> Result<Answer> {
        bounds::within("tokens", tokens, 0..=bounds::TOKENS)?;
        bounds::within("top", top, 0..=bounds::CANDIDATES)?;
        bounds::text("prompt", &prompt)?;
        let opened = self.opened()?;
        let (model, tokenizer, ends) = (opened.history.now(), &opened.loaded.tokenizer, &opened.loaded.ends);
        let ids = tokenizer.encode(&prompt)?;
        let top = model.candidates(tokenizer, &ids, top).await?;
        let text = tokenizer.decode(&model.greedy(&[ids], tokens, ends).await?[0])?;
        Ok(Answer { prompt, top, text })
    }

    async fn measure(&self, facts: &[Fact], watch: &mut dyn FnMut(Progress)) -> Result<Vec<FactReport>> {
        bounds::entries("facts", facts, bounds::FACTS)?;
        let opened = self.opened()?;
        let before = opened.ask(opened.history.pristine(), facts, false, watch).await?;
        let after = opened.ask(opened.history.now(), facts, true, watch).await?;
        Ok(compare(facts, before, after))
    }

    async fn edit(&mut self, facts: &[Fact], spec: EditSpec, watch: &mut dyn FnMut(Progress)) -> Result<EditReport> {
        edit::check_facts(facts, &spec.editor)?;
        let opened = self.opened()?;
        let before = opened.ask(opened.history.now(), facts, false, watch).await?;
        let prepared = self.prepare(facts, spec, watch).await?;
        let after = self.opened()?.ask(&prepared.edit.after, facts, true, watch).await?;
        // Nothing before this line has changed the session.
        let report = self.take(prepared)?;
        Ok(EditReport { facts: compare(facts, before, after), ..report })
    }

    /// Edits as [`Command::Edit`] does, without asking the facts before and after: their reports are left out.
    pub async fn write(
        &mut self,
        facts: &[Fact],
        spec: EditSpec,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<EditReport> {
        let prepared = self.prepare(facts, spec, watch).await?;
        self.take(prepared)
    }

    /// An edit with everything but its measure, not yet in the session.
    async fn prepare(&self, facts: &[Fact], spec: EditSpec, watch: &mut dyn FnMut(Progress)) -> Result<Prepared> {
        let clock = self.clock;
        let opened = self.opened()?;
        let spec = self.complete(spec)?;
        edit::check_facts(facts, &spec.editor)?;
        let (sampling, templates) = opened.templates(&spec, watch).await?;

        let started = clock();
        let history_keys = opened.history.keys();
        let seed = history::seed_of_edit(spec.seed, opened.history.len());
        let mut input = Input {
            model: opened.history.now(),
            tokenizer: &opened.loaded.tokenizer,
            templates: &templates,
            moments: &opened.moments,
            history: &history_keys,
            hypernetwork: opened.hypernetwork.as_deref(),
        };
        let plan = edit::plan(&input, facts, &spec.editor, watch).await?;
        watch(Progress::Applying);
        let (after, kept) = history::apply(input.model, &plan.deltas, spec.regularizer, seed).await?;
        let mut weights = Vec::with_capacity(kept.len());
        for (WeightDelta { site, delta }, n) in &kept {
            let weight = input.model.weight(*site);
            let (change, size) = edit::weight_change(after.name(*site), delta, &weight, *n, false).await?;
            guard::norm(&change, size, &spec.guards)?;
            weights.push(change);
        }
        input.model = &after;
        let keys = edit::history_keys(&input, facts, &spec.editor)?;
        let seconds = clock() - started;

        let own_perplexity = opened.own_perplexity(&spec.guards).await?;
        let perplexity = match own_perplexity {
            None => None,
            Some(before) => Some([before, guard::perplexity(&opened.loaded, &after, before, &spec.guards).await?]),
        };
        let report = EditReport {
            schema: EditReport::SCHEMA,
            model_hash: opened.loaded.hash.clone(),
            spec,
            device: self.device_name.clone(),
            facts: Vec::new(),
            seconds,
            steps: plan.trace.len(),
            delta_norm: weights.iter().map(|change| change.frobenius.powi(2)).sum::<f64>().sqrt(),
            manhattan: weights.iter().map(|change| change.manhattan).sum(),
            kept: weights.iter().map(|change| change.kept).sum(),
            weights,
            trace: plan.trace,
            perplexity,
            notes: opened.notes(plan.notes),
            edits: opened.history.len() + 1,
        };
        let edit = history::Edit { planned: plan.deltas, after, keys };
        Ok(Prepared { edit, report, sampled: sampling.map(|sampling| (sampling, templates)), own_perplexity })
    }

    /// Goes on with a prepared edit.
    fn take(&mut self, prepared: Prepared) -> Result<EditReport> {
        let opened = self.opened_mut()?;
        if let Some((sampling, templates)) = prepared.sampled {
            opened.contexts.insert((sampling, prepared.report.spec.seed), templates);
        }
        opened.own_perplexity = opened.own_perplexity.or(prepared.own_perplexity);
        opened.history.push(prepared.edit);
        Ok(prepared.report)
    }

    /// All edits of this session as one safetensors file, with the names and the orientation of the checkpoint:
    /// adding each tensor to the weight of that name gives the edited model.
    pub async fn export_delta(&self) -> Result<Vec<u8>> {
        let opened = self.opened()?;
        let model = opened.history.now();
        let mut tensors = Vec::new();
        for WeightDelta { site, delta } in opened.history.changes() {
            let dense = delta.dense();
            let stored = if model.stores_transposed() { dense.transpose() } else { dense };
            let shape = stored.dims().to_vec();
            let bytes: Vec<u8> = read(stored).await?.iter().flat_map(|value| value.to_le_bytes()).collect();
            tensors.push((model.name(site), shape, bytes));
        }
        let broken = |error: safetensors::SafeTensorError| Error::bad_file("the change", error.to_string());
        let views = tensors
            .iter()
            .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(broken)?)))
            .collect::<Result<Vec<_>>>()?;
        let metadata = [
            ("model_hash".to_owned(), opened.loaded.hash.clone()),
            ("precision".to_owned(), opened.loaded.precision.name().to_owned()),
        ];
        let metadata = metadata.into();
        serialize(views, Some(metadata)).map_err(broken)
    }

    /// Applies a file that [`Session::export_delta`] wrote, as one more edit; `file` is its name in messages.
    ///
    /// # Errors
    ///
    /// When the file is malformed, belongs to another model, or names a tensor that is not edited.
    pub fn apply_delta(&mut self, file: &str, bytes: &[u8]) -> Result<()> {
        let opened = self.opened()?;
        let model = opened.history.now();
        let tensors = open(file, bytes)?;
        let metadata = metadata(bytes);
        if let Some(hash) = metadata.get("model_hash").filter(|hash| **hash != opened.loaded.hash) {
            let ours = &opened.loaded.hash;
            return Err(Error::bad_file(file, format!("changes the model with hash {hash}, this one has {ours}")));
        }
        let mut deltas = Vec::new();
        for (name, view) in tensors.iter() {
            let site = model.site_named(name).ok_or_else(|| {
                Error::bad_file(file, format!("changes {name:?}, which is no matrix that editors change in this model"))
            })?;
            let [rows, columns] = *view.shape() else {
                return Err(Error::bad_file(file, format!("{name:?} is {:?}, not a matrix", view.shape())));
            };
            let data = TensorData::new(floats(file, name, &view)?, [rows, columns]);
            let stored = Tensor::<2>::from_data(data, &self.device);
            let delta = if model.stores_transposed() { stored.transpose() } else { stored };
            deltas.push(WeightDelta { site, delta: Delta::Dense(delta) });
        }
        let after = model.apply(&deltas).map_err(|error| Error::bad_file(file, error.to_string()))?;
        self.opened_mut()?.history.push(history::Edit { planned: deltas, after, keys: Vec::new() });
        Ok(())
    }

    /// Takes the tasks that [`Command::Evaluate`] and [`Command::Play`] ask.
    pub fn set_tasks(&mut self, tasks: Arc<Vec<Records>>) {
        self.tasks = tasks;
    }

    /// The tasks it was given.
    pub fn tasks(&self) -> &[Records] {
        &self.tasks
    }

    /// Takes the second moment of one layer's keys; returns what a person should be warned of.
    pub fn add_moment(&mut self, layer: usize, file: &str, bytes: &[u8]) -> Result<Vec<String>> {
        let opened = self.opened_mut()?;
        let (moment, warnings) = Moment::from_bytes(file, bytes, &opened.loaded, layer)?;
        opened.moments.insert(layer, Arc::new(moment));
        Ok(warnings)
    }

    /// Takes the identity for the second moment of one layer's keys; reports will say so.
    pub fn approximate_moment(&mut self, layer: usize) -> Result<()> {
        let opened = self.opened_mut()?;
        let d_mlp = opened.loaded.model.shape().d_mlp;
        opened.moments.insert(layer, Arc::new(Moment::identity(d_mlp)));
        Ok(())
    }

    /// Takes what MEND learnt for this model.
    ///
    /// # Errors
    ///
    /// When the file is malformed, or made for another model.
    pub fn add_hypernetwork(&mut self, file: &str, bytes: &[u8]) -> Result<()> {
        let opened = self.opened_mut()?;
        opened.hypernetwork = Some(Arc::new(Hypernetwork::from_bytes(file, bytes, &opened.loaded)?));
        Ok(())
    }

    /// Samples the context texts that edits of this spec begin with, so that every fork has them.
    ///
    /// # Errors
    ///
    /// When no model is loaded, or a template is impossible.
    pub async fn sample_contexts(&mut self, spec: &EditSpec, watch: &mut dyn FnMut(Progress)) -> Result<()> {
        let opened = self.opened_mut()?;
        if let (Some(sampling), templates) = opened.templates(spec, watch).await? {
            opened.contexts.insert((sampling, spec.seed), templates);
        }
        Ok(())
    }

    /// Whether everything is there that an editor of these settings reads: its layers, their second moments, what MEND
    /// learnt.
    ///
    /// # Errors
    ///
    /// When one of them is missing.
    pub fn check_ready(&self, editor: &EditorSpec) -> Result<()> {
        let opened = self.opened()?;
        for layer in editor.layers().unwrap_or_default() {
            opened.loaded.model.check_layer(*layer)?;
            if editor.needs_moments() {
                edit::moment_of(&opened.moments, *layer)?;
            }
        }
        match (editor, &opened.hypernetwork) {
            (EditorSpec::Mend(_), None) => Err(edit::mend::no_hypernetwork()),
            _ => Ok(()),
        }
    }

    /// SHA-256 of what an editor of these settings reads beside the model: the second moments of its layers together,
    /// and what MEND learnt. `None` where it reads no such thing. Hashes every number of the moments the first time.
    ///
    /// # Errors
    ///
    /// As [`Session::check_ready`].
    pub fn reads(&self, editor: &EditorSpec) -> Result<[Option<String>; 2]> {
        self.check_ready(editor)?;
        let opened = self.opened()?;
        let hash = |layer: &usize| Some(format!("{layer}:{}\n", opened.moments.get(layer)?.hash()));
        let moments = editor.needs_moments().then(|| {
            let all: String = editor.layers().unwrap_or_default().iter().filter_map(hash).collect();
            hex(&Sha256::digest(all).into())
        });
        let learnt = opened.hypernetwork.as_deref().filter(|_| matches!(editor, EditorSpec::Mend(_)));
        Ok([moments, learnt.and_then(Hypernetwork::hash).map(str::to_owned)])
    }

    /// The second moment of one layer's keys, if there is one.
    pub fn moment(&self, layer: usize) -> Option<&Arc<Moment>> {
        self.opened.as_ref()?.moments.get(&layer)
    }

    /// The unedited model, when one is loaded.
    pub fn loaded(&self) -> Option<&LoadedModel> {
        self.opened.as_ref().map(|opened| &opened.loaded)
    }

    /// Perplexity of the model as it is now on a text; see [`metrics::perplexity`].
    pub async fn perplexity(&self, text: &str, window: usize, windows: usize) -> Result<f64> {
        let opened = self.opened()?;
        metrics::perplexity(&opened.with(opened.history.now()), text, window, windows).await
    }

    /// The model as it is now, when one is loaded.
    pub fn model(&self) -> Option<&Model> {
        self.opened.as_ref().map(|opened| opened.history.now())
    }

    /// A spec with the model's own layers where it leaves them open.
    pub(crate) fn complete(&self, mut spec: EditSpec) -> Result<EditSpec> {
        self.opened()?.fill_layers(&mut spec.editor);
        spec.validate()?;
        Ok(spec)
    }

    fn opened(&self) -> Result<&Opened> {
        self.opened.as_ref().ok_or(Error::NoModel)
    }

    fn opened_mut(&mut self) -> Result<&mut Opened> {
        self.opened.as_mut().ok_or(Error::NoModel)
    }

    fn describe(&self, opened: &Opened) -> ModelInfo {
        let model = &opened.loaded;
        let shape = model.model.shape();
        ModelInfo {
            id: model.id.clone(),
            architecture: model.model.architecture(),
            hash: model.hash.clone(),
            layers: shape.layers,
            d_model: shape.d_model,
            d_mlp: shape.d_mlp,
            vocab: shape.vocab,
            context: shape.context,
            editors: model.editors.clone(),
            settings: model.settings.clone(),
            ignored: model.ignored.clone(),
            precision: model.precision,
            device: self.device_name.clone(),
        }
    }
}

impl Opened {
    /// What a reader of a report should know: what a plan says, and what was ignored when the model was loaded.
    fn notes(&self, planned: Vec<String>) -> Vec<String> {
        let ignored = self.loaded.ignored.iter().map(|name| format!("{name:?} of the checkpoint was ignored"));
        planned.into_iter().chain(ignored).collect()
    }

    /// The model's own settings where a spec leaves the layers open.
    fn fill_layers(&self, editor: &mut EditorSpec) {
        let preset = self.loaded.editors.iter().find(|preset| preset.method() == editor.method());
        let layers = preset.and_then(|preset| preset.layers().map(<[usize]>::to_vec));
        if let (Some(open @ None), Some(layers)) = (editor.layers_mut(), layers) {
            *open = Some(layers);
        }
    }

    /// The templates of an edit, and how they were sampled if they were.
    async fn templates(
        &self,
        spec: &EditSpec,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<(Option<Sampling>, Vec<String>)> {
        let Some(value) = spec.editor.value() else { return Ok((None, vec![contexts::SLOT.into()])) };
        let sampling = if matches!(spec.editor, EditorSpec::Rome(_)) { Sampling::Twenty } else { Sampling::Five };
        let sampled = (value.contexts == Contexts::Sampled).then_some(sampling);
        if let Some(known) = sampled.and_then(|sampling| self.contexts.get(&(sampling, spec.seed))) {
            return Ok((sampled, known.clone()));
        }
        let mut tell = |done, total| watch(Progress::SamplingContexts { done, total });
        let templates = contexts::templates(&value.contexts, sampling, &self.loaded, spec.seed, &mut tell).await?;
        Ok((sampled, templates))
    }

    /// What belongs to the model, with other weights.
    fn with(&self, model: &Model) -> LoadedModel {
        LoadedModel { model: model.clone(), ..self.loaded.clone() }
    }

    /// Perplexity of the unedited model on its own text, where a guard wants to compare with it.
    async fn own_perplexity(&self, guards: &Guards) -> Result<Option<f64>> {
        match (guards.max_perplexity_ratio, self.own_perplexity) {
            (None, _) => Ok(None),
            (Some(_), Some(known)) => Ok(Some(known)),
            (Some(_), None) => guard::own_perplexity(&self.loaded, &self.loaded.model).await.map(Some),
        }
    }

    async fn ask(
        &self,
        model: &Model,
        facts: &[Fact],
        after: bool,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<Vec<metrics::Answers>> {
        watch(Progress::Measuring { after });
        let mut answers = Vec::with_capacity(facts.len());
        for fact in facts {
            answers.push(metrics::ask(model, &self.loaded.tokenizer, &self.loaded.ends, fact).await?);
        }
        Ok(answers)
    }
}

/// How far each edited matrix is from the unedited one.
async fn changes(history: &History, picture: bool) -> Result<Vec<WeightChange>> {
    let mut weights = Vec::new();
    for WeightDelta { site, delta } in history.changes() {
        let pristine = history.pristine();
        // What each regularizer let through is not known of a sum; what differs is.
        let differs = read(delta.dense()).await?.iter().filter(|change| **change != 0.0).count();
        let weight = pristine.weight(site);
        weights.push(edit::weight_change(pristine.name(site), &delta, &weight, differs, picture).await?.0);
    }
    Ok(weights)
}

fn compare(facts: &[Fact], before: Vec<metrics::Answers>, after: Vec<metrics::Answers>) -> Vec<FactReport> {
    let answers = before.into_iter().zip(after);
    facts.iter().zip(answers).map(|(fact, (before, after))| metrics::compare(fact, before, after)).collect()
}
