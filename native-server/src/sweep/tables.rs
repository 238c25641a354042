//! Tables made of rows.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use rectify_protocol::{Cell, EditMode, FactScores, Failure, Judgement, Measured, Row, TaskScores};

use super::rows::read;
use crate::io;

/// Every cell of a folder with its rows, in a fixed order.
///
/// # Errors
///
/// When a file cannot be read.
pub fn cells(folder: &Path) -> Result<Vec<(Cell, Vec<Row>)>, Failure> {
    let listed = fs::read_dir(folder).map_err(|error| io::cannot_read(folder, &error))?;
    let mut paths: Vec<_> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    let mut cells = Vec::new();
    for path in paths {
        cells.extend(read(&path)?);
    }
    Ok(cells)
}

/// Means over facts and seeds, of one editor under one regularizer after so many edits.
#[derive(Default)]
struct Line {
    facts: Vec<FactScores>,
    judgements: BTreeMap<String, Vec<Judgement>>,
    seconds: Vec<f64>,
    manhattan: Vec<f64>,
    refused: usize,
}

/// Markdown: one line for each editor, regularizer and number of edits, in the spec's order.
pub fn markdown(cells: &[(Cell, Vec<Row>)], regularizers: &[String]) -> String {
    let mut lines: BTreeMap<(String, usize, usize), Line> = BTreeMap::new();
    for (cell, rows) in cells {
        for row in rows {
            let regularizer = row.regularizer.to_string();
            let place = regularizers.iter().position(|known| *known == regularizer).unwrap_or(regularizers.len());
            // Single edits all count as one edit, whichever fact it was.
            let edits = if cell.mode == EditMode::Single { 1 } else { row.edits };
            let line = lines.entry((cell.editor.method().into(), place, edits)).or_default();
            match &row.measured {
                Measured::Fact { scores, .. } => line.facts.push(*scores),
                Measured::Task { task, judgement, .. } => {
                    line.judgements.entry(task.clone()).or_default().extend(judgement.clone());
                }
                Measured::Edit { seconds, weights, .. } => {
                    line.seconds.push(*seconds);
                    line.manhattan.push(weights.iter().map(|change| change.manhattan).sum());
                }
                Measured::Refused { .. } => line.refused += 1,
            }
        }
    }
    // Between two measurements of a sequence there is nothing to say but what its edits cost.
    lines.retain(|_, line| !line.facts.is_empty() || !line.judgements.is_empty() || line.refused > 0);
    let tasks: Vec<String> = {
        let mut tasks: Vec<String> = lines.values().flat_map(|line| line.judgements.keys().cloned()).collect();
        tasks.sort();
        tasks.dedup();
        tasks
    };
    let mut text = String::from("| editor | kept | edits | n | reliability | generalization | locality | ‖ΔW‖₁ | s |");
    tasks.iter().for_each(|task| text.push_str(&format!(" {task} |")));
    text.push_str("\n|---|---|---|---|---|---|---|---|---|");
    tasks.iter().for_each(|_| text.push_str("---|"));
    text.push('\n');
    for ((method, place, edits), line) in &lines {
        let regularizer = regularizers.get(*place).map_or("?", String::as_str);
        let _ = write!(
            text,
            "| {method} | {regularizer} | {edits} | {} | {} | {} | {} | {} | {} |",
            line.facts.len(),
            score(mean(line.facts.iter().map(|scores| scores.reliability))),
            score(mean(line.facts.iter().filter_map(|scores| scores.generalization))),
            score(mean(line.facts.iter().filter_map(|scores| scores.locality))),
            mean(line.manhattan.iter().copied()).map_or_else(|| "–".into(), |sum| format!("{sum:.1}")),
            mean(line.seconds.iter().copied()).map_or_else(|| "–".into(), |seconds| format!("{seconds:.2}")),
        );
        for task in &tasks {
            let judged = line.judgements.get(task).map(TaskScores::of);
            let _ = write!(text, " {} |", score(judged.and_then(|scores| scores.paper)));
        }
        if line.refused > 0 {
            let _ = write!(text, " {} refused", line.refused);
        }
        text.push('\n');
    }
    text
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn score(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), |value| format!("{value:.3}"))
}
