//! Which kernel computes what.

use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;

use super::{
    activation, attention, linear, norm,
    ops::{Card, Layout, Slopes, Turn, With},
    rotation,
};

impl Card for CubeBackend {
    fn product(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        with: With,
    ) -> FloatTensor<Self> {
        linear::product(x, weight, bias, residual, with)
    }

    fn normed(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        epsilon: f64,
        centred: bool,
    ) -> FloatTensor<Self> {
        norm::normed(x, scale, shift, epsilon, centred)
    }

    fn activated(x: FloatTensor<Self>, times: FloatTensor<Self>, gated: bool) -> FloatTensor<Self> {
        activation::activated(x, times, gated)
    }

    fn attended(
        joined: FloatTensor<Self>,
        past_keys: FloatTensor<Self>,
        past_values: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        layout: Layout,
    ) -> FloatTensor<Self> {
        let [out, _] = attention::attended(joined, [past_keys, past_values], mask, layout);
        out
    }

    fn rotated(
        joined: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        turn: Turn,
    ) -> FloatTensor<Self> {
        rotation::rotated(joined, cos, sin, turn)
    }
}

impl Slopes for CubeBackend {
    fn normed_back(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        epsilon: f64,
        centred: bool,
    ) -> FloatTensor<Self> {
        norm::normed_back(x, scale, grad, epsilon, centred)
    }

    fn activated_back(
        x: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        times: FloatTensor<Self>,
        gated: bool,
    ) -> FloatTensor<Self> {
        activation::activated_back(x, grad, times, gated)
    }

    fn attended_and_weights(
        joined: FloatTensor<Self>,
        past: [FloatTensor<Self>; 2],
        mask: FloatTensor<Self>,
        layout: Layout,
    ) -> [FloatTensor<Self>; 2] {
        attention::attended(joined, past, mask, layout)
    }

    fn attended_back(
        joined: FloatTensor<Self>,
        past: [FloatTensor<Self>; 2],
        weights: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        layout: Layout,
    ) -> FloatTensor<Self> {
        attention::attended_back(joined, past, weights, grad, layout)
    }
}
