//! How queries, keys and values lie side by side.

use burn::tensor::Tensor;

/// Queries, then keys, then values, head by head: `[batch * pos, (heads + 2 groups) * d_head]`.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Rows of tokens.
    pub batch: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values; each serves `heads / groups` queries.
    pub groups: usize,
    /// Columns of a head.
    pub d_head: usize,
}

impl Heads {
    /// Queries, keys and values, each `[batch, head, pos, d_head]`.
    pub(crate) fn split(self, joined: &Tensor<2>) -> [Tensor<4>; 3] {
        let Self { batch, heads, groups, d_head } = self;
        let pos = joined.dims()[0] / batch;
        let part = |first: usize, n: usize| {
            let flat = joined.clone().narrow(1, first * d_head, n * d_head);
            flat.reshape([batch, pos, n, d_head]).swap_dims(1, 2)
        };
        [part(0, heads), part(heads, groups), part(heads + groups, groups)]
    }
}
