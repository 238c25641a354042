//! Attention of new tokens over what their rows have seen.

use burn::tensor::{Tensor, activation::softmax};

use super::{
    Frame,
    frame::{Seen, Sight},
    heads::Heads,
};
use crate::kernels::{self, matmuls};

/// `Σ softmax(scale q·k + mask) v` for every head: grouped heads share keys and values. What the frame's rows have seen
/// grows by the new tokens, unless these are lanes, which nothing can look back at.
///
/// Shapes: `joined` as [`Heads`] says; returns `[batch * pos, heads * d_head]`.
pub(super) fn attend(joined: Tensor<2>, seen: &mut Option<Seen>, frame: &Frame, heads: Heads, scale: f64) -> Tensor<2> {
    let past = seen.take().map(Seen::whole);
    match frame.sight() {
        Sight::Masked(mask) => {
            *seen = Some(Seen::Grown { past: past.clone(), joined: joined.clone(), heads });
            kernels::attend(joined, past, mask.clone(), heads, scale)
        }
        Sight::Alone => {
            *seen = past.clone().map(Seen::Whole);
            attend_alone(&joined, past, heads, scale)
        }
    }
}

/// The same for lanes, of which each sees the past and itself: time and memory are linear in their number, where a mask
/// would be quadratic.
///
/// Shapes: `past [2, 1, group, pos, d_head]`, lanes as the positions of one row.
fn attend_alone(joined: &Tensor<2>, past: Option<Tensor<5>>, heads: Heads, scale: f64) -> Tensor<2> {
    let (Heads { heads: n_heads, groups, d_head, .. }, lanes) = (heads, joined.dims()[0]);
    let each = n_heads / groups;
    let query = heads.queries(joined).reshape([groups, each, lanes, d_head]);
    let [own_keys, own_values] = halves(heads.keys_values(joined)).map(|own| own.reshape([groups, 1, lanes, d_head]));
    let earlier = past.map(|past| halves(past).map(|half| half.squeeze_dim::<3>(0))); // [group, pos, d_head]

    let itself = (query.clone() * own_keys).sum_dim(3); // [group, each, lane, 1]
    let scores = match &earlier {
        None => itself,
        Some([keys, _]) => {
            let past = keys.dims()[1];
            let before = matmuls(query.reshape([groups, each * lanes, d_head]), keys.clone().swap_dims(1, 2));
            Tensor::cat(vec![before.reshape([groups, each, lanes, past]), itself], 3)
        }
    };
    let weights = softmax(scores * scale, 3); // [group, each, lane, past + 1]
    let past = weights.dims()[3] - 1;
    let mut mixed = weights.clone().narrow(3, past, 1) * own_values; // [group, each, lane, d_head]
    if let Some([_, values]) = earlier {
        let before = matmuls(weights.narrow(3, 0, past).reshape([groups, each * lanes, past]), values);
        mixed = mixed + before.reshape([groups, each, lanes, d_head]);
    }
    mixed.reshape([n_heads, lanes, d_head]).swap_dims(0, 1).reshape([lanes, n_heads * d_head])
}

/// Keys and values, each `[batch, group, pos, d_head]`.
fn halves(keys_values: Tensor<5>) -> [Tensor<4>; 2] {
    [0, 1].map(|i| keys_values.clone().narrow(0, i, 1).squeeze_dim(0))
}
