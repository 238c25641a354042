use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::kernels::{product, wide};

/// A token embedding, also used as an output head: `[vocab, d_model]`, split by rows into buffers that a
/// WebGPU device accepts by default. GPT-2 small's would be 154 MB in one piece.
#[derive(Clone)]
pub struct Embedding {
    /// Consecutive rows; all but the last hold [`rows_per_shard`] of them.
    shards: Vec<Tensor<2>>,
}

/// No buffer of an embedding is larger than this.
const MAX_BYTES: usize = 128 << 20;

/// How many rows of `d_model` floats fit one buffer.
pub(super) fn rows_per_shard(d_model: usize) -> usize {
    (MAX_BYTES / (4 * d_model)).max(1)
}

impl Embedding {
    pub(super) fn new(shards: Vec<Tensor<2>>) -> Self {
        Self { shards }
    }

    /// The rows of `tokens`: `[tokens, d_model]`.
    pub(super) fn rows(&self, tokens: &[u32], device: &Device) -> Tensor<2> {
        let n = tokens.len();
        let index = |of: &dyn Fn(usize) -> usize| -> Tensor<1, Int> {
            let values: Vec<i32> = tokens.iter().map(|token| of(*token as usize) as i32).collect();
            Tensor::from_data(TensorData::new(values, [n]), device)
        };
        if let [only] = self.shards.as_slice() {
            return wide(only.clone().select(0, index(&|token| token)));
        }
        let per_shard = self.shards[0].dims()[0];
        let parts = self.shards.iter().enumerate().map(|(i, shard)| {
            let first = i * per_shard;
            let mine = |token: usize| (first..first + per_shard).contains(&token);
            let rows = shard.clone().select(0, index(&|token| if mine(token) { token - first } else { 0 }));
            let mask: Vec<f32> = tokens.iter().map(|token| f32::from(u8::from(mine(*token as usize)))).collect();
            wide(rows) * Tensor::<2>::from_data(TensorData::new(mask, [n, 1]), device)
        });
        parts.reduce(|sum, part| sum + part).expect("an embedding has rows")
    }

    /// `hidden Eᵀ`: `[n, d_model]` to `[n, vocab]`.
    pub(super) fn logits(&self, hidden: &Tensor<2>) -> Tensor<2> {
        let mut parts: Vec<Tensor<2>> =
            self.shards.iter().map(|shard| product(hidden.clone(), shard.clone().transpose(), None, None)).collect();
        if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 1) }
    }

    /// The device the rows are on.
    pub(super) fn device(&self) -> Device {
        self.shards[0].device()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Distribution, Tolerance};

    #[test]
    fn a_split_embedding_answers_like_a_whole_one() {
        let device = Device::flex();
        let whole = Tensor::<2>::random([10, 3], Distribution::Default, &device);
        let shards = whole.clone().split(4, 0);
        let (one, three) = (Embedding::new(vec![whole]), Embedding::new(shards));
        let tokens = [9, 0, 4, 3, 7, 8];
        let rows = one.rows(&tokens, &device);
        three.rows(&tokens, &device).to_data().assert_eq(&rows.to_data(), true);
        let tolerance = Tolerance::<f32>::default();
        three.logits(&rows).to_data().assert_approx_eq(&one.logits(&rows).to_data(), tolerance);
    }
}
