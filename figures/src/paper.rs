//! What the paper's figures show, read off their pixels.
//!
//! Axes were calibrated on their grid lines and markers located by colour: ±0.003 for axes up to 0.6, ±0.005 for axes up
//! to 1. The figures of LLaMA-2 are not public, so there are none of it.

use std::sync::LazyLock;

use rectify_protocol::Regularizer;
use serde::Deserialize;

/// One value.
#[derive(Debug, Deserialize)]
struct ReadOff {
    figure: String,
    model: String,
    editor: String,
    batch: usize,
    edits: usize,
    kept: String,
    score: String,
    value: f64,
}

static READ_OFF: LazyLock<Vec<ReadOff>> = LazyLock::new(|| {
    let mut reader = csv::Reader::from_reader(include_str!("../paper/read_off.csv").as_bytes());
    reader.deserialize().collect::<Result<_, _>>().expect("the file is part of this program and a test reads it")
});

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// `3`, `4`, `7`, `8`, `11-16` or `table 1`.
    pub figure: &'a str,
    /// As [`model`] names it.
    pub model: &'a str,
    /// The method.
    pub editor: &'a str,
    /// Facts of one operation; 0 where nothing was edited.
    pub batch: usize,
    /// Operations.
    pub edits: usize,
    /// What was kept.
    pub kept: Regularizer,
    /// A score's name.
    pub score: &'a str,
}

/// The paper's value, where it has one.
pub fn value(place: Place<'_>) -> Option<f64> {
    let Place { figure, model, editor, batch, edits, kept, score } = place;
    let kept = kept.to_string();
    let found = READ_OFF.iter().find(|read| {
        (read.batch, read.edits) == (batch, edits)
            && [&read.figure, &read.model, &read.editor, &read.kept, &read.score]
                == [figure, model, editor, kept.as_str(), score]
    });
    found.map(|read| read.value)
}

/// Which of the paper's models a model is, by the last part of its name: `gpt2-xl`, `llama-7b`.
pub fn model(name: &str) -> Option<&'static str> {
    let name = name.split('@').next()?.trim_end_matches('/').rsplit(['/', '\\']).next()?.to_ascii_lowercase();
    match name.as_str() {
        "gpt2-xl" => Some("GPT-2 XL"),
        "llama-7b" | "llama-1-7b" => Some("LLaMA-1 7B"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_place() {
        let place = Place {
            figure: "7",
            model: "GPT-2 XL",
            editor: "rome",
            batch: 1,
            edits: 1,
            kept: Regularizer::Rect { keep: 0.4 },
            score: "generalization",
        };
        assert_eq!(value(place), Some(0.842));
        assert_eq!(value(Place { kept: Regularizer::Rect { keep: 0.5 }, ..place }), None);
        let figure_8 = Place { figure: "8", edits: 20, kept: Regularizer::None, score: "open_qa", ..place };
        assert_eq!(value(figure_8), Some(0.0076));
    }

    #[test]
    fn every_line_can_be_found_again() {
        for read in READ_OFF.iter() {
            let place = Place {
                figure: &read.figure,
                model: &read.model,
                editor: &read.editor,
                batch: read.batch,
                edits: read.edits,
                kept: read.kept.parse().unwrap(),
                score: &read.score,
            };
            assert_eq!(value(place), Some(read.value), "{place:?}");
        }
    }

    #[test]
    fn a_model_is_known_by_its_folder() {
        assert_eq!(model("/models/gpt2-xl/"), Some("GPT-2 XL"));
        assert_eq!(model("huggyllama/llama-7b"), Some("LLaMA-1 7B"));
        assert_eq!(model("demo-gpt2"), None);
    }
}
