//! What rows of logits say: the log-probability of a token, a divergence, the likeliest token.

use burn::tensor::{DType, TensorData};
use burn_flex::FlexTensor;

use super::rows::{exp, in_order, max, numbers, share_work, sum, tensor, wide, width};

/// The largest entry of a row, and `log Σ exp(entry − largest)`: kept apart, because their sum would lose digits where
/// entries are large.
#[inline(always)]
fn total_of(logits: &[f32]) -> (f32, f32) {
    let largest = max(logits);
    (largest, sum([logits], |[logit]| exp(logit - largest)).ln())
}

/// `Σ p (log p − log q)`
#[inline(always)]
fn divergence(logits: &[f32], reference: &[f32], [of_p, of_q]: [(f32, f32); 2]) -> f32 {
    sum([logits, reference], |[p, q]| {
        let (log_p, log_q) = (p - of_p.0 - of_p.1, q - of_q.0 - of_q.1);
        exp(log_p) * (log_p - log_q)
    })
}

/// `[rows, 1]`: of the first rows `log p` of their token, of the rest the divergence; and `[rows, 4]`, their totals.
pub fn answered(logits: FlexTensor, targets: FlexTensor, reference: FlexTensor, of_tokens: usize) -> [FlexTensor; 2] {
    let [logits, reference] = [logits, reference].map(in_order);
    let (vocab, targets) = (width(&logits), ids(&targets));
    let [logits, reference] = [&logits, &reference].map(numbers);
    let rows = logits.len() / vocab;
    // An answer and four totals of each row; rows are long, so each is worth a thread.
    const FOUND: usize = 5;
    let mut found = vec![0.0; FOUND * rows];
    each_row(&mut found, FOUND, vocab, |row, found| {
        let logits = &logits[row * vocab..][..vocab];
        wide(|| {
            let of_p = total_of(logits);
            let (answer, of_q) = if row < of_tokens {
                (logits[targets[row]] - of_p.0 - of_p.1, (0.0, 0.0))
            } else {
                let reference = &reference[(row - of_tokens) * vocab..][..vocab];
                let of_q = total_of(reference);
                (divergence(logits, reference, [of_p, of_q]), of_q)
            };
            found.copy_from_slice(&[answer, of_p.0, of_p.1, of_q.0, of_q.1]);
        });
    });
    let answers = found.iter().step_by(FOUND).copied().collect();
    let totals = found.chunks_exact(FOUND).flat_map(|found| &found[1..]).copied().collect();
    [tensor(answers, [rows, 1]), tensor(totals, [rows, 4])]
}

/// `[rows, vocab]`: `g ([target] − p)`, or `g p (log p − log q − KL)`.
pub fn answered_back(
    logits: FlexTensor,
    targets: FlexTensor,
    reference: FlexTensor,
    of_tokens: usize,
    [answers, totals]: [FlexTensor; 2],
    grad: FlexTensor,
) -> FlexTensor {
    let [logits, reference, answers, totals, grad] = [logits, reference, answers, totals, grad].map(in_order);
    let (vocab, targets) = (width(&logits), ids(&targets));
    let [logits, reference, answers] = [&logits, &reference, &answers].map(numbers);
    let [totals, grad] = [&totals, &grad].map(numbers);
    let mut out = vec![0.0; logits.len()];
    each_row(&mut out, vocab, vocab, |row, out| {
        let logits = &logits[row * vocab..][..vocab];
        let (weight, totals) = (grad[row], &totals[4 * row..][..4]);
        wide(|| {
            if row < of_tokens {
                for (out, logit) in out.iter_mut().zip(logits) {
                    *out = -weight * exp(logit - totals[0] - totals[1]);
                }
                out[targets[row]] += weight;
            } else {
                let reference = &reference[(row - of_tokens) * vocab..][..vocab];
                let divergence = answers[row];
                for ((out, p), q) in out.iter_mut().zip(logits).zip(reference) {
                    let (log_p, log_q) = (p - totals[0] - totals[1], q - totals[2] - totals[3]);
                    *out = weight * exp(log_p) * (log_p - log_q - divergence);
                }
            }
        });
    });
    let rows = out.len() / vocab;
    tensor(out, [rows, vocab])
}

/// `[rows, 1]`: the first place of each row's largest entry.
pub fn largest(logits: FlexTensor) -> FlexTensor {
    let logits = in_order(logits);
    let vocab = width(&logits);
    let rows = numbers(&logits).chunks_exact(vocab);
    let places = rows.map(|row| {
        let largest = wide(|| max(row));
        // Of a row that is no number anywhere, the first.
        row.iter().position(|value| *value == largest).unwrap_or(0) as i32
    });
    let places: Vec<i32> = places.collect();
    let rows = places.len();
    FlexTensor::from_data(TensorData::new(places, [rows, 1]))
}

/// Runs `fill` for each row by itself; one is as much work as filling `work` numbers.
fn each_row(out: &mut [f32], width: usize, work: usize, fill: impl Fn(usize, &mut [f32]) + Sync) {
    share_work(out, width, work, |first, rows| {
        rows.chunks_exact_mut(width).enumerate().for_each(|(row, out)| fill(first + row, out));
    });
}

fn ids(tensor: &FlexTensor) -> Vec<usize> {
    let tensor = tensor.to_contiguous();
    match tensor.dtype() {
        DType::I32 => tensor.as_slice::<i32>().expect("in order").iter().map(|id| *id as usize).collect(),
        DType::I64 => tensor.as_slice::<i64>().expect("in order").iter().map(|id| *id as usize).collect(),
        other => panic!("ids are whole numbers, not {other:?}"),
    }
}
