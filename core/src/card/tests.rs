//! Each kernel beside burn's own operations on the processor: values, and gradients of every input that has one.
//!
//! They run where a card can be used: `RECTIFY_DEVICE=wgpu cargo xtask test`.

use burn::tensor::{
    Device, Tensor, TensorData,
    activation::{sigmoid, softmax},
    module::layer_norm,
};

use super::{attend, gelu_tanh, is_one, linear, linear::Cut, norm, rotate, silu_gate};
use crate::model::heads::Heads;

/// The card that `BURN_DEVICE` names.
fn card() -> Device {
    let card = Device::default();
    assert!(is_one(&card), "BURN_DEVICE names no card: {card:?}");
    card
}

/// Numbers that are the same on every device.
fn some<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("f32")
}

/// What `of` gives for some input, and the gradient of a sum of it that weighs every entry differently.
fn value_and_gradient<const D: usize>(
    shape: [usize; D],
    device: &Device,
    of: impl Fn(Tensor<D>, &Device) -> Tensor<2>,
) -> [Vec<f32>; 2] {
    let x = some(shape, 1, device).autodiff().require_grad();
    let y = of(x.clone(), device);
    let gradients = (y.clone() * some(y.dims(), 2, device)).sum().backward();
    [values(y.inner()), values(x.grad(&gradients).expect("the input is tracked"))]
}

/// Compares a kernel with plain operations, both without and under differentiation.
#[track_caller]
fn check<const D: usize>(
    shape: [usize; D],
    kernel: impl Fn(Tensor<D>, &Device) -> Tensor<2>,
    plain: impl Fn(Tensor<D>, &Device) -> Tensor<2>,
) {
    /// Sums of up to a thousand products, added in another order.
    const TOLERANCE: f32 = 1e-5;
    let (card, flex) = (card(), Device::flex());
    let untracked = values(kernel(some(shape, 1, &card), &card));
    let [value, gradient] = value_and_gradient(shape, &card, kernel);
    assert_eq!(untracked, value, "without and under differentiation");
    for (what, ours, expected) in
        [("value", value, 0), ("gradient", gradient, 1)].map(|(what, ours, i)| (what, ours, i))
    {
        let expected = &value_and_gradient(shape, &flex, &plain)[expected];
        assert_eq!(ours.len(), expected.len(), "{what}");
        let size = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        for (i, (ours, expected)) in ours.iter().zip(expected).enumerate() {
            assert!((ours - expected).abs() <= TOLERANCE * size, "{what} of {shape:?} at {i}: {ours} {expected}");
        }
    }
}

#[test]
fn norms_are_those_of_burn() {
    for [n, d] in [[1, 48], [7, 100], [33, 768], [40_000, 3]] {
        let scale = |device: &Device| some([d], 3, device);
        check(
            [n, d],
            |x, device| norm(x, scale(device), Some(some([d], 4, device)), 1e-5),
            |x, device| layer_norm(x, scale(device), Some(some([d], 4, device)), 1e-5),
        );
        check(
            [n, d],
            |x, device| norm(x, scale(device), None, 1e-5),
            |x, device| x.clone() / ((x.clone() * x).mean_dim(1) + 1e-5).sqrt() * scale(device).unsqueeze(),
        );
    }
}

#[test]
fn activations_are_their_formulas_and_large_inputs_stay_numbers() {
    let gelu = |x: Tensor<2>| {
        let inner = (x.clone() + x.clone().powi_scalar(3) * 0.044_715) * (8.0 / std::f64::consts::PI).sqrt();
        x * sigmoid(inner)
    };
    for scale in [1.0, 100.0] {
        check([9, 130], |x, _| gelu_tanh(x * scale), |x, _| gelu(x * scale));
        let other = |device: &Device| some([9, 130], 5, device);
        check(
            [9, 130],
            |x, device| silu_gate(x * scale, other(device)),
            |x, device| x.clone() * scale * sigmoid(x * scale) * other(device),
        );
        check(
            [9, 130],
            |y, device| silu_gate(other(device) * scale, y),
            |y, device| other(device) * scale * sigmoid(other(device) * scale) * y,
        );
    }
}

#[test]
fn products_are_those_of_burn_however_weights_lie() {
    // One for every cut, none a multiple of a tile's sides.
    for [m, k, n] in
        [[1, 48, 50], [3, 1000, 37], [8, 64, 200], [9, 70, 33], [40, 130, 65], [200, 96, 1300], [520, 64, 2100]]
    {
        for turned in [false, true] {
            let weight = move |device: &Device| match turned {
                true => some([n, k], 3, device).transpose(),
                false => some([k, n], 3, device),
            };
            let (bias, residual) =
                (move |device: &Device| some([n], 4, device), move |device: &Device| some([m, n], 5, device));
            check([m, k], |x, device| linear(x, weight(device), None, None), |x, device| x.matmul(weight(device)));
            check(
                [m, k],
                |x, device| linear(x, weight(device), Some(bias(device)), Some(residual(device))),
                |x, device| x.matmul(weight(device)) + bias(device).unsqueeze() + residual(device),
            );
            let x = move |device: &Device| some([m, k], 6, device);
            check(
                [m, n],
                |residual, device| linear(x(device), weight(device), None, Some(residual)),
                |residual, device| x(device).matmul(weight(device)) + residual,
            );
        }
        let x = move |device: &Device| some([m, k], 6, device);
        check([k, n], |w, device| linear(x(device), w, None, None), |w, device| x(device).matmul(w));
    }
}

#[test]
fn a_product_is_cut_by_its_shape() {
    let tiles = |tall, wide| Cut::Tiles { tall, wide };
    for ([m, n], expected) in [
        ([1, 50_257], Cut::FewRows),
        ([8, 1600], Cut::FewRows),
        ([9, 768], tiles(1, 2)),
        ([176, 1600], tiles(2, 4)),
        ([176, 6400], tiles(4, 4)),
        ([528, 1600], tiles(4, 4)),
    ] {
        println!("[{m}, _] by [_, {n}]: {:?}", Cut::of(m, n));
        assert_eq!(Cut::of(m, n), expected, "{m} {n}");
    }
}

fn plain_attention(
    joined: Tensor<2>,
    past: Option<[Tensor<4>; 2]>,
    mask: Tensor<4>,
    heads: Heads,
    scale: f64,
) -> Tensor<2> {
    let [query, keys, values] = heads.split(&joined);
    let [keys, values] = match past {
        None => [keys, values],
        Some([before, values_before]) => {
            [Tensor::cat(vec![before, keys], 2), Tensor::cat(vec![values_before, values], 2)]
        }
    };
    let [batch, n_heads, pos, d_head] = query.dims();
    let each = |tensor: Tensor<4>| {
        let [batch, groups, seen, d_head] = tensor.dims();
        let served = n_heads / groups;
        tensor.unsqueeze_dim::<5>(2).repeat_dim(2, served).reshape([batch, groups * served, seen, d_head])
    };
    let scores = query.matmul(each(keys).swap_dims(2, 3)) * scale + mask;
    softmax(scores, 3).matmul(each(values)).swap_dims(1, 2).reshape([batch * pos, n_heads * d_head])
}

#[test]
fn attention_is_the_formula_with_and_without_a_past() {
    for ([batch, pos, held], [n_heads, groups, d_head]) in
        [([1, 1, 0], [2, 2, 8]), ([3, 5, 7], [4, 2, 12]), ([2, 70, 0], [3, 1, 16]), ([4, 2, 130], [4, 4, 64])]
    {
        let heads = Heads { batch, heads: n_heads, groups, d_head };
        let mask = move |device: &Device| {
            // Causal, and the first half of the second row's past is padding.
            let blocked = |row: usize, new: usize, seen: usize| seen > held + new || row == 1 && seen < held / 2;
            let values: Vec<f32> = (0..batch * pos * (held + pos))
                .map(|i| (i / (held + pos) / pos, i / (held + pos) % pos, i % (held + pos)))
                .map(|(row, new, seen)| if blocked(row, new, seen) { -1e30 } else { 0.0 })
                .collect();
            Tensor::<4>::from_data(TensorData::new(values, [batch, 1, pos, held + pos]), device)
        };
        let past = move |device: &Device| {
            (held > 0).then(|| [3, 4].map(|seed| some([batch, groups, held, d_head], seed, device)))
        };
        check(
            [batch * pos, (n_heads + 2 * groups) * d_head],
            |joined, device| attend(joined, past(device), mask(device), heads, 0.7),
            |joined, device| plain_attention(joined, past(device), mask(device), heads, 0.7),
        );
    }
}

#[test]
fn rotations_are_the_formula_of_either_pairing() {
    let (pos, heads) = (6, Heads { batch: 2, heads: 3, groups: 2, d_head: 8 });
    for (neighbors, turning) in [(false, 8), (true, 4)] {
        let angles = move |device: &Device| some([2, 1, pos, turning / 2], 3, device);
        // Both columns of a pair turn by one angle.
        let table = move |angles: Tensor<4>| match neighbors {
            false => Tensor::cat(vec![angles.clone(), angles], 3),
            true => angles.unsqueeze_dim::<5>(4).repeat_dim(4, 2).reshape([2, 1, pos, turning]),
        };
        let plain = move |joined: Tensor<2>, device: &Device| {
            let [query, keys, values] = heads.split(&joined);
            let (cos, sin) = (table(angles(device).cos()), table(angles(device).sin()));
            let turn = |x: Tensor<4>| {
                let [batch, n, pos, d_head] = x.dims();
                let turned = x.clone().narrow(3, 0, turning);
                let (first, second) = match neighbors {
                    false => {
                        (turned.clone().narrow(3, 0, turning / 2), turned.clone().narrow(3, turning / 2, turning / 2))
                    }
                    true => {
                        let pairs: Tensor<5> = turned.clone().reshape([batch, n, pos, turning / 2, 2]);
                        let of = |i| pairs.clone().narrow(4, i, 1).reshape([batch, n, pos, turning / 2]);
                        (of(0), of(1))
                    }
                };
                let quarter = match neighbors {
                    false => Tensor::cat(vec![-second, first], 3),
                    true => Tensor::stack::<5>(vec![-second, first], 4).reshape([batch, n, pos, turning]),
                };
                let turned = turned * cos.clone() + quarter * sin.clone();
                if turning == d_head {
                    return turned;
                }
                Tensor::cat(vec![turned, x.narrow(3, turning, d_head - turning)], 3)
            };
            let flat = |x: Tensor<4>| {
                let [batch, n, pos, d_head] = x.dims();
                x.swap_dims(1, 2).reshape([batch * pos, n * d_head])
            };
            Tensor::cat([turn(query), turn(keys), values].map(flat).into(), 1)
        };
        check(
            [2 * pos, 7 * 8],
            |joined, device| {
                let (cos, sin) = (table(angles(device).cos()), table(angles(device).sin()));
                rotate(joined, cos, sin, heads, neighbors)
            },
            plain,
        );
    }
}
