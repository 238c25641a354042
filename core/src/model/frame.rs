//! How the rows of a batch lie in a pass, and what is already known of them.
//!
//! A pass runs over the *new* tokens of each row and looks back at keys and values of its *past*.
//! That one arrangement is the whole forward pass (no past), decoding (a growing past) and an editor's
//! optimisation (a constant past: everything before the token that is edited).

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Keys and values of one layer, each `[batch, kv_head, pos, d_head]`.
#[derive(Clone)]
pub struct KeysValues {
    /// What queries are compared with.
    pub keys: Tensor<4>,
    /// What is averaged.
    pub values: Tensor<4>,
}

impl KeysValues {
    /// These, and behind them `new` along the positions.
    pub(super) fn then(past: Option<&Self>, new: Self) -> Self {
        match past {
            None => new,
            Some(past) => Self {
                keys: Tensor::cat(vec![past.keys.clone(), new.keys], 2),
                values: Tensor::cat(vec![past.values.clone(), new.values], 2),
            },
        }
    }
}

/// Keys and values of everything a batch has seen so far.
#[derive(Clone)]
pub struct Cache {
    /// One per layer that has run; empty before the first pass.
    pub(super) layers: Vec<Option<KeysValues>>,
    /// For each row, which of the cached positions hold a token of it (the rest is padding).
    pub(super) holds: Vec<Vec<bool>>,
}

impl Cache {
    /// Nothing seen yet by `rows` rows of a model with `layers` layers.
    pub fn empty(rows: usize, layers: usize) -> Self {
        Self { layers: vec![None; layers], holds: vec![Vec::new(); rows] }
    }

    /// Tokens of each row that are in the cache.
    fn seen(&self) -> impl Iterator<Item = usize> {
        self.holds.iter().map(|row| row.iter().filter(|held| **held).count())
    }

    /// Counts the new tokens of `frame` as seen; called once all layers of a pass have run.
    pub fn seen_by(&mut self, frame: &Frame) {
        for (holds, len) in self.holds.iter_mut().zip(&frame.lens) {
            holds.extend((0..frame.width).map(|pos| pos < *len));
        }
    }
}

/// Positions and attention mask of one pass; the same for all its layers, and for any pass of this geometry.
#[derive(Clone)]
pub struct Frame {
    /// Position of each new token in its row: `[batch * pos]`.
    pub(super) positions: Tensor<1, Int>,
    /// Added to attention scores: 0 where a token may look, far below zero where not. `[batch, 1, pos, past + pos]`.
    pub(super) mask: Tensor<4>,
    /// New tokens of each row; the rest up to `width` is padding.
    lens: Vec<usize>,
    width: usize,
}

impl Frame {
    /// The frame of a pass over `lens` new tokens per row, after `past`. Padding goes to the right.
    pub fn new(past: &Cache, lens: &[usize], device: &Device) -> Self {
        /// Far enough below zero that `exp` gives 0, and finite, so that no row of scores turns into NaN.
        const BLOCKED: f32 = -1e30;
        let rows = lens.len();
        assert_eq!(rows, past.holds.len(), "the cache was made for this batch");
        let width = lens.iter().copied().max().unwrap_or(0);
        let past_width = past.holds.first().map_or(0, Vec::len);
        let mut positions = Vec::with_capacity(rows * width);
        let mut mask = Vec::with_capacity(rows * width * (past_width + width));
        for (seen, holds) in past.seen().zip(&past.holds) {
            for new in 0..width {
                positions.push(i32::try_from(seen + new).expect("contexts are short"));
                mask.extend(holds.iter().map(|held| if *held { 0.0 } else { BLOCKED }));
                mask.extend((0..width).map(|other| if other <= new { 0.0 } else { BLOCKED }));
            }
        }
        Self {
            positions: Tensor::from_data(TensorData::new(positions, [rows * width]), device),
            mask: Tensor::from_data(TensorData::new(mask, [rows, 1, width, past_width + width]), device),
            lens: lens.to_vec(),
            width,
        }
    }

    /// Rows and padded new positions: `[batch, pos]`.
    pub fn dims(&self) -> [usize; 2] {
        [self.lens.len(), self.width]
    }

    /// Where token `pos` of row `row` lies when batch and positions are one dimension.
    pub fn flat(&self, row: usize, pos: usize) -> usize {
        debug_assert!(pos < self.lens[row], "not padding");
        row * self.width + pos
    }
}

/// `Σ softmax(q·k / √d_head + mask) v` for every head: grouped heads share keys and values.
///
/// Shapes: `query [batch, head, pos, d_head]`, `past` and new together `[batch, kv_head, seen, d_head]`;
/// returns `[batch * pos, head * d_head]`.
pub(super) fn attend(query: Tensor<4>, seen: &KeysValues, frame: &Frame) -> Tensor<2> {
    let [batch, heads, pos, d_head] = query.dims();
    let [_, groups, width, _] = seen.keys.dims();
    let grouped = query.reshape([batch, groups, heads / groups * pos, d_head]);
    let scores = grouped.matmul(seen.keys.clone().swap_dims(2, 3)) * (d_head as f64).powf(-0.5);
    let scores = scores.reshape([batch, heads, pos, width]) + frame.mask.clone();
    let weights = burn::tensor::activation::softmax(scores, 3);
    weights
        .reshape([batch, groups, heads / groups * pos, width])
        .matmul(seen.values.clone())
        .reshape([batch, heads, pos, d_head])
        .swap_dims(1, 2)
        .reshape([batch * pos, heads * d_head])
}

/// `[batch * pos, head * d_head]` as `[batch, head, pos, d_head]`.
pub(super) fn heads(flat: Tensor<2>, [batch, pos]: [usize; 2], heads: usize) -> Tensor<4> {
    let d_head = flat.dims()[1] / heads;
    flat.reshape([batch, pos, heads, d_head]).swap_dims(1, 2)
}
