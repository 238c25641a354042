//! Rows to numbers: what each editor did under each regularizer after so many edits.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use rectify_protocol::{
    Blocks, Cell, EditMode, EditorSpec, FactScores, Judgement, Measured, ProbabilityMeans, Regularizer, Row,
    TaskScores, TextScores, WeightChange,
};
use serde::Serialize;
use serde_json::Value;

/// The rows of one sweep's folder.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The folder's name.
    pub name: String,
    /// Each file of rows.
    pub cells: Vec<(Cell, Vec<Row>)>,
    /// What was left out, and why: lines that are no rows, measurements that are there twice.
    pub problems: Vec<String>,
}

impl Sweep {
    /// Nothing yet of a sweep of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), cells: Vec::new(), problems: Vec::new() }
    }

    /// Adds the rows of a file's text as far as they are whole: the last line may be on its way. `file` is the name in
    /// messages.
    ///
    /// A line that is no row, and a measurement that is there already, are left out and named in [`Self::problems`].
    pub fn add_file(&mut self, file: &str, text: &str) {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut lines = (1..).zip(whole.lines());
        let Some((_, first)) = lines.next() else { return };
        let cell: Cell = match serde_json::from_str(first) {
            Ok(cell) => cell,
            Err(error) => return self.problems.push(format!("{file} line 1 does not begin a sweep's rows: {error}")),
        };
        if cell.schema != Cell::SCHEMA {
            let (theirs, ours) = (cell.schema, Cell::SCHEMA);
            return self.problems.push(format!("{file} has rows of shape {theirs}; this program reads shape {ours}"));
        }
        // Each attempt at a cell, and each part of it, has a file of its own.
        let identity = cell.identity();
        let place = match self.cells.iter().position(|(known, _)| known.identity() == identity) {
            Some(place) => {
                let known = &self.cells[place].0;
                if (&known.program, &known.device) != (&cell.program, &cell.device) {
                    let (theirs, other) = ((&cell.program, &cell.device), (&known.program, &known.device));
                    self.problems.push(format!(
                        "{file} was measured by {} on {}, other rows of its cell by {} on {}",
                        theirs.0, theirs.1, other.0, other.1
                    ));
                }
                place
            }
            None => {
                self.cells.push((cell, Vec::new()));
                self.cells.len() - 1
            }
        };
        let rows = &mut self.cells[place].1;
        let mut have: HashSet<_> = rows.iter().map(Row::id).collect();
        let mut twice = Vec::new();
        for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            match serde_json::from_str::<Row>(line) {
                Ok(row) if have.insert(row.id()) => rows.push(row),
                Ok(_) => twice.push(number),
                Err(error) => self.problems.push(format!("{file} line {number} is no row: {error}")),
            }
        }
        in_order(rows);
        if let [first, ..] = twice[..] {
            let n = twice.len();
            let others = if n > 1 { format!(" and {} more", n - 1) } else { String::new() };
            let problem = format!("{file} line {first}{others}: measured already, and counted once");
            self.problems.push(problem);
        }
    }
}

/// Puts rows in the order of what they measure. Sums are rounded, so their order is part of a result: it must not be that
/// of who made them. Tasks and regularizers stay in the order in which they came.
fn in_order(rows: &mut [Row]) {
    let mut tasks: Vec<String> = Vec::new();
    for row in rows.iter() {
        if let Measured::Task { task, .. } = &row.measured
            && !tasks.contains(task)
        {
            tasks.push(task.clone());
        }
    }
    let place = |row: &Row| {
        let task = match &row.measured {
            Measured::Task { task, .. } => tasks.iter().position(|known| known == task),
            _ => None,
        };
        (row.edits, task, row.measured.key())
    };
    rows.sort_by_cached_key(place);
}

/// What a sweep measured, over its facts and seeds.
#[derive(Clone, Debug, Serialize)]
pub struct Study {
    /// The sweep's name.
    pub name: String,
    /// How facts met the model.
    pub mode: EditMode,
    /// The model's id or folder.
    pub model: String,
    /// In the order in which methods are listed everywhere.
    pub editors: Vec<Editor>,
    /// Regularizers, in the order of the rows.
    pub kept: Vec<Regularizer>,
    /// Tasks, in the order of the rows.
    pub tasks: Vec<String>,
    /// One for each editor, regularizer and number of edits.
    pub points: Vec<Point>,
}

/// An editor, and what tells it from others of the same method.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Editor {
    /// Its method.
    pub method: String,
    /// What a person reads.
    pub label: String,
    /// Facts of one operation.
    pub batch: usize,
}

/// One editor under one regularizer after so many edits.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// The editor.
    pub editor: Editor,
    /// What was kept of each update.
    pub kept: Regularizer,
    /// Sequential: operations made. Batch: facts of the one. Single: 1.
    pub edits: usize,
    /// How many measurements of facts the scores are of.
    pub facts: usize,
    /// Edits that could not be made.
    pub refused: usize,
    /// By name: the measures of [`MEASURES`]; a task's id for the paper's score of it, `ID strict` for the strict one.
    pub scores: BTreeMap<String, Score>,
    /// Where the weights changed, of the first seed.
    #[serde(skip)]
    pub changes: Vec<WeightChange>,
}

/// A mean, and how far apart seeds are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Score {
    /// The mean of the seeds' means.
    pub mean: f64,
    /// The lowest seed's.
    pub low: f64,
    /// The highest seed's.
    pub high: f64,
    /// How many seeds.
    pub seeds: usize,
    /// The standard error over the records of a task, [`TaskScores::error`]: the mean of the seeds', for all of them ask
    /// the same records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
}

/// Something that is measured of edits.
pub struct Measure {
    /// Its name among a point's scores.
    pub name: &'static str,
    /// How a person reads it.
    pub words: &'static str,
    /// Its mean over what was measured.
    of: fn(&Sum<'_>) -> Option<f64>,
}

const fn measure(name: &'static str, words: &'static str, of: fn(&Sum<'_>) -> Option<f64>) -> Measure {
    Measure { name, words, of }
}

/// All of them, in the order in which they are shown.
pub const MEASURES: &[Measure] = &[
    measure("reliability", "reliability", |sum| sum.mean(|fact| Some(fact.reliability))),
    measure("generalization", "generalization", |sum| sum.mean(|fact| fact.generalization)),
    measure("locality", "locality", |sum| sum.mean(|fact| fact.locality)),
    measure("portability", "portability", |sum| sum.mean(|fact| fact.portability)),
    measure("es", "ES", |sum| sum.mean(|fact| Some(fact.probability?.es))),
    measure("ps", "PS", |sum| sum.mean(|fact| fact.probability?.ps)),
    measure("ns", "NS", |sum| sum.mean(|fact| fact.probability?.ns)),
    measure("s", "S", |sum| sum.s()),
    measure("em", "EM", |sum| sum.mean(|fact| Some(fact.probability?.em))),
    measure("pm", "PM", |sum| sum.mean(|fact| fact.probability?.pm)),
    measure("nm", "NM", |sum| sum.mean(|fact| fact.probability?.nm)),
    measure("entropy", "n-gram entropy", |sum| entropy(&sum.texts[0])),
    measure("entropy unedited", "unedited", |sum| entropy(sum.unedited_texts()?)),
    measure("consistency", "consistency", |sum| consistency(&sum.texts[0])),
    measure("consistency unedited", "unedited", |sum| consistency(sum.unedited_texts()?)),
    measure(MANHATTAN, "‖ΔW‖₁", |sum| {
        mean(sum.changes.iter().map(|weights| weights.iter().map(|change| change.manhattan).sum()))
    }),
    measure(SECONDS, "s", |sum| mean(sum.seconds.iter().copied())),
];

fn entropy(texts: &[&TextScores]) -> Option<f64> {
    mean(texts.iter().map(|scores| scores.entropy))
}

fn consistency(texts: &[&TextScores]) -> Option<f64> {
    mean(texts.iter().filter_map(|scores| scores.consistency))
}

/// The sum of absolute changes.
pub const MANHATTAN: &str = "manhattan";
/// Seconds of editing.
pub const SECONDS: &str = "seconds";

impl Study {
    /// What the rows of a sweep say. `None` of a sweep without rows.
    pub fn of(sweep: &Sweep) -> Option<Self> {
        let (first, _) = sweep.cells.first()?;
        let editors = editors(&sweep.cells);
        let mut study = Self {
            name: sweep.name.clone(),
            mode: first.mode,
            model: first.model.clone(),
            editors: Vec::new(),
            kept: Vec::new(),
            tasks: Vec::new(),
            points: Vec::new(),
        };
        let mut sums: Vec<(Key, Seeds<'_>)> = Vec::new();
        for ((cell, rows), editor) in sweep.cells.iter().zip(&editors) {
            push_new(&mut study.editors, editor);
            for row in rows {
                push_new(&mut study.kept, &row.regularizer);
                if let Measured::Task { task, .. } = &row.measured {
                    push_new(&mut study.tasks, task);
                }
                // Single edits all count as one edit, whichever fact it was.
                let edits = if cell.mode == EditMode::Single { 1 } else { row.edits };
                let key = (editor.clone(), row.regularizer, edits);
                let place = sums.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
                    sums.push((key, BTreeMap::new()));
                    sums.len() - 1
                });
                sums[place].1.entry(cell.seed).or_default().add(&row.measured);
            }
        }
        let order = |editor: &Editor| EditorSpec::METHODS.iter().position(|method| *method == editor.method);
        study.editors.sort_by_key(|editor| (order(editor), editor.batch));
        if first.mode == EditMode::Sequential {
            refused_so_far(&mut sums);
        }
        // Between two measurements of a sequence there is nothing to say but what its edits cost.
        study.points = sums.into_iter().filter_map(|(key, seeds)| point(key, &seeds, first.mode)).collect();
        let place = |point: &Point| {
            let editor = study.editors.iter().position(|editor| *editor == point.editor);
            let kept = study.kept.iter().position(|kept| *kept == point.kept);
            (editor, kept, point.edits)
        };
        study.points.sort_by_key(place);
        (!study.points.is_empty()).then_some(study)
    }

    /// One editor's points under one regularizer, by rising number of edits.
    pub fn curve<'a>(&'a self, editor: &'a Editor, kept: Regularizer) -> impl Iterator<Item = &'a Point> {
        self.points.iter().filter(move |point| point.editor == *editor && point.kept == kept)
    }
}

/// An editor, a regularizer and a number of edits.
type Key = (Editor, Regularizer, usize);
/// What each seed's rows say of them.
type Seeds<'r> = BTreeMap<u64, Sum<'r>>;

/// Edits that could not be made are missing at every later measurement of their sequence too.
fn refused_so_far(sums: &mut [(Key, Seeds<'_>)]) {
    let refused: Vec<_> =
        sums.iter().map(|(key, seeds)| (key.clone(), seeds.values().map(|sum| sum.refused).sum())).collect();
    for ((editor, kept, edits), seeds) in sums {
        let earlier = refused.iter().filter(|((of, with, at), _)| (of, with) == (&*editor, &*kept) && *at < *edits);
        let earlier: usize = earlier.map(|(_, n): &(_, usize)| n).sum();
        if let Some(sum) = seeds.values_mut().next() {
            sum.refused += earlier;
        }
    }
}

/// What one seed's rows say of a point.
#[derive(Default)]
struct Sum<'r> {
    facts: Vec<&'r FactScores>,
    judgements: BTreeMap<&'r str, Vec<&'r Judgement>>,
    /// Of texts: the edited model's, and the unedited one's.
    texts: [Vec<&'r TextScores>; 2],
    seconds: Vec<f64>,
    changes: Vec<&'r [WeightChange]>,
    refused: usize,
}

impl<'r> Sum<'r> {
    fn add(&mut self, measured: &'r Measured) {
        match measured {
            Measured::Fact { scores, .. } => self.facts.push(scores),
            Measured::Task { task, judgement, .. } => {
                self.judgements.entry(task).or_default().extend(judgement);
            }
            Measured::Edit { seconds, weights, .. } => {
                self.seconds.push(*seconds);
                self.changes.push(weights);
            }
            Measured::Text { scores, unedited, .. } => {
                self.texts[0].push(scores);
                self.texts[1].extend(unedited);
            }
            Measured::Refused { .. } => self.refused += 1,
        }
    }

    /// Over the facts that have the score.
    fn mean(&self, score: fn(&FactScores) -> Option<f64>) -> Option<f64> {
        mean(self.facts.iter().filter_map(|fact| score(fact)))
    }

    /// The unedited model's, where it was asked of every fact: means over other facts are no comparison.
    fn unedited_texts(&self) -> Option<&[&'r TextScores]> {
        let [edited, unedited] = &self.texts;
        (edited.len() == unedited.len()).then_some(unedited)
    }

    /// The score that is made of three means.
    fn s(&self) -> Option<f64> {
        let scores: Vec<_> = self.facts.iter().filter_map(|fact| fact.probability).collect();
        ProbabilityMeans::of(&scores)?.s
    }

    /// Each score with its name, and its standard error where that is known.
    fn scores(&self) -> Vec<(String, f64, Option<f64>)> {
        let mut scores: Vec<(String, Option<f64>, Option<f64>)> =
            MEASURES.iter().map(|measure| (measure.name.to_owned(), (measure.of)(self), None)).collect();
        for threshold in WeightChange::THRESHOLDS {
            scores.push((
                above(threshold),
                mean(self.changes.iter().filter_map(|weights| share_above(weights, threshold))),
                None,
            ));
        }
        for (task, judgements) in &self.judgements {
            let of = TaskScores::of(judgements.iter().copied());
            scores.push(((*task).to_owned(), of.paper, TaskScores::error(judgements.iter().copied())));
            scores.push((format!("{task} strict"), of.strict, None));
        }
        scores.into_iter().filter_map(|(name, score, error)| Some((name, score?, error))).collect()
    }
}

/// The name of the score that is the share of entries with a relative change above a threshold.
pub fn above(threshold: f64) -> String {
    format!("above {threshold}")
}

/// Over all matrices, by their entries.
fn share_above(weights: &[WeightChange], threshold: f64) -> Option<f64> {
    let entries: usize = weights.iter().map(|change| change.entries).sum();
    let above = |change: &WeightChange| {
        let above = change.above.iter().find(|above| above.threshold == threshold)?;
        Some(above.share * change.entries as f64)
    };
    let above: Option<f64> = weights.iter().map(above).sum();
    Some(above? / entries as f64).filter(|share| share.is_finite())
}

fn point((editor, kept, edits): Key, seeds: &Seeds<'_>, mode: EditMode) -> Option<Point> {
    let mut values: BTreeMap<String, Vec<(f64, Option<f64>)>> = BTreeMap::new();
    for sum in seeds.values() {
        for (name, value, error) in sum.scores() {
            values.entry(name).or_default().push((value, error));
        }
    }
    let facts = seeds.values().map(|sum| sum.facts.len()).sum();
    let refused = seeds.values().map(|sum| sum.refused).sum();
    let measured = facts > 0 || seeds.values().any(|sum| !sum.judgements.is_empty());
    if !measured && (refused == 0 || mode == EditMode::Sequential) {
        return None;
    }
    let changes = seeds.values().find_map(|sum| sum.changes.last());
    let changes = changes.map(|weights| weights.to_vec()).unwrap_or_default();
    let scores = values.into_iter().filter_map(|(name, values)| Some((name, Score::of(&values)?))).collect();
    Some(Point { editor, kept, edits, facts, refused, scores, changes })
}

impl Point {
    /// A score's mean.
    pub fn mean(&self, name: &str) -> Option<f64> {
        self.scores.get(name).map(|score| score.mean)
    }

    /// Where the matrix changed that changed most, as far as the rows have a picture, which must be whole.
    pub fn picture(&self) -> Option<(&WeightChange, &Blocks)> {
        let pictures = self.changes.iter().filter_map(|change| Some((change, change.blocks.as_ref()?)));
        let whole =
            |blocks: &Blocks| blocks.rows > 0 && blocks.rows.checked_mul(blocks.columns) == Some(blocks.mean.len());
        let whole = pictures.filter(|(_, blocks)| whole(blocks));
        whole.max_by(|(a, _), (b, _)| a.frobenius.total_cmp(&b.frobenius))
    }
}

impl Score {
    /// Absent where nothing was measured, or is no number.
    fn of(values: &[(f64, Option<f64>)]) -> Option<Self> {
        let numbers = || values.iter().map(|(value, _)| *value);
        let errors: Option<Vec<f64>> = values.iter().map(|(_, error)| *error).collect();
        let score = Self {
            mean: mean(numbers())?,
            low: numbers().reduce(f64::min)?,
            high: numbers().reduce(f64::max)?,
            seeds: values.len(),
            error: errors.and_then(mean),
        };
        [score.mean, score.low, score.high].iter().all(|value| value.is_finite()).then_some(score)
    }
}

fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (n, sum) = values.into_iter().fold((0_usize, 0.0), |(n, sum), value| (n + 1, sum + value));
    (n > 0).then(|| sum / n as f64)
}

fn push_new<T: PartialEq + Clone>(list: &mut Vec<T>, item: &T) {
    if !list.contains(item) {
        list.push(item.clone());
    }
}

/// Each cell's editor. Where several have the same method, their labels say in what the cells differ: a setting, the
/// device, the program's version, whatever is not the seed.
fn editors(cells: &[(Cell, Vec<Row>)]) -> Vec<Editor> {
    let settings: Vec<BTreeMap<String, String>> = cells.iter().map(|(cell, _)| settings(cell)).collect();
    let editor = |(i, (cell, _)): (usize, &(Cell, Vec<Row>))| {
        let method = cell.editor.method();
        let rivals = cells.iter().zip(&settings).filter(|((other, _), _)| other.editor.method() == method);
        let differing: BTreeSet<&String> = rivals
            .flat_map(|(_, theirs)| {
                let names = theirs.keys().chain(settings[i].keys());
                names.filter(|name| theirs.get(*name) != settings[i].get(*name)).collect::<Vec<_>>()
            })
            .collect();
        let mut label = cell.editor.label().to_owned();
        for (n, name) in differing.into_iter().enumerate() {
            let value = settings[i].get(name).map_or("–", |value| shortened(value));
            label.push_str(&format!("{} {name} = {value}", if n == 0 { ":" } else { "," }));
        }
        Editor { method: method.to_owned(), label, batch: cell.batch }
    };
    cells.iter().enumerate().map(editor).collect()
}

/// The first digits tell one hash from another.
fn shortened(value: &str) -> &str {
    let is_hash = value.len() == 66 && value[1..65].bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash { &value[1..9] } else { value }
}

/// Everything that decides a cell's numbers but its seed, by name: `v_lr` → `0.5`, `device` → `"flex"`.
fn settings(cell: &Cell) -> BTreeMap<String, String> {
    fn walk(name: &str, value: &Value, flat: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| walk(name, value, flat)),
            other => drop(flat.insert(name.to_owned(), other.to_string())),
        }
    }
    let mut flat = BTreeMap::new();
    walk("", &serde_json::to_value(cell).unwrap_or_default(), &mut flat);
    // Batches have a place of their own.
    ["seed", "batch"].iter().for_each(|name| drop(flat.remove(*name)));
    flat
}
