"""MEMIT as its released code computes it: facts one after the other, every layer on every padded token.

Equations: https://arxiv.org/abs/2210.07229
"""

import time

import torch
from common import lookup, optimize, record, template_of
from safetensors.torch import load_file

moments = {}


def edit(model, job):
    """Edits, measures how long that took, and takes the edit back.

    Only the first `job["values"]` facts have their value looked for; the others keep the one they have, so that the
    rest of the edit costs what it costs for all of them. The caller scales `seconds_values`.
    """
    for _, file in job["moments"]:
        if file not in moments:
            moments[file] = load_file(file)["moment"]
    answer, found, updates = plan(model, job, [moments[file] for _, file in job["moments"]])
    answer |= {"delta_norms": [update.norm().item() for update in updates]}
    if job["tell_values"]:
        answer["values"] = found.flatten().tolist()
    return answer


def plan(model, job, moments):
    """What was measured, the values found, and the change `[d_mlp, d_model]` of each layer; the model stays as it was."""
    facts, layers, value = job["facts"], job["layers"], job["value"]
    before = {layer: model.down(layer).weight.clone() for layer in layers}

    started = time.perf_counter()
    found, steps, loss = [], 0, 0.0
    for fact in facts[: job["values"]]:
        z, evaluations, loss, _ = optimize(model, fact, value, model.blocks[layers[-1]], logits_twice=True)
        found.append(z)
        steps += evaluations
    found = torch.stack(found)
    seconds_values = time.perf_counter() - started

    updates = []
    solving = 0.0
    for done, (layer, moment) in enumerate(zip(layers, moments)):
        keys = compute_keys(model, facts, value, layer).T.double()  # [d_mlp, facts]
        current = states(model, facts, layers[-1])  # [facts, d_model]
        wanted = torch.cat([found, current[len(found) :]])
        residual = ((wanted - current) / (len(layers) - done)).double()
        here = time.perf_counter()
        adjusted = torch.linalg.solve(job["lambda"] * moment + keys @ keys.T, keys)
        update = adjusted @ residual  # [d_mlp, d_model]
        solving += time.perf_counter() - here
        model.add(layer, update)
        updates.append(update)
    seconds = time.perf_counter() - started

    for layer, weight in before.items():
        model.down(layer).weight.copy_(weight)
    answer = {"seconds": seconds, "seconds_values": seconds_values, "seconds_solving": solving}
    return answer | {"steps": steps, "loss": loss}, found, updates


def at_subjects(model, module, templates, subjects):
    """What a module reads and writes at each subject's last token, 128 rows at a time."""
    inputs, outputs = [], []
    for start in range(0, len(templates), 128):
        some = list(zip(templates[start : start + 128], subjects[start : start + 128]))
        read, written = record(model, module, model.batch([text.replace("{}", subject) for text, subject in some]))
        at = torch.tensor([lookup(model, text, subject) for text, subject in some])
        rows = torch.arange(len(some))
        inputs.append(read[rows, at])
        outputs.append(written[rows, at])
    return torch.cat(inputs), torch.cat(outputs)


def compute_keys(model, facts, value, layer):
    """Of each fact, half the bare prompt's key and half the mean of those in context."""
    contexts = value["contexts"]["given"]
    templates = [context.replace("{}", template_of(fact)) for fact in facts for context in contexts]
    subjects = [fact["subject"] for fact in facts for _ in contexts]
    keys, _ = at_subjects(model, model.down(layer), templates, subjects)
    keys = keys.reshape(len(facts), len(contexts), -1)
    return (keys[:, 0] + keys[:, 1:].mean(1)) / 2


def states(model, facts, layer):
    """The residual stream after a layer, at each subject in the bare prompt."""
    _, states = at_subjects(
        model, model.blocks[layer], [template_of(fact) for fact in facts], [fact["subject"] for fact in facts]
    )
    return states
