//! Figures and tables as HTML: the same in the page as in a report's file.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use rectify_protocol::{Cell, EditMode};

use crate::{
    Study, Sweep, draw,
    figure::{self, Figure},
    findings::findings,
    heat,
    table::Table,
};

/// How [`body`] looks, in terms of the colours that the page and [`document`] define.
pub const STYLE: &str = include_str!("../figures.css");
/// Colours and page of a file that stands alone.
const ALONE: &str = include_str!("../report.css");

/// A file that needs nothing else.
pub fn document(title: &str, sweeps: &[Sweep]) -> String {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(ALONE)) (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    p.quiet {
                        "Made by Rectify from rows of single measurements. Scores of abilities are the paper's; the tables "
                        "have the strict ones beside them. Thin upright lines span the seeds."
                    }
                }
                main { (body(sweeps)) }
            }
        }
    };
    markup.into_string()
}

/// What was left out, and every sweep that has rows: its figures, its tables, and what was run.
pub fn body(sweeps: &[Sweep]) -> Markup {
    html! {
        @for problem in sweeps.iter().flat_map(|sweep| &sweep.problems) {
            p.problem role="note" { "Left out: " (problem) }
        }
        @for sweep in sweeps {
            @if let Some(study) = Study::of(sweep) {
                section.study { (of_study(&study)) (runs(sweep)) }
            }
        }
    }
}

fn of_study(study: &Study) -> Markup {
    let mode = match study.mode {
        EditMode::Single => "single edits",
        EditMode::Sequential => "edits one after the other",
        EditMode::Batch => "many facts at once",
    };
    html! {
        h2 { (study.name) }
        p.quiet { (study.model) ", " (mode) }
        (findings(study))
        (charts(study))
        @if let Some(table) = figure::table_1(study) {
            h3 { "How far the weights moved (Table 1)" }
            (table.html())
        }
        (pictures(study))
        details {
            summary { "All numbers" }
            (Table::of(study).html())
        }
    }
}

/// The study's figures as the paper arranges them.
pub fn charts(study: &Study) -> Markup {
    html! { @for figure in figure::figures(study) { (of_figure(&figure)) } }
}

fn of_figure(figure: &Figure) -> Markup {
    let curves = figure.panels.first().map(|panel| panel.curves.as_slice()).unwrap_or_default();
    html! {
        figure.chart {
            figcaption { (figure.title) }
            div.panels {
                @for panel in &figure.panels {
                    div.scroll role="img" aria-label=(format!("{}: {}", figure.title, panel.title)) {
                        (PreEscaped(draw::panel(panel)))
                    }
                }
            }
            ul.legend {
                @for curve in curves {
                    li { svg width="11" height="11" aria-hidden="true" { rect width="11" height="11" fill=(curve.colour) {} } (curve.name) }
                }
                @if figure.has_paper() { li { "grey: the paper's" } }
            }
        }
    }
}

/// Figure 5: where the weights changed, of the matrix that changed most, as a sequence goes on.
fn pictures(study: &Study) -> Markup {
    let Some(kept) = study.kept.first().filter(|_| study.mode == EditMode::Sequential) else { return html! {} };
    html! {
        @for editor in &study.editors {
            @let pictures: Vec<_> = study.curve(editor, *kept).filter_map(|point| Some((point.edits, point.picture()?))).collect();
            @if !pictures.is_empty() {
                h3 { (editor.label) ": where the weights changed (Figure 5)" }
                div.maps {
                    @for (edits, (change, blocks)) in pictures {
                        figure {
                            svg.heat viewBox=(format!("0 0 {} {}", blocks.rows, blocks.columns)) preserveAspectRatio="none"
                                role="img" aria-label=(heat::words(blocks)) {
                                @for (level, path) in heat::paths(blocks) {
                                    path d=(path) fill=(heat::colour(level)) {}
                                }
                            }
                            figcaption { (edits) @if edits == 1 { " edit" } @else { " edits" } ", " (change.name) }
                        }
                    }
                }
            }
        }
    }
}

/// What was run, with everything that decides its numbers.
fn runs(sweep: &Sweep) -> Markup {
    html! {
        details {
            summary { "What was run" }
            @for (cell, rows) in &sweep.cells {
                (run(cell, rows.len()))
            }
        }
    }
}

fn run(cell: &Cell, rows: usize) -> Markup {
    let settings = serde_json::to_string_pretty(&cell.editor).unwrap_or_default();
    html! {
        h4 { (cell.editor.label()) ", seed " (cell.seed) ", " (rows) " rows" }
        p.quiet {
            (cell.program) " on " (cell.device) "; model " (cell.model) " " code { (short(&cell.model_hash)) }
            "; facts " (cell.index[0]) " to " (cell.index[1]) " of " (cell.facts[0]) " " code { (short(&cell.facts[1])) }
            "; covariance " (cell.covariance.as_deref().unwrap_or("the model's own"))
            @if cell.batch > 1 { "; " (cell.batch) " facts an operation" }
            @for [task, file, hash] in &cell.tasks { "; " (task) ": " (file) " " code { (short(hash)) } }
            @if let Some(limit) = cell.limit { "; at most " (limit) " records of each" }
        }
        pre { (settings) }
    }
}

/// Enough of a hash to know it by.
fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}
