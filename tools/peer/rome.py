"""ROME as its released code computes it. Equations: https://arxiv.org/abs/2202.05262"""

import time

import torch
from common import lookup, optimize, record, template_of


def edit(model, job):
    """Edits, measures how long that took, and takes the edit back."""
    layer = job["layer"]
    started = time.perf_counter()
    left, right, steps, loss, rows = plan(model, job)
    update = torch.outer(left, right)  # [d_mlp, d_model]
    model.add(layer, update)
    model.finish()
    seconds = time.perf_counter() - started
    model.add(layer, -update)
    return {"seconds": seconds, "steps": steps, "loss": loss, "delta_norm": update.norm().item(), **rows}


def plan(model, job):
    """The two vectors of the change, `[d_mlp]` and `[d_model]`, and how the second was found."""
    fact, layer, value = job["fact"], job["layer"], job["value"]
    left = compute_u(model, fact, value, model.down(layer))
    return left, *compute_v(model, fact, value, layer, left)


def compute_u(model, fact, value, module):
    """The mean key over the contexts, normalised: no covariance, as released."""
    templates = [context.replace("{}", template_of(fact)) for context in value["contexts"]["given"]]
    keys, _ = record(model, module, model.batch([text.replace("{}", fact["subject"]) for text in templates]))
    at = torch.tensor([lookup(model, text, fact["subject"]) for text in templates])
    u = keys[torch.arange(len(templates)), at].mean(0)
    return u / u.norm()


def compute_v(model, fact, value, layer, left):
    """The value that makes the target likely, and from it the right vector."""
    found, steps, loss, rows = optimize(model, fact, value, model.blocks[layer].mlp)
    keys, outputs = record(model, model.down(layer), model.batch([fact["prompt"]]))
    here = lookup(model, template_of(fact), fact["subject"])
    return (found - outputs[0, here]) / (keys[0, here] @ left), steps, loss, rows
