//! The paper's arrangements: which numbers stand in which panel.

use rectify_protocol::{EditMode, Regularizer, WeightChange};

use crate::{
    Editor, Point, Score, Study, above,
    paper::{self, Place},
    study::MANHATTAN,
    table::{Table, words},
};

/// Panels that share a legend.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What a file of it is called, without an ending.
    pub file: String,
    /// What it shows.
    pub title: String,
    /// Side by side.
    pub panels: Vec<Panel>,
}

/// Axes and what is drawn between them. The lower end of the scores is 0.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What it is about.
    pub title: String,
    /// To the right.
    pub across: Axis,
    /// In the order of the legend.
    pub curves: Vec<Curve>,
}

/// What goes to the right.
#[derive(Clone, Debug)]
pub enum Axis {
    /// A number of edits: curves are lines.
    Edits,
    /// Names: curves are bars, one in each group.
    Groups(Vec<String>),
}

/// One line of a legend.
#[derive(Clone, Debug)]
pub struct Curve {
    /// What the legend says.
    pub name: String,
    /// Its colour, `#rrggbb`.
    pub colour: &'static str,
    /// Where, and what. Of groups: their places.
    pub points: Vec<(usize, Score)>,
    /// The paper's values, where the model is the same.
    pub paper: Vec<(usize, f64)>,
}

/// Colours that are told apart on light and dark ground.
const COLOURS: [&str; 8] = ["#c0392b", "#2e86c1", "#28a06a", "#d68910", "#8e5bb5", "#16a0a0", "#c2528b", "#8a8a2c"];
/// Of what is not edited.
const UNEDITED: &str = "#9aa5b1";
/// From little to much.
const RAMP: [&str; 7] = ["#f5c99b", "#f0b27a", "#e59866", "#dc7633", "#c0562b", "#922b21", "#641e16"];

/// A study as the paper would draw it.
pub fn figures(study: &Study) -> Vec<Figure> {
    let mut figures = match study.mode {
        EditMode::Single => single(study),
        EditMode::Batch => vec![batch(study)],
        EditMode::Sequential if study.kept.len() > 1 => {
            study.editors.iter().map(|editor| sequential(study, editor)).collect()
        }
        EditMode::Sequential => vec![accumulating(study), edits_so_far(study)],
    };
    // Editors of one method, told apart by their settings, have a file each.
    for i in 1..figures.len() {
        if figures[..i].iter().any(|figure| figure.file == figures[i].file) {
            figures[i].file += &format!("-{}", i + 1);
        }
    }
    figures.iter_mut().for_each(|figure| figure.panels.retain(Panel::shows_something));
    figures.retain(|figure| !figure.panels.is_empty());
    figures
}

/// Figure 7: what a regularizer leaves of single edits.
fn single(study: &Study) -> Vec<Figure> {
    let figure = |file: &str, title: &str, names: &[&str]| {
        let measured = |name: &&str| study.points.iter().any(|point| point.scores.contains_key(*name));
        let names: &Vec<&str> = &names.iter().copied().filter(measured).collect();
        let panel = |editor: &Editor| {
            let curve = |kept: &Regularizer| {
                let point = study.curve(editor, *kept).next();
                let paper = |score: &str| reference(study, "7", editor, (1, 1), *kept, score);
                Curve {
                    name: kept.to_string(),
                    colour: kept_colour(*kept),
                    points: groups(names, |name| point?.scores.get(name).copied()),
                    paper: groups(names, paper),
                }
            };
            let groups = names.iter().map(|name| if name.len() > 2 { words(name) } else { name.to_uppercase() });
            Panel {
                title: editor.label.clone(),
                across: Axis::Groups(groups.collect()),
                curves: study.kept.iter().map(curve).collect(),
            }
        };
        Figure { file: file.to_owned(), title: title.to_owned(), panels: study.editors.iter().map(panel).collect() }
    };
    vec![
        figure("single", "What is left of single edits (Figure 7)", &["reliability", "generalization", "locality"]),
        figure("single-probability", "The same by probabilities: ROME's scores", &["es", "ps", "ns", "s"]),
    ]
}

/// Figure 4: abilities after one operation of many facts.
fn batch(study: &Study) -> Figure {
    let mut panels = Vec::new();
    let tasks: Vec<&str> = study.tasks.iter().map(String::as_str).collect();
    let mut sizes: Vec<usize> = study.points.iter().map(|point| point.edits).collect();
    sizes.sort_unstable();
    sizes.dedup();
    for editor in &study.editors {
        for kept in &study.kept {
            let curve = |(i, facts): (usize, &usize)| {
                let point = study.curve(editor, *kept).find(|point| point.edits == *facts);
                let paper = |task: &str| reference(study, "4", editor, (*facts, usize::from(*facts > 0)), *kept, task);
                Curve {
                    name: if *facts == 0 { "not edited".into() } else { format!("{facts} at once") },
                    // Of the edited ones the last is always the darkest.
                    colour: match sizes.len() - i {
                        _ if *facts == 0 => UNEDITED,
                        left => RAMP[RAMP.len().saturating_sub(left)],
                    },
                    points: groups(&tasks, |task| point?.scores.get(task).copied()),
                    paper: groups(&tasks, paper),
                }
            };
            let title = if study.kept.len() > 1 { format!("{}, {kept}", editor.label) } else { editor.label.clone() };
            panels.push(Panel {
                title,
                across: Axis::Groups(tasks.iter().map(|task| words(task)).collect()),
                curves: sizes.iter().enumerate().map(curve).collect(),
            });
        }
    }
    Figure { file: "batch".into(), title: "Abilities after one operation of many facts (Figure 4)".into(), panels }
}

/// Figure 8: abilities as edits accumulate, a panel a task and a line a regularizer; and the edits themselves.
fn sequential(study: &Study, editor: &Editor) -> Figure {
    let panel = |score: &str| {
        let curve = |kept: &Regularizer| Curve {
            name: kept_words(*kept),
            colour: kept_colour(*kept),
            points: along(study.curve(editor, *kept), score),
            paper: along_paper(study, "8", editor, *kept, score),
        };
        Panel { title: words(score), across: Axis::Edits, curves: study.kept.iter().map(curve).collect() }
    };
    let tasks = study.tasks.iter().map(|task| panel(task));
    let of_edits = ["reliability", "locality"].map(|score| {
        let panel = panel(score);
        Panel { title: format!("{} of all edits so far", panel.title), ..panel }
    });
    Figure {
        file: format!("sequential-{}", editor.method),
        title: format!("{}: abilities as edits accumulate (Figure 8)", editor.label),
        panels: tasks.chain(of_edits).collect(),
    }
}

/// Figures 3 and 11 to 16: abilities as edits accumulate, a panel an editor and a line a task.
fn accumulating(study: &Study) -> Figure {
    let panel = |editor: &Editor| {
        let figure = if editor.batch == 1 { "3" } else { "11-16" };
        let curve = |(i, task): (usize, &String)| Curve {
            name: words(task),
            colour: COLOURS[i % COLOURS.len()],
            points: study.kept.iter().flat_map(|kept| along(study.curve(editor, *kept), task)).collect(),
            paper: study.kept.iter().flat_map(|kept| along_paper(study, figure, editor, *kept, task)).collect(),
        };
        let title = match editor.batch {
            1 => editor.label.clone(),
            batch => format!("{}, {batch} facts an operation", editor.label),
        };
        Panel { title, across: Axis::Edits, curves: study.tasks.iter().enumerate().map(curve).collect() }
    };
    let batches = study.editors.iter().any(|editor| editor.batch > 1);
    Figure {
        file: "accumulating".into(),
        title: format!("Abilities as edits accumulate (Figure{})", if batches { "s 11 to 16" } else { " 3" }),
        panels: study.editors.iter().map(panel).collect(),
    }
}

/// What became of all edits made so far.
fn edits_so_far(study: &Study) -> Figure {
    let panel = |editor: &Editor| {
        let curve = |(i, score): (usize, &str)| Curve {
            name: words(score),
            colour: COLOURS[i],
            points: study.kept.iter().flat_map(|kept| along(study.curve(editor, *kept), score)).collect(),
            paper: Vec::new(),
        };
        let scores = ["reliability", "generalization", "locality"];
        let curves = scores.into_iter().enumerate().map(curve).collect();
        Panel { title: editor.label.clone(), across: Axis::Edits, curves }
    };
    Figure {
        file: "edits-so-far".into(),
        title: "What became of all edits made so far".into(),
        panels: study.editors.iter().map(panel).collect(),
    }
}

/// Table 1: how far a sequence moves the weights, and how many of them by much.
pub fn table_1(study: &Study) -> Option<Table> {
    let kept = *study.kept.first()?;
    if study.mode != EditMode::Sequential {
        return None;
    }
    let [low, high] = WeightChange::THRESHOLDS;
    let names = [MANHATTAN.to_owned(), above(low), above(high)];
    let mut head: Vec<String> = ["editor", "edits", "‖ΔW‖₁"].map(str::to_owned).into();
    head.extend([low, high].map(|threshold| format!("|ΔW/W| > {threshold}")));
    let known = paper::model(&study.model).is_some();
    if known {
        head.push("in the paper".into());
    }
    let mut rows = Vec::new();
    for editor in &study.editors {
        for point in study.curve(editor, kept).filter(|point| point.edits > 0) {
            let texts = |value: &dyn Fn(&str) -> Option<f64>| {
                let [sum, low, high] = &names;
                let percent =
                    |name: &String| value(name).map_or_else(|| "–".into(), |share| format!("{:.1}%", share * 100.0));
                [value(sum).map_or_else(|| "–".into(), |sum| format!("{sum:.1}")), percent(low), percent(high)]
            };
            let mut row = vec![editor.label.clone(), point.edits.to_string()];
            row.extend(texts(&|name| point.mean(name)));
            if known {
                let paper = |score: &str| reference(study, "table 1", editor, (1, point.edits), kept, score);
                row.push(texts(&paper).join(", "));
            }
            rows.push(row);
        }
    }
    (!rows.is_empty()).then_some(Table { head, rows })
}

impl Figure {
    /// Whether the paper's values stand beside any of ours.
    pub fn has_paper(&self) -> bool {
        self.panels.iter().flat_map(|panel| &panel.curves).any(|curve| !curve.paper.is_empty())
    }
}

impl Panel {
    fn shows_something(&self) -> bool {
        self.curves.iter().any(|curve| !curve.points.is_empty())
    }

    /// The upper end of the scores: the highest, rounded up to a tenth.
    pub fn top(&self) -> f64 {
        let points = self.curves.iter().flat_map(|curve| curve.points.iter().map(|(_, score)| score.high));
        let paper = self.curves.iter().flat_map(|curve| curve.paper.iter().map(|(_, value)| *value));
        // A file may say anything, and no score is above 1.
        let highest = points.chain(paper).fold(0.0, f64::max).min(1.0);
        // Nothing but zeros are not drawn as if they were close to something.
        if highest > 0.0 { ((highest * 10.0 - 1e-9).ceil() / 10.0).max(0.1) } else { 1.0 }
    }
}

/// A value of each group that has one.
fn groups<T>(names: &[&str], value: impl Fn(&str) -> Option<T>) -> Vec<(usize, T)> {
    names.iter().enumerate().filter_map(|(i, name)| Some((i, value(name)?))).collect()
}

fn along<'a>(points: impl Iterator<Item = &'a Point>, score: &str) -> Vec<(usize, Score)> {
    points.filter_map(|point| Some((point.edits, *point.scores.get(score)?))).collect()
}

fn along_paper(study: &Study, figure: &str, editor: &Editor, kept: Regularizer, score: &str) -> Vec<(usize, f64)> {
    let value = |point: &Point| {
        let batch = if figure == "11-16" && point.edits == 0 { 0 } else { editor.batch };
        Some((point.edits, reference(study, figure, editor, (batch, point.edits), kept, score)?))
    };
    study.curve(editor, kept).filter_map(value).collect()
}

fn reference(
    study: &Study,
    figure: &str,
    editor: &Editor,
    (batch, edits): (usize, usize),
    kept: Regularizer,
    score: &str,
) -> Option<f64> {
    let model = paper::model(&study.model)?;
    paper::value(Place { figure, model, editor: &editor.method, batch, edits, kept, score })
}

/// What was kept of each edit, as tables and legends say it.
pub fn kept_words(kept: Regularizer) -> String {
    match kept {
        Regularizer::None => "all of it".to_owned(),
        // As the paper writes them.
        other => other.to_string().replace("rect", "RECT").replace("pca", "PCA"),
    }
}

/// Nothing left out is red, RECT the bluer the less it keeps.
fn kept_colour(kept: Regularizer) -> &'static str {
    match kept {
        Regularizer::None => "#c0392b",
        Regularizer::Rect { keep } if keep > 0.7 => "#a9cce3",
        Regularizer::Rect { keep } if keep > 0.5 => "#7fb3d5",
        Regularizer::Rect { keep } if keep > 0.3 => "#3d8ec9",
        Regularizer::Rect { .. } => "#2b4bd1",
        Regularizer::Random { .. } => "#28a06a",
        Regularizer::Pca { .. } => "#d68910",
        Regularizer::LowRank { .. } => "#8e5bb5",
        Regularizer::Prune { .. } => "#16a0a0",
    }
}
