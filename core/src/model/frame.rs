//! How the rows of a batch lie in a pass, and what is already known of them.
//!
//! A pass runs over the *new* tokens of each row and looks back at keys and values of its *past*.
//! That one arrangement is the whole forward pass (no past), decoding (a growing past) and an editor's
//! optimisation (a constant past: everything before the token that is edited). The new tokens may also be *lanes*:
//! versions of one and the same token, which share a past and do not see one another.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::heads::Heads;
use crate::kernels;

/// Keys and values of one layer.
#[derive(Clone)]
pub(super) enum Seen {
    /// Keys, then values: `[2, batch, group, pos, d_head]`.
    Whole(Tensor<5>),
    /// These, and behind them the keys and values of `joined`, brought together when someone looks back at them.
    Grown { past: Option<Tensor<5>>, joined: Tensor<2>, heads: Heads },
}

impl Seen {
    /// Keys, then values: `[2, batch, group, pos, d_head]`.
    pub fn whole(self) -> Tensor<5> {
        match self {
            Self::Whole(whole) => whole,
            Self::Grown { past, joined, heads } => kernels::append(past, joined, heads),
        }
    }
}

/// Keys and values of everything a batch has seen so far.
#[derive(Clone)]
pub struct Cache {
    /// One per layer that has run; empty before the first pass.
    pub(super) layers: Vec<Option<Seen>>,
    /// For each row, which of the cached positions hold a token of it (the rest is padding).
    pub(super) holds: Vec<Vec<bool>>,
}

impl Cache {
    /// Nothing seen yet by `rows` rows of a model with `layers` layers.
    pub fn empty(rows: usize, layers: usize) -> Self {
        Self { layers: vec![None; layers], holds: vec![Vec::new(); rows] }
    }

    /// Only some of the rows.
    pub fn only(&self, rows: &[usize]) -> Self {
        let of = |seen: Seen| {
            let whole = seen.whole();
            let index = super::rows::index_tensor(rows, &whole);
            Seen::Whole(whole.select(1, index))
        };
        let layers = self.layers.iter().map(|layer| layer.clone().map(of));
        Self { layers: layers.collect(), holds: rows.iter().map(|row| self.holds[*row].clone()).collect() }
    }

    /// The same of some layers; of the others nothing is kept.
    pub fn of_layers(&self, layers: Range<usize>) -> Self {
        let kept = self.layers.iter().enumerate();
        let kept = kept.map(|(layer, seen)| seen.clone().filter(|_| layers.contains(&layer)));
        Self { layers: kept.collect(), holds: self.holds.clone() }
    }

    /// Only what was seen before position `pos` of every row.
    pub fn before(&self, pos: usize) -> Self {
        if pos == 0 {
            return Self::empty(self.holds.len(), self.layers.len());
        }
        let layers = self.layers.iter().cloned();
        let layers = layers.map(|layer| layer.map(|seen| Seen::Whole(seen.whole().narrow(3, 0, pos))));
        Self { layers: layers.collect(), holds: self.holds.iter().map(|row| row[..pos].to_vec()).collect() }
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
    /// Position of each new token in its row, by row: `batch * pos` of them.
    positions: Vec<i32>,
    /// The same on the device.
    position_ids: Tensor<1, Int>,
    sight: Sight,
    /// New tokens of each row; the rest up to `width` is padding.
    lens: Vec<usize>,
    width: usize,
}

/// What new tokens see.
#[derive(Clone)]
pub(super) enum Sight {
    /// Added to attention scores: 0 where a token may look, far below zero where not. `[batch, 1, pos, past + pos]`.
    Masked(Tensor<4>),
    /// All of the past, and of the new tokens each only itself.
    Alone,
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
            position_ids: ids(&positions, device),
            positions,
            sight: Sight::Masked(Tensor::from_data(
                TensorData::new(mask, [rows, 1, width, past_width + width]),
                device,
            )),
            lens: lens.to_vec(),
            width,
        }
    }

    /// The frame of `lanes` versions of the token that follows `past`, laid out as positions of its one row.
    ///
    /// Each has the same position and sees the past and itself. A cache does not grow by lanes, which nothing can look
    /// back at.
    ///
    /// # Panics
    ///
    /// When the past has several rows or padding.
    pub fn lanes(past: &Cache, lanes: usize, device: &Device) -> Self {
        let [holds] = past.holds.as_slice() else { panic!("lanes share the past of one row") };
        assert!(holds.iter().all(|held| *held), "lanes share a past without padding");
        let positions = vec![i32::try_from(holds.len()).expect("contexts are short"); lanes];
        Self { position_ids: ids(&positions, device), positions, sight: Sight::Alone, lens: vec![lanes], width: lanes }
    }

    /// Rows and padded new positions: `[batch, pos]`.
    pub fn dims(&self) -> [usize; 2] {
        [self.lens.len(), self.width]
    }

    /// Position of each new token in its row, padding included: `batch * pos` of them, row by row.
    pub(super) fn positions(&self) -> &[i32] {
        &self.positions
    }

    /// The same on the device.
    pub(super) fn position_ids(&self) -> Tensor<1, Int> {
        self.position_ids.clone()
    }

    /// What new tokens see.
    pub(super) fn sight(&self) -> &Sight {
        &self.sight
    }

    /// Where token `pos` of row `row` lies when batch and positions are one dimension.
    pub fn flat(&self, row: usize, pos: usize) -> usize {
        assert!(pos < self.lens[row], "not padding");
        row * self.width + pos
    }
}

fn ids(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}
