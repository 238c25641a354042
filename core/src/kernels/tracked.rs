//! The same under automatic differentiation: each operation with a backward of its own.

use burn::backend::{
    Autodiff, TensorMetadata,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, NodeGuard, Ops, OpsKind, unary},
    },
    tensor::{FloatTensor, IntTensor},
};

use super::ops::{Kernels, Layout, Pace, Slopes, Turn, Way, With};

/// A tensor and its place in the graph; one that is not read has a place of its own, which nothing leads to.
fn taken<B: Slopes, C: CheckpointStrategy>(
    tensor: FloatTensor<Autodiff<B, C>>,
    read: bool,
) -> (FloatTensor<B>, NodeGuard) {
    if read { tensor.into_parts() } else { FloatTensor::<Autodiff<B, C>>::new(tensor.into_primitive()).into_parts() }
}

/// The tensor without a place in the graph.
///
/// # Panics
///
/// When someone wants its gradient: there is none.
fn constant<B: Slopes, C: CheckpointStrategy>(tensor: FloatTensor<Autodiff<B, C>>) -> FloatTensor<B> {
    assert!(!tensor.is_tracked(), "a constant has no gradient here");
    tensor.into_primitive()
}

impl<B: Slopes, C: CheckpointStrategy> Kernels for Autodiff<B, C> {
    fn product(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        with: With,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Product;
        impl<B: Slopes> Backward<B, 3> for Product {
            /// `x` where the gradient of `W` is asked for, and `W` where that of `x` is.
            type State = (Option<FloatTensor<B>>, Option<FloatTensor<B>>);
            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
                let (x, weight) = ops.state;
                let grad = grads.consume::<B>(&ops.node);
                let [to_x, to_weight, to_residual] = ops.parents;
                if let (Some(node), Some(weight)) = (to_x, weight) {
                    let nothing = grad.clone();
                    let weight = B::float_transpose(weight);
                    let back = B::product(grad.clone(), weight, nothing.clone(), nothing, With::NOTHING);
                    grads.register::<B>(node.id, back);
                }
                if let (Some(node), Some(x)) = (to_weight, x) {
                    let (x, nothing) = (B::float_transpose(x), grad.clone());
                    let back = B::product(x, grad.clone(), nothing.clone(), nothing, With::NOTHING);
                    grads.register::<B>(node.id, back);
                }
                if let Some(node) = to_residual {
                    grads.register::<B>(node.id, grad);
                }
            }
        }
        let (x_tracked, weight_tracked) = (x.is_tracked(), weight.is_tracked());
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (residual, residual_node) = taken::<B, C>(residual, with.residual);
        let bias = if with.bias { constant::<B, C>(bias) } else { bias.into_primitive() };
        match Product.prepare::<C>([x_node, weight_node, residual_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let state = (weight_tracked.then(|| x.clone()), x_tracked.then(|| weight.clone()));
                prep.finish(state, B::product(x, weight, bias, residual, with))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::product(x, weight, bias, residual, with)),
        }
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
        #[derive(Debug)]
        struct Product;
        impl<B: Slopes> Backward<B, 2> for Product {
            type State = (IntTensor<B>, FloatTensor<B>, Way);
            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
                let (words, scales, way) = ops.state;
                let grad = grads.consume::<B>(&ops.node);
                let [to_x, to_residual] = ops.parents;
                if let Some(node) = to_x {
                    let (nothing, way) = (grad.clone(), Way { back: !way.back, ..way });
                    let (of, with) = (grad.clone(), With::NOTHING);
                    let back = B::product_of_blocks(of, words, scales, nothing.clone(), nothing, with, way);
                    grads.register::<B>(node.id, back);
                }
                if let Some(node) = to_residual {
                    grads.register::<B>(node.id, grad);
                }
            }
        }
        let (x, x_node) = x.into_parts();
        let (residual, residual_node) = taken::<B, C>(residual, with.residual);
        let scales = constant::<B, C>(scales);
        let bias = if with.bias { constant::<B, C>(bias) } else { bias.into_primitive() };
        let state = (words.clone(), scales.clone(), way);
        let out = B::product_of_blocks(x, words, scales, bias, residual, with, way);
        match Product.prepare::<C>([x_node, residual_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(state, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn normed(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        epsilon: f64,
        centred: bool,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Normed;
        impl<B: Slopes> Backward<B, 1> for Normed {
            type State = (FloatTensor<B>, FloatTensor<B>, f64, bool);
            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
                let (x, scale, epsilon, centred) = ops.state;
                unary::<B, _>(ops.parents, ops.node, grads, |grad| B::normed_back(x, scale, grad, epsilon, centred));
            }
        }
        let (x, node) = x.into_parts();
        let (scale, shift) = (constant::<B, C>(scale), constant::<B, C>(shift));
        match Normed.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let state = (x.clone(), scale.clone(), epsilon, centred);
                prep.finish(state, B::normed(x, scale, shift, epsilon, centred))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::normed(x, scale, shift, epsilon, centred)),
        }
    }

    fn activated(x: FloatTensor<Self>, times: FloatTensor<Self>, gated: bool) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Activated;
        impl<B: Slopes> Backward<B, 2> for Activated {
            type State = (FloatTensor<B>, FloatTensor<B>, bool);
            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
                let (x, times, gated) = ops.state;
                let grad = grads.consume::<B>(&ops.node);
                let [to_x, to_times] = ops.parents;
                if let Some(node) = to_x {
                    grads.register::<B>(node.id, B::activated_back(x.clone(), grad.clone(), times, gated));
                }
                if let Some(node) = to_times {
                    // What a gate lets pass is linear.
                    grads.register::<B>(node.id, B::activated(x, grad, gated));
                }
            }
        }
        let (x, x_node) = x.into_parts();
        let (times, times_node) = taken::<B, C>(times, gated);
        match Activated.prepare::<C>([x_node, times_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x.clone(), times.clone(), gated), B::activated(x, times, gated)),
            OpsKind::UnTracked(prep) => prep.finish(B::activated(x, times, gated)),
        }
    }

    fn attended(
        joined: FloatTensor<Self>,
        past: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        layout: Layout,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Attended;
        impl<B: Slopes> Backward<B, 1> for Attended {
            type State = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, Layout);
            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
                let (joined, past, weights, layout) = ops.state;
                unary::<B, _>(ops.parents, ops.node, grads, |grad| {
                    B::attended_back(joined, past, weights, grad, layout)
                });
            }
        }
        let (joined, node) = joined.into_parts();
        let (past, mask) = (constant::<B, C>(past), constant::<B, C>(mask));
        match Attended.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let [out, weights] = B::attended_and_weights(joined.clone(), past.clone(), mask, layout);
                prep.finish((joined, past, weights, layout), out)
            }
            OpsKind::UnTracked(prep) => {
                let [out, _] = B::attended_and_weights(joined, past, mask, layout);
                prep.finish(out)
            }
        }
    }

    fn appended(past: FloatTensor<Self>, joined: FloatTensor<Self>, layout: Layout) -> FloatTensor<Self> {
        // What was seen is a constant to those who look back at it, whoever computed it.
        FloatTensor::<Self>::new(B::appended(past.into_primitive(), joined.into_primitive(), layout))
    }

    fn answered(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        reference: FloatTensor<Self>,
        of_tokens: usize,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Answered;
        impl<B: Slopes> Backward<B, 1> for Answered {
            type State = (FloatTensor<B>, IntTensor<B>, FloatTensor<B>, usize, [FloatTensor<B>; 2]);
            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
                let (logits, targets, reference, of_tokens, found) = ops.state;
                unary::<B, _>(ops.parents, ops.node, grads, |grad| {
                    B::answered_back(logits, targets, reference, of_tokens, found, grad)
                });
            }
        }
        let (logits, node) = logits.into_parts();
        let all_of_tokens = logits.shape()[0] == of_tokens;
        let reference = if all_of_tokens { reference.into_primitive() } else { constant::<B, C>(reference) };
        match Answered.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let found = B::answers_and_totals(logits.clone(), targets.clone(), reference.clone(), of_tokens);
                let [answers, _] = found.clone();
                prep.finish((logits, targets, reference, of_tokens, found), answers)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::answered(logits, targets, reference, of_tokens)),
        }
    }

    fn shifted(hidden: FloatTensor<Self>, delta: FloatTensor<Self>, rows_each: usize) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Shifted;
        impl<B: Slopes> Backward<B, 1> for Shifted {
            type State = usize;
            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
                let rows_each = ops.state;
                unary::<B, _>(ops.parents, ops.node, grads, |grad| B::shifted_back(grad, rows_each));
            }
        }
        let (hidden, (delta, node)) = (constant::<B, C>(hidden), delta.into_parts());
        let out = B::shifted(hidden, delta, rows_each);
        match Shifted.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(rows_each, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn stepped(
        now: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        held: FloatTensor<Self>,
        pace: Pace,
    ) -> FloatTensor<Self> {
        let [now, gradient, held] = [now, gradient, held].map(constant::<B, C>);
        FloatTensor::<Self>::new(B::stepped(now, gradient, held, pace))
    }

    fn largest(logits: FloatTensor<Self>) -> IntTensor<Self> {
        B::largest(logits.into_primitive())
    }

    fn rotated(
        joined: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        turn: Turn,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Rotated;
        impl<B: Slopes> Backward<B, 1> for Rotated {
            type State = (FloatTensor<B>, FloatTensor<B>, Turn);
            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
                let (cos, sin, turn) = ops.state;
                let turn = Turn { back: !turn.back, ..turn };
                unary::<B, _>(ops.parents, ops.node, grads, |grad| B::rotated(grad, cos, sin, turn));
            }
        }
        let (joined, node) = joined.into_parts();
        let (cos, sin) = (constant::<B, C>(cos), constant::<B, C>(sin));
        match Rotated.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((cos.clone(), sin.clone(), turn), B::rotated(joined, cos, sin, turn)),
            OpsKind::UnTracked(prep) => prep.finish(B::rotated(joined, cos, sin, turn)),
        }
    }
}
