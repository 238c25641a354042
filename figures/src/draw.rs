//! Figures as SVG.
//!
//! Text and rules are of a grey that can be read on light and dark ground; a page may colour them by CSS.

use plotters::{
    coord::{Shift, types::RangedCoordf64},
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::figure::{Axis, Curve, Figure, Panel};

/// Of text and rules.
const GREY: RGBColor = RGBColor(0x80, 0x7c, 0x74);
/// Of what the paper says.
const PAPER: RGBColor = RGBColor(0x9a, 0x96, 0x8e);
/// Of the letters, in pixels.
pub(crate) const LETTERS: u32 = 13;
const PANEL_HEIGHT: u32 = 230;

pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
pub(crate) type Drawn = Result<(), Box<dyn std::error::Error>>;

/// One panel.
pub fn panel(panel: &Panel) -> String {
    svg((width(panel), PANEL_HEIGHT), |area| draw(area, panel))
}

/// All panels with title and legend, to stand alone.
pub fn figure(figure: &Figure) -> String {
    const TITLE: u32 = 34;
    const LEGEND: u32 = 30;
    let widest = figure.panels.iter().map(width).max().unwrap_or(0);
    let columns = (1280 / widest.max(1)).clamp(1, figure.panels.len().max(1) as u32);
    let rows = (figure.panels.len() as u32).div_ceil(columns);
    svg((widest * columns, TITLE + rows * PANEL_HEIGHT + LEGEND), |area| {
        let (title, rest) = area.split_vertically(TITLE);
        let (panels, legend) = rest.split_vertically(rows * PANEL_HEIGHT);
        title.draw(&Text::new(figure.title.clone(), (12, 12), text(LETTERS + 3)))?;
        for (area, panel) in panels.split_evenly((rows as usize, columns as usize)).iter().zip(&figure.panels) {
            draw(area, panel)?;
        }
        draw_legend(&legend, figure)
    })
}

pub(crate) fn svg(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Drawn) -> String {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let drawn = draw(&area).and_then(|()| Ok(area.present()?));
        drawn.expect("a picture in memory has room for all of it");
    }
    svg
}

/// Wide enough that the names of groups stand side by side.
fn width(panel: &Panel) -> u32 {
    match &panel.across {
        Axis::Edits => 320,
        Axis::Groups(groups) => 60 + groups.len() as u32 * 110.max(14 * panel.curves.len() as u32),
    }
}

fn draw(area: &Area<'_>, panel: &Panel) -> Drawn {
    let end = match &panel.across {
        Axis::Edits => {
            let edits = panel.curves.iter().flat_map(|curve| curve.points.iter().map(|(edits, _)| *edits));
            edits.max().unwrap_or(1).max(1) as f64
        }
        Axis::Groups(groups) => groups.len() as f64,
    };
    // A little room, so that nothing at either end is cut.
    let margin = if matches!(panel.across, Axis::Edits) { end * 0.03 } else { 0.0 };
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(16)
        .caption(&panel.title, text(LETTERS + 1))
        .x_label_area_size(26)
        .y_label_area_size(38)
        .build_cartesian_2d(-margin..end + margin, 0.0..panel.top() * 1.02)?;
    let digits = if panel.top() < 0.5 { 2 } else { 1 };
    let score = |score: &f64| format!("{score:.digits$}");
    let mut mesh = chart.configure_mesh();
    mesh.disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GREY.mix(0.25))
        .axis_style(GREY.mix(0.6))
        .label_style(text(LETTERS - 1))
        .y_labels(5)
        .y_label_formatter(&score);
    match &panel.across {
        Axis::Edits => {
            mesh.x_labels(6).x_label_formatter(&|edits| format!("{edits:.0}")).draw()?;
            draw_lines(&mut chart, panel)
        }
        Axis::Groups(groups) => {
            mesh.x_labels(0).draw()?;
            draw_bars(area, &mut chart, panel, groups)
        }
    }
}

/// A line for each curve over the edits, dashed where the paper's is.
fn draw_lines(chart: &mut Chart<'_, '_>, panel: &Panel) -> Drawn {
    for curve in &panel.curves {
        let paper: Vec<(f64, f64)> = curve.paper.iter().map(|(edits, value)| (*edits as f64, *value)).collect();
        chart.draw_series(DashedLineSeries::new(paper, 4, 3, PAPER.into()))?;
    }
    for curve in &panel.curves {
        let colour = colour(curve);
        let means = curve.points.iter().map(|(edits, score)| (*edits as f64, score.mean));
        chart.draw_series(LineSeries::new(means.clone(), colour.stroke_width(2)))?;
        chart.draw_series(means.map(|at| Circle::new(at, 3, colour.filled())))?;
        chart.draw_series(curve.points.iter().filter(|(_, score)| score.seeds > 1).map(|(edits, score)| {
            let x = *edits as f64;
            PathElement::new([(x, score.low), (x, score.high)], colour.mix(0.6))
        }))?;
    }
    Ok(())
}

/// A bar for each curve in every group, and a stroke where the paper's ends.
fn draw_bars(area: &Area<'_>, chart: &mut Chart<'_, '_>, panel: &Panel, groups: &[String]) -> Drawn {
    let bar = 0.86 / panel.curves.len().max(1) as f64;
    for (i, curve) in panel.curves.iter().enumerate() {
        let colour = colour(curve);
        let left = |group: usize| group as f64 + 0.07 + i as f64 * bar;
        chart.draw_series(curve.points.iter().map(|(group, score)| {
            let x = left(*group);
            Rectangle::new([(x, 0.0), (x + bar * 0.85, score.mean)], colour.filled())
        }))?;
        chart.draw_series(curve.points.iter().filter(|(_, score)| score.seeds > 1).map(|(group, score)| {
            let x = left(*group) + bar * 0.42;
            PathElement::new([(x, score.low), (x, score.high)], GREY.stroke_width(1))
        }))?;
        chart.draw_series(curve.paper.iter().map(|(group, value)| {
            let x = left(*group);
            PathElement::new([(x - bar * 0.05, *value), (x + bar * 0.9, *value)], PAPER.stroke_width(2))
        }))?;
    }
    let below = text(LETTERS - 1).pos(Pos::new(HPos::Center, VPos::Top));
    let corner = area.get_base_pixel();
    for (i, group) in groups.iter().enumerate() {
        let (x, y) = chart.backend_coord(&(i as f64 + 0.5, 0.0));
        area.draw(&Text::new(group.clone(), (x - corner.0, y - corner.1 + 7), below.clone()))?;
    }
    Ok(())
}

fn draw_legend(area: &Area<'_>, figure: &Figure) -> Drawn {
    let mut x = 14;
    for curve in figure.panels.first().map(|panel| panel.curves.as_slice()).unwrap_or_default() {
        area.draw(&Rectangle::new([(x, 8), (x + 11, 19)], colour(curve).filled()))?;
        area.draw(&Text::new(curve.name.clone(), (x + 16, 7), text(LETTERS)))?;
        x += 34 + area.estimate_text_size(&curve.name, &text(LETTERS))?.0 as i32;
    }
    if figure.has_paper() {
        area.draw(&Text::new("grey: the paper's", (x, 7), text(LETTERS)))?;
    }
    Ok(())
}

pub(crate) fn text(size: u32) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", size).into_font()).color(&GREY)
}

fn colour(curve: &Curve) -> RGBColor {
    let part = |at: usize| curve.colour.get(at..at + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or(0);
    RGBColor(part(1), part(3), part(5))
}
