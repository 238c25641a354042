//! Edits: made, timed, and taken back.

use std::{collections::BTreeSet, fs, path::Path, path::PathBuf, time::Instant};

use anyhow::{Context, Result, bail};
use rectify_core::{
    Session,
    edit::{
        Delta, Input,
        moments::{Accumulator, Corpus, Moment, corpus_hash},
        plan,
        value::{FactRows, targets_of_states},
    },
    model::Matrix,
};
use rectify_protocol::{
    Command, Contexts, EditReport, EditSpec, EditorSpec, Fact, FactToken, Guards, KnSpec, MemitSpec, RomeSpec,
    ValueSpec,
};
use rectify_server::facts::EditSet;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::loop_of;

/// Which layers the editors change in this model, and on how many processors.
pub fn about(session: &Session) -> Result<Value> {
    let info = session.info().context("a model is loaded")?;
    let layers = |method: &str| {
        let editor = info.editors.iter().find(|editor| editor.method() == method);
        editor.and_then(EditorSpec::layers).map(<[usize]>::to_vec)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(json!({
        "threads": threads, "rome": layers("rome"), "memit": layers("memit"), "d_model": info.d_model,
        "d_mlp": info.d_mlp, "layers": info.layers, "context": info.context,
    }))
}

/// The first facts of an edit set.
pub fn facts(file: &Path, n: usize) -> Result<Value> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let set = EditSet::read(&name, &text)?;
    if set.len() < n {
        bail!("{name} has {} facts, not {n}", set.len());
    }
    // The other side wants the subject, the prompt and the targets only.
    let bare = |fact: Fact| Fact { paraphrases: Vec::new(), neighbors: Vec::new(), ..fact };
    let facts: Vec<Fact> = set.facts(0..n)?.into_iter().map(bare).collect();
    Ok(json!({ "facts": facts }))
}

/// Second moments over the texts of a folder, each written to a file of `folder`: what both sides read.
///
/// A thousandth of the average eigenvalue is added everywhere, so that few texts still give a matrix of full rank.
pub fn moments(session: &Session, texts: &Path, tokens: usize, layers: &[usize], folder: &Path) -> Result<Value> {
    let of = session.loaded().context("a model is loaded")?;
    let mut paths: Vec<PathBuf> = fs::read_dir(texts)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    let mut documents = Vec::new();
    for path in paths {
        documents.extend(fs::read_to_string(&path)?.lines().map(str::to_owned));
    }
    let ids =
        documents.iter().map(|document| of.tokenizer.encode(document)).collect::<rectify_core::Result<Vec<_>>>()?;
    let mut sums = Accumulator::new(of, layers)?;
    pollster::block_on(sums.add(of, &ids, tokens, &mut |_| {}))?;
    let corpus = Corpus { name: "the tasks' texts".into(), hash: corpus_hash(&documents) };
    let mut files = Vec::new();
    for (layer, moment) in sums.moments()? {
        let d_mlp = of.model.shape().d_mlp;
        let mut matrix = moment.matrix().to_vec();
        let trace: f64 = matrix.iter().step_by(d_mlp + 1).sum();
        matrix.iter_mut().step_by(d_mlp + 1).for_each(|value| *value += 1e-3 * trace / d_mlp as f64);
        let file = folder.join(format!("moment-{layer}.safetensors"));
        fs::write(&file, Moment::given(matrix, d_mlp, sums.tokens()).to_bytes(of, layer, &corpus, false)?)?;
        files.push((layer, file));
    }
    Ok(json!({ "moments": files, "tokens": sums.tokens() }))
}

fn edit(session: &mut Session, facts: &[Fact], editor: EditorSpec) -> Result<EditReport> {
    let spec = EditSpec { guards: Guards::NONE, ..EditSpec::new(editor) };
    let report = pollster::block_on(session.write(facts, spec, &mut |_| {}))?;
    pollster::block_on(session.handle(Command::Undo, &mut |_| {}))?;
    Ok(report)
}

/// One fact by ROME.
pub fn rome(session: &mut Session, fact: Fact, layer: usize, value: ValueSpec) -> Result<Value> {
    let spec = RomeSpec { layers: Some(vec![layer]), value, ..RomeSpec::default() };
    Ok(loop_of(&edit(session, &[fact], EditorSpec::Rome(spec))?))
}

/// Many facts by MEMIT.
#[derive(Deserialize)]
pub struct Memit {
    facts: Vec<Fact>,
    layers: Vec<usize>,
    lambda: f64,
    value: ValueSpec,
    /// Each layer's second moment.
    moments: Vec<(usize, PathBuf)>,
    /// Whether the answer should have the values.
    tell_values: bool,
}

/// Makes the edit, and says what its values are if that is wanted.
pub fn memit(session: &mut Session, job: Memit) -> Result<Value> {
    for (layer, file) in &job.moments {
        if session.moment(*layer).is_none() {
            session.add_moment(*layer, &file.display().to_string(), &fs::read(file)?)?;
        }
    }
    let spec = MemitSpec {
        layers: Some(job.layers.clone()),
        mom2_update_weight: job.lambda,
        value: job.value.clone(),
        ..MemitSpec::default()
    };
    let report = edit(session, &job.facts, EditorSpec::Memit(spec))?;
    let mut answer = loop_of(&report);
    answer["delta_norms"] = report.weights.iter().map(|change| change.frobenius).collect();
    if job.tell_values {
        let of = session.loaded().context("a model is loaded")?;
        let Contexts::Given(templates) = &job.value.contexts else { bail!("contexts are given") };
        let rows = |fact| FactRows::new(&of.tokenizer, &of.model, fact, templates, FactToken::SubjectLast);
        let rows = job.facts.iter().map(rows).collect::<rectify_core::Result<Vec<_>>>()?;
        let last = *job.layers.last().context("layers are listed")?;
        let (values, _) = pollster::block_on(targets_of_states(&of.model, &rows, last, &job.value, &mut |_| {}))?;
        answer["values"] = values.into_data().try_to_vec::<f32>().map_err(|error| anyhow::anyhow!("{error:?}"))?.into();
    }
    Ok(answer)
}

/// The neurons that KN would change, and how long finding them took.
pub fn kn(session: &Session, fact: Fact, ground_truth: String, spec: KnSpec) -> Result<Value> {
    let (of, model) = session.loaded().zip(session.model()).context("a model is loaded")?;
    let input = Input {
        model,
        tokenizer: &of.tokenizer,
        templates: &[],
        moments: &Default::default(),
        history: &[],
        hypernetwork: None,
    };
    let fact = Fact { target_true: Some(ground_truth), ..fact };
    let started = Instant::now();
    let plan = pollster::block_on(plan(&input, &[fact], &EditorSpec::Kn(spec), &mut |_| {}))?;
    let seconds = started.elapsed().as_secs_f64();
    let mut neurons = BTreeSet::new();
    for change in &plan.deltas {
        if change.site.matrix != Matrix::MlpDown {
            bail!("KN changes down projections");
        }
        let rows = match &change.delta {
            Delta::LowRank { left, .. } => left.clone(),
            Delta::Dense(dense) => dense.clone(),
        };
        let [_, columns] = rows.dims();
        let values = rows.into_data().try_to_vec::<f32>().map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let changed = values.chunks(columns).enumerate().filter(|(_, row)| row.iter().any(|value| *value != 0.0));
        neurons.extend(changed.map(|(neuron, _)| [change.site.layer, neuron]));
    }
    Ok(json!({ "seconds": seconds, "neurons": neurons }))
}
