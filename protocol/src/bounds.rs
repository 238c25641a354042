//! How much may be asked for at once. Every count from outside is held against one of these before memory is asked for
//! it; each is far above what any published experiment uses, and small enough to be refused in time.

use std::ops::RangeInclusive;

use crate::Failure;

/// Evaluations of a loss for one fact; 25 is the most that is published.
pub const STEPS: usize = 10_000;
/// Context templates of an edit; ROME has 21.
pub const TEMPLATES: usize = 1_000;
/// Layers that an edit names; no model has more.
pub const LAYERS: usize = 4_096;
/// Paraphrases, neighbours, consequences, prompts or references of one fact; CounterFact has 10 of each.
pub const PROBES: usize = 1_000;
/// Bytes of one text: a prompt, a target, a template.
pub const TEXT: usize = 1 << 20;
/// Facts of one operation; MEMIT's largest has 10,000.
pub const FACTS: usize = 50_000;
/// Records of one task that a session asks at once; no published set has more.
pub const RECORDS: usize = 1_000_000;
/// Tokens of a continuation.
pub const TOKENS: usize = 1 << 20;
/// Tokens that second moments are averaged over; the published ones are of 100 million.
pub const CORPUS: usize = 4_000_000_000;
/// Corrupted runs of one trace; ROME takes 10.
pub const SAMPLES: usize = 1_000;
/// Tokens of a trace's corrupted runs together: each layer's states and what it has seen are kept of all of them.
pub const TRACED: usize = 4_096;
/// Candidates for the next token: all of the largest vocabulary.
pub const CANDIDATES: usize = 1 << 20;
/// Points on one axis of a grid: seeds, regularizers, numbers of edits.
pub const POINTS: usize = 1_000;
/// Edits that can be taken back or regularised anew, the newest: each keeps the matrices it changed.
pub const UNDO_DEPTH: usize = 64;
/// Rank of MEND's updates to its gradients; 1,920 is published.
pub const RANK: usize = 16_384;
/// Steps of MEND's training, and edits that one of them adds up.
pub const TRAINING: usize = 1_000_000_000;

/// Complains about a count outside `range`, by the field's name.
///
/// # Errors
///
/// When it is.
pub fn within(field: &str, found: usize, range: RangeInclusive<usize>) -> Result<(), Failure> {
    if range.contains(&found) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    Err(Failure::bad_field(field, format_args!("is {found}; a whole number from {least} to {most} is expected")))
}

/// Complains about a list that is too long, by the field's name.
///
/// # Errors
///
/// When it has more than `most` entries.
pub fn entries<T>(field: &str, list: &[T], most: usize) -> Result<(), Failure> {
    if list.len() <= most {
        return Ok(());
    }
    Err(Failure::bad_field(field, format_args!("has {} entries; there may be {most}", list.len())))
}

/// Complains about a text that is too long, by the field's name.
///
/// # Errors
///
/// When it has more than [`TEXT`] bytes.
pub fn text(field: &str, text: &str) -> Result<(), Failure> {
    if text.len() <= TEXT {
        return Ok(());
    }
    Err(Failure::bad_field(field, format_args!("has {} bytes; there may be {TEXT}", text.len())))
}

/// Complains about the first setting that is not above zero and finite.
pub(crate) fn finite_above_zero(settings: &[(&str, f64)]) -> Result<(), Failure> {
    match settings.iter().find(|(_, value)| !(*value > 0.0 && value.is_finite())) {
        None => Ok(()),
        Some((name, value)) => {
            Err(Failure::bad_field(name, format_args!("is {value}; it must be a finite number above 0")))
        }
    }
}

/// Complains about the first setting that is below zero or not finite.
pub(crate) fn at_least_zero(settings: &[(&str, f64)]) -> Result<(), Failure> {
    match settings.iter().find(|(_, value)| !(*value >= 0.0 && value.is_finite())) {
        None => Ok(()),
        Some((name, value)) => {
            Err(Failure::bad_field(name, format_args!("is {value}; it must be a finite number, 0 or above")))
        }
    }
}
