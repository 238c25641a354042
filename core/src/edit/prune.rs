//! PRUNE, <https://arxiv.org/abs/2405.16821>: what a sequence of edits added may not outgrow the weight itself.

use burn::tensor::Tensor;
use faer::Mat;

use super::{
    Delta,
    rank::{factors, low_rank_delta},
};
use crate::{
    Result,
    kernels::matmul,
    linalg::{Svd, svd_of_product},
    read::read,
};

/// `ΔW = U diag(s) Vᵀ` with every `s ≥ σ₀` reined in to `log_b s − log_b σ₀ + σ₀`, where `σ₀` is the largest singular
/// value of the unedited weight. Meant for the sum of a sequence's updates.
///
/// # Errors
///
/// When the update is not finite.
pub async fn prune(delta: Delta, weight: &Tensor<2>, base: f64) -> Result<Delta> {
    let largest = largest_singular_value(weight).await?;
    let (left, right) = factors(&delta).await?;
    let Svd { u, s, v } = svd_of_product(left.as_ref(), right.as_ref())?;
    if s.iter().all(|s| *s < largest) {
        return Ok(delta);
    }
    let rein = |s: f64| if s < largest { s } else { (s / largest).ln() / base.ln() + largest };
    let scaled = Mat::from_fn(u.nrows(), s.len(), |i, j| u[(i, j)] * rein(s[j]));
    Ok(low_rank_delta(scaled.as_ref(), v.transpose(), &delta))
}

/// By power iteration on `Wᵀ W`, on the device; nothing is read before the end.
async fn largest_singular_value(weight: &Tensor<2>) -> Result<f64> {
    const STEPS: usize = 50;
    let [_, d_out] = weight.dims();
    let unit = |x: Tensor<2>| x.clone() / (x.clone() * x).sum().sqrt().unsqueeze();
    let mut v = unit(Tensor::ones([1, d_out], &weight.device()));
    for _ in 0..STEPS {
        v = unit(matmul(matmul(v, weight.clone().transpose()), weight.clone()));
    }
    let image = matmul(v, weight.clone().transpose());
    Ok(f64::from(read((image.clone() * image).sum().sqrt()).await?[0]))
}
