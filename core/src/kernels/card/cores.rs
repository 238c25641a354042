//! Products on tensor cores: as exact as in f32, from parts that the cores take.
//!
//! The cores multiply numbers of eleven significant bits (tf32, with f32's exponents) and add in f32. A number of
//! twenty-four bits is `high + low`, each of eleven, but for its last two: `x w` is `high high + high low + low high`, and
//! what is left out is below f32's own rounding. A weight that is stored in half precision has eleven bits: its `low` is
//! 0.

use cubecl::{
    client::Client,
    cmma::{MatrixIdent, MmaDefinition},
    features::MmaConfig,
    prelude::*,
    tf32,
};

use super::launch::added;

/// Units of a plane, which share a step of the cores: 16 × 8 sums of 8 products each.
const PLANE: usize = 32;
/// Rows of a tile: two planes have 32 each.
pub const ROWS: usize = 64;
/// Columns of a tile: two planes have 32 each.
pub const COLUMNS: usize = 64;
/// Units of a cube.
pub const CORE_UNITS: usize = 4 * PLANE;
/// How much of the inner dimension a tile takes at once.
pub const CORE_DEPTH: usize = 32;
/// Entries of a strip of `x` or `W` that a unit brings.
const BROUGHT: usize = ROWS * CORE_DEPTH / CORE_UNITS;
/// Gaps between the rows of strips, by which the units of a plane read from different banks.
const GAP_DEEP: usize = 4;
const GAP_WIDE: usize = 8;

/// Whether this card has cores for it.
pub fn cores(client: &Client) -> bool {
    let tf32 = tf32::elem_type_native();
    let config = MmaConfig { a_type: tf32, b_type: tf32, cd_type: f32::elem_type_native(), m: 16, n: 8, k: 8 };
    client.properties().features.matmul.mma.contains(&config)
}

/// What the cores take of a number. `T` is tf32, which the language of kernels converts to under another name only.
#[cube]
fn rounded<T: Float>(x: f32) -> T {
    T::cast_from(x)
}

/// The same of what is left.
#[cube]
fn rest<T: Float>(x: f32, high: T) -> T {
    T::cast_from(x - f32::cast_from(high))
}

/// `x W` in tiles of 64 × 64, four planes each; the inner dimension is cut into parts of `each`, whose sums lie one
/// below the other.
#[cube(launch_unchecked)]
pub fn core_tiles<W: Numeric>(
    x: &Tensor<f32>,
    w: &Tensor<W>,
    bias: &Tensor<f32>,
    residual: &Tensor<f32>,
    out: &mut Tensor<f32>,
    with_bias: u32,
    with_residual: u32,
    each: usize,
    #[comptime] half: bool,
    #[comptime] turned: bool,
) {
    let (m, k, n) = (x.shape(0), x.shape(1), w.shape(1));
    let (w_down, w_right) = (w.stride(0), w.stride(1));
    let (row_0, column_0) = (CUBE_POS_Y as usize * ROWS, CUBE_POS_X as usize * COLUMNS);
    let unit = UNIT_POS as usize;
    let (plane, lane) = (unit / PLANE, UNIT_POS_PLANE);
    let (plane_row, plane_column) = (plane / 2 * 32, plane % 2 * 32);
    let x_line = comptime!(CORE_DEPTH + GAP_DEEP);
    let w_line = comptime!(if turned { CORE_DEPTH + GAP_DEEP } else { COLUMNS + GAP_WIDE });
    let w_lines = comptime!(if turned { COLUMNS } else { CORE_DEPTH });
    let mut xs = Shared::<[f32]>::new_slice(comptime!(ROWS * (CORE_DEPTH + GAP_DEEP)));
    let mut ws = Shared::<[f32]>::new_slice(comptime!(w_lines * w_line));

    let def = MmaDefinition::<tf32, tf32, f32>::new(16usize, 8usize, 8usize);
    let size!(NA) = def.vector_size(MatrixIdent::A);
    let size!(NB) = def.vector_size(MatrixIdent::B);
    let size!(NC) = def.vector_size(MatrixIdent::Accumulator);
    let wide_a = def.vector_size(MatrixIdent::A);
    let wide_b = def.vector_size(MatrixIdent::B);
    let wide_c = def.vector_size(MatrixIdent::Accumulator);
    let count_a = def.vectors_per_lane(MatrixIdent::A);
    let count_b = def.vectors_per_lane(MatrixIdent::B);
    let count_c = def.vectors_per_lane(MatrixIdent::Accumulator);
    let mut sums = Array::<Vector<f32, NC>>::new(comptime!(8 * count_c));
    #[unroll]
    for i in 0..comptime!(8 * count_c) {
        sums[i] = Vector::new(0.0f32);
    }

    // The next strips wait in registers while the present ones are multiplied.
    let mut x_next = Array::<f32>::new(BROUGHT);
    let mut w_next = Array::<f32>::new(BROUGHT);
    let mut k_0 = CUBE_POS_Z as usize * each;
    let end = min(k_0 + each, k);
    let mut first = true;
    while k_0 < end {
        if first {
            bring::<W>(
                x,
                w,
                &mut x_next,
                &mut w_next,
                row_0,
                column_0,
                k_0,
                end,
                m,
                n,
                k,
                w_down,
                w_right,
                unit,
                turned,
            );
            first = false;
        }
        #[unroll]
        for i in 0..BROUGHT {
            let entry = unit + i * CORE_UNITS;
            xs[entry / CORE_DEPTH * x_line + entry % CORE_DEPTH] = x_next[i];
            if comptime!(turned) {
                ws[entry / CORE_DEPTH * w_line + entry % CORE_DEPTH] = w_next[i];
            } else {
                ws[entry / COLUMNS * w_line + entry % COLUMNS] = w_next[i];
            }
        }
        sync_cube();
        let k_1 = k_0 + CORE_DEPTH;
        if k_1 < end {
            bring::<W>(
                x,
                w,
                &mut x_next,
                &mut w_next,
                row_0,
                column_0,
                k_1,
                end,
                m,
                n,
                k,
                w_down,
                w_right,
                unit,
                turned,
            );
        }
        // The cores cut off what they cannot keep of a sum, always towards zero: only what this strip adds is left to them.
        let mut strip = Array::<Vector<f32, NC>>::new(comptime!(8 * count_c));
        #[unroll]
        for i in 0..comptime!(8 * count_c) {
            strip[i] = Vector::new(0.0f32);
        }
        #[unroll]
        for step in 0..comptime!(CORE_DEPTH / 8) {
            let mut a_high = Array::<Vector<tf32, NA>>::new(comptime!(2 * count_a));
            let mut a_low = Array::<Vector<tf32, NA>>::new(comptime!(2 * count_a));
            #[unroll]
            for tile in 0..2usize {
                #[unroll]
                for i in 0..count_a {
                    let mut above = Vector::<tf32, NA>::empty();
                    let mut below = Vector::<tf32, NA>::empty();
                    #[unroll]
                    for e in 0..wide_a {
                        let (row, deep) = def.position_of_nth(lane, comptime!((i * wide_a + e) as u32), MatrixIdent::A);
                        let row = plane_row + tile * 16 + row as usize;
                        let value = xs[row * x_line + step * 8 + deep as usize];
                        let top = rounded::<tf32>(value);
                        above.insert(e, top);
                        below.insert(e, rest::<tf32>(value, top));
                    }
                    a_high[tile * count_a + i] = above;
                    a_low[tile * count_a + i] = below;
                }
            }
            #[unroll]
            for right in 0..4usize {
                let mut b_high = Array::<Vector<tf32, NB>>::new(count_b);
                let mut b_low = Array::<Vector<tf32, NB>>::new(count_b);
                #[unroll]
                for i in 0..count_b {
                    let mut above = Vector::<tf32, NB>::empty();
                    let mut below = Vector::<tf32, NB>::empty();
                    #[unroll]
                    for e in 0..wide_b {
                        let (deep, column) =
                            def.position_of_nth(lane, comptime!((i * wide_b + e) as u32), MatrixIdent::B);
                        let deep = step * 8 + deep as usize;
                        let column = plane_column + right * 8 + column as usize;
                        let mut at = deep * w_line + column;
                        if comptime!(turned) {
                            at = column * w_line + deep;
                        }
                        let value = ws[at];
                        let top = rounded::<tf32>(value);
                        above.insert(e, top);
                        if comptime!(!half) {
                            below.insert(e, rest::<tf32>(value, top));
                        }
                    }
                    b_high[i] = above;
                    b_low[i] = below;
                }
                #[unroll]
                for tile in 0..2usize {
                    let mut own_high = Array::<Vector<tf32, NA>>::new(count_a);
                    let mut own_low = Array::<Vector<tf32, NA>>::new(count_a);
                    #[unroll]
                    for i in 0..count_a {
                        own_high[i] = a_high[tile * count_a + i];
                        own_low[i] = a_low[tile * count_a + i];
                    }
                    let at = comptime!((tile * 4 + right) * count_c);
                    let mut sum = Array::<Vector<f32, NC>>::new(count_c);
                    #[unroll]
                    for i in 0..count_c {
                        sum[i] = strip[at + i];
                    }
                    // The small ones first.
                    let sum = def.execute(&own_low, &b_high, &sum);
                    let mut sum = sum;
                    if comptime!(!half) {
                        sum = def.execute(&own_high, &b_low, &sum);
                    }
                    let sum = def.execute(&own_high, &b_high, &sum);
                    #[unroll]
                    for i in 0..count_c {
                        strip[at + i] = sum[i];
                    }
                }
            }
        }
        #[unroll]
        for i in 0..comptime!(8 * count_c) {
            sums[i] = sums[i] + strip[i];
        }
        sync_cube();
        k_0 = k_1;
    }

    let below = CUBE_POS_Z as usize * m;
    #[unroll]
    for tile in 0..2usize {
        #[unroll]
        for right in 0..4usize {
            #[unroll]
            for i in 0..count_c {
                let sum = sums[(tile * 4 + right) * count_c + i];
                #[unroll]
                for e in 0..wide_c {
                    let (row, column) =
                        def.position_of_nth(lane, comptime!((i * wide_c + e) as u32), MatrixIdent::Accumulator);
                    let row = row_0 + plane_row + tile * 16 + row as usize;
                    let column = column_0 + plane_column + right * 8 + column as usize;
                    if row < m && column < n {
                        let at = row * n + column;
                        out[below * n + at] =
                            sum.extract(e) + added(bias, residual, column, at, with_bias, with_residual);
                    }
                }
            }
        }
    }
}

/// A unit's share of the strips that begin at depth `k_0`.
#[cube]
fn bring<W: Numeric>(
    x: &Tensor<f32>,
    w: &Tensor<W>,
    x_next: &mut Array<f32>,
    w_next: &mut Array<f32>,
    row_0: usize,
    column_0: usize,
    k_0: usize,
    end: usize,
    m: usize,
    n: usize,
    k: usize,
    w_down: usize,
    w_right: usize,
    unit: usize,
    #[comptime] turned: bool,
) {
    #[unroll]
    for i in 0..BROUGHT {
        let entry = unit + i * CORE_UNITS;
        let (row, deep) = (row_0 + entry / CORE_DEPTH, k_0 + entry % CORE_DEPTH);
        let mut value = 0.0f32;
        if row < m && deep < end {
            value = x[row * k + deep];
        }
        x_next[i] = value;
        let mut deep = k_0 + entry / COLUMNS;
        let mut column = column_0 + entry % COLUMNS;
        if comptime!(turned) {
            deep = k_0 + entry % CORE_DEPTH;
            column = column_0 + entry / CORE_DEPTH;
        }
        let mut value = 0.0f32;
        if column < n && deep < end {
            value = f32::cast_from(w[deep * w_down + column * w_right]);
        }
        w_next[i] = value;
    }
}
