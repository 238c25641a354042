//! `x W + b + r`: products of a few rows, and of many.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    super::ops::With,
    launch::{UNITS, empty_like, grid, in_order, sides},
};

/// Columns of units, and rows of units, in a tile.
const SIDE: usize = 16;
/// How much of the inner dimension a tile takes at once.
const DEPTH: usize = 16;

/// What a product's entry is added to: of bias and residual what there is.
#[cube]
fn added(
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

/// `x W` in tiles of `16 tall` rows and `16 wide` columns: a cube of 16 × 16 units each.
///
/// Each step brings a strip of `x` and of `W`, 16 deep, into shared memory; every unit then has `tall × wide` sums to go
/// on with, in registers.
#[cube(launch_unchecked)]
fn tiles(
    x: &Tensor<f32>,
    w: &Tensor<f32>,
    bias: &Tensor<f32>,
    residual: &Tensor<f32>,
    out: &mut Tensor<f32>,
    with_bias: u32,
    with_residual: u32,
    #[comptime] tall: usize,
    #[comptime] wide: usize,
    #[comptime] turned: bool,
) {
    let (m, k, n) = (x.shape(0), x.shape(1), w.shape(1));
    let (w_down, w_right) = (w.stride(0), w.stride(1));
    let rows = comptime!(SIDE * tall);
    let columns = comptime!(SIDE * wide);
    let (row_0, column_0) = (CUBE_POS_Y as usize * rows, CUBE_POS_X as usize * columns);
    let unit = UNIT_POS as usize;
    let (right, down) = (unit % SIDE, unit / SIDE);
    let mut xs = Shared::<[f32]>::new_slice(comptime!(DEPTH * SIDE * tall));
    let mut ws = Shared::<[f32]>::new_slice(comptime!(DEPTH * SIDE * wide));
    let mut sums = Array::<f32>::new(comptime!(tall * wide));
    #[unroll]
    for i in 0..comptime!(tall * wide) {
        sums[i] = 0.0f32;
    }

    let mut k_0 = 0usize;
    while k_0 < k {
        #[unroll]
        for i in 0..tall {
            let entry = unit + i * UNITS;
            let (deep, row) = (entry % DEPTH, entry / DEPTH);
            let mut value = 0.0f32;
            if row_0 + row < m && k_0 + deep < k {
                value = x[(row_0 + row) * k + k_0 + deep];
            }
            xs[deep * rows + row] = value;
        }
        #[unroll]
        for i in 0..wide {
            let entry = unit + i * UNITS;
            let mut deep = entry / columns;
            let mut column = entry % columns;
            if comptime!(turned) {
                deep = entry % DEPTH;
                column = entry / DEPTH;
            }
            let mut value = 0.0f32;
            if column_0 + column < n && k_0 + deep < k {
                value = w[(k_0 + deep) * w_down + (column_0 + column) * w_right];
            }
            ws[deep * columns + column] = value;
        }
        sync_cube();
        #[unroll]
        for deep in 0..DEPTH {
            let mut own = Array::<f32>::new(wide);
            #[unroll]
            for j in 0..wide {
                own[j] = ws[deep * columns + right + j * SIDE];
            }
            #[unroll]
            for i in 0..tall {
                let value = xs[deep * rows + down + i * SIDE];
                #[unroll]
                for j in 0..wide {
                    sums[i * wide + j] = fma(value, own[j], sums[i * wide + j]);
                }
            }
        }
        sync_cube();
        k_0 += DEPTH;
    }

    #[unroll]
    for i in 0..tall {
        #[unroll]
        for j in 0..wide {
            let (row, column) = (row_0 + down + i * SIDE, column_0 + right + j * SIDE);
            if row < m && column < n {
                let at = row * n + column;
                out[at] = sums[i * wide + j] + added(bias, residual, column, at, with_bias, with_residual);
            }
        }
    }
}

/// `x W` of at most eight rows: every weight is read once, by units that lie beside one another where weights do.
///
/// A cube has `256 / lanes` columns, each with `lanes` units that share the inner dimension. It is made for up to `most`
/// rows, so that there are four such kernels and not eight; of fewer the last is computed again and not written.
#[cube(launch_unchecked)]
fn few_rows(
    x: &Tensor<f32>,
    w: &Tensor<f32>,
    bias: &Tensor<f32>,
    residual: &Tensor<f32>,
    out: &mut Tensor<f32>,
    with_bias: u32,
    with_residual: u32,
    #[comptime] most: usize,
    #[comptime] lanes: usize,
    #[comptime] turned: bool,
) {
    let (m, k, n) = (x.shape(0), x.shape(1), w.shape(1));
    let (w_down, w_right) = (w.stride(0), w.stride(1));
    let columns = comptime!(UNITS / lanes);
    let unit = UNIT_POS as usize;
    let mut lane = unit / columns;
    let mut within = unit % columns;
    if comptime!(turned) {
        lane = unit % lanes;
        within = unit / lanes;
    }
    let column = CUBE_POS as usize * columns + within;
    let mut sums = Array::<f32>::new(most);
    #[unroll]
    for i in 0..most {
        sums[i] = 0.0f32;
    }
    if column < n {
        let mut deep = lane;
        while deep < k {
            let weight = w[deep * w_down + column * w_right];
            #[unroll]
            for i in 0..most {
                sums[i] = fma(x[min(i, m - 1) * k + deep], weight, sums[i]);
            }
            deep += lanes;
        }
    }
    let mut shared = Shared::<[f32]>::new_slice(comptime!(UNITS * most));
    #[unroll]
    for i in 0..most {
        shared[(i * columns + within) * lanes + lane] = sums[i];
    }
    sync_cube();
    let mut entry = unit;
    while entry < m * columns {
        let (row, within) = (entry / columns, entry % columns);
        let column = CUBE_POS as usize * columns + within;
        if column < n {
            let mut value = 0.0f32;
            for lane in 0..lanes {
                value += shared[entry * lanes + lane];
            }
            let at = row * n + column;
            out[at] = value + added(bias, residual, column, at, with_bias, with_residual);
        }
        entry += UNITS;
    }
}

/// How a product of `m` rows and `n` columns is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Every weight is read once.
    FewRows,
    /// Tiles of `16 tall` rows and `16 wide` columns.
    Tiles { tall: usize, wide: usize },
}

impl Cut {
    /// Large tiles read less, and small ones keep more of the card at work: the largest of which there are 128.
    pub fn of(m: usize, n: usize) -> Self {
        const BUSY: usize = 128;
        if m <= 8 {
            return Self::FewRows;
        }
        let choices = [(4, 4), (2, 4), (2, 2), (1, 2)];
        let tiles = |(tall, wide): (usize, usize)| m.div_ceil(SIDE * tall) * n.div_ceil(SIDE * wide);
        let (tall, wide) = choices.into_iter().find(|choice| tiles(*choice) >= BUSY).unwrap_or((1, 2));
        Self::Tiles { tall, wide }
    }
}

/// `x [m, k]` by `W [k, n]`, whichever way `W` lies, and what is added.
pub fn product(x: CubeTensor, w: CubeTensor, bias: CubeTensor, residual: CubeTensor, with: With) -> CubeTensor {
    let x = in_order(x);
    let lies = |w: &CubeTensor| (w.meta.strides()[0] == 1, w.meta.strides()[1] == 1);
    let w = if lies(&w) == (false, false) { in_order(w) } else { w };
    let turned = !lies(&w).1;
    let bias = if with.bias { in_order(bias) } else { x.clone() };
    let residual = if with.residual { in_order(residual) } else { x.clone() };
    let ([m, _], [_, n]) = (sides(&x), sides(&w));
    let out = empty_like(&x, [m, n]);
    let (client, dim) = (out.client.clone(), CubeDim::new_1d(UNITS as u32));
    let [x, w, bias, residual, to] = [x, w, bias, residual, out.clone()].map(CubeTensor::into_tensor_arg);
    // SAFETY: units look at no row, column or depth beyond the last.
    match Cut::of(m, n) {
        Cut::FewRows => unsafe {
            let lanes = if turned { 32 } else { 8 };
            few_rows::launch_unchecked(
                &client,
                grid(n.div_ceil(UNITS / lanes)),
                dim,
                x,
                w,
                bias,
                residual,
                to,
                u32::from(with.bias),
                u32::from(with.residual),
                m.next_power_of_two(),
                lanes,
                turned,
            );
        },
        Cut::Tiles { tall, wide } => unsafe {
            let count = CubeCount::Static(n.div_ceil(SIDE * wide) as u32, m.div_ceil(SIDE * tall) as u32, 1);
            tiles::launch_unchecked(
                &client,
                count,
                dim,
                x,
                w,
                bias,
                residual,
                to,
                u32::from(with.bias),
                u32::from(with.residual),
                tall,
                wide,
                turned,
            );
        },
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
