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
