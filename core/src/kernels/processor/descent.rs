//! What an optimisation of rows does beside running a model: adds δ, and moves it.

use burn_flex::FlexTensor;

use super::{
    super::ops::Pace,
    rows::{in_order, numbers, sum, tensor, wide, width},
};

/// `hidden`, and at the first position of each row its fact's δ on top: `[rows, pos, d]`.
pub fn shifted(hidden: FlexTensor, delta: FlexTensor, rows_each: usize) -> FlexTensor {
    let [hidden, delta] = [hidden, delta].map(in_order);
    let shape = [0, 1, 2].map(|i| hidden.layout().shape()[i]);
    let d = width(&delta);
    let mut out = numbers(&hidden).to_vec();
    for (row, out) in out.chunks_exact_mut(shape[1] * d).enumerate() {
        let delta = &numbers(&delta)[row / rows_each * d..][..d];
        out.iter_mut().zip(delta).for_each(|(out, delta)| *out += delta);
    }
    tensor(out, shape)
}

/// Of each fact the sum over its rows of what stands at their first positions: `[facts, d]`.
pub fn shifted_back(grad: FlexTensor, rows_each: usize) -> FlexTensor {
    let grad = in_order(grad);
    let [rows, pos, d] = [0, 1, 2].map(|i| grad.layout().shape()[i]);
    let mut out = vec![0.0; rows / rows_each * d];
    for (row, grad) in numbers(&grad).chunks_exact(pos * d).enumerate() {
        let out = &mut out[row / rows_each * d..][..d];
        out.iter_mut().zip(grad).for_each(|(out, grad)| *out += grad);
    }
    tensor(out, [rows / rows_each, d])
}

/// One step of Adam for rows and their two means, and back within their bounds: `[3, n, d]`.
pub fn stepped(now: FlexTensor, gradient: FlexTensor, held: FlexTensor, pace: Pace) -> FlexTensor {
    let [now, gradient, held] = [now, gradient, held].map(in_order);
    let d = width(&gradient);
    let (now, gradient, held) = (numbers(&now), numbers(&gradient), numbers(&held));
    let n = gradient.len() / d;
    let mut out = now.to_vec();
    let Pace { decay, rate, unbias, epsilon } = pace;
    let [left, decay] = [decay.map(|decay| (1.0 - decay) as f32), decay.map(|decay| decay as f32)];
    let [rate, unbias, epsilon] = [rate, unbias, epsilon].map(|number| number as f32);
    let (moved, means) = out.split_at_mut(n * d);
    let (means, squares) = means.split_at_mut(n * d);
    let rows = moved.chunks_exact_mut(d).zip(means.chunks_exact_mut(d)).zip(squares.chunks_exact_mut(d));
    for ((((moved, means), squares), gradient), held) in rows.zip(gradient.chunks_exact(d)).zip(held.chunks_exact(3)) {
        wide(|| {
            let numbers = moved.iter_mut().zip(means).zip(squares).zip(gradient);
            for (((moved, mean), square), gradient) in numbers {
                let gradient = gradient + *moved * held[0];
                *mean = *mean * decay[0] + gradient * left[0];
                *square = *square * decay[1] + gradient * gradient * left[1];
                let to = *moved - *mean / ((*square * unbias).sqrt() + epsilon) * rate;
                *moved = to.max(-held[1]).min(held[1]);
            }
            let length = sum([&*moved], |[x]| x * x).sqrt();
            if length > held[2] {
                let shrink = held[2] / length;
                moved.iter_mut().for_each(|moved| *moved *= shrink);
            }
        });
    }
    tensor(out, [3, n, d])
}
