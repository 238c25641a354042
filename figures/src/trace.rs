//! Causal traces as three heat maps side by side: Figure 1 e to g of ROME, <https://arxiv.org/abs/2202.05262>, and of means
//! over facts its Figure 2.

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use rectify_protocol::{TraceAverage, TraceReport};

use crate::draw::{Area, Drawn, LETTERS, svg, text};

/// From what noise leaves to the most that a map brings back, in the paper's purple, green and red.
const COLOURS: [[[u8; 3]; 3]; 3] = [
    [[0xf4, 0xf1, 0xf8], [0x9e, 0x9a, 0xc8], [0x3f, 0x00, 0x7d]],
    [[0xee, 0xf7, 0xeb], [0x74, 0xc4, 0x76], [0x00, 0x44, 0x1b]],
    [[0xfc, 0xee, 0xe8], [0xfb, 0x6a, 0x4a], [0x67, 0x00, 0x0d]],
];
/// Of what surrounds the cells, in pixels.
const TITLE: i32 = 34;
const ABOVE: i32 = 24;
const BELOW: i32 = 44;
const BAR: i32 = 64;
const ROW: i32 = 18;
const MARGIN: i32 = 12;

/// One map, and how it is drawn.
struct Map<'a> {
    title: String,
    below: String,
    rows: &'a [Vec<f64>],
    colours: [[u8; 3]; 3],
    /// What the lightest and the darkest colour stand for.
    range: [f64; 2],
}

/// The three maps of a trace with its tokens, to stand alone. A token of the subject has a star behind it.
pub fn picture(report: &TraceReport) -> String {
    let TraceReport { spec, answer, high, low, .. } = report;
    let prompt = spec.prompt.escape_debug();
    let title = format!("{prompt} → {answer:?}: p = {high:.3}, with noise on the subject {low:.3}");
    svg_of(&title, &report.labels(), maps(report.maps(), *low, spec.window))
}

/// The same of means over facts.
pub fn average(average: &TraceAverage, window: usize) -> String {
    let TraceAverage { facts, high, low, rows, .. } = average;
    let title = format!("Mean over {facts} facts: p = {high:.3}, with noise on the subject {low:.3}");
    svg_of(&title, rows, maps(average.maps(), *low, window))
}

fn maps<'a>(maps: [(&'static str, &'a [Vec<f64>]); 3], low: f64, window: usize) -> [Map<'a>; 3] {
    let mut colours = COLOURS.into_iter();
    maps.map(|(name, rows)| {
        let below = if name == "state" { "layer".into() } else { format!("centre of {window} layers") };
        let most = rows.iter().flatten().copied().fold(low, f64::max);
        let colours = colours.next().expect("as many as maps");
        Map { title: format!("restored: {name}"), below, rows, colours, range: [low, most] }
    })
}

fn svg_of(title: &str, labels: &[String], maps: [Map<'_>; 3]) -> String {
    let letters = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0) as i32;
    let left = MARGIN + letters * LETTERS as i32 * 6 / 10;
    let layers = maps[0].rows.first().map_or(0, Vec::len).max(1) as i32;
    let cell = (280 / layers).clamp(4, 24);
    let panel = cell * layers + BAR;
    let size = (left + 3 * panel, TITLE + ABOVE + ROW * labels.len() as i32 + BELOW);
    svg((size.0.max(560) as u32, size.1 as u32), |area| {
        area.draw(&Text::new(title.to_owned(), (MARGIN, 10), text(LETTERS + 2)))?;
        let beside = text(LETTERS - 1).pos(Pos::new(HPos::Right, VPos::Top));
        for (i, label) in (0..).zip(labels) {
            area.draw(&Text::new(label.clone(), (left - 6, TITLE + ABOVE + i * ROW + 3), beside.clone()))?;
        }
        (0..).zip(&maps).try_for_each(|(i, map)| draw(area, map, left + i * panel, cell))
    })
}

fn draw(area: &Area<'_>, map: &Map<'_>, left: i32, cell: i32) -> Drawn {
    let (top, small) = (TITLE + ABOVE, text(LETTERS - 2));
    let bottom = top + ROW * map.rows.len() as i32;
    area.draw(&Text::new(map.title.clone(), (left, top - 18), text(LETTERS)))?;
    for (y, row) in (0..).zip(map.rows) {
        for (x, p) in (0..).zip(row) {
            let corner = (left + x * cell, top + y * ROW);
            area.draw(&Rectangle::new([corner, (corner.0 + cell, corner.1 + ROW)], map.colour(*p).filled()))?;
        }
    }
    let layers = map.rows.first().map_or(0, Vec::len) as i32;
    let every = [1, 2, 5, 10, 20].into_iter().find(|every| every * cell >= 18).unwrap_or(50);
    for layer in (0..layers).step_by(every as usize) {
        let at = (left + layer * cell + cell / 2, bottom + 4);
        area.draw(&Text::new(layer.to_string(), at, small.pos(Pos::new(HPos::Center, VPos::Top))))?;
    }
    area.draw(&Text::new(map.below.clone(), (left, bottom + 20), small.clone()))?;
    draw_bar(area, map, (left + layers * cell + 8, top), bottom)
}

/// What the colours stand for.
fn draw_bar(area: &Area<'_>, map: &Map<'_>, (x, top): (i32, i32), bottom: i32) -> Drawn {
    const STEPS: i32 = 24;
    let [low, high] = map.range;
    let y = |step: i32| bottom - (bottom - top) * step / STEPS;
    for step in 0..STEPS {
        let p = low + (high - low) * f64::from(step) / f64::from(STEPS - 1);
        area.draw(&Rectangle::new([(x, y(step + 1)), (x + 8, y(step))], map.colour(p).filled()))?;
    }
    let small = text(LETTERS - 2);
    area.draw(&Text::new(format!("{high:.3}"), (x + 11, top - 2), small.clone()))?;
    area.draw(&Text::new(format!("{low:.3}"), (x + 11, bottom - 12), small))?;
    Ok(())
}

impl Map<'_> {
    fn colour(&self, p: f64) -> RGBColor {
        let [low, high] = self.range;
        let place = if high > low { ((p - low) / (high - low)).clamp(0.0, 1.0) * 2.0 } else { 0.0 };
        let (from, share) = if place < 1.0 { (0, place) } else { (1, place - 1.0) };
        let mix = |part: usize| {
            let [a, b] = [self.colours[from][part], self.colours[from + 1][part]].map(f64::from);
            (a + (b - a) * share).round() as u8
        };
        RGBColor(mix(0), mix(1), mix(2))
    }
}

#[cfg(test)]
mod tests {
    use rectify_protocol::TraceSpec;

    use super::*;

    fn report(token: &str) -> TraceReport {
        let map = |scale: f64| vec![vec![0.1 * scale, 0.2 * scale, 0.3], vec![0.0, 0.1, 0.5 * scale]];
        TraceReport {
            spec: TraceSpec { prompt: "Ada was".into(), subject: "Ada".into(), window: 2, ..TraceSpec::default() },
            edits: 0,
            sigma: 0.1,
            answer: " born".into(),
            answer_id: 5,
            high: 0.9,
            low: 0.1,
            tokens: vec![token.into(), " was".into()],
            subject: [0, 1],
            states: map(1.0),
            mlp: map(0.5),
            attention: map(1.5),
        }
    }

    #[test]
    fn a_picture_has_a_cell_for_each_token_layer_and_map() {
        let svg = picture(&report("Ada"));
        let cells = svg.matches("height=\"18\"").count();
        assert_eq!(cells, 3 * 2 * 3, "{svg}");
        for part in ["&quot;Ada&quot;*", "&quot; was&quot;", "restored: attention", "centre of 2 layers", "0.750"] {
            assert!(svg.contains(part), "{svg}\nlacks {part}");
        }
        assert!(!svg.contains("&quot; was&quot;*"));
    }

    #[test]
    fn means_are_drawn_by_the_same_hand() {
        let svg = average(&TraceAverage::of(&[report("Ada"), report("Ida")]), 2);
        for part in ["Mean over 2 facts", "first subject token", "last token", "restored: MLP"] {
            assert!(svg.contains(part), "{svg}\nlacks {part}");
        }
    }

    #[test]
    fn a_token_is_text_whatever_it_holds() {
        let svg = picture(&report("</text><script>\n\u{0}"));
        assert!(!svg.contains("<script>") && !svg.contains('\u{0}'), "{svg}");
        assert!(svg.contains("&lt;script&gt;\\n\\0"), "{svg}");
    }

    #[test]
    fn colours_run_from_what_noise_leaves_to_the_most_that_comes_back() {
        let report = report("Ada");
        let [map, ..] = maps(report.maps(), report.low, 2);
        let colour = |[r, g, b]: [u8; 3]| RGBColor(r, g, b);
        let [light, middle, dark] = COLOURS[0].map(colour);
        for (p, expected) in [(0.0, light), (0.1, light), (0.3, middle), (0.5, dark), (1.0, dark)] {
            assert_eq!(map.colour(p), expected, "{p}");
        }
        let flat = Map { range: [0.1, 0.1], ..map };
        assert_eq!(flat.colour(0.1), light);
    }
}
