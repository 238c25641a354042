"""KN's attribution as its released code computes it: integrated gradients, layer by layer, one row for each step.

Equations: https://arxiv.org/abs/2104.08696
"""

import time

import torch


def locate(model, job):
    """The neurons whose share exceeds the threshold, and how long finding them took."""
    started = time.perf_counter()
    scores = attribute(model, job)
    chosen = (scores > job["adaptive_threshold"] * scores.max()).nonzero()
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "neurons": chosen.tolist(), "largest": scores.max().item()}


def attribute(model, job):
    """Each neuron's share: `[layers, d_mlp]`."""
    return torch.stack([scores_of_layer(model, job, layer) for layer in range(len(model.blocks))])


def scores_of_layer(model, job, layer):
    """`a * mean over steps of dP / d(alpha a)`, averaged over the tokens of what the model should say."""
    module, steps, at_once = model.before_activation(layer), job["steps"], job["batch_size"]
    truth = model.ids(job["ground_truth"])
    ids, total = model.ids(job["prompt"]), 0.0
    for target in truth:
        row = torch.tensor([ids])
        kept = {}

        def keep(_, inputs, output):
            kept["activation"] = output[0, -1].detach().clone()

        handle = module.register_forward_hook(keep)
        with torch.no_grad():
            best = model.net(row).logits[0, -1].argmax().item()
        handle.remove()
        activation = kept["activation"]

        gradient = torch.zeros_like(activation)
        for alphas in torch.linspace(0, 1, steps).split(at_once):
            scaled = (alphas[:, None] * activation).requires_grad_(True)

            def replace(_, inputs, output):
                output = output.clone()
                output[:, -1] = scaled
                return output

            handle = module.register_forward_hook(replace)
            probability = torch.softmax(model.net(row.repeat(len(alphas), 1)).logits[:, -1], 1)[:, target]
            handle.remove()
            gradient += torch.autograd.grad(probability.sum(), scaled)[0].sum(0)
        total = total + activation * gradient / steps
        if not model.is_gpt:
            ids = ids + [best]  # the released code adds its text, which may be cut into other tokens
    return total / len(truth)
