//! `x W + b + r`: products of a few rows, and of many.

use burn::tensor::DType;
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{
    super::{
        ops::{Way, With},
        weight::{BLOCK, PACKED},
    },
    cores::{COLUMNS, CORE_DEPTH, CORE_UNITS, ROWS, core_tiles, cores},
    launch::{UNITS, added, each as each_of, empty_like, folded, in_order, sides},
};

/// Columns of units, and rows of units, in a tile.
const SIDE: usize = 16;
/// How much of the inner dimension a tile takes at once.
const DEPTH: usize = 16;
/// How many weights a unit asks for at once, where rows are few.
const AHEAD: usize = 4;

/// The entry of a stored matrix at a place: a number, or a code in its word, times its block's scale.
#[cube]
fn entry_of<W: Numeric>(w: &Tensor<W>, scales: &Tensor<f32>, at: usize, #[comptime] blocks: bool) -> f32 {
    let mut value = 0.0f32;
    if comptime!(blocks) {
        let word = i32::cast_from(w[at / PACKED]);
        // To the left what is above is dropped, to the right what is below, and the sign stays.
        let above = i32::cast_from(24usize - at % PACKED * 8usize);
        value += f32::cast_from((word << above) >> 24i32) * scales[at / BLOCK];
    } else {
        value += f32::cast_from(w[at]);
    }
    value
}

/// `x W` in tiles of `16 tall` rows and `16 wide` columns: a cube of 16 × 16 units each.
///
/// The inner dimension is cut into parts of `each`, whose sums lie one below the other. Each step brings a strip of `x`
/// and of `W`, 16 deep, into shared memory; every unit then has `tall × wide` sums to go on with, in registers.
#[cube(launch_unchecked)]
fn tiles<W: Numeric>(
    x: &Tensor<f32>,
    w: &Tensor<W>,
    scales: &Tensor<f32>,
    bias: &Tensor<f32>,
    residual: &Tensor<f32>,
    out: &mut Tensor<f32>,
    with_bias: u32,
    with_residual: u32,
    each: usize,
    w_down: usize,
    w_right: usize,
    #[comptime] tall: usize,
    #[comptime] wide: usize,
    #[comptime] turned: bool,
    #[comptime] blocks: bool,
) {
    let (m, k, n) = (x.shape(0), x.shape(1), out.shape(1));
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

    let mut k_0 = CUBE_POS_Z as usize * each;
    let end = min(k_0 + each, k);
    while k_0 < end {
        #[unroll]
        for i in 0..tall {
            let entry = unit + i * UNITS;
            let (deep, row) = (entry % DEPTH, entry / DEPTH);
            let mut value = 0.0f32;
            if row_0 + row < m && k_0 + deep < end {
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
            if column_0 + column < n && k_0 + deep < end {
                let at = (k_0 + deep) * w_down + (column_0 + column) * w_right;
                value = entry_of::<W>(w, scales, at, blocks);
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

    let below = CUBE_POS_Z as usize * m;
    #[unroll]
    for i in 0..tall {
        #[unroll]
        for j in 0..wide {
            let (row, column) = (row_0 + down + i * SIDE, column_0 + right + j * SIDE);
            if row < m && column < n {
                let at = row * n + column;
                out[below * n + at] = sums[i * wide + j] + added(bias, residual, column, at, with_bias, with_residual);
            }
        }
    }
}

/// `x W` of at most eight rows: every weight is read once, by units that lie beside one another where weights do.
///
/// A cube has `256 / lanes` columns, each with `lanes` units that share the inner dimension, of which it takes a part of
/// `each`; the sums of parts lie one below the other. It is made for up to `most` rows, so that there are four such
/// kernels and not eight; of fewer the last is computed again and not written.
#[cube(launch_unchecked)]
fn few_rows<W: Numeric>(
    x: &Tensor<f32>,
    w: &Tensor<W>,
    scales: &Tensor<f32>,
    bias: &Tensor<f32>,
    residual: &Tensor<f32>,
    out: &mut Tensor<f32>,
    with_bias: u32,
    with_residual: u32,
    each: usize,
    w_down: usize,
    w_right: usize,
    #[comptime] most: usize,
    #[comptime] lanes: usize,
    #[comptime] turned: bool,
    #[comptime] blocks: bool,
) {
    let (m, k, n) = (x.shape(0), x.shape(1), out.shape(1));
    let columns = comptime!(UNITS / lanes);
    let unit = UNIT_POS as usize;
    let mut lane = unit / columns;
    let mut within = unit % columns;
    if comptime!(turned) {
        lane = unit % lanes;
        within = unit / lanes;
    }
    // Cubes of columns are folded: WebGPU takes 65,535 along each side of a grid.
    let first = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) as usize * columns;
    let column = first + within;
    let mut sums = Array::<f32>::new(most);
    #[unroll]
    for i in 0..most {
        sums[i] = 0.0f32;
    }
    let begin = CUBE_POS_Z as usize * each;
    let end = min(begin + each, k);
    if column < n {
        let mut deep = begin + lane;
        while deep < end {
            // Several weights are under way at once.
            let mut weights = Array::<f32>::new(AHEAD);
            #[unroll]
            for j in 0..AHEAD {
                let mut weight = 0.0f32;
                if deep + j * lanes < end {
                    let at = (deep + j * lanes) * w_down + column * w_right;
                    weight = entry_of::<W>(w, scales, at, blocks);
                }
                weights[j] = weight;
            }
            #[unroll]
            for j in 0..AHEAD {
                if deep + j * lanes < end {
                    #[unroll]
                    for i in 0..most {
                        sums[i] = fma(x[min(i, m - 1) * k + deep + j * lanes], weights[j], sums[i]);
                    }
                }
            }
            deep += AHEAD * lanes;
        }
    }
    let mut shared = Shared::<[f32]>::new_slice(comptime!(UNITS * most));
    #[unroll]
    for i in 0..most {
        shared[(i * columns + within) * lanes + lane] = sums[i];
    }
    sync_cube();
    let below = CUBE_POS_Z as usize * m;
    let mut entry = unit;
    while entry < m * columns {
        let (row, within) = (entry / columns, entry % columns);
        let column = first + within;
        if column < n {
            let mut value = 0.0f32;
            for lane in 0..lanes {
                value += shared[entry * lanes + lane];
            }
            let at = row * n + column;
            out[below * n + at] = value + added(bias, residual, column, at, with_bias, with_residual);
        }
        entry += UNITS;
    }
}

/// The sums of parts that lie one below the other, and what is added.
#[cube(launch_unchecked)]
fn of_parts(
    parts: &Tensor<f32>,
    bias: &Tensor<f32>,
    residual: &Tensor<f32>,
    out: &mut Tensor<f32>,
    with_bias: u32,
    with_residual: u32,
    count: usize,
) {
    let at = ABSOLUTE_POS;
    let entries = out.shape(0) * out.shape(1);
    if at < entries {
        let mut value = 0.0f32;
        for part in 0..count {
            value += parts[part * entries + at];
        }
        out[at] = value + added(bias, residual, at % out.shape(1), at, with_bias, with_residual);
    }
}

/// How a product of `m` rows and `n` columns is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Every weight is read once.
    FewRows,
    /// Tiles of `16 tall` rows and `16 wide` columns.
    Tiles { tall: usize, wide: usize },
    /// Tiles of 64 rows and columns, on tensor cores.
    Cores,
}

/// How many cubes keep a card at work.
const BUSY: usize = 256;
/// The least depth that is worth a part of its own.
const SHALLOW: usize = 256;

impl Cut {
    /// Large tiles read less, and small ones keep more of the card at work: the largest that fill it once their inner
    /// dimension is cut, and of whose rows no more than a quarter is padding.
    pub fn of(m: usize, k: usize, n: usize, cores: bool) -> Self {
        if m <= 8 {
            return Self::FewRows;
        }
        if cores {
            return Self::Cores;
        }
        let choices = [(8, 8), (4, 8), (4, 4), (2, 4), (2, 2)];
        let (tall, wide) = choices
            .into_iter()
            .find(|(tall, wide)| {
                let down = m.div_ceil(SIDE * tall);
                let cubes = down * n.div_ceil(SIDE * wide) * (k / SHALLOW).max(1);
                cubes >= BUSY / 2 && down * SIDE * tall * 4 <= m * 5
            })
            .unwrap_or((1, 2));
        Self::Tiles { tall, wide }
    }
}

/// How much of the inner dimension each part has, where so many cubes share one that is not cut.
fn part(k: usize, cubes: usize) -> usize {
    let parts = BUSY.div_ceil(cubes).min(k / SHALLOW).max(1);
    k.div_ceil(parts).next_multiple_of(CORE_DEPTH)
}

/// A matrix as kernels read it.
struct Stored {
    /// Its numbers, or words of codes.
    numbers: CubeTensor,
    /// Of blocks; otherwise nothing that is read.
    scales: CubeTensor,
    columns: usize,
    /// How far the next row is, and the next column, in numbers or codes.
    steps: [usize; 2],
    blocks: bool,
}

/// `x [m, k]` by `W [k, n]`, whichever way `W` lies and in whichever precision it is stored, and what is added.
pub fn product(x: CubeTensor, w: CubeTensor, bias: CubeTensor, residual: CubeTensor, with: With) -> CubeTensor {
    let steps = |w: &CubeTensor| [w.meta.strides()[0], w.meta.strides()[1]];
    let w = if steps(&w).contains(&1) { w } else { into_contiguous(w) };
    let x = in_order(x);
    let stored = Stored { columns: sides(&w)[1], steps: steps(&w), scales: x.clone(), blocks: false, numbers: w };
    match stored.numbers.dtype {
        DType::F16 => product_of::<half::f16>(x, stored, bias, residual, with),
        _ => product_of::<f32>(x, stored, bias, residual, with),
    }
}

/// The same with a matrix in blocks, or with it turned.
pub fn product_of_blocks(
    x: CubeTensor,
    words: CubeTensor,
    scales: CubeTensor,
    bias: CubeTensor,
    residual: CubeTensor,
    with: With,
    way: Way,
) -> CubeTensor {
    let (words, scales) = (into_contiguous(words), in_order(scales));
    let [outputs, of_output] = sides(&words);
    let padded = of_output * PACKED;
    // An output's inputs lie side by side.
    let (columns, steps) = if way.back { (way.d_in, [padded, 1]) } else { (outputs, [1, padded]) };
    let stored = Stored { numbers: words, scales, columns, steps, blocks: true };
    product_of::<i32>(in_order(x), stored, bias, residual, with)
}

fn product_of<W: Numeric>(x: CubeTensor, w: Stored, bias: CubeTensor, residual: CubeTensor, with: With) -> CubeTensor {
    let Stored { numbers: w, scales, columns: n, steps: [w_down, w_right], blocks } = w;
    let turned = w_right != 1;
    let half = w.dtype == DType::F16;
    let bias = if with.bias { in_order(bias) } else { x.clone() };
    let residual = if with.residual { in_order(residual) } else { x.clone() };
    let [m, k] = sides(&x);
    let out = empty_like(&x, [m, n]);
    let client = out.client.clone();
    let cut = Cut::of(m, k, n, !blocks && cores(&client));
    let lanes = if turned { 32 } else { 8 };
    let each = match cut {
        Cut::FewRows => part(k, n.div_ceil(UNITS / lanes)),
        Cut::Cores => part(k, n.div_ceil(COLUMNS) * m.div_ceil(ROWS)),
        Cut::Tiles { tall, wide } => part(k, n.div_ceil(SIDE * wide) * m.div_ceil(SIDE * tall)),
    };
    let parts = k.div_ceil(each);
    let (whole, to) = (parts == 1, if parts == 1 { out.clone() } else { empty_like(&x, [parts * m, n]) });
    let (with_bias, with_residual) = (u32::from(with.bias), u32::from(with.residual));
    let (own_bias, own_residual) = if whole { (with_bias, with_residual) } else { (0, 0) };
    let [x, w, s, b, r, into] =
        [x, w, scales, bias.clone(), residual.clone(), to.clone()].map(CubeTensor::into_tensor_arg);
    // SAFETY: units look at no row, column or depth beyond the last.
    unsafe {
        match cut {
            Cut::FewRows => few_rows::launch_unchecked::<W>(
                &client,
                folded(n.div_ceil(UNITS / lanes), parts),
                CubeDim::new_1d(UNITS as u32),
                x,
                w,
                s,
                b,
                r,
                into,
                own_bias,
                own_residual,
                each,
                w_down,
                w_right,
                m.next_power_of_two(),
                lanes,
                turned,
                blocks,
            ),
            Cut::Tiles { tall, wide } => tiles::launch_unchecked::<W>(
                &client,
                CubeCount::Static(n.div_ceil(SIDE * wide) as u32, m.div_ceil(SIDE * tall) as u32, parts as u32),
                CubeDim::new_1d(UNITS as u32),
                x,
                w,
                s,
                b,
                r,
                into,
                own_bias,
                own_residual,
                each,
                w_down,
                w_right,
                tall,
                wide,
                turned,
                blocks,
            ),
            Cut::Cores => core_tiles::launch_unchecked::<W>(
                &client,
                CubeCount::Static(n.div_ceil(COLUMNS) as u32, m.div_ceil(ROWS) as u32, parts as u32),
                CubeDim::new_1d(CORE_UNITS as u32),
                x,
                w,
                b,
                r,
                into,
                own_bias,
                own_residual,
                each,
                half,
                turned,
            ),
        }
        if !whole {
            let (count, dim) = each_of(m * n);
            let [bias, residual, to, into] = [bias, residual, to, out.clone()].map(CubeTensor::into_tensor_arg);
            of_parts::launch_unchecked(&client, count, dim, to, bias, residual, into, with_bias, with_residual, parts);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_cut_by_its_shape() {
        let tiles = |tall, wide| Cut::Tiles { tall, wide };
        for ([m, k, n], expected) in [
            ([1, 1600, 50_257], Cut::FewRows),
            ([8, 6400, 1600], Cut::FewRows),
            ([9, 768, 768], tiles(1, 2)),
            ([176, 1600, 1600], tiles(4, 8)),
            ([176, 1600, 6400], tiles(4, 8)),
            ([528, 1600, 1600], tiles(8, 8)),
            ([4096, 4096, 4096], tiles(8, 8)),
        ] {
            println!("[{m}, {k}] by [{k}, {n}]: {:?}", Cut::of(m, k, n, false));
            assert_eq!(Cut::of(m, k, n, false), expected, "{m} {k} {n}");
        }
    }
}
