"""KN's attribution as its released code computes it: integrated gradients, layer by layer, one row for each step.

Equations: https://arxiv.org/abs/2104.08696
"""

import time

import torch


def locate(model, job):
    """The neurons whose share exceeds the threshold, and how long finding them took."""
    started = time.perf_counter()
    scores = torch.stack([scores_of_layer(model, job, layer) for layer in range(len(model.blocks))])
    chosen = (scores > job["adaptive_threshold"] * scores.max()).nonzero()
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "neurons": chosen.tolist(), "largest": scores.max().item()}


def scores_of_layer(model, job, layer):
    """`a * mean over steps of dP / d(alpha a)`, averaged over the tokens of what the model should say."""
    module, steps, at_once = model.before_activation(layer), job["steps"], job["batch_size"]
    truth = model.ids(job["ground_truth"])
    text, total = job["prompt"], 0.0
    for target in truth:
        batch = model.batch([text])
        kept = {}

        def keep(_, inputs, output):
            kept["activation"] = output[0, -1].detach().clone()

        handle = module.register_forward_hook(keep)
        with torch.no_grad():
            best = model.net(**batch).logits[0, -1].argmax().item()
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
            rows = {name: ids.repeat(len(alphas), 1) for name, ids in batch.items()}
            probability = torch.softmax(model.net(**rows).logits[:, -1], 1)[:, target]
            handle.remove()
            gradient += torch.autograd.grad(probability.sum(), scaled)[0].sum(0)
        total = total + activation * gradient / steps
        if not model.is_gpt2:
            text += model.tokenizer.decode([best])
    return total / len(truth)
