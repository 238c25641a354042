//! For graphics cards: each operation is one launch, attention two.
#![allow(clippy::too_many_arguments, reason = "kernels are handed sizes one by one")]

mod activation;
mod answers;
mod attention;
mod cores;
mod descent;
mod launch;
mod linear;
mod norm;
mod rotation;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn_cubecl::CubeBackend;

use super::ops::{Kernels, Layout, Pace, Slopes, Turn, Way, With};

impl Kernels for CubeBackend {
    fn product(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        with: With,
    ) -> FloatTensor<Self> {
        linear::product(x, weight, bias, residual, with)
    }

    fn product_of_blocks(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        with: With,
        way: Way,
    ) -> FloatTensor<Self> {
        linear::product_of_blocks(x, words, scales, bias, residual, with, way)
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
        past: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        layout: Layout,
    ) -> FloatTensor<Self> {
        let [out, _] = attention::attended(joined, past, mask, layout);
        out
    }

    fn appended(past: FloatTensor<Self>, joined: FloatTensor<Self>, layout: Layout) -> FloatTensor<Self> {
        attention::appended(past, joined, layout)
    }

    fn answered(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        reference: FloatTensor<Self>,
        of_tokens: usize,
    ) -> FloatTensor<Self> {
        let [answers, _] = answers::answered(logits, targets, reference, of_tokens);
        answers
    }

    fn shifted(hidden: FloatTensor<Self>, delta: FloatTensor<Self>, rows_each: usize) -> FloatTensor<Self> {
        descent::shifted(hidden, delta, rows_each)
    }

    fn stepped(
        now: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        held: FloatTensor<Self>,
        pace: Pace,
    ) -> FloatTensor<Self> {
        descent::stepped(now, gradient, held, pace)
    }

    fn largest(logits: FloatTensor<Self>) -> IntTensor<Self> {
        answers::largest(logits)
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
        past: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        layout: Layout,
    ) -> [FloatTensor<Self>; 2] {
        attention::attended(joined, past, mask, layout)
    }

    fn attended_back(
        joined: FloatTensor<Self>,
        past: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        layout: Layout,
    ) -> FloatTensor<Self> {
        attention::attended_back(joined, past, weights, grad, layout)
    }

    fn shifted_back(grad: FloatTensor<Self>, rows_each: usize) -> FloatTensor<Self> {
        descent::shifted_back(grad, rows_each)
    }

    fn answers_and_totals(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        reference: FloatTensor<Self>,
        of_tokens: usize,
    ) -> [FloatTensor<Self>; 2] {
        answers::answered(logits, targets, reference, of_tokens)
    }

    fn answered_back(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        reference: FloatTensor<Self>,
        of_tokens: usize,
        answers_and_totals: [FloatTensor<Self>; 2],
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        answers::answered_back(logits, targets, reference, of_tokens, answers_and_totals, grad)
    }
}
