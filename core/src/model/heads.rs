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
    /// The queries: `[batch, head, pos, d_head]`.
    pub(crate) fn queries(self, joined: &Tensor<2>) -> Tensor<4> {
        let Self { batch, heads, d_head, .. } = self;
        let pos = joined.dims()[0] / batch;
        joined.clone().narrow(1, 0, heads * d_head).reshape([batch, pos, heads, d_head]).swap_dims(1, 2)
    }

    /// The keys, then the values: `[2, batch, group, pos, d_head]`.
    pub(crate) fn keys_values(self, joined: &Tensor<2>) -> Tensor<5> {
        let Self { batch, heads, groups, d_head } = self;
        let pos = joined.dims()[0] / batch;
        let flat = joined.clone().narrow(1, heads * d_head, 2 * groups * d_head);
        flat.reshape([batch, pos, 2, groups, d_head]).permute([2, 0, 3, 1, 4])
    }

    /// Columns of queries and keys, which have positions.
    pub(crate) fn turning_columns(self) -> usize {
        (self.heads + self.groups) * self.d_head
    }
}
