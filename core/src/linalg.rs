//! Linear algebra on the host, in f64.

use faer::{Mat, Side, linalg::solvers::Solve};

use crate::{Error, Result};

/// Solves `C x = b` for a symmetric positive definite `C [n, n]`, row-major.
///
/// # Errors
///
/// When `C` is not positive definite.
pub(crate) fn solve_spd(c: &[f64], b: &[f64]) -> Result<Vec<f64>> {
    let n = b.len();
    let matrix = Mat::from_fn(n, n, |i, j| c[i * n + j]);
    let factor = matrix.llt(Side::Lower).map_err(|_| {
        Error::Singular(format!(
            "the second moment of {n} keys is not positive definite; it needs more tokens than {n}, better 20 times as many"
        ))
    })?;
    let solution = factor.solve(Mat::from_fn(n, 1, |i, _| b[i]));
    Ok((0..n).map(|i| solution[(i, 0)]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_solution_solves() {
        let x = solve_spd(&[4.0, 1.0, 1.0, 3.0], &[1.0, 2.0]).unwrap();
        assert!((4.0 * x[0] + x[1] - 1.0).abs() < 1e-14 && (x[0] + 3.0 * x[1] - 2.0).abs() < 1e-14);
    }

    #[test]
    fn a_singular_matrix_is_refused() {
        assert!(matches!(solve_spd(&[1.0, 1.0, 1.0, 1.0], &[1.0, 2.0]), Err(Error::Singular(_))));
    }
}
