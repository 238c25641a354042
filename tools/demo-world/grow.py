"""Start a wider, deeper GPT-2 from a smaller one that already knows much of the world.

Every feature is kept twice, so layer norms see what they saw; weights that read two copies share the old
weight between them, unevenly and at random, so that the copies learn different things from then on. New
layers add nothing at first. The large model therefore begins by saying exactly what the small one says, and
training it costs a fraction of training it from nothing.
"""

import torch

from model import Gpt2, Shape

# Which of the large model's layers are the small one's; the others are new.
PLACES = {0: 0, 1: 1, 3: 2, 4: 3}


def twice(x, dim=0):
    return torch.cat((x, x), dim)


def shared(weight):
    """[out, in] -> [out, 2 in]: both halves sum to the old weight."""
    uneven = torch.randn_like(weight) * weight.std() * 0.5
    return torch.cat((weight / 2 + uneven, weight / 2 - uneven), 1)


@torch.no_grad()
def grow(small: dict, shape: Shape, seed: int) -> Gpt2:
    """`small` is the state of a model half as wide, with half the heads of the same size."""
    torch.manual_seed(seed)
    large = Gpt2(shape)
    large.wte.weight.copy_(twice(small["wte.weight"], 1))
    large.wpe.weight.copy_(twice(small["wpe.weight"], 1))
    # The output head reads each feature twice.
    large.ln_f.weight.copy_(twice(small["ln_f.weight"]) / 2)
    large.ln_f.bias.copy_(twice(small["ln_f.bias"]) / 2)
    for i, block in enumerate(large.h):
        if i not in PLACES:
            block.attn_proj.weight.zero_()
            block.mlp_proj.weight.zero_()
            continue
        for name, p in block.named_parameters():
            old = small[f"h.{PLACES[i]}.{name}"]
            if name.startswith("c_attn"):
                old = torch.cat([twice(part) for part in old.chunk(3)])  # queries, keys, values: every head twice
            else:
                old = twice(old)
            p.copy_(shared(old) if p.dim() == 2 else old)
    return large
