//! What rows of logits say: the log-probability of a token, a divergence, the likeliest token.

use burn::tensor::DType;
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};
use cubecl::prelude::*;

use super::launch::{UNITS, empty_ids, empty_like, grid, in_order, max_of, sides, sum_of};

/// The largest entry of a row that begins at `base`, and `log Σ exp(entry − largest)`: kept apart, because their sum would
/// lose digits where entries are large.
#[cube]
fn total_of(logits: &Tensor<f32>, base: usize, shared: &mut Shared<[f32]>) -> (f32, f32) {
    let vocab = logits.shape(1);
    let mut largest = f32::new(-3.0e38);
    let mut at = UNIT_POS as usize;
    while at < vocab {
        largest = max(largest, logits[base + at]);
        at += UNITS;
    }
    let largest = max_of(shared, largest, UNITS);
    let mut sum = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < vocab {
        sum += (logits[base + at] - largest).exp();
        at += UNITS;
    }
    (largest, sum_of(shared, sum, UNITS).ln())
}

/// `log p` of the row's target, or `Σ p (log p − log q)`: a cube for each row.
#[cube(launch_unchecked)]
fn forward(
    logits: &Tensor<f32>,
    targets: &Tensor<i32>,
    reference: &Tensor<f32>,
    out: &mut Tensor<f32>,
    totals: &mut Tensor<f32>,
    of_tokens: usize,
) {
    let (row, vocab) = (CUBE_POS as usize, logits.shape(1));
    if row >= logits.shape(0) {
        terminate!();
    }
    let base = row * vocab;
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let (largest, total) = total_of(logits, base, &mut shared);
    let mut answer = 0.0f32;
    let mut largest_q = 0.0f32;
    let mut total_q = 0.0f32;
    if row < of_tokens {
        answer += logits[base + targets[row] as usize] - largest - total;
    } else {
        let from = (row - of_tokens) * vocab;
        let (largest_of_q, total_of_q) = total_of(reference, from, &mut shared);
        largest_q += largest_of_q;
        total_q += total_of_q;
        let mut sum = 0.0f32;
        let mut at = UNIT_POS as usize;
        while at < vocab {
            let log_p = logits[base + at] - largest - total;
            let log_q = reference[from + at] - largest_of_q - total_of_q;
            sum += log_p.exp() * (log_p - log_q);
            at += UNITS;
        }
        answer += sum_of(&mut shared, sum, UNITS);
    }
    if UNIT_POS == 0 {
        out[row] = answer;
        totals[4 * row] = largest;
        totals[4 * row + 1] = total;
        totals[4 * row + 2] = largest_q;
        totals[4 * row + 3] = total_q;
    }
}

/// `g ([target] − p)`, or `g p (log p − log q − KL)`: a cube for each row, which knows its total.
#[cube(launch_unchecked)]
fn backward(
    logits: &Tensor<f32>,
    targets: &Tensor<i32>,
    reference: &Tensor<f32>,
    answers: &Tensor<f32>,
    totals: &Tensor<f32>,
    grad: &Tensor<f32>,
    out: &mut Tensor<f32>,
    of_tokens: usize,
) {
    let (row, vocab) = (CUBE_POS as usize, logits.shape(1));
    if row >= logits.shape(0) {
        terminate!();
    }
    let base = row * vocab;
    let (largest, total, weight) = (totals[4 * row], totals[4 * row + 1], grad[row]);
    let mut at = UNIT_POS as usize;
    if row < of_tokens {
        let target = targets[row] as usize;
        while at < vocab {
            let mut slope = -(logits[base + at] - largest - total).exp();
            if at == target {
                slope += 1.0f32;
            }
            out[base + at] = weight * slope;
            at += UNITS;
        }
    } else {
        let (from, divergence) = ((row - of_tokens) * vocab, answers[row]);
        let (largest_q, total_q) = (totals[4 * row + 2], totals[4 * row + 3]);
        while at < vocab {
            let log_p = logits[base + at] - largest - total;
            let log_q = reference[from + at] - largest_q - total_q;
            out[base + at] = weight * log_p.exp() * (log_p - log_q - divergence);
            at += UNITS;
        }
    }
}

/// The first place of the largest entry: a cube for each row.
#[cube(launch_unchecked)]
fn first_largest(logits: &Tensor<f32>, out: &mut Tensor<i32>) {
    let (row, vocab) = (CUBE_POS as usize, logits.shape(1));
    if row >= logits.shape(0) {
        terminate!();
    }
    let base = row * vocab;
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut largest = f32::new(-3.0e38);
    let mut at = UNIT_POS as usize;
    while at < vocab {
        largest = max(largest, logits[base + at]);
        at += UNITS;
    }
    let largest = max_of(&mut shared, largest, UNITS);
    // Places are small enough to be exact: a vocabulary has at most 2²⁴ tokens.
    let mut first = f32::cast_from(vocab);
    let mut at = UNIT_POS as usize;
    while at < vocab {
        if logits[base + at] == largest {
            first = min(first, f32::cast_from(at));
        }
        at += UNITS;
    }
    let first = -max_of(&mut shared, -first, UNITS);
    if UNIT_POS == 0 {
        let mut place = i32::cast_from(first);
        // Of a row that is no number anywhere, the first.
        if place >= i32::cast_from(vocab) {
            place = 0;
        }
        out[row] = place;
    }
}

/// Ids, one after the other.
fn ids(tensor: CubeTensor) -> CubeTensor {
    assert_eq!(tensor.dtype, DType::I32, "ids are 32 bits wide");
    into_contiguous(tensor)
}

/// `[rows, 1]` and `[rows, 4]`: what [`forward`] computes.
pub fn answered(logits: CubeTensor, targets: CubeTensor, reference: CubeTensor, of_tokens: usize) -> [CubeTensor; 2] {
    let [logits, reference] = [logits, reference].map(in_order);
    let [rows, _] = sides(&logits);
    let (out, totals) = (empty_like(&logits, [rows, 1]), empty_like(&logits, [rows, 4]));
    // SAFETY: a cube has a row, units look at no entry beyond the last, and targets are tokens of the vocabulary.
    unsafe {
        forward::launch_unchecked(
            &out.client,
            grid(rows),
            CubeDim::new_1d(UNITS as u32),
            logits.into_tensor_arg(),
            ids(targets).into_tensor_arg(),
            reference.into_tensor_arg(),
            out.clone().into_tensor_arg(),
            totals.clone().into_tensor_arg(),
            of_tokens,
        );
    }
    [out, totals]
}

/// `[rows, vocab]`: what [`backward`] computes.
pub fn answered_back(
    logits: CubeTensor,
    targets: CubeTensor,
    reference: CubeTensor,
    of_tokens: usize,
    [answers, totals]: [CubeTensor; 2],
    grad: CubeTensor,
) -> CubeTensor {
    let [logits, reference, answers, totals, grad] = [logits, reference, answers, totals, grad].map(in_order);
    let out = empty_like(&logits, sides(&logits));
    // SAFETY: as above.
    unsafe {
        backward::launch_unchecked(
            &out.client,
            grid(sides(&out)[0]),
            CubeDim::new_1d(UNITS as u32),
            logits.into_tensor_arg(),
            ids(targets).into_tensor_arg(),
            reference.into_tensor_arg(),
            answers.into_tensor_arg(),
            totals.into_tensor_arg(),
            grad.into_tensor_arg(),
            out.clone().into_tensor_arg(),
            of_tokens,
        );
    }
    out
}

/// `[rows, 1]`: what [`first_largest`] finds.
pub fn largest(logits: CubeTensor) -> CubeTensor {
    let logits = in_order(logits);
    let [rows, _] = sides(&logits);
    let out = empty_ids(&logits, [rows, 1]);
    // SAFETY: as above.
    unsafe {
        first_largest::launch_unchecked(
            &out.client,
            grid(rows),
            CubeDim::new_1d(UNITS as u32),
            logits.into_tensor_arg(),
            out.clone().into_tensor_arg(),
        );
    }
    out
}
