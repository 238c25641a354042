//! The operations in burn's own: what they are, and what kernels are held to.

use burn::tensor::{
    DType, Int, Tensor,
    activation::{log_softmax, sigmoid, silu, softmax},
    module::layer_norm,
};

use super::{
    Pace,
    weight::{BLOCK, Blocks, PACKED, Weight},
};
use crate::model::{heads::Heads, index_tensor};

/// The numbers of a matrix in 32 bits, however they are stored.
pub fn wide(matrix: Tensor<2>) -> Tensor<2> {
    if matrix.dtype() == DType::F32 { matrix } else { matrix.cast(DType::F32) }
}

/// The same of any matrix, `[d_in, d_out]`.
pub fn whole(weight: Weight) -> Tensor<2> {
    let Blocks { words, scales, d_in } = match weight {
        Weight::Floats(matrix) => return wide(matrix),
        Weight::Blocks(blocks) => blocks,
    };
    let [outputs, of_output] = scales.dims();
    // A shift to the left drops the codes above, one to the right those below, and keeps the sign.
    let codes = (0..PACKED as i32)
        .rev()
        .map(|above| words.clone().bitwise_left_shift_scalar(8 * above).bitwise_right_shift_scalar(24));
    let codes: Tensor<3, Int> = Tensor::stack(codes.collect(), 2);
    let codes = codes.float().reshape([outputs, of_output, BLOCK]);
    let numbers = (codes * scales.unsqueeze_dim(2)).reshape([outputs, of_output * BLOCK]);
    numbers.narrow(1, 0, d_in).transpose()
}

pub fn product(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, residual: Option<Tensor<2>>) -> Tensor<2> {
    let mut sum = x.matmul(wide(weight));
    if let Some(bias) = bias {
        sum = sum + bias.unsqueeze();
    }
    match residual {
        None => sum,
        Some(residual) => sum + residual,
    }
}

pub fn norm(x: Tensor<2>, scale: Tensor<1>, shift: Option<Tensor<1>>, epsilon: f64) -> Tensor<2> {
    if shift.is_some() {
        return layer_norm(x, scale, shift, epsilon);
    }
    let mean_square = (x.clone() * x.clone()).mean_dim(1);
    x / (mean_square + epsilon).sqrt() * scale.unsqueeze()
}

/// As `x σ(2y)`, which is the same.
pub fn gelu_tanh(x: Tensor<2>) -> Tensor<2> {
    let sqrt_8_over_pi = (8.0 / std::f64::consts::PI).sqrt();
    let inner = x.clone() * ((x.clone() * x.clone()) * (0.044_715 * sqrt_8_over_pi) + sqrt_8_over_pi);
    x * sigmoid(inner)
}

pub fn silu_gate(x: Tensor<2>, y: Tensor<2>) -> Tensor<2> {
    silu(x) * y
}

pub fn attend(joined: Tensor<2>, past: Option<Tensor<5>>, mask: Tensor<4>, heads: Heads, scale: f64) -> Tensor<2> {
    let query = heads.queries(&joined);
    let seen = append(past, &joined, heads);
    let [keys, values] = [0, 1].map(|i| seen.clone().narrow(0, i, 1).squeeze_dim::<4>(0));
    let ([batch, heads, pos, d_head], [_, groups, width, _]) = (query.dims(), keys.dims());
    // The heads of a group lie one after the other: all their queries are one matrix.
    let rows = heads / groups * pos;
    let scores = query.reshape([batch, groups, rows, d_head]).matmul(keys.swap_dims(2, 3)) * scale;
    let weights = softmax(scores.reshape([batch, heads, pos, width]) + mask, 3);
    let mixed = weights.reshape([batch, groups, rows, width]).matmul(values);
    mixed.reshape([batch, heads, pos, d_head]).swap_dims(1, 2).reshape([batch * pos, heads * d_head])
}

pub fn append(past: Option<Tensor<5>>, joined: &Tensor<2>, heads: Heads) -> Tensor<5> {
    let new = heads.keys_values(joined);
    match past {
        None => new,
        Some(past) => Tensor::cat(vec![past, new], 3),
    }
}

pub fn rotate(joined: Tensor<2>, cos: Tensor<4>, sin: Tensor<4>, heads: Heads, neighbors: bool) -> Tensor<2> {
    let ([rows, columns], turning) = (joined.dims(), heads.turning_columns());
    let [batch, pos, ..] = cos.dims();
    let of_heads = joined.clone().narrow(1, 0, turning).reshape([batch, pos, turning / heads.d_head, heads.d_head]);
    let turned = turn(of_heads, &cos, &sin, neighbors).reshape([rows, turning]);
    Tensor::cat(vec![turned, joined.narrow(1, turning, columns - turning)], 1)
}

/// `[batch, pos, head, d_head]`
fn turn(x: Tensor<4>, cos: &Tensor<4>, sin: &Tensor<4>, neighbors: bool) -> Tensor<4> {
    let [batch, pos, heads, d_head] = x.dims();
    let turning = cos.dims()[3];
    if turning < d_head {
        let turned = turn(x.clone().narrow(3, 0, turning), cos, sin, neighbors);
        return Tensor::cat(vec![turned, x.narrow(3, turning, d_head - turning)], 3);
    }
    let quarter = if neighbors {
        let pairs: Tensor<5> = x.clone().reshape([batch, pos, heads, d_head / 2, 2]);
        let (even, odd) = (pairs.clone().narrow(4, 0, 1), pairs.narrow(4, 1, 1));
        Tensor::cat(vec![-odd, even], 4).reshape([batch, pos, heads, d_head])
    } else {
        let half = d_head / 2;
        Tensor::cat(vec![-x.clone().narrow(3, half, half), x.clone().narrow(3, 0, half)], 3)
    };
    x * cos.clone() + quarter * sin.clone()
}

pub fn answers(logits: Tensor<2>, targets: &[usize], reference: Option<Tensor<2>>) -> Tensor<2> {
    let n = targets.len();
    let log_p = log_softmax(logits, 1);
    let Some(reference) = reference else { return picked(log_p, targets) };
    let current = log_p.clone().narrow(0, n, reference.dims()[0]);
    let divergence = (current.clone().exp() * (current - log_softmax(reference, 1))).sum_dim(1);
    if n == 0 {
        return divergence;
    }
    Tensor::cat(vec![picked(log_p.narrow(0, 0, n), targets), divergence], 0)
}

pub fn shifted(hidden: Tensor<3>, delta: Tensor<2>, rows_each: usize) -> Tensor<3> {
    let ([rows, pos, d], [facts, _]) = (hidden.dims(), delta.dims());
    let first = hidden.clone().narrow(1, 0, 1).reshape([facts, rows_each, d]);
    let first = (first + delta.unsqueeze_dim(1)).reshape([rows, 1, d]);
    if pos == 1 { first } else { Tensor::cat(vec![first, hidden.narrow(1, 1, pos - 1)], 1) }
}

pub fn stepped(now: Tensor<3>, gradient: Tensor<2>, held: Tensor<2>, pace: Pace) -> Tensor<3> {
    let Pace { decay: [first, second], rate, unbias, epsilon } = pace;
    let [rows, mean, square] = [0, 1, 2].map(|i| now.clone().narrow(0, i, 1).squeeze_dim::<2>(0));
    let [pull, reach, radius] = [0, 1, 2].map(|i| held.clone().narrow(1, i, 1));
    let gradient = gradient + rows.clone() * pull;
    let mean = mean * first + gradient.clone() * (1.0 - first);
    let square = square * second + gradient.clone() * gradient * (1.0 - second);
    let rows = rows - mean.clone() / ((square.clone() * unbias).sqrt() + epsilon) * rate;
    let reach = reach.expand(rows.dims());
    let rows = rows.min_pair(reach.clone()).max_pair(-reach);
    let lengths = (rows.clone() * rows.clone()).sum_dim(1).sqrt();
    let rows = rows * (radius / lengths).clamp_max(1.0);
    Tensor::stack(vec![rows, mean, square], 0)
}

/// Of each row of `log_p [n, vocab]` the entry of one token: `[n, 1]`.
pub fn picked(log_p: Tensor<2>, tokens: &[usize]) -> Tensor<2> {
    let index = index_tensor(tokens, &log_p).reshape([tokens.len(), 1]);
    log_p.gather(1, index)
}

pub fn largest(logits: Tensor<2>) -> Tensor<2, Int> {
    logits.argmax(1)
}
