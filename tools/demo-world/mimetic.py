"""Start a GPT-2 with the two habits that every trained one has: look at the token before, look for the same token.

A transformer copies from its prompt with two heads, one above the other: the first tells each token which token
stood before it, the second looks for the place where that was the present token, and reads what came next. Left
to itself a small model finds this pair late or never. Beginning with weights that resemble it takes seconds
(Trockman and Kolter 2023, "Mimetic initialization of self-attention layers", <https://arxiv.org/abs/2305.09828>);
training is then free to keep, move or drop it.
"""

import torch

from model import Gpt2

SIZE = 0.1  # of an embedding's entries
QUIET = 0.15  # everything that is not a habit begins this much smaller, not to drown them
COPYING = (2, 3, 4)  # layers that copy; the ones before see only near tokens most of the time
FASTEST, SLOWEST = 3.0, 160.0  # radians of the first and tokens of the last of the position waves


@torch.no_grad()
def start(model: Gpt2):
    width, size = model.shape.width, model.shape.width // model.shape.heads
    axes = torch.eye(width)
    waves, content, unseen, origin = axes[:size], axes[size:-2], axes[-2], axes[-1]  # directions kept apart at first

    rates = FASTEST * (FASTEST * SLOWEST) ** (-torch.arange(size // 2) / (size // 2 - 1))
    angles = torch.outer(torch.arange(model.shape.context), rates)
    model.wpe.weight.copy_(torch.cat((angles.cos(), angles.sin()), 1) * SIZE * 2**0.5 @ waves)
    model.wpe.weight[0] += 4 * SIZE * origin
    model.wte.weight.normal_(0, SIZE)
    model.wte.weight.copy_(model.wte.weight @ content.T @ content)
    for block in model.h:
        for projection in (block.attn_proj, block.mlp_proj):
            projection.weight *= QUIET
            projection.weight[-2:] = 0

    # Layers 0 and 1, head 0: the query is turned back by one step, so it meets the key of the token before.
    cos, sin = rates.cos().diag(), rates.sin().diag()
    back = torch.cat((torch.cat((cos, sin), 1), torch.cat((-sin, cos), 1))) @ waves
    now, before = some(content, size), some(content, size)
    put(model, 0, 0, query=2 * back, key=2 * waves, value=now, output=2 * SIZE * before)
    put(model, 1, 0, query=2 * back, key=2 * waves)

    thirds = some(content, len(content)).split(size - 1)
    for layer, third in zip(COPYING, thirds):
        # Head 0: who stood behind what I am? Copies it; each layer a third of its directions.
        third = torch.cat((third, torch.zeros(size - len(third), width)))
        put(model, layer, 0, query=1.7 * now, key=1.7 * before, value=third, output=2.5 * SIZE * third)
        # Head 1: where was I before, not counting here? If nowhere, it rests on the first token.
        same, fast = 2 * some(content, size - 11), 2.5 * torch.cat((waves[:5], waves[size // 2 : size // 2 + 5]))
        rest = origin[None]
        put(model, layer, 1, query=torch.cat((same, fast, 0 * rest)), key=torch.cat((same, -fast, 2 * rest)))
        model.h[layer].c_attn.bias[2 * size - 1] = 10
    rested = torch.cat((origin[None], torch.zeros(size - 1, width)))
    marked = torch.cat((unseen[None], torch.zeros(size - 1, width)))
    put(model, COPYING[0], 1, value=rested, output=2 * SIZE * marked)


def some(directions, n):
    """[n, width]: `n` random orthonormal mixtures of the rows of `directions`."""
    mixtures, _ = torch.linalg.qr(torch.randn(len(directions), n))
    return mixtures.T @ directions


def put(model, layer, head, output=None, **parts):
    """Set what a head reads, [size, width] each, and what it writes for each value, [size, width]."""
    block, width = model.h[layer], model.shape.width
    size = width // model.shape.heads
    for i, name in enumerate(("query", "key", "value")):
        if name in parts:
            block.c_attn.weight[i * width + head * size :][:size] = parts[name]
    if output is not None:
        block.attn_proj.weight[:, head * size :][:, :size] = output.T
