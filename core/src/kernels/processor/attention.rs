//! Attention of a few new tokens per row over what the rows have seen: flex's matrix products, and between them the
//! softmax in place.

use burn_flex::FlexTensor;

use super::{
    super::ops::Layout,
    rows::{exp, in_order, matmul, max, numbers, share, sum, tensor, wide},
};
use crate::model::heads::Heads;

/// Where things lie, from the sizes of one call.
#[derive(Clone, Copy)]
struct Places {
    heads: Heads,
    held: usize,
    /// New tokens of each row.
    new: usize,
}

impl Places {
    fn of(joined: &FlexTensor, layout: Layout) -> Self {
        let Layout { heads, held, .. } = layout;
        Self { heads, held, new: joined.layout().shape()[0] / heads.batch }
    }

    fn seen(self) -> usize {
        self.held + self.new
    }

    /// Columns of queries, keys and values side by side.
    fn columns(self) -> usize {
        (self.heads.heads + 2 * self.heads.groups) * self.heads.d_head
    }

    /// Of queries, or of what is made of them, `[batch * pos, heads * d_head]` within rows of `columns`: those of each
    /// group as one matrix, `[batch * groups, heads / groups * pos, d_head]`.
    fn by_group(self, from: &[f32], columns: usize) -> FlexTensor {
        let Heads { batch, heads, groups, d_head } = self.heads;
        let mut out = vec![0.0; batch * heads * self.new * d_head];
        copy_rows(&mut out, d_head, |row| {
            let (pos, head, batch) = (row % self.new, row / self.new % heads, row / self.new / heads);
            &from[(batch * self.new + pos) * columns + head * d_head..]
        });
        tensor(out, [batch * groups, heads / groups * self.new, d_head])
    }

    /// Keys (`part` 0) or values (1) of all positions: `[batch * groups, seen, d_head]`.
    fn all(self, part: usize, past: &[f32], joined: &[f32]) -> FlexTensor {
        let Heads { batch, groups, d_head, .. } = self.heads;
        let seen = self.seen();
        let mut out = vec![0.0; batch * groups * seen * d_head];
        copy_rows(&mut out, d_head, |row| self.key_or_value(part, row / seen, row % seen, past, joined));
        tensor(out, [batch * groups, seen, d_head])
    }

    /// One of them, and what follows it: of `group` among all rows' groups, at position `at`.
    fn key_or_value<'a>(self, part: usize, group: usize, at: usize, past: &'a [f32], joined: &'a [f32]) -> &'a [f32] {
        let Heads { batch, heads, groups, d_head } = self.heads;
        if at < self.held {
            return &past[((part * batch * groups + group) * self.held + at) * d_head..];
        }
        let (row, group) = (group / groups, group % groups);
        let token = row * self.new + at - self.held;
        &joined[token * self.columns() + (heads + part * groups + group) * d_head..]
    }
}

/// Fills rows of `width` with the beginnings of others.
fn copy_rows<'a>(out: &mut [f32], width: usize, from: impl Fn(usize) -> &'a [f32] + Sync) {
    share(out, width, |first, rows| {
        for (row, out) in rows.chunks_exact_mut(width).enumerate() {
            out.copy_from_slice(&from(first + row)[..width]);
        }
    });
}

/// `softmax(scale x + mask)` of a row, in place.
#[inline(always)]
fn soften(row: &mut [f32], mask: &[f32], scale: f32) {
    row.iter_mut().zip(mask).for_each(|(x, mask)| *x = *x * scale + mask);
    let largest = max(row);
    row.iter_mut().for_each(|x| *x = exp(*x - largest));
    let total = sum([&*row], |[x]| x);
    row.iter_mut().for_each(|x| *x /= total);
}

/// `scale w (dw − Σ w dw)`, in place of `dw`.
#[inline(always)]
fn soften_back(row: &mut [f32], weights: &[f32], scale: f32) {
    let weights = &weights[..row.len()];
    let along = sum([&*row, weights], |[dw, weight]| dw * weight);
    row.iter_mut().zip(weights).for_each(|(dw, weight)| *dw = scale * weight * (*dw - along));
}

/// `[batch * pos, heads * d_head]`, and the weights `[batch, heads, pos, seen]`.
pub fn attended(joined: FlexTensor, past: FlexTensor, mask: FlexTensor, layout: Layout) -> [FlexTensor; 2] {
    let [joined, past, mask] = [joined, past, mask].map(in_order);
    let places = Places::of(&joined, layout);
    let (Heads { batch, heads, d_head, .. }, new, seen) = (places.heads, places.new, places.seen());
    let query = places.by_group(numbers(&joined), places.columns());
    let [keys, values] = [0, 1].map(|part| places.all(part, numbers(&past), numbers(&joined)));

    let mut weights = matmul(query, keys.transpose(1, 2));
    let mask = numbers(&mask);
    share(weights.storage_mut(), seen, |first, rows| {
        wide(|| {
            for (row, weights) in rows.chunks_exact_mut(seen).enumerate() {
                let row = first + row;
                let (pos, batch) = (row % new, row / new / heads);
                soften(weights, &mask[(batch * new + pos) * seen..][..seen], layout.scale as f32);
            }
        });
    });
    let mixed = matmul(weights.clone(), values); // [batch * groups, heads / groups * pos, d_head]
    let mixed = numbers(&mixed);
    let mut out = vec![0.0; batch * new * heads * d_head];
    copy_rows(&mut out, d_head, |row| {
        let (head, pos, batch) = (row % heads, row / heads % new, row / heads / new);
        &mixed[((batch * heads + head) * new + pos) * d_head..]
    });
    [tensor(out, [batch * new, heads * d_head]), weights.reshape([batch, heads, new, seen].into())]
}

/// The gradient with respect to `joined`.
pub fn attended_back(
    joined: FlexTensor,
    past: FlexTensor,
    weights: FlexTensor,
    grad: FlexTensor,
    layout: Layout,
) -> FlexTensor {
    let [joined, past, weights, grad] = [joined, past, weights, grad].map(in_order);
    let places = Places::of(&joined, layout);
    let (Heads { batch, heads, groups, d_head }, held, new) = (places.heads, places.held, places.new);
    let (columns, seen, each) = (places.columns(), places.seen(), heads / groups);
    let query = places.by_group(numbers(&joined), columns);
    let grad = places.by_group(numbers(&grad), heads * d_head);
    let [keys, values] = [0, 1].map(|part| places.all(part, numbers(&past), numbers(&joined)));

    let weights = weights.reshape([batch * groups, each * new, seen].into());
    let mut scores = matmul(grad.clone(), values.transpose(1, 2));
    let of_rows = numbers(&weights);
    share(scores.storage_mut(), seen, |first, rows| {
        wide(|| {
            let weights = of_rows[first * seen..].chunks_exact(seen);
            for (scores, weights) in rows.chunks_exact_mut(seen).zip(weights) {
                soften_back(scores, weights, layout.scale as f32);
            }
        });
    });
    // What was seen before is a constant: only the new positions' columns of scores and weights lead anywhere.
    let of_new = |all: &FlexTensor| all.narrow(2, held, new).transpose(1, 2);
    let to_query = matmul(scores.clone(), keys); // [batch * groups, each * pos, d_head]
    let to_keys = matmul(of_new(&scores), query); // [batch * groups, pos, d_head]
    let to_values = matmul(of_new(&weights), grad);
    let [to_query, to_keys, to_values] = [&to_query, &to_keys, &to_values].map(numbers);
    let mut out = vec![0.0; batch * new * columns];
    copy_rows(&mut out, d_head, |row| {
        let parts = heads + 2 * groups;
        let (part, pos, batch) = (row % parts, row / parts % new, row / parts / new);
        let (from, list) = match part {
            query if query < heads => (to_query, batch * heads + query),
            key if key < heads + groups => (to_keys, batch * groups + key - heads),
            value => (to_values, batch * groups + value - heads - groups),
        };
        &from[(list * new + pos) * d_head..]
    });
    tensor(out, [batch * new, columns])
}

/// `[2, batch, groups, held + pos, d_head]`: keys, then values.
pub fn appended(past: FlexTensor, joined: FlexTensor, layout: Layout) -> FlexTensor {
    let [past, joined] = [past, joined].map(in_order);
    let places = Places::of(&joined, layout);
    let (Heads { batch, groups, d_head, .. }, seen) = (places.heads, places.seen());
    let (past, joined) = (numbers(&past), numbers(&joined));
    let mut out = vec![0.0; 2 * batch * groups * seen * d_head];
    copy_rows(&mut out, d_head, |row| {
        let (at, group, part) = (row % seen, row / seen % (batch * groups), row / seen / (batch * groups));
        places.key_or_value(part, group, at, past, joined)
    });
    tensor(out, [2, batch, groups, seen, d_head])
}
