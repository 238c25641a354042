//! Rows of numbers: shared among threads, and computed with as many at once as the machine's vectors hold.

use burn::{
    backend::{Backend, tensor::FloatTensor},
    tensor::{DType, TensorData},
};
use burn_flex::{Flex, FlexTensor};

/// The same numbers row by row, without gaps.
pub fn in_order(tensor: FlexTensor) -> FlexTensor {
    assert_eq!(tensor.dtype(), DType::F32, "kernels compute in f32");
    if tensor.layout().contiguous_offsets().is_some() { tensor } else { tensor.to_contiguous() }
}

/// The numbers of a tensor that was brought in order.
pub fn numbers(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("brought in order")
}

/// A tensor of these numbers.
pub fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// The length of the last dimension.
pub fn width(tensor: &FlexTensor) -> usize {
    *tensor.layout().shape().last().expect("a tensor has dimensions")
}

/// `a b`, batched: flex's own.
pub fn matmul(a: FlexTensor, b: FlexTensor) -> FlexTensor {
    fn of<B: Backend>(a: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
        B::float_matmul(a, b)
    }
    of::<Flex>(a, b)
}

/// Computes with the widest vectors of the machine this runs on. What `work` calls must be inlined into it.
#[inline(always)]
pub fn wide<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// Fills rows of `width` numbers: `fill` is handed the index of a first row, and it with some that follow. Threads share
/// them where there are enough to be worth it.
pub fn share(out: &mut [f32], width: usize, fill: impl Fn(usize, &mut [f32]) + Sync) {
    share_work(out, width, width, fill);
}

/// The same where a row is more work than its width says: as much as filling `work` numbers.
pub fn share_work(out: &mut [f32], width: usize, work: usize, fill: impl Fn(usize, &mut [f32]) + Sync) {
    #[cfg(feature = "threads")]
    {
        use rayon::prelude::*;
        /// Numbers of a thread, at least.
        const ENOUGH: usize = 1 << 13;
        let (rows, threads) = (out.len() / width.max(1), rayon::current_num_threads());
        let parts = threads.min(rows * work / ENOUGH).min(rows);
        if parts > 1 {
            let each = rows.div_ceil(parts);
            let parts = out.par_chunks_mut(each * width).enumerate();
            parts.for_each(|(part, rows)| fill(part * each, rows));
            return;
        }
    }
    #[cfg(not(feature = "threads"))]
    let _ = (width, work);
    fill(0, out);
}

/// How many sums run side by side: fixed, so that every machine adds in the same order.
const LANES: usize = 16;

/// `Σ of(a[i], b[i], …)` over lists of one length.
#[inline(always)]
pub fn sum<const N: usize>(lists: [&[f32]; N], of: impl Fn([f32; N]) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let parts = lists.map(|list| list.as_chunks::<LANES>());
    for i in 0..parts[0].0.len() {
        let chunks = parts.map(|(chunks, _)| &chunks[i]);
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += of(chunks.map(|chunk| chunk[lane]));
        }
    }
    let mut rest = 0.0;
    for i in 0..parts[0].1.len() {
        rest += of(parts.map(|(_, rest)| rest[i]));
    }
    let mut step = LANES / 2;
    while step > 0 {
        for lane in 0..step {
            lanes[lane] += lanes[lane + step];
        }
        step /= 2;
    }
    lanes[0] + rest
}

/// The largest of some numbers; what is no number is passed over.
#[inline(always)]
pub fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (largest, value) in lanes.iter_mut().zip(chunk) {
            *largest = if *value > *largest { *value } else { *largest };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |largest, value| largest.max(*value))
}

/// `eˣ` to about two units of the last place, by Cephes' polynomial: unlike the standard library's it is computed for as
/// many numbers at once as a vector holds. 0 and ∞ beyond what f32 holds.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    /// `ln 2` in two parts, of which multiples of the first are exact.
    const LN_2: (f32, f32) = (355.0 / 512.0, -2.121_944_4e-4);
    /// Adding it rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const SMALLEST: f32 = -87.336_54;
    const LARGEST: f32 = 88.376_26;
    let shifted = x * LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = x - whole * LN_2.0 - whole * LN_2.1;
    let mut sum = 1.987_569_2e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        sum = sum * rest + coefficient;
    }
    let fraction = sum * rest * rest + rest + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    let power = f32::from_bits(exponent << 23);
    let value = fraction * power;
    let value = if x < SMALLEST { 0.0 } else { value };
    if x > LARGEST { f32::INFINITY } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_the_standard_library_s() {
        let mut x = -87.0f32;
        while x < 88.0 {
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 2e-7, "{x}: {} {expected}", exp(x));
            x += 0.000_731;
        }
        assert_eq!([-1e30, -100.0, f32::NEG_INFINITY].map(exp), [0.0; 3]);
        assert_eq!([89.0, 1e30, f32::INFINITY].map(exp), [f32::INFINITY; 3]);
        assert_eq!([exp(0.0), exp(-0.0)], [1.0, 1.0]);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn sums_and_maxima_take_every_number() {
        for n in [0, 1, 15, 16, 17, 100] {
            let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
            assert_eq!(sum([&values], |[x]| x), values.iter().sum::<f32>());
            assert_eq!(max(&values), values.last().copied().unwrap_or(f32::NEG_INFINITY));
        }
        assert_eq!(max(&[1.0, f32::NAN, 3.0]), 3.0);
    }
}
