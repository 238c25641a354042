//! Running mean and spread of what a hypernetwork reads, so that every coordinate comes to it at one scale.

use burn::tensor::{Device, Tensor, TensorData};

use super::{gradients::Tokens, parameter::Parameter};
use crate::{Error, Result};

/// Statistics of one network: of what its matrices read and of the gradients of what they make, over the same tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Tokens seen.
    pub k: f64,
    /// Of what is read: `[d_in]`.
    pub x: Running,
    /// Of the gradients: `[d_out]`.
    pub d: Running,
}

/// Welford's sums, coordinate by coordinate.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// The mean.
    pub mean: Vec<f64>,
    /// `Σ (x − mean)²`.
    pub s: Vec<f64>,
}

/// Tokens at one scale, ready for the network.
#[derive(Clone)]
pub struct Normal {
    /// `[tokens, d_in]`
    pub x: Tensor<2>,
    /// `[tokens, d_out]`
    pub d: Tensor<2>,
}

impl Statistics {
    /// Nothing seen yet.
    pub fn blank([d_in, d_out]: [usize; 2]) -> Self {
        let running = |width| Running { mean: vec![0.0; width], s: vec![0.0; width] };
        Self { k: 0.0, x: running(d_in), d: running(d_out) }
    }

    /// Takes up some tokens, one after the other.
    pub fn add(&mut self, tokens: &Tokens) {
        let (d_in, d_out) = (self.x.mean.len(), self.d.mean.len());
        for (x, d) in tokens.x.chunks(d_in).zip(tokens.d.chunks(d_out)) {
            self.k += 1.0;
            self.x.add(x, self.k);
            self.d.add(d, self.k);
        }
    }

    /// `(x − mean) / (sd + 1e−7)` of both ends, with `sd = √(s / (k − 1))`. Nothing where there is no token.
    ///
    /// # Errors
    ///
    /// When fewer than two tokens were seen, so that there is no spread.
    pub fn normalize(&self, tokens: &Tokens, device: &Device) -> Result<Option<Normal>> {
        if tokens.n == 0 {
            return Ok(None);
        }
        if self.k < 2.0 {
            return Err(Error::bad_input(format!(
                "the hypernetwork has statistics of {} tokens and needs two at least: train it, or edit with more text",
                self.k
            )));
        }
        let tensor = |values: Vec<f32>| {
            let width = values.len() / tokens.n;
            Tensor::from_data(TensorData::new(values, [tokens.n, width]), device)
        };
        Ok(Some(Normal {
            x: tensor(self.x.normalize(&tokens.x, self.k)),
            d: tensor(self.d.normalize(&tokens.d, self.k)),
        }))
    }
}

impl Running {
    fn add(&mut self, token: &[f32], k: f64) {
        for ((mean, s), value) in self.mean.iter_mut().zip(&mut self.s).zip(token) {
            let before = f64::from(*value) - *mean;
            *mean += before / k;
            *s += before * (f64::from(*value) - *mean);
        }
    }

    /// The spread of each coordinate after `k` tokens.
    pub fn sd(&self, k: f64) -> Vec<f64> {
        self.s.iter().map(|s| (s / (k - 1.0)).sqrt()).collect()
    }

    fn normalize(&self, tokens: &[f32], k: f64) -> Vec<f32> {
        /// As in the reference: no coordinate is divided by zero.
        const GUARD: f64 = 1e-7;
        let sd = self.sd(k);
        let scales = self.mean.iter().zip(&sd).cycle();
        tokens
            .iter()
            .zip(scales)
            .map(|(value, (mean, sd))| ((f64::from(*value) - mean) / (sd + GUARD)) as f32)
            .collect()
    }
}

/// Every matrix' tokens by statistics that stay as they are.
///
/// # Errors
///
/// As [`Statistics::normalize`].
pub fn normalize(
    statistics: &[Statistics],
    parameters: &[Parameter],
    tokens: &[Tokens],
    device: &Device,
) -> Result<Vec<Option<Normal>>> {
    let both = parameters.iter().zip(tokens);
    both.map(|(parameter, tokens)| statistics[parameter.net].normalize(tokens, device)).collect()
}

/// Every matrix' tokens by statistics that take them up first, matrix by matrix: a later matrix of a network is seen by
/// what its earlier ones left, as in the reference. Also the statistics then.
///
/// # Errors
///
/// As [`Statistics::normalize`].
pub fn learn_and_normalize(
    mut statistics: Vec<Statistics>,
    parameters: &[Parameter],
    tokens: &[Tokens],
    device: &Device,
) -> Result<(Vec<Option<Normal>>, Vec<Statistics>)> {
    let mut normal = Vec::with_capacity(tokens.len());
    for (parameter, tokens) in parameters.iter().zip(tokens) {
        let statistics = &mut statistics[parameter.net];
        statistics.add(tokens);
        normal.push(statistics.normalize(tokens, device)?);
    }
    Ok((normal, statistics))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_sums_are_mean_and_spread_however_tokens_come() {
        let tokens = |x: &[f32]| Tokens { n: x.len(), x: x.to_vec(), d: x.iter().map(|x| 2.0 * x).collect() };
        let mut all = Statistics::blank([1, 1]);
        all.add(&tokens(&[1.0, 2.0, 6.0]));
        assert_eq!((all.k, all.x.mean[0], all.x.s[0]), (3.0, 3.0, 14.0));
        assert_eq!(all.d.sd(3.0), [28.0f64.sqrt()]);
        let mut parts = Statistics::blank([1, 1]);
        parts.add(&tokens(&[1.0]));
        parts.add(&tokens(&[2.0, 6.0]));
        assert_eq!(parts, all);
    }

    #[test]
    fn one_token_has_no_spread() {
        let tokens = Tokens { n: 1, x: vec![1.0], d: vec![1.0] };
        let mut statistics = Statistics::blank([1, 1]);
        statistics.add(&tokens);
        assert!(statistics.normalize(&tokens, &Device::flex()).err().unwrap().to_string().contains("1 tokens"));
    }
}
