//! Commands to events: the same conversation in a browser's worker, on a server and on the command line.

use std::collections::{BTreeMap, VecDeque};

use burn::tensor::{Device, Tensor, TensorData};
use rectify_protocol::{
    Answer, Command, Contexts, EditReport, EditSpec, EditorSpec, Event, Fact, FactReport, ModelInfo, Progress,
    RomeSpec, Step, WeightChange,
};
use safetensors::{Dtype, serialize, tensor::TensorView};

use crate::{
    Error, Result,
    edit::{self, Delta, WeightDelta, contexts, moments, moments::Moment, rome},
    metrics,
    model::{LoadedModel, Matrix, Model, WeightSite, floats, metadata, open},
    read::read,
};

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
}

/// A model and everything that belongs to it.
#[derive(Clone)]
struct Opened {
    pristine: LoadedModel,
    /// The model as it is now.
    model: Model,
    /// Edits that can be taken back, oldest first.
    history: VecDeque<Edit>,
    /// How many older edits the model carries that cannot be taken back any more, and what they changed.
    settled: usize,
    settled_changes: BTreeMap<WeightSite, Tensor<2>>,
    /// Second moments of keys, by layer.
    moments: BTreeMap<usize, Moment>,
    /// Context texts sampled from the pristine model, and their seed.
    contexts: Option<(u64, Vec<String>)>,
}

/// How many edits can be taken back: each keeps the matrices it changed.
const UNDO_DEPTH: usize = 64;

#[derive(Clone)]
struct Edit {
    /// The model before it. Only the matrices it changed are not shared with the next.
    before: Model,
    deltas: Vec<WeightDelta>,
}

impl Session {
    /// A session without a model. `device_name` goes to reports; `clock` gives seconds since any moment.
    pub fn new(device: Device, device_name: &str, clock: fn() -> f64) -> Self {
        Self { device, device_name: device_name.into(), clock, opened: None }
    }

    /// The device that computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Takes up a model; the history starts anew.
    pub fn open(&mut self, model: LoadedModel) -> ModelInfo {
        let opened = Opened {
            model: model.model.clone(),
            pristine: model,
            history: VecDeque::new(),
            settled: 0,
            settled_changes: BTreeMap::new(),
            moments: BTreeMap::new(),
            contexts: None,
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
        let opened = self.opened.clone().map(|opened| Opened {
            model: opened.pristine.model.clone(),
            history: VecDeque::new(),
            settled: 0,
            settled_changes: BTreeMap::new(),
            ..opened
        });
        Self { device: self.device.clone(), device_name: self.device_name.clone(), clock: self.clock, opened }
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
            Command::Load(_) | Command::Cancel => Err(Error::bad_input("load and cancel are served by the edge")),
            Command::Ask { prompt, tokens, top } => self.ask(prompt, tokens, top).await.map(Event::Answered),
            Command::Edit { facts, spec } => self.edit(&facts, spec, watch).await.map(Event::Edited),
            Command::Measure { facts } => self.measure(&facts, watch).await.map(Event::Measured),
            Command::Undo => self.undo(),
        }
    }

    async fn ask(&self, prompt: String, tokens: usize, top: usize) -> Result<Answer> {
        let opened = self.opened()?;
        let tokenizer = &opened.pristine.tokenizer;
        let ids = tokenizer.encode(&prompt)?;
        let top = opened.model.candidates(tokenizer, &ids, top).await?;
        let text = tokenizer.decode(&opened.model.greedy(&[ids], tokens).await?[0])?;
        Ok(Answer { prompt, top, text })
    }

    async fn measure(&self, facts: &[Fact], watch: &mut dyn FnMut(Progress)) -> Result<Vec<FactReport>> {
        let opened = self.opened()?;
        let before = opened.ask(&opened.pristine.model, facts, false, watch).await?;
        let after = opened.ask(&opened.model, facts, true, watch).await?;
        Ok(compare(facts, before, after))
    }

    async fn edit(&mut self, facts: &[Fact], spec: EditSpec, watch: &mut dyn FnMut(Progress)) -> Result<EditReport> {
        spec.validate()?;
        let clock = self.clock;
        let opened = self.opened()?;
        if facts.is_empty() {
            return Err(Error::bad_input("there is no fact to edit"));
        }
        let EditorSpec::Rome(rome) = &spec.editor;
        let [fact] = facts else {
            return Err(Error::bad_input(format!(
                "rome writes one fact per operation, not {}; edit them one after the other (mode sequential)",
                facts.len()
            )));
        };
        let layer = opened.rome_layer(rome)?;
        let moment = opened.moment(rome, layer)?;

        let before = opened.ask(&opened.model, facts, false, watch).await?;
        let sampled = match (&opened.contexts, &rome.contexts) {
            (Some((seed, texts)), Contexts::Sampled) if *seed == spec.seed => texts.clone(),
            _ => {
                let mut tell = |done, total| watch(Progress::SamplingContexts { done, total });
                contexts::templates(&rome.contexts, &opened.pristine, spec.seed, &mut tell).await?
            }
        };

        let started = clock();
        let input =
            rome::Input { model: &opened.model, tokenizer: &opened.pristine.tokenizer, templates: &sampled, moment };
        let steps = rome.v_num_grad_steps;
        let mut tell = |step: Step| watch(Progress::Optimizing { fact: 0, step, steps });
        let (planned, trace) = rome::plan(&input, fact, layer, rome, &mut tell).await?;
        watch(Progress::Applying);
        let weight = opened.model.weight(planned.site);
        let (delta, kept) = edit::regularize(planned.delta, &weight, spec.regularizer, spec.seed).await?;
        let deltas = vec![WeightDelta { site: planned.site, delta }];
        let edited = opened.model.apply(&deltas)?;
        let change = weight_change(&opened.model, &deltas[0], kept).await?;
        let seconds = clock() - started;

        let after = opened.ask(&edited, facts, true, watch).await?;

        // Nothing before this line has changed the session.
        let device = self.device_name.clone();
        let opened = self.opened.as_mut().expect("checked above");
        if rome.contexts == Contexts::Sampled {
            opened.contexts = Some((spec.seed, sampled));
        }
        opened.push(edited, deltas);
        let editor = EditorSpec::Rome(RomeSpec { layers: Some(vec![layer]), ..rome.clone() });
        Ok(EditReport {
            schema: EditReport::SCHEMA,
            model_hash: opened.pristine.hash.clone(),
            spec: EditSpec { editor, ..spec },
            device,
            facts: compare(facts, before, after),
            seconds,
            steps: trace.len(),
            delta_norm: change.frobenius,
            manhattan: change.manhattan,
            kept,
            weights: vec![change],
            trace,
            notes: Vec::new(),
            edits: opened.edits(),
        })
    }

    fn undo(&mut self) -> Result<Event> {
        let opened = self.opened.as_mut().ok_or(Error::NoModel)?;
        let edit = opened.history.pop_back().ok_or_else(|| {
            Error::bad_input(match opened.settled {
                0 => "there is no edit to undo".into(),
                n => format!(
                    "only the last {UNDO_DEPTH} edits can be undone; {n} older ones stay until the model is loaded anew"
                ),
            })
        })?;
        opened.model = edit.before;
        Ok(Event::Undone { edits: opened.edits() })
    }

    /// All edits of this session as one safetensors file, with the names and the orientation of the checkpoint:
    /// adding each tensor to the weight of that name gives the edited model.
    pub async fn export_delta(&self) -> Result<Vec<u8>> {
        let opened = self.opened()?;
        let mut sums = opened.settled_changes.clone();
        opened.history.iter().for_each(|edit| add_to(&mut sums, &edit.deltas));
        let mut tensors = Vec::with_capacity(sums.len());
        for (site, sum) in sums {
            let stored = if opened.model.stores_transposed() { sum.transpose() } else { sum };
            let shape = stored.dims().to_vec();
            let bytes: Vec<u8> = read(stored).await?.iter().flat_map(|value| value.to_le_bytes()).collect();
            tensors.push((opened.model.name(site), shape, bytes));
        }
        let broken = |error: safetensors::SafeTensorError| Error::bad_file("the change", error.to_string());
        let views = tensors
            .iter()
            .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(broken)?)))
            .collect::<Result<Vec<_>>>()?;
        let metadata = [("model_hash".to_owned(), opened.pristine.hash.clone())].into();
        serialize(views, Some(metadata)).map_err(broken)
    }

    /// Applies a file that [`Session::export_delta`] wrote, as one more edit; `file` is its name in messages.
    ///
    /// # Errors
    ///
    /// When the file is malformed, belongs to another model, or names a tensor that is not edited.
    pub fn apply_delta(&mut self, file: &str, bytes: &[u8]) -> Result<()> {
        let opened = self.opened.as_mut().ok_or(Error::NoModel)?;
        let tensors = open(file, bytes)?;
        let metadata = metadata(bytes);
        if let Some(hash) = metadata.get("model_hash").filter(|hash| **hash != opened.pristine.hash) {
            let ours = &opened.pristine.hash;
            return Err(Error::bad_file(file, format!("changes the model with hash {hash}, this one has {ours}")));
        }
        let sites: BTreeMap<String, WeightSite> = (0..opened.model.shape().layers)
            .map(|layer| WeightSite { layer, matrix: Matrix::MlpDown })
            .map(|site| (opened.model.name(site), site))
            .collect();
        let mut deltas = Vec::new();
        for (name, view) in tensors.iter() {
            let site = sites.get(name).ok_or_else(|| {
                Error::bad_file(file, format!("changes {name:?}, which is no down projection of this model"))
            })?;
            let [rows, columns] = *view.shape() else {
                return Err(Error::bad_file(file, format!("{name:?} is {:?}, not a matrix", view.shape())));
            };
            let data = TensorData::new(floats(file, name, &view)?, [rows, columns]);
            let stored = Tensor::<2>::from_data(data, &self.device);
            let delta = if opened.model.stores_transposed() { stored.transpose() } else { stored };
            deltas.push(WeightDelta { site: *site, delta: Delta::Dense(delta) });
        }
        let edited = opened.model.apply(&deltas)?;
        opened.push(edited, deltas);
        Ok(())
    }

    /// Takes the second moment of one layer's keys; returns what a person should be warned of.
    pub fn add_moment(&mut self, layer: usize, file: &str, bytes: &[u8]) -> Result<Vec<String>> {
        let opened = self.opened.as_mut().ok_or(Error::NoModel)?;
        let (moment, warnings) = Moment::from_bytes(file, bytes, &opened.pristine, layer)?;
        opened.moments.insert(layer, moment);
        Ok(warnings)
    }

    /// The second moments of `layers` over `documents`, as the bytes of one file each. `watch` is told tokens so far.
    pub async fn moments(
        &self,
        corpus: &str,
        documents: &[String],
        layers: &[usize],
        tokens: usize,
        watch: &mut dyn FnMut(usize),
    ) -> Result<Vec<(usize, Vec<u8>)>> {
        let of = &self.opened()?.pristine;
        let ids = documents.iter().map(|text| of.tokenizer.encode(text)).collect::<Result<Vec<_>>>()?;
        let corpus_hash = moments::corpus_hash(documents);
        let found = moments::accumulate(of, &ids, layers, tokens, watch).await?;
        layers
            .iter()
            .zip(found)
            .map(|(layer, moment)| Ok((*layer, moment.to_bytes(of, *layer, corpus, &corpus_hash)?)))
            .collect()
    }

    /// Perplexity of the model as it is now on a text; see [`metrics::perplexity`].
    pub async fn perplexity(&self, text: &str, window: usize, windows: usize) -> Result<f64> {
        let opened = self.opened()?;
        let now = LoadedModel { model: opened.model.clone(), ..opened.pristine.clone() };
        metrics::perplexity(&now, text, window, windows).await
    }

    fn opened(&self) -> Result<&Opened> {
        self.opened.as_ref().ok_or(Error::NoModel)
    }

    fn describe(&self, opened: &Opened) -> ModelInfo {
        let model = &opened.pristine;
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
            default_layer: model.rome_layer,
            device: self.device_name.clone(),
        }
    }
}

impl Opened {
    /// How many edits the model carries.
    fn edits(&self) -> usize {
        self.settled + self.history.len()
    }

    /// Goes on with `edited`, and settles the oldest edit when there are too many to take back.
    fn push(&mut self, edited: Model, deltas: Vec<WeightDelta>) {
        let before = std::mem::replace(&mut self.model, edited);
        self.history.push_back(Edit { before, deltas });
        if self.history.len() > UNDO_DEPTH {
            let oldest = self.history.pop_front().expect("just pushed");
            add_to(&mut self.settled_changes, &oldest.deltas);
            self.settled += 1;
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
            answers.push(metrics::ask(model, &self.pristine.tokenizer, fact).await?);
        }
        Ok(answers)
    }

    /// The one layer that ROME edits.
    fn rome_layer(&self, spec: &RomeSpec) -> Result<usize> {
        let layer = match spec.layers.as_deref() {
            None => self.pristine.rome_layer,
            Some([layer]) => *layer,
            Some(several) => return Err(Error::bad_input(format!("rome edits one layer, not {several:?}"))),
        };
        self.model.check_layer(layer)?;
        Ok(layer)
    }

    /// The layer's second moment, when the spec wants it.
    fn moment(&self, spec: &RomeSpec, layer: usize) -> Result<Option<&Moment>> {
        if !spec.mom2_adjustment {
            return Ok(None);
        }
        let found = self.moments.get(&layer);
        found.map(Some).ok_or_else(|| {
            Error::bad_input(format!(
                "mom2_adjustment is on, but there are no statistics for layer {layer}: make them, or switch it off"
            ))
        })
    }
}

/// Adds changes up, matrix by matrix.
fn add_to(sums: &mut BTreeMap<WeightSite, Tensor<2>>, deltas: &[WeightDelta]) {
    for WeightDelta { site, delta } in deltas {
        let sum = match sums.remove(site) {
            None => delta.dense(),
            Some(sum) => sum + delta.dense(),
        };
        sums.insert(*site, sum);
    }
}

fn compare(facts: &[Fact], before: Vec<metrics::Answers>, after: Vec<metrics::Answers>) -> Vec<FactReport> {
    let answers = before.into_iter().zip(after);
    facts.iter().zip(answers).map(|(fact, (before, after))| metrics::compare(fact, before, after)).collect()
}

/// The size of one change.
async fn weight_change(model: &Model, delta: &WeightDelta, kept: usize) -> Result<WeightChange> {
    let dense = delta.delta.dense();
    let [rows, columns] = dense.dims();
    let sums = Tensor::cat(vec![(dense.clone() * dense.clone()).sum().sqrt(), dense.abs().sum()], 0);
    let sums = read(sums).await?;
    Ok(WeightChange {
        name: model.name(delta.site),
        entries: rows * columns,
        kept,
        frobenius: f64::from(sums[0]),
        manhattan: f64::from(sums[1]),
    })
}
