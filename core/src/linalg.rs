//! Linear algebra on the host, in f64.

use burn::tensor::{Device, Tensor, TensorData};
use faer::{
    Accum, Mat, MatRef, Par, Side,
    linalg::{
        matmul::matmul,
        solvers::Solve,
        triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place},
    },
};

use crate::{Error, Result, read::read};

/// `A Bᵀ`, `A B` and so on: a new matrix.
pub(crate) fn product(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> Mat<f64> {
    let mut c = Mat::zeros(a.nrows(), b.ncols());
    matmul(&mut c, Accum::Replace, a, b, 1.0, Par::Seq);
    c
}

/// The values of a tensor, in f64.
pub(crate) async fn host(tensor: Tensor<2>) -> Result<Mat<f64>> {
    let [rows, columns] = tensor.dims();
    let values = read(tensor).await?;
    Ok(Mat::from_fn(rows, columns, |i, j| f64::from(values[i * columns + j])))
}

/// A matrix as a tensor, in f32.
pub(crate) fn tensor(matrix: MatRef<'_, f64>, device: &Device) -> Tensor<2> {
    let (rows, columns) = (matrix.nrows(), matrix.ncols());
    let values: Vec<f32> = (0..rows).flat_map(|i| (0..columns).map(move |j| matrix[(i, j)] as f32)).collect();
    Tensor::from_data(TensorData::new(values, [rows, columns]), device)
}

/// The Cholesky factor of a symmetric positive definite matrix: `C = L Lᵀ`.
///
/// Made once for a layer, it serves every solution with `C` that ROME, MEMIT and EMMET need.
#[derive(Clone)]
pub struct Cholesky {
    lower: Mat<f64>,
}

impl Cholesky {
    /// Factors `C [n, n]`, row-major.
    ///
    /// # Errors
    ///
    /// When `C` is not positive definite.
    pub fn new(c: &[f64], n: usize) -> Result<Self> {
        let matrix = Mat::from_fn(n, n, |i, j| c[i * n + j]);
        let factor = matrix.llt(Side::Lower).map_err(|_| {
            Error::Singular(format!(
                "the second moment of {n} keys is not positive definite; it needs more tokens than {n}, better 20 times \
                 as many"
            ))
        })?;
        Ok(Self { lower: factor.L().to_owned() })
    }

    /// A factor that was kept: `L`, row-major.
    pub(crate) fn from_lower(lower: &[f64], n: usize) -> Self {
        Self { lower: Mat::from_fn(n, n, |i, j| lower[i * n + j]) }
    }

    /// `L`, row-major.
    pub(crate) fn lower(&self) -> impl Iterator<Item = f64> {
        let n = self.lower.nrows();
        (0..n).flat_map(move |i| (0..n).map(move |j| self.lower[(i, j)]))
    }

    /// `L⁻¹ B`: half of the solution.
    pub(crate) fn half(&self, b: MatRef<'_, f64>) -> Mat<f64> {
        let mut y = b.to_owned();
        solve_lower_triangular_in_place(self.lower.as_ref(), y.as_mut(), Par::Seq);
        y
    }

    /// `L⁻ᵀ Y`: the other half.
    pub(crate) fn other_half(&self, y: MatRef<'_, f64>) -> Mat<f64> {
        let mut x = y.to_owned();
        solve_upper_triangular_in_place(self.lower.transpose(), x.as_mut(), Par::Seq);
        x
    }

    /// `C⁻¹ B`.
    pub(crate) fn solve(&self, b: MatRef<'_, f64>) -> Mat<f64> {
        self.other_half(self.half(b).as_ref())
    }
}

/// `A⁻¹ B` for a symmetric positive definite `A`, or by pivots where it is not.
pub(crate) fn solve_symmetric(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> Mat<f64> {
    match a.llt(Side::Lower) {
        Ok(factor) => factor.solve(b),
        Err(_) => a.partial_piv_lu().solve(b),
    }
}

/// A thin singular value decomposition: `U diag(s) Vᵀ`, values descending.
pub(crate) struct Svd {
    /// `[rows, r]`
    pub u: Mat<f64>,
    /// `[r]`
    pub s: Vec<f64>,
    /// `[columns, r]`
    pub v: Mat<f64>,
}

/// The decomposition of `left [m, r] · right [r, n]`, at the cost of its rank.
pub(crate) fn svd_of_product(left: MatRef<'_, f64>, right: MatRef<'_, f64>) -> Result<Svd> {
    let (left, right) = (left.qr(), right.transpose().qr());
    let core = product(left.thin_R(), right.thin_R().transpose());
    let core = core.thin_svd().map_err(|_| Error::NotFinite { what: "the update".into(), hint: String::new() })?;
    Ok(Svd {
        u: product(left.compute_thin_Q().as_ref(), core.U()),
        s: core.S().column_vector().iter().copied().collect(),
        v: product(right.compute_thin_Q().as_ref(), core.V()),
    })
}

/// The eigenvectors of a symmetric matrix, by ascending eigenvalue.
#[derive(Clone)]
pub(crate) struct Eigen {
    pub values: Vec<f64>,
    /// `[n, n]`, a column each.
    pub vectors: Mat<f64>,
}

impl Eigen {
    /// Of `c [n, n]`.
    pub fn of(c: MatRef<'_, f64>) -> Result<Self> {
        let found = c
            .self_adjoint_eigen(Side::Lower)
            .map_err(|_| Error::Singular("the eigenvalues of the second moment could not be found".into()))?;
        Ok(Self { values: found.S().column_vector().iter().copied().collect(), vectors: found.U().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_solution_solves() {
        let b = Mat::from_fn(2, 1, |i, _| [1.0, 2.0][i]);
        let x = Cholesky::new(&[4.0, 1.0, 1.0, 3.0], 2).unwrap().solve(b.as_ref());
        assert!((4.0 * x[(0, 0)] + x[(1, 0)] - 1.0).abs() < 1e-14);
        assert!((x[(0, 0)] + 3.0 * x[(1, 0)] - 2.0).abs() < 1e-14);
    }

    #[test]
    fn a_kept_factor_is_the_same_factor() {
        let factor = Cholesky::new(&[4.0, 1.0, 1.0, 3.0], 2).unwrap();
        let kept: Vec<f64> = factor.lower().collect();
        assert_eq!(Cholesky::from_lower(&kept, 2).lower, factor.lower);
    }

    #[test]
    fn a_singular_matrix_is_refused() {
        assert!(matches!(Cholesky::new(&[1.0, 1.0, 1.0, 1.0], 2), Err(Error::Singular(_))));
    }

    #[test]
    fn a_decomposition_of_a_product_is_the_product() {
        let left = Mat::from_fn(5, 2, |i, j| (i * 2 + j) as f64 - 3.0);
        let right = Mat::from_fn(2, 4, |i, j| (i as f64 + 1.0) * (j as f64 - 1.0) + 0.5);
        let Svd { u, s, v } = svd_of_product(left.as_ref(), right.as_ref()).unwrap();
        let scaled = Mat::from_fn(5, s.len(), |i, j| u[(i, j)] * s[j]);
        let difference = product(scaled.as_ref(), v.transpose()) - product(left.as_ref(), right.as_ref());
        assert!(difference.norm_max() < 1e-12);
        assert!(s.is_sorted_by(|a, b| a >= b));
    }
}
