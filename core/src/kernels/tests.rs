//! Each kernel beside the plain operation: values, and gradients of every input that has one.
//!
//! Kernels for processors run in every test, those for cards where one can be used: `RECTIFY_TEST_DEVICE=wgpu cargo xtask
//! test`.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::{
    Blocks, Pace, Weight, answers, append, attend, gelu_tanh, largest, linear, matmuls, norm, plain, product, rotate,
    serve, shifted, silu_gate, stepped, whole,
};
use crate::model::heads::Heads;

/// The devices that there are kernels for: the processor, and the card that `BURN_DEVICE` names.
fn devices() -> Vec<Device> {
    let all = [Device::flex(), Device::default()];
    all.into_iter().filter(serve).collect()
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

/// Compares kernels with plain operations, both without and under differentiation.
#[track_caller]
fn check<const D: usize>(
    shape: [usize; D],
    kernel: impl Fn(Tensor<D>, &Device) -> Tensor<2>,
    plain: impl Fn(Tensor<D>, &Device) -> Tensor<2>,
) {
    /// Sums of up to a thousand products, added in another order.
    const TOLERANCE: f32 = 1e-5;
    let expected = value_and_gradient(shape, &Device::flex(), &plain);
    for device in devices() {
        let untracked = values(kernel(some(shape, 1, &device), &device));
        let found = value_and_gradient(shape, &device, &kernel);
        assert_eq!(untracked, found[0], "without and under differentiation, {device:?}");
        for (what, ours, expected) in [("value", &found[0], &expected[0]), ("gradient", &found[1], &expected[1])] {
            assert_eq!(ours.len(), expected.len(), "{what}");
            let size = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            for (i, (ours, expected)) in ours.iter().zip(expected).enumerate() {
                let close = (ours - expected).abs() <= TOLERANCE * size;
                assert!(close, "{what} of {shape:?} at {i}: {ours} {expected}, {device:?}");
            }
        }
    }
}

#[test]
fn norms_are_the_plain_ones() {
    for [n, d] in [[1, 48], [7, 100], [33, 768], [40_000, 3]] {
        let scale = |device: &Device| some([d], 3, device);
        let shift = |device: &Device| Some(some([d], 4, device));
        check(
            [n, d],
            |x, device| norm(x, scale(device), shift(device), 1e-5),
            |x, device| plain::norm(x, scale(device), shift(device), 1e-5),
        );
        check(
            [n, d],
            |x, device| norm(x, scale(device), None, 1e-5),
            |x, device| plain::norm(x, scale(device), None, 1e-5),
        );
    }
}

#[test]
fn activations_are_the_plain_ones_and_large_inputs_stay_numbers() {
    for shape in [[9, 130], [150, 1000]] {
        for scale in [1.0, 100.0] {
            check(shape, |x, _| gelu_tanh(x * scale), |x, _| plain::gelu_tanh(x * scale));
            let other = |device: &Device| some(shape, 5, device);
            check(
                shape,
                |x, device| silu_gate(x * scale, other(device)),
                |x, device| plain::silu_gate(x * scale, other(device)),
            );
            check(
                shape,
                |y, device| silu_gate(other(device) * scale, y),
                |y, device| plain::silu_gate(other(device) * scale, y),
            );
        }
    }
}

#[test]
fn products_are_the_plain_ones_however_weights_lie() {
    // One for every cut of a card's, none a multiple of a tile's sides.
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
            check(
                [m, k],
                |x, device| product(x, weight(device), None, None),
                |x, device| plain::product(x, weight(device), None, None),
            );
            check(
                [m, k],
                |x, device| product(x, weight(device), Some(bias(device)), Some(residual(device))),
                |x, device| plain::product(x, weight(device), Some(bias(device)), Some(residual(device))),
            );
            let x = move |device: &Device| some([m, k], 6, device);
            check(
                [m, n],
                |residual, device| product(x(device), weight(device), None, Some(residual)),
                |residual, device| plain::product(x(device), weight(device), None, Some(residual)),
            );
        }
        let x = move |device: &Device| some([m, k], 6, device);
        check(
            [k, n],
            |w, device| product(x(device), w, None, None),
            |w, device| plain::product(x(device), w, None, None),
        );
    }
}

/// Eight columns a cube, and WebGPU takes no more than 65,535 cubes side by side.
#[test]
fn a_few_rows_have_any_number_of_columns() {
    let [m, k, n] = [2, 3, 600_001];
    for turned in [false, true] {
        let of = |device: &Device| {
            let weight = if turned { some([n, k], 3, device).transpose() } else { some([k, n], 3, device) };
            (some([m, k], 1, device), weight)
        };
        let (x, weight) = of(&Device::flex());
        let expected = values(plain::product(x, weight, None, None));
        for device in devices() {
            let (x, weight) = of(&device);
            let found = values(product(x, weight, None, None));
            assert_eq!(found.len(), expected.len());
            let close = |(found, expected): (&f32, &f32)| (found - expected).abs() <= 1e-5;
            assert!(found.iter().zip(&expected).all(close), "{device:?}");
        }
    }
}

#[test]
fn several_products_are_one_each() {
    let b = |device: &Device| some([3, 40, 21], 3, device);
    check(
        [3, 9, 40],
        |a, device| matmuls(a, b(device)).reshape([27, 21]),
        |a, device| a.matmul(b(device)).reshape([27, 21]),
    );
}

#[test]
fn a_product_with_halves_is_the_one_with_the_same_numbers_in_full() {
    for [m, k, n] in [[1, 48, 50], [3, 1000, 37], [9, 70, 33], [40, 130, 65], [200, 96, 1300], [3, 700, 6000]] {
        for turned in [false, true] {
            let rounded = move |device: &Device| match turned {
                true => some([n, k], 3, device).cast(DType::F16).transpose(),
                false => some([k, n], 3, device).cast(DType::F16),
            };
            let residual = move |device: &Device| some([m, n], 5, device);
            check(
                [m, k],
                |x, device| product(x, rounded(device), None, Some(residual(device))),
                |x, device| plain::product(x, rounded(device).cast(DType::F32), None, Some(residual(device))),
            );
        }
    }
}

#[test]
fn a_product_with_blocks_is_the_one_with_the_same_numbers_in_full() {
    // One for every cut of a card's; inputs that fill their blocks, and that do not.
    for [m, k, n] in
        [[1, 48, 50], [3, 1000, 37], [9, 70, 33], [40, 128, 65], [200, 96, 1300], [3, 704, 6000], [520, 64, 2100]]
    {
        let numbers = values(some([n, k], 3, &Device::flex()));
        let blocks = |device: &Device| Weight::Blocks(Blocks::of(&numbers, k, device));
        let (bias, residual) =
            (move |device: &Device| some([n], 4, device), move |device: &Device| some([m, n], 5, device));
        check(
            [m, k],
            |x, device| linear(x, blocks(device), Some(bias(device)), Some(residual(device))),
            |x, device| plain::product(x, whole(blocks(device)), Some(bias(device)), Some(residual(device))),
        );
        let x = move |device: &Device| some([m, k], 6, device);
        check(
            [m, n],
            |residual, device| linear(x(device), blocks(device), None, Some(residual)),
            |residual, device| plain::product(x(device), whole(blocks(device)), None, Some(residual)),
        );
    }
}

#[test]
fn a_block_rounds_to_its_scale_and_holds_zeros_and_the_smallest_numbers() {
    let flex = Device::flex();
    let [outputs, d_in] = [9, 70];
    let mut numbers = values(some([outputs, d_in], 3, &flex));
    numbers[..32].fill(0.0);
    numbers[32..64].iter_mut().enumerate().for_each(|(i, x)| *x = i as f32 * 1e-45);
    numbers[70] = -1e38;
    for device in devices() {
        let found = values(whole(Weight::Blocks(Blocks::of(&numbers, d_in, &device))).transpose());
        for (output, (found, numbers)) in found.chunks(d_in).zip(numbers.chunks(d_in)).enumerate() {
            for (found, numbers) in found.chunks(32).zip(numbers.chunks(32)) {
                let largest = numbers.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                for (found, x) in found.iter().zip(numbers) {
                    let off = (found - x).abs();
                    assert!(off <= largest / 127.0 * 0.500_01 + 1e-42, "output {output}: {found} {x}, {device:?}");
                }
            }
        }
    }
}

#[test]
fn attention_is_the_plain_one_with_and_without_a_past() {
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
        let past = move |device: &Device| (held > 0).then(|| some([2, batch, groups, held, d_head], 3, device));
        check(
            [batch * pos, (n_heads + 2 * groups) * d_head],
            |joined, device| attend(joined, past(device), mask(device), heads, 0.7),
            |joined, device| plain::attend(joined, past(device), mask(device), heads, 0.7),
        );
        let joined = |device: &Device| some([batch * pos, (n_heads + 2 * groups) * d_head], 1, device);
        let flex = Device::flex();
        let expected = values(plain::append(past(&flex), &joined(&flex), heads));
        for device in devices() {
            assert_eq!(values(append(past(&device), joined(&device), heads)), expected, "{device:?}");
        }
    }
}

#[test]
fn a_shift_is_the_plain_one_and_collects_its_gradient() {
    for ([facts, each], [pos, d]) in [([1, 1], [1, 5]), ([2, 3], [4, 100]), ([5, 22], [8, 33])] {
        let hidden = move |device: &Device| some([facts * each, pos, d], 3, device);
        let flat = move |x: Tensor<3>| x.reshape([facts * each * pos, d]);
        check(
            [facts, d],
            |delta, device| flat(shifted(hidden(device), delta, each)),
            |delta, device| flat(plain::shifted(hidden(device), delta, each)),
        );
    }
}

#[test]
fn a_step_is_the_plain_one() {
    let pace = Pace { decay: [0.9, 0.999], rate: 0.3, unbias: 7.0, epsilon: 1e-8 };
    for [n, d] in [[1, 7], [3, 1000], [70, 40]] {
        for [pull, reach, radius] in
            [[0.0, f32::MAX, f32::MAX], [0.1, f32::MAX, 0.5], [0.0, 0.2, f32::MAX], [2.0, 0.3, 1.0]]
        {
            let of = |device: &Device| {
                let square = some([1, n, d], 4, device).abs();
                let now = Tensor::cat(vec![some([2, n, d], 3, device), square], 0);
                let held: Vec<f32> = (0..n).flat_map(|_| [pull, reach, radius]).collect();
                (now, some([n, d], 5, device), Tensor::from_data(TensorData::new(held, [n, 3]), device))
            };
            let (now, gradient, held) = of(&Device::flex());
            let expected = values(plain::stepped(now, gradient, held, pace));
            for device in devices() {
                let (now, gradient, held) = of(&device);
                for (ours, expected) in values(stepped(now, gradient, held, pace)).iter().zip(&expected) {
                    assert!((ours - expected).abs() <= 1e-5, "{ours} {expected}, {device:?}");
                }
            }
        }
    }
}

#[test]
fn answers_are_log_probabilities_and_divergences() {
    for ([n, m], vocab) in [([1, 0], 10), ([5, 2], 300), ([3, 4], 50_257)] {
        let targets: Vec<usize> = (0..n).map(|row| (row * 7919 + vocab - 1) % vocab).collect();
        let reference = move |device: &Device| some([m.max(1), vocab], 3, device) * 4.0;
        check(
            [n + m, vocab],
            |logits, device| answers(logits * 5.0, &targets, (m > 0).then(|| reference(device))),
            |logits, device| plain::answers(logits * 5.0, &targets, (m > 0).then(|| reference(device))),
        );
    }
}

#[test]
fn a_row_that_is_no_number_has_no_answer() {
    for device in devices() {
        let logits = |last: f32| Tensor::<2>::from_data(TensorData::new(vec![1.0, 2.0, last], [1, 3]), &device);
        for last in [f32::NAN, f32::INFINITY] {
            assert!(values(answers(logits(last), &[0], None))[0].is_nan(), "{device:?}");
        }
        assert_eq!(values(answers(logits(f32::NEG_INFINITY), &[2], None)), [f32::NEG_INFINITY], "{device:?}");
    }
}

#[test]
fn nothing_diverges_from_itself() {
    for device in devices() {
        let logits: Tensor<2> = some([3, 1000], 1, &device) * 9.0;
        assert_eq!(values(answers(logits.clone(), &[], Some(logits))), [0.0; 3], "{device:?}");
    }
}

#[test]
fn large_logits_lose_no_digits() {
    for device in devices() {
        let logits = |by: f32| Tensor::<2>::from_data(TensorData::new(vec![by + 1.0, by + 2.0, by], [1, 3]), &device);
        let near = values(answers(logits(0.0), &[0], None))[0];
        assert_eq!(values(answers(logits(-65_536.0), &[0], None))[0].to_bits(), near.to_bits(), "{device:?}");
    }
}

#[test]
fn the_largest_is_the_first_of_equals() {
    for device in devices() {
        let first = |row: Vec<f32>| {
            let n = row.len();
            let found = largest(Tensor::from_data(TensorData::new(row, [1, n]), &device)).into_data();
            found.iter::<i32>().next().expect("a row")
        };
        assert_eq!(first(vec![1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(first(vec![-5.0; 1000]), 0);
        assert_eq!(first((0..50_257).map(|i| if i == 50_256 { 1e30 } else { i as f32 }).collect()), 50_256);
        assert_eq!(first(vec![f32::NAN; 4]), 0);
    }
}

#[test]
fn a_constant_that_wants_a_gradient_is_refused() {
    for device in devices() {
        let scale = some([4], 1, &device).autodiff().require_grad();
        let refused = std::panic::catch_unwind(|| norm(some([2, 4], 2, &device), scale, None, 1e-5));
        let message = refused.expect_err("no gradient is lost without a word");
        assert_eq!(message.downcast_ref::<&str>(), Some(&"a constant has no gradient here"));
    }
}

#[test]
fn rotations_are_the_plain_ones_of_either_pairing() {
    for ([batch, pos], (neighbors, turning)) in [([2, 6], (false, 8)), ([2, 6], (true, 4)), ([40, 30], (true, 8))] {
        let heads = Heads { batch, heads: 3, groups: 2, d_head: 8 };
        // Both columns of a pair turn by one angle.
        let tables = move |device: &Device| {
            let angles: Tensor<4> = some([batch, pos, 1, turning / 2], 3, device);
            let angles = match neighbors {
                false => Tensor::cat(vec![angles.clone(), angles], 3),
                true => angles.unsqueeze_dim::<5>(4).repeat_dim(4, 2).reshape([batch, pos, 1, turning]),
            };
            (angles.clone().cos(), angles.sin())
        };
        check(
            [batch * pos, 7 * 8],
            |joined, device| {
                let (cos, sin) = tables(device);
                rotate(joined, cos, sin, heads, neighbors)
            },
            |joined, device| {
                let (cos, sin) = tables(device);
                plain::rotate(joined, cos, sin, heads, neighbors)
            },
        );
    }
}

/// How many operations a second products reach at an edit's shapes, how many bytes decoding does, and what burn's own
/// product reaches: `cargo test --release -p rectify-core … rates -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::too_many_lines, reason = "a measurement from its sizes to its lines")]
fn rates() {
    use std::time::Instant;

    let device = Device::default();
    let finish = |y: Tensor<2>| values(y.narrow(0, 0, 1).narrow(1, 0, 1))[0];
    let time = |of: &dyn Fn() -> Tensor<2>| {
        let first = Instant::now();
        finish(of());
        let first = first.elapsed().as_secs_f64();
        finish(of());
        let mut times: Vec<f64> = (0..3)
            .map(|_| {
                let start = Instant::now();
                let mut last = of();
                for _ in 1..20 {
                    last = of();
                }
                finish(last);
                start.elapsed().as_secs_f64() / 20.0
            })
            .collect();
        times.sort_by(f64::total_cmp);
        (first, times[1])
    };
    // How far some entries are from what they are in double precision, beside the size of what they are the sum of.
    let off = |y: &Tensor<2>, x: &Tensor<2>, w: &Tensor<2>| {
        let ([m, n], wide) = (y.dims(), w.clone().cast(DType::F32));
        let errors = (0..8usize).map(|i| {
            let (row, column) = (i * 7919 % m, i * 104_729 % n);
            let a = values(x.clone().narrow(0, row, 1));
            let b = values(wide.clone().narrow(1, column, 1));
            let products = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b));
            let (exact, size) = products.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x * x));
            (f64::from(values(y.clone().narrow(0, row, 1).narrow(1, column, 1))[0]) - exact).abs() / f64::sqrt(size)
        });
        errors.fold(0.0, f64::max)
    };
    for [m, k, n] in [
        [176, 1600, 6400],
        [176, 6400, 1600],
        [176, 1600, 4800],
        [176, 1600, 1600],
        [64, 1600, 50_257],
        [528, 1600, 6400],
        [176, 4096, 11_008],
        [176, 11_008, 4096],
        [176, 4096, 12_288],
        [4096, 4096, 4096],
        [1, 1600, 6400],
        [1, 6400, 1600],
        [8, 1600, 6400],
        [1, 4096, 11_008],
        [1, 1600, 50_257],
    ] {
        for half in [false, true] {
            for turned in [false, true] {
                let x = some([m, k], 1, &device);
                let w = if turned { some([n, k], 3, &device).transpose() } else { some([k, n], 3, &device) };
                let w = if half { w.cast(DType::F16) } else { w };
                let (first, seconds) = time(&|| product(x.clone(), w.clone(), None, None));
                let error = off(&product(x.clone(), w.clone(), None, None), &x, &w);
                let flops = 2.0 * (m * k * n) as f64 / seconds / 1e12;
                let bytes = (k * n * if half { 2 } else { 4 }) as f64 / seconds / 1e9;
                let burn = if half {
                    String::new()
                } else {
                    let (_, seconds) = time(&|| x.clone().matmul(w.clone()));
                    let rate = 2.0 * (m * k * n) as f64 / seconds / 1e12;
                    format!("; burn's own {rate:.1}, error {:.1e}", off(&x.clone().matmul(w.clone()), &x, &w))
                };
                println!(
                    "[{m}, {k}] by [{k}, {n}]{}{}: {flops:.1} TFLOP/s, {bytes:.0} GB/s, {:.3} ms, first {:.0} ms, error {error:.1e}{burn}",
                    if half { " f16" } else { "" },
                    if turned { " turned" } else { "" },
                    1e3 * seconds,
                    1e3 * first
                );
            }
        }
    }
}
