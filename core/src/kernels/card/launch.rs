//! What launching kernels needs, and what they share.

use burn::tensor::{DType, Shape};
use burn_cubecl::{kernel::into_contiguous, ops::numeric::empty_device_contiguous_dtype, tensor::CubeTensor};
use cubecl::prelude::*;

/// Units of a cube: 256 is the most that WebGPU promises.
pub const UNITS: usize = 256;

/// Rows are shared by so many units.
pub const ROW_UNITS: usize = 64;

/// The same numbers row by row, without gaps.
pub fn in_order(tensor: CubeTensor) -> CubeTensor {
    assert_eq!(tensor.dtype, DType::F32, "kernels compute in f32");
    into_contiguous(tensor)
}

/// Rows and columns.
pub fn sides(tensor: &CubeTensor) -> [usize; 2] {
    let shape = tensor.meta.shape();
    [shape[0], shape[1]]
}

/// Numbers beside a tensor, on its device, with nothing in them yet.
pub fn empty_like<const D: usize>(tensor: &CubeTensor, shape: [usize; D]) -> CubeTensor {
    empty(tensor, shape, DType::F32)
}

/// The same for whole numbers.
pub fn empty_ids<const D: usize>(beside: &CubeTensor, shape: [usize; D]) -> CubeTensor {
    empty(beside, shape, DType::I32)
}

fn empty<const D: usize>(beside: &CubeTensor, shape: [usize; D], dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(beside.client.clone(), beside.device.clone(), Shape::from(shape), dtype)
}

/// As many cubes as there are things, in a grid that no device refuses. What lies beyond has nothing to do.
pub fn grid(things: usize) -> CubeCount {
    folded(things, 1)
}

/// The same so many times, one behind the other.
pub fn folded(things: usize, times: usize) -> CubeCount {
    const SIDE: usize = 32_768;
    CubeCount::Static(things.min(SIDE) as u32, things.div_ceil(SIDE) as u32, times as u32)
}

/// One unit each.
pub fn each(things: usize) -> (CubeCount, CubeDim) {
    (grid(things.div_ceil(UNITS)), CubeDim::new_1d(UNITS as u32))
}

/// What a product's entry is added to: of bias and residual what there is.
#[cube]
pub fn added(
    bias: &Tensor<f32>,
    residual: &Tensor<f32>,
    column: usize,
    at: usize,
    with_bias: u32,
    with_residual: u32,
) -> f32 {
    // Asked while it runs, because a kernel for each answer would have to be compiled.
    let mut sum = 0.0f32;
    if with_bias != 0 {
        sum += bias[column];
    }
    if with_residual != 0 {
        sum += residual[at];
    }
    sum
}

/// The sum of every unit's value.
#[cube]
pub fn sum_of(shared: &mut Shared<[f32]>, value: f32, #[comptime] units: usize) -> f32 {
    reduced(shared, value, false, units)
}

/// The largest of every unit's values.
#[cube]
pub fn max_of(shared: &mut Shared<[f32]>, value: f32, #[comptime] units: usize) -> f32 {
    reduced(shared, value, true, units)
}

/// Every unit's value in one, by halves.
#[cube]
fn reduced(shared: &mut Shared<[f32]>, value: f32, #[comptime] largest: bool, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    #[unroll]
    for i in 0..comptime!(units.ilog2() as usize) {
        let step = comptime!(units >> (i + 1));
        if unit < step {
            if comptime!(largest) {
                shared[unit] = max(shared[unit], shared[unit + step]);
            } else {
                shared[unit] = shared[unit] + shared[unit + step];
            }
        }
        sync_cube();
    }
    let all = shared[0];
    sync_cube();
    all
}
