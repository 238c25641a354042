//! RECT's control "PCA", as published and as it was meant: an update by its largest directions.

use faer::{Mat, MatRef};

use super::Delta;
use crate::{
    Result,
    linalg::{Svd, host, svd_of_product, tensor},
};

/// The two factors of a change, on the host. A dense one is itself times the identity.
pub(super) async fn factors(delta: &Delta) -> Result<(Mat<f64>, Mat<f64>)> {
    match delta {
        Delta::LowRank { left, right } => Ok((host(left.clone()).await?, host(right.clone()).await?)),
        Delta::Dense(dense) => {
            let dense = host(dense.clone()).await?;
            let n = dense.ncols();
            Ok((dense, Mat::identity(n, n)))
        }
    }
}

/// `left · right` as a change on the device of `like`.
pub(super) fn low_rank_delta(left: MatRef<'_, f64>, right: MatRef<'_, f64>, like: &Delta) -> Delta {
    let device = like.device();
    Delta::LowRank { left: tensor(left, &device), right: tensor(right, &device) }
}

/// A change as the product of two thin matrices.
pub struct Factors {
    /// `[d_in, rank]`, row by row.
    pub left: Vec<f32>,
    /// `[rank, d_out]`, row by row.
    pub right: Vec<f32>,
    /// Their inner dimension.
    pub rank: usize,
    /// The Frobenius norm of what they leave out, as a share of the change's.
    pub error: f64,
}

impl Factors {
    /// The closest product of this rank to `change [d_in, d_out]` (Eckart and Young): `U √S · √S Vᵀ`. Without a rank, of
    /// the smallest that leaves out less than [`Self::NEGLIGIBLE`].
    ///
    /// # Errors
    ///
    /// When the change is not finite.
    pub fn of(change: &[f32], [rows, columns]: [usize; 2], rank: Option<usize>) -> Result<Self> {
        let dense = Mat::from_fn(rows, columns, |i, j| f64::from(change[i * columns + j]));
        let Svd { u, s, v } = svd_of_product(dense.as_ref(), Mat::<f64>::identity(columns, columns).as_ref())?;
        // What is left out when so many are kept, from all down to none: small ones first, so that they are not lost.
        let mut left_out: Vec<f64> = vec![0.0];
        for s in s.iter().rev() {
            left_out.push(left_out.last().expect("begins with one") + s * s);
        }
        left_out.reverse();
        let all = left_out[0].sqrt();
        let error = |rank: usize| if all > 0.0 { left_out[rank].sqrt() / all } else { 0.0 };
        let enough = || (0..=s.len()).find(|rank| error(*rank) < Self::NEGLIGIBLE).unwrap_or(s.len());
        let rank = rank.unwrap_or_else(enough).clamp(1, s.len());
        let part = |of: &Mat<f64>, row: usize, k: usize| (of[(row, k)] * s[k].sqrt()) as f32;
        let mut factors = Self { left: Vec::new(), right: Vec::new(), rank, error: error(rank) };
        for i in 0..rows {
            factors.left.extend((0..rank).map(|k| part(&u, i, k)));
        }
        for k in 0..rank {
            factors.right.extend((0..columns).map(|j| part(&v, j, k)));
        }
        Ok(factors)
    }

    /// A change is known as the difference of two matrices in 32 bits, which are rounded: about so much is noise.
    pub const NEGLIGIBLE: f64 = 1e-4;
}

/// PCA k % as published: rows are samples, columns are centred, and the *scores* of the first `⌊keep · columns⌋`
/// components are written where the update stood, without going back to the update's own coordinates.
///
/// Of a rank-one update only one column survives, `±‖v‖ (u − mean u)`, in hidden unit 0: an unrelated change. It is kept
/// because the paper compares with it; [`low_rank`] is what it was meant to be. The entry of largest magnitude in each
/// column is positive, as in the release of scikit-learn that the authors used. Also how many entries it may change.
///
/// # Errors
///
/// When the update is not finite.
pub async fn pca(delta: &Delta, keep: f64) -> Result<(Delta, usize)> {
    let [rows, columns] = delta.dims();
    let components = (keep * columns as f64).floor() as usize;
    let (left, right) = factors(delta).await?;
    let mean = |j: usize| left.col(j).iter().sum::<f64>() / rows as f64;
    let means: Vec<f64> = (0..left.ncols()).map(mean).collect();
    let centred = Mat::from_fn(rows, left.ncols(), |i, j| left[(i, j)] - means[j]);
    let Svd { u, s, .. } = svd_of_product(centred.as_ref(), right.as_ref())?;
    let mut scores = Mat::zeros(rows, columns);
    for (j, s) in s.iter().enumerate().take(components) {
        let largest = u.col(j).iter().copied().fold(0.0f64, |most, x| if x.abs() > most.abs() { x } else { most });
        let scale = s * largest.signum();
        for i in 0..rows {
            scores[(i, j)] = u[(i, j)] * scale;
        }
    }
    Ok((Delta::Dense(tensor(scores.as_ref(), &delta.device())), rows * components))
}

/// The closest matrix of rank `⌈keep · min(d_in, d_out)⌉` (Eckart and Young); an update of lower rank stays as it is.
///
/// # Errors
///
/// When the update is not finite.
pub async fn low_rank(delta: Delta, keep: f64) -> Result<Delta> {
    let [rows, columns] = delta.dims();
    let rank = (keep * rows.min(columns) as f64).ceil() as usize;
    let (left, right) = factors(&delta).await?;
    if left.ncols() <= rank {
        return Ok(delta);
    }
    let Svd { u, s, v } = svd_of_product(left.as_ref(), right.as_ref())?;
    let scaled = Mat::from_fn(rows, rank.min(s.len()), |i, j| u[(i, j)] * s[j]);
    let right = v.subcols(0, scaled.ncols());
    Ok(low_rank_delta(scaled.as_ref(), right.transpose(), &delta))
}
