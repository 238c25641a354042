//! What a sequence of edits left, in one small table: the edits themselves and each ability, beside the unedited model.

use maud::{Markup, html};
use rectify_protocol::{EditMode, Regularizer};

use crate::{Editor, Point, Score, Study, figure::kept_words, table::words};

/// The measures of the edits that stand before the abilities.
const OF_EDITS: [&str; 3] = ["reliability", "generalization", "locality"];

/// For each editor of a study in sequential mode, what every regularizer left after the most edits that were measured
/// with all of them. Empty for other modes, and before two numbers of edits were measured.
pub fn findings(study: &Study) -> Markup {
    let tables = study.editors.iter().filter_map(|editor| Some((editor, last_common(study, editor)?)));
    html! {
        @for (editor, edits) in tables.filter(|_| study.mode == EditMode::Sequential) {
            @let rows = rows(study, editor, edits);
            @let columns: Vec<&str> = columns(study, &rows);
            @if let Some(sentence) = sentence(study, &rows) { p { (sentence) } }
            div.scroll {
                table.findings {
                    caption { (editor.label) " after " (edits) " edits" }
                    thead {
                        tr { th scope="col" { "kept of each" } @for column in &columns { th scope="col" { (words(column)) } } }
                    }
                    tbody {
                        @for (name, point) in &rows {
                            tr {
                                th scope="row" { (name) }
                                @for column in &columns { td { (cell(point.scores.get(*column))) } }
                            }
                        }
                    }
                }
            }
        }
        @if has_errors(study) {
            p.quiet { "± is one standard error over the records that were asked: scores no further apart than that may differ by chance alone." }
        }
    }
}

/// What became of the ability that fell most where all of each edit was kept, in words.
fn sentence(study: &Study, rows: &[(String, &Point)]) -> Option<String> {
    let (_, unedited) = rows.iter().find(|(_, point)| point.edits == 0)?;
    let (_, all) = rows.iter().find(|(_, point)| point.edits > 0 && point.kept == Regularizer::None)?;
    let fall = |task: &&String| Some(unedited.mean(task)? - all.mean(task)?);
    let most = study.tasks.iter().filter(|task| fall(task).is_some_and(|fall| fall > 0.0));
    let task = most.max_by(|a, b| fall(a).partial_cmp(&fall(b)).unwrap_or(std::cmp::Ordering::Equal))?;
    let others = rows.iter().filter(|(_, point)| point.edits > 0 && point.kept != Regularizer::None);
    let left: Vec<String> =
        others.filter_map(|(name, point)| Some(format!("{:.2} with {name}", point.mean(task)?))).collect();
    let (last, first) = left.split_last()?;
    let left = if first.is_empty() { last.clone() } else { format!("{} and {last}", first.join(", ")) };
    Some(format!(
        "Of these abilities {} fell most: from {:.2} to {:.2} where all of each edit was kept. It is {left}.",
        words(task),
        unedited.mean(task)?,
        all.mean(task)?
    ))
}

/// The unedited model, and what each regularizer left.
fn rows<'s>(study: &'s Study, editor: &'s Editor, edits: usize) -> Vec<(String, &'s Point)> {
    let at = |kept: &Regularizer, edits: usize| study.curve(editor, *kept).find(|point| point.edits == edits);
    let unedited = study.kept.iter().find_map(|kept| at(kept, 0)).map(|point| ("not edited".to_owned(), point));
    let kept = study.kept.iter().filter_map(|kept| Some((kept_words(*kept), at(kept, edits)?)));
    unedited.into_iter().chain(kept).collect()
}

fn columns<'s>(study: &'s Study, rows: &[(String, &Point)]) -> Vec<&'s str> {
    let measured = |name: &&str| rows.iter().any(|(_, point)| point.scores.contains_key(*name));
    OF_EDITS.into_iter().chain(study.tasks.iter().map(String::as_str)).filter(measured).collect()
}

/// The most edits after which every regularizer was measured, if there are any.
fn last_common(study: &Study, editor: &Editor) -> Option<usize> {
    let last = study.kept.iter().map(|kept| study.curve(editor, *kept).map(|point| point.edits).max());
    last.collect::<Option<Vec<_>>>()?.into_iter().min().filter(|edits| *edits > 0)
}

fn cell(score: Option<&Score>) -> String {
    match score {
        None => "–".into(),
        Some(Score { mean, error: Some(error), .. }) if *error >= 0.005 => format!("{mean:.2} ± {error:.2}"),
        Some(Score { mean, .. }) => format!("{mean:.2}"),
    }
}

fn has_errors(study: &Study) -> bool {
    let scores = study.points.iter().filter(|point| point.edits > 0).flat_map(|point| point.scores.values());
    study.mode == EditMode::Sequential && scores.into_iter().any(|score| score.error.is_some_and(|error| error > 0.0))
}
