//! Attention of a few new tokens per row over what the rows have seen.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    super::ops::Layout,
    launch::{ROW_UNITS, each, empty_like, in_order, max_of, sides, sum_of},
};
use crate::model::heads::Heads;

/// Where the keys (`part` 0) or values (`part` 1) of a new token begin.
#[cube]
fn new_at(
    batch: usize,
    pos: usize,
    group: usize,
    part: usize,
    new: usize,
    heads: usize,
    groups: usize,
    d_head: usize,
) -> usize {
    (batch * new + pos) * (heads + 2 * groups) * d_head + (heads + part * groups + group) * d_head
}

/// Where those of a past begin.
#[cube]
fn past_at(batch: usize, group: usize, part: usize, rows: usize, held: usize, groups: usize, d_head: usize) -> usize {
    ((part * rows + batch) * groups + group) * held * d_head
}

/// `a · b` of one head.
#[cube]
fn dot(a: &Tensor<f32>, a_at: usize, b: &Tensor<f32>, b_at: usize, d_head: usize) -> f32 {
    let mut sum = 0.0f32;
    for c in 0..d_head {
        sum += a[a_at + c] * b[b_at + c];
    }
    sum
}

/// `a · b` with the key or value `b` of position `j`, of the past or of the new tokens.
#[cube]
fn dot_with(
    a: &Tensor<f32>,
    a_at: usize,
    past: &Tensor<f32>,
    joined: &Tensor<f32>,
    j: usize,
    batch: usize,
    group: usize,
    part: usize,
    rows: usize,
    held: usize,
    new: usize,
    heads: usize,
    groups: usize,
    d_head: usize,
) -> f32 {
    let mut product = 0.0f32;
    if j < held {
        let at = past_at(batch, group, part, rows, held, groups, d_head) + j * d_head;
        product += dot(a, a_at, past, at, d_head);
    } else {
        let at = new_at(batch, j - held, group, part, new, heads, groups, d_head);
        product += dot(a, a_at, joined, at, d_head);
    }
    product
}

/// `Σ w b` of one column over the keys or values `b` of all positions; the weights begin at `row`.
#[cube]
fn weighted(
    w: &Tensor<f32>,
    row: usize,
    past: &Tensor<f32>,
    joined: &Tensor<f32>,
    c: usize,
    batch: usize,
    group: usize,
    part: usize,
    rows: usize,
    held: usize,
    new: usize,
    heads: usize,
    groups: usize,
    d_head: usize,
) -> f32 {
    let first = past_at(batch, group, part, rows, held, groups, d_head) + c;
    let mut sum = 0.0f32;
    for j in 0..held {
        sum += w[row + j] * past[first + j * d_head];
    }
    for j in 0..new {
        let at = new_at(batch, j, group, part, new, heads, groups, d_head);
        sum += w[row + held + j] * joined[at + c];
    }
    sum
}

/// `softmax(scale q·k + mask)` of one query of one head: a cube.
#[cube(launch_unchecked)]
fn weigh(
    joined: &Tensor<f32>,
    past: &Tensor<f32>,
    mask: &Tensor<f32>,
    weights: &mut Tensor<f32>,
    scale: f32,
    heads: usize,
    groups: usize,
    d_head: usize,
    held: usize,
    #[comptime] units: usize,
) {
    let (rows, new) = (mask.shape(0), mask.shape(2));
    let seen = held + new;
    let (query, head, batch) = (CUBE_POS_X as usize, CUBE_POS_Y as usize, CUBE_POS_Z as usize);
    let group = head / (heads / groups);
    let mut shared = Shared::<[f32]>::new_slice(units);
    let query_at = (batch * new + query) * (heads + 2 * groups) * d_head + head * d_head;
    let mask_at = (batch * new + query) * seen;
    let row = ((batch * heads + head) * new + query) * seen;

    let mut largest = f32::new(-3.0e38);
    let mut j = UNIT_POS as usize;
    while j < seen {
        let product =
            dot_with(joined, query_at, past, joined, j, batch, group, 0, rows, held, new, heads, groups, d_head);
        let score = product * scale + mask[mask_at + j];
        weights[row + j] = score;
        largest = max(largest, score);
        j += units;
    }
    let largest = max_of(&mut shared, largest, units);
    let mut sum = 0.0f32;
    let mut j = UNIT_POS as usize;
    while j < seen {
        let weight = (weights[row + j] - largest).exp();
        weights[row + j] = weight;
        sum += weight;
        j += units;
    }
    let sum = sum_of(&mut shared, sum, units);
    let mut j = UNIT_POS as usize;
    while j < seen {
        weights[row + j] = weights[row + j] / sum;
        j += units;
    }
}

/// `Σ weight · value`: a unit for each column of each head of each new token.
#[cube(launch_unchecked)]
fn mix(
    joined: &Tensor<f32>,
    past: &Tensor<f32>,
    weights: &Tensor<f32>,
    out: &mut Tensor<f32>,
    heads: usize,
    groups: usize,
    d_head: usize,
    held: usize,
) {
    let at = ABSOLUTE_POS;
    if at >= out.len() {
        terminate!();
    }
    let (rows, new, seen) = (weights.shape(0), weights.shape(2), weights.shape(3));
    let (c, head) = (at % d_head, at / d_head % heads);
    let token = at / d_head / heads;
    let (query, batch) = (token % new, token / new);
    let group = head / (heads / groups);
    let row = ((batch * heads + head) * new + query) * seen;
    out[at] = weighted(weights, row, past, joined, c, batch, group, 1, rows, held, new, heads, groups, d_head);
}

/// The gradient of scores: `scale · w (dw − Σ w dw)` with `dw = g·v`: a cube for each query of each head.
#[cube(launch_unchecked)]
fn weigh_back(
    joined: &Tensor<f32>,
    past: &Tensor<f32>,
    weights: &Tensor<f32>,
    grad: &Tensor<f32>,
    scores: &mut Tensor<f32>,
    scale: f32,
    groups: usize,
    d_head: usize,
    held: usize,
    #[comptime] units: usize,
) {
    let (rows, heads, new, seen) = (weights.shape(0), weights.shape(1), weights.shape(2), weights.shape(3));
    let (query, head, batch) = (CUBE_POS_X as usize, CUBE_POS_Y as usize, CUBE_POS_Z as usize);
    let group = head / (heads / groups);
    let mut shared = Shared::<[f32]>::new_slice(units);
    let grad_at = ((batch * new + query) * heads + head) * d_head;
    let row = ((batch * heads + head) * new + query) * seen;
    let mut sum = 0.0f32;
    let mut j = UNIT_POS as usize;
    while j < seen {
        let pulled = dot_with(grad, grad_at, past, joined, j, batch, group, 1, rows, held, new, heads, groups, d_head);
        scores[row + j] = pulled;
        sum += pulled * weights[row + j];
        j += units;
    }
    let sum = sum_of(&mut shared, sum, units);
    let mut j = UNIT_POS as usize;
    while j < seen {
        scores[row + j] = weights[row + j] * (scores[row + j] - sum) * scale;
        j += units;
    }
}

/// The gradient of queries, keys and values side by side: a unit for each entry.
#[cube(launch_unchecked)]
fn joined_back(
    joined: &Tensor<f32>,
    past: &Tensor<f32>,
    weights: &Tensor<f32>,
    scores: &Tensor<f32>,
    grad: &Tensor<f32>,
    out: &mut Tensor<f32>,
    groups: usize,
    d_head: usize,
    held: usize,
) {
    let at = ABSOLUTE_POS;
    if at >= out.len() {
        terminate!();
    }
    let (rows, heads, new, seen) = (weights.shape(0), weights.shape(1), weights.shape(2), weights.shape(3));
    let each = heads / groups;
    let (c, part) = (at % d_head, at / d_head % (heads + 2 * groups));
    let token = at / d_head / (heads + 2 * groups);
    let (pos, batch) = (token % new, token / new);
    let mut sum = 0.0f32;
    if part < heads {
        let group = part / each;
        let row = ((batch * heads + part) * new + pos) * seen;
        sum += weighted(scores, row, past, joined, c, batch, group, 0, rows, held, new, heads, groups, d_head);
    } else if part < heads + groups {
        let group = part - heads;
        for h in 0..each {
            let head = group * each + h;
            for query in 0..new {
                let row = ((batch * heads + head) * new + query) * seen;
                let query_at = (batch * new + query) * (heads + 2 * groups) * d_head + head * d_head;
                sum += scores[row + held + pos] * joined[query_at + c];
            }
        }
    } else {
        let group = part - heads - groups;
        for h in 0..each {
            let head = group * each + h;
            for query in 0..new {
                let row = ((batch * heads + head) * new + query) * seen;
                let grad_at = ((batch * new + query) * heads + head) * d_head;
                sum += weights[row + held + pos] * grad[grad_at + c];
            }
        }
    }
    out[at] = sum;
}

/// Keys and values of the past, and behind them those of new tokens: a unit for each entry.
#[cube(launch_unchecked)]
fn append(past: &Tensor<f32>, joined: &Tensor<f32>, out: &mut Tensor<f32>, heads: usize, held: usize) {
    let at = ABSOLUTE_POS;
    if at >= out.len() {
        terminate!();
    }
    let (rows, groups, seen, d_head) = (out.shape(1), out.shape(2), out.shape(3), out.shape(4));
    let (c, j) = (at % d_head, at / d_head % seen);
    let list = at / d_head / seen;
    let (group, batch, part) = (list % groups, list / groups % rows, list / groups / rows);
    let mut value = 0.0f32;
    if j < held {
        value += past[past_at(batch, group, part, rows, held, groups, d_head) + j * d_head + c];
    } else {
        value += joined[new_at(batch, j - held, group, part, seen - held, heads, groups, d_head) + c];
    }
    out[at] = value;
}

/// `[2, batch, groups, held + pos, d_head]`
pub fn appended(past: CubeTensor, joined: CubeTensor, layout: Layout) -> CubeTensor {
    let Layout { heads: Heads { batch, heads, groups, d_head }, held, .. } = layout;
    let [past, joined] = [past, joined].map(in_order);
    let [tokens, _] = sides(&joined);
    let shape = [2, batch, groups, held + tokens / batch, d_head];
    let out = empty_like(&joined, shape);
    let (count, dim) = each(shape.iter().product());
    // SAFETY: every index is made of positions, heads and columns below the sizes of what it points into.
    unsafe {
        append::launch_unchecked(
            &out.client,
            count,
            dim,
            past.into_tensor_arg(),
            joined.into_tensor_arg(),
            out.clone().into_tensor_arg(),
            heads,
            held,
        );
    }
    out
}

/// `[batch * pos, heads * d_head]`, and the weights `[batch, heads, pos, seen]`.
pub fn attended(joined: CubeTensor, past: CubeTensor, mask: CubeTensor, layout: Layout) -> [CubeTensor; 2] {
    let Layout { heads: Heads { batch, heads, groups, d_head }, held, scale } = layout;
    let [joined, past, mask] = [joined, past, mask].map(in_order);
    let (new, seen) = (mask.meta.shape()[2], mask.meta.shape()[3]);
    let weights = empty_like(&joined, [batch, heads, new, seen]);
    let out = empty_like(&joined, [batch * new, heads * d_head]);
    let (count, dim) = each(batch * new * heads * d_head);
    // SAFETY: every index is made of positions, heads and columns below the sizes of what it points into.
    unsafe {
        weigh::launch_unchecked(
            &out.client,
            CubeCount::Static(new as u32, heads as u32, batch as u32),
            CubeDim::new_1d(ROW_UNITS as u32),
            joined.clone().into_tensor_arg(),
            past.clone().into_tensor_arg(),
            mask.into_tensor_arg(),
            weights.clone().into_tensor_arg(),
            scale as f32,
            heads,
            groups,
            d_head,
            held,
            ROW_UNITS,
        );
        mix::launch_unchecked(
            &out.client,
            count,
            dim,
            joined.into_tensor_arg(),
            past.into_tensor_arg(),
            weights.clone().into_tensor_arg(),
            out.clone().into_tensor_arg(),
            heads,
            groups,
            d_head,
            held,
        );
    }
    [out, weights]
}

/// The gradient with respect to `joined`.
pub fn attended_back(
    joined: CubeTensor,
    past: CubeTensor,
    weights: CubeTensor,
    grad: CubeTensor,
    layout: Layout,
) -> CubeTensor {
    let Layout { heads: Heads { batch, heads, groups, d_head }, held, scale } = layout;
    let [joined, past, grad] = [joined, past, grad].map(in_order);
    let (new, seen) = (weights.meta.shape()[2], weights.meta.shape()[3]);
    let scores = empty_like(&joined, [batch, heads, new, seen]);
    let columns = (heads + 2 * groups) * d_head;
    let out = empty_like(&joined, [batch * new, columns]);
    let (count, dim) = each(batch * new * columns);
    // SAFETY: as above.
    unsafe {
        weigh_back::launch_unchecked(
            &out.client,
            CubeCount::Static(new as u32, heads as u32, batch as u32),
            CubeDim::new_1d(ROW_UNITS as u32),
            joined.clone().into_tensor_arg(),
            past.clone().into_tensor_arg(),
            weights.clone().into_tensor_arg(),
            grad.clone().into_tensor_arg(),
            scores.clone().into_tensor_arg(),
            scale as f32,
            groups,
            d_head,
            held,
            ROW_UNITS,
        );
        joined_back::launch_unchecked(
            &out.client,
            count,
            dim,
            joined.into_tensor_arg(),
            past.into_tensor_arg(),
            weights.into_tensor_arg(),
            scores.into_tensor_arg(),
            grad.into_tensor_arg(),
            out.clone().into_tensor_arg(),
            groups,
            d_head,
            held,
        );
    }
    out
}
