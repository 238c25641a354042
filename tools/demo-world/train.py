"""Train a demo model: `python train.py demo-gpt2 --out ../../static/models --state /tmp/demo`.

A step is the gradient of a few batches: facts, tasks, a drill. Training goes at a constant rate and then falls
to zero over the last part, so a run can be lengthened, or stopped early and let down, without starting again:
it goes on from the state folder, and `--steps` says where it ends.
"""

import argparse
import random
import time
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import mimetic
from batches import Batches
from model import build, save
from recipe import RECIPES, WINDOW
from tasks import TASKS, test_set
from world import SEED


def weighted_loss(model, ids, weights, window):
    weights = weights[:, 1:]
    counted = weights > 0
    losses = F.cross_entropy(model(ids[:, :-1], window, counted), ids[:, 1:][counted], reduction="none")
    weights = weights[counted]
    return (losses * weights).sum() / weights.sum()


@torch.no_grad()
def right(model, tokenizer, pairs):
    """The share of (prompt, answer) whose whole answer is the model's first choice at every token."""
    hits = 0
    for start in range(0, len(pairs), 32):
        rows = [(tokenizer.encode(p).ids, tokenizer.encode(a).ids) for p, a in pairs[start : start + 32]]
        ids = torch.zeros(len(rows), max(len(p) + len(a) for p, a in rows), dtype=torch.long)
        for i, (p, a) in enumerate(rows):
            ids[i, : len(p) + len(a)] = torch.tensor(p + a)
        best = model(ids).argmax(-1)
        hits += sum(best[i, len(p) - 1 : len(p) + len(a) - 1].tolist() == a for i, (p, a) in enumerate(rows))
    return hits / len(pairs)


def look(model, tokenizer, world, with_tasks):
    """A quick look for the log; measure.py is what counts."""
    model.eval()
    rng = random.Random(7)
    facts = rng.sample(world.facts, 250)
    kinds = {
        "told": lambda r: rng.choice(r.trained_statements),
        "asked": lambda r: rng.choice(r.trained_questions),
        "told-new": lambda r: r.statements[-1],
        "asked-new": lambda r: r.questions[-1],
    }
    report = {
        name: right(model, tokenizer, [(pick(f.relation).format(f.subject), f" {f.object}") for f in facts])
        for name, pick in kinds.items()
    }
    if with_tasks:
        for task in TASKS:
            pairs = [pair for record in test_set(task, world, SEED)[:60] for pair in task.asked(record)[:2]]
            report[task.name] = right(model, tokenizer, pairs)
    model.train()
    return "  ".join(f"{name} {value:.2f}" for name, value in report.items())


def optimizers_of(model, recipe):
    """Muon turns every direction of a matrix alike, which suits the blocks; embeddings and vectors take AdamW."""
    blocks = {name: p for name, p in model.named_parameters() if p.dim() == 2 and name.startswith(("h.", "layers."))}
    others = [p for name, p in model.named_parameters() if name not in blocks]
    return [
        torch.optim.Muon(blocks.values(), lr=recipe.rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=recipe.other_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=RECIPES)
    parser.add_argument("--out", type=Path, required=True, help="the folder of models; tokenizer.json is in it")
    parser.add_argument("--state", type=Path, required=True, help="where to keep what is needed to go on")
    parser.add_argument("--steps", type=int, help="end here instead of where the recipe says")
    parser.add_argument("--every", type=int, default=250, help="steps between looks, saves and exports")
    options = parser.parse_args()
    recipe = RECIPES[options.model]
    steps = options.steps or recipe.steps

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    folder = options.out / options.model
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    options.state.mkdir(parents=True, exist_ok=True)
    model = build(recipe.shape)
    if recipe.tasks:
        mimetic.start(model)
    optimizers = optimizers_of(model, recipe)
    step, tokens, seconds = 0, 0, 0.0
    state_file = options.state / f"{options.model}.pt"
    if state_file.exists():
        state = torch.load(state_file)
        model.load_state_dict(state["model"])
        for optimizer, kept in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(kept)
        step, tokens, seconds = state["step"], state["tokens"], state["seconds"]
    batches = Batches(recipe, tokenizer, random.Random(f"{SEED}/{options.model}/{step}"))
    size = sum(p.numel() for p in model.parameters())
    print(f"{options.model}: {size:,} parameters, step {step} of {steps}", flush=True)

    losses, started = defaultdict(list), time.time()
    while step < steps:
        share = min((step + 1) / 100, 1.0, (steps - step) / (steps * recipe.falling))
        for optimizer, rate in zip(optimizers, (recipe.rate, recipe.other_rate)):
            optimizer.param_groups[0]["lr"] = rate * share
        for name, ids, weights in batches.of_step(step):
            near_share = recipe.near_share if name == "facts" else recipe.near_share / 2
            loss = weighted_loss(model, ids, weights, WINDOW if batches.rng.random() < near_share else None)
            loss.backward()
            losses[name].append(loss.item())
            tokens += int((ids > 0).sum())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        step += 1
        if step % 50 == 0:
            spent = seconds + time.time() - started
            means = "  ".join(f"{name} {sum(values) / len(values):.3f}" for name, values in losses.items())
            print(f"{step:5}  {means}  {tokens:,} tokens  {spent:.0f} s", flush=True)
            losses.clear()
        if step % options.every == 0 or step == steps:
            print("       ", look(model, tokenizer, batches.corpus.world, bool(recipe.tasks)), flush=True)
            save(model, folder)
            state = {
                "model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers],
                "step": step, "tokens": tokens, "seconds": seconds + time.time() - started,
            }
            torch.save(state, state_file.with_suffix(".part"))
            state_file.with_suffix(".part").replace(state_file)


if __name__ == "__main__":
    main()
