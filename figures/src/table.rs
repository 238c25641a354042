//! Tables: what is in their cells, and how they are written.

use maud::{Markup, html};
use rectify_protocol::EditMode;

use crate::{
    MEASURES, Point, Score, Study,
    study::{MANHATTAN, SECONDS},
};

/// Words in rows and columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Over each column.
    pub head: Vec<String>,
    /// As many in each row.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Everything a study found, a line a point. Columns that nothing was measured for are left out.
    pub fn of(study: &Study) -> Self {
        let has = |name: &str| study.points.iter().any(|point| point.scores.contains_key(name));
        let batches = study.editors.iter().any(|editor| editor.batch > 1);
        let refused = study.points.iter().any(|point| point.refused > 0);
        let mut names: Vec<(String, String)> = Vec::new();
        let measures = MEASURES.iter().filter(|measure| has(measure.name));
        names.extend(measures.map(|measure| (measure.name.to_owned(), measure.words.to_owned())));
        for task in study.tasks.iter().filter(|task| has(task)) {
            names.push((task.clone(), words(task)));
            names.push((format!("{task} strict"), "strict".into()));
        }
        let mut head = vec!["editor".to_owned(), "kept".into(), edits_word(study.mode).into()];
        if batches {
            head.push("batch".into());
        }
        head.push("n".into());
        head.extend(names.iter().map(|(_, words)| words.clone()));
        if refused {
            head.push("refused".into());
        }
        let row = |point: &Point| {
            let mut row = vec![point.editor.label.clone(), point.kept.to_string(), point.edits.to_string()];
            if batches {
                row.push(point.editor.batch.to_string());
            }
            row.push(point.facts.to_string());
            row.extend(
                names.iter().map(|(name, _)| point.scores.get(name).map_or_else(|| "–".into(), |s| number(name, s))),
            );
            if refused {
                row.push(point.refused.to_string());
            }
            row
        };
        Self { head, rows: study.points.iter().map(row).collect() }
    }

    /// GitHub's Markdown.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule = format!("|{}\n", "---|".repeat(self.head.len()));
        line(&self.head) + &rule + &self.rows.iter().map(|row| line(row)).collect::<String>()
    }

    /// An HTML table whose first column names the row.
    pub fn html(&self) -> Markup {
        html! {
            div.scroll {
                table {
                    thead { tr { @for cell in &self.head { th scope="col" { (cell) } } } }
                    tbody {
                        @for row in &self.rows {
                            tr {
                                @for (i, cell) in row.iter().enumerate() {
                                    @if i == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A score as people read it; with more than one seed, between which values they lie.
fn number(name: &str, score: &Score) -> String {
    let digits = match name {
        MANHATTAN => 1,
        SECONDS => 2,
        _ => 3,
    };
    let mean = format!("{:.digits$}", score.mean);
    let (low, high) = (format!("{:.digits$}", score.low), format!("{:.digits$}", score.high));
    if low == high { mean } else { format!("{mean} ({low}–{high})") }
}

/// `open_qa` as people read it.
pub fn words(id: &str) -> String {
    match id {
        "nli" | "ner" => id.to_uppercase(),
        "open_qa" => "open QA".into(),
        "closed_qa" => "closed QA".into(),
        other => other.replace('_', " "),
    }
}

/// What the number of edits counts.
fn edits_word(mode: EditMode) -> &'static str {
    match mode {
        EditMode::Single | EditMode::Sequential => "edits",
        EditMode::Batch => "facts at once",
    }
}

/// Text from a file, which a spreadsheet must not take for a formula.
fn text(words: &str) -> String {
    if words.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{words}") } else { words.to_owned() }
}

/// Every score of every study, a line a score: the long form that statistics programs read.
///
/// # Panics
///
/// Never: it is written to memory.
pub fn csv(studies: &[Study]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let head = [
        "sweep", "model", "mode", "editor", "batch", "kept", "edits", "facts", "score", "mean", "low", "high", "seeds",
    ];
    let mut lines = vec![head.map(str::to_owned)];
    for study in studies {
        for point in &study.points {
            for (name, score) in &point.scores {
                lines.push([
                    text(&study.name),
                    text(&study.model),
                    format!("{:?}", study.mode).to_lowercase(),
                    text(&point.editor.label),
                    point.editor.batch.to_string(),
                    point.kept.to_string(),
                    point.edits.to_string(),
                    point.facts.to_string(),
                    text(name),
                    score.mean.to_string(),
                    score.low.to_string(),
                    score.high.to_string(),
                    score.seeds.to_string(),
                ]);
            }
        }
    }
    for line in lines {
        writer.write_record(line).expect("memory can be written to");
    }
    String::from_utf8(writer.into_inner().expect("memory can be written to")).expect("text was written")
}
