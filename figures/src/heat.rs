//! The picture of `|ΔW / W|`: RECT's Figure 5, as the paths of an SVG. Plain functions.

use rectify_protocol::Blocks;

/// Colours that are told apart, from no change to a change as large as the weight.
pub const LEVELS: usize = 16;

/// The cells of each level but the lowest, which is the ground, as a path of unit squares.
///
/// The key's entries, a matrix' rows, go from left to right and the value's from top to bottom: a picture wider than
/// high.
pub fn paths(blocks: &Blocks) -> Vec<(usize, String)> {
    let mut paths = vec![String::new(); LEVELS];
    for column in 0..blocks.columns {
        let mut row = 0;
        while row < blocks.rows {
            let level = level(blocks, row, column);
            let start = row;
            while row < blocks.rows && self::level(blocks, row, column) == level {
                row += 1;
            }
            paths[level].push_str(&format!("M{start} {column}h{}v1H{start}z", row - start));
        }
    }
    paths.into_iter().enumerate().skip(1).filter(|(_, path)| !path.is_empty()).collect()
}

/// A block's mean as one of [`LEVELS`]. The square root gives small changes, which are most, more of the colours.
fn level(blocks: &Blocks, row: usize, column: usize) -> usize {
    let mean = blocks.mean.get(row * blocks.columns + column).copied().unwrap_or(0.0);
    (mean.clamp(0.0, 1.0).sqrt() * (LEVELS - 1) as f32).round() as usize
}

/// A level's colour in CSS, between the four that a theme names `--heat-0` to `--heat-3`.
pub fn colour(level: usize) -> String {
    let at = level.min(LEVELS - 1) as f64 / (LEVELS - 1) as f64 * 3.0;
    let below = at.floor().min(2.0);
    let share = ((at - below) * 100.0).round();
    format!("color-mix(in oklab, var(--heat-{}) {share}%, var(--heat-{below}))", below + 1.0)
}

/// What the picture shows, for those who do not see it.
pub fn words(blocks: &Blocks) -> String {
    let cells = blocks.mean.len().max(1) as f64;
    let share = |limit: f32| blocks.mean.iter().filter(|mean| **mean > limit).count() as f64 / cells * 100.0;
    format!(
        "Relative change of the matrix in {} by {} blocks: above 10 percent in {:.0} percent of them, above 50 percent \
         in {:.0} percent",
        blocks.rows,
        blocks.columns,
        share(0.1),
        share(0.5)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(rows: usize, columns: usize, mean: &[f32]) -> Blocks {
        Blocks { rows, columns, max: mean.to_vec(), mean: mean.to_vec() }
    }

    #[test]
    fn neighbours_of_one_level_are_one_stroke() {
        let found = paths(&blocks(3, 2, &[0.0, 1.0, 0.0, 1.0, 1.0, 0.0]));
        assert_eq!(found, [(LEVELS - 1, "M2 0h1v1H2zM0 1h2v1H0z".to_owned())]);
        assert!(paths(&blocks(2, 2, &[0.0; 4])).is_empty(), "the ground shows where nothing changed");
    }

    #[test]
    fn colours_go_from_the_first_to_the_last() {
        assert_eq!(colour(0), "color-mix(in oklab, var(--heat-1) 0%, var(--heat-0))");
        assert_eq!(colour(LEVELS / 3), "color-mix(in oklab, var(--heat-2) 0%, var(--heat-1))");
        assert_eq!(colour(LEVELS), "color-mix(in oklab, var(--heat-3) 100%, var(--heat-2))");
    }

    #[test]
    fn small_changes_get_more_of_the_colours() {
        let level_of = |mean: f32| level(&blocks(1, 1, &[mean]), 0, 0);
        assert_eq!([0.0, 0.04, 0.25, 1.0, 7.0].map(level_of), [0, 3, 8, 15, 15]);
        assert_eq!(level_of(f32::NAN), 0);
    }

    #[test]
    fn the_picture_can_be_told() {
        let told = words(&blocks(2, 2, &[0.0, 0.2, 0.6, 0.0]));
        assert!(
            told.contains("2 by 2 blocks: above 10 percent in 50 percent of them, above 50 percent in 25"),
            "{told}"
        );
    }
}
