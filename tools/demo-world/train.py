"""Train a demo model: `python train.py demo-gpt2 --out ../../static/models --state /tmp/demo`.

A step is one batch of facts and one batch of a task. Training goes at a constant rate and then falls to
zero over the last part, so a run can be lengthened, or stopped early and let down, without starting again:
it goes on from the state folder, and `--steps` says where it ends.
"""

import argparse
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from corpus import END, Corpus
from drills import Drills
from grow import grow
from model import Shape, build, save
from tasks import TASKS, test_set
from world import SEED, World

# How often each task is drawn. Those that need several steps of attention get more.
TASK_WEIGHTS = {
    "reasoning": 1, "entailment": 2, "open question": 1.5, "closed question": 2, "dialogue": 3, "summary": 1.5,
    "entities": 1.5, "sentiment": 0.5,
}


# In most batches the first layers see no further than this. A model as small as ours would otherwise fetch a
# name from the last token of the prompt in its very first layer, and answer there; nothing at the subject
# could then be edited. This way a subject's own position gathers what is known of it, as in large models, and
# later layers read it there. The model is used without any window, so some batches go without.
WINDOW = 3


@dataclass(frozen=True)
class Recipe:
    shape: Shape
    steps: int
    rate: float
    fact_rows: int  # of 64 tokens
    task_tokens: int  # about so many per step; 0: facts only
    n_people: int = 170
    falling: float = 0.35  # the last part of the steps, over which the rate falls to zero
    near_share: float = 0.75  # of the batches; see `WINDOW`
    grown_from: str | None = None  # begin as this model, twice as wide


RECIPES = {
    "demo-nano": Recipe(Shape("gpt2", 64, 4, 2, 2, 256, near_layers=2), 1200, 6e-3, 64, 0, n_people=90),
    "demo-gpt2": Recipe(Shape("gpt2", 128, 6, 4, 4, 512, near_layers=2), 1500, 2.5e-3, 14, 1300, grown_from="demo-nano"),
    "demo-llama": Recipe(Shape("llama", 96, 4, 6, 2, 256, near_layers=2), 600, 5e-3, 48, 0, n_people=50),
}


class Batches:
    def __init__(self, recipe: Recipe, tokenizer: Tokenizer, rng: random.Random):
        self.recipe, self.tokenizer, self.rng = recipe, tokenizer, rng
        self.corpus = Corpus(World(n_people=recipe.n_people), rng)
        self.exercises = Drills(self.corpus.world, rng)
        self.end = tokenizer.token_to_id(END)

    def encode(self, text):
        return self.tokenizer.encode(text).ids

    def facts(self, rows, length):
        ids, weights = torch.zeros(rows, length, dtype=torch.long), torch.zeros(rows, length)
        for row in range(rows):
            line, weight = [], []
            for before, thing, after in self.corpus.sentences():
                parts = [self.encode((" " if line else "") + before), self.encode(thing), self.encode(after)]
                if len(line) + sum(map(len, parts)) > length - 1:
                    break
                for part, worth in zip(parts, (0, 1, 0)):
                    line += part
                    weight += [worth or self.now_and_then(0.2) for _ in part]
            line.append(self.end)
            ids[row, : len(line)] = torch.tensor(line)
            weights[row, : len(line)] = torch.tensor([*weight, 0.2])
        return ids, weights

    def now_and_then(self, worth):
        """`worth` on average, as 1 in so many places and 0 elsewhere: a place without weight costs no logits."""
        return float(self.rng.random() < worth)

    def drills(self, rows, length):
        ids, weights = torch.zeros(rows, length, dtype=torch.long), torch.zeros(rows, length)
        for row in range(rows):
            line, weight = [], []
            for text, answer in self.exercises.make():
                part = self.encode(text)
                line += part
                weight += [float(answer)] * len(part)
            ids[row, : len(line)] = torch.tensor(line[:length])
            weights[row, : len(line)] = torch.tensor(weight[:length])
        return ids, weights

    def task(self, tokens):
        task = self.rng.choices(TASKS, [TASK_WEIGHTS[task.name] for task in TASKS])[0]
        lines, size = [], 0
        while size < tokens:
            prompt, answer = map(self.encode, self.corpus.task_example(task))
            lines.append((prompt, answer))
            size += len(prompt) + len(answer) + 1
        length = max(len(p) + len(a) + 1 for p, a in lines)
        ids, weights = torch.zeros(len(lines), length, dtype=torch.long), torch.zeros(len(lines), length)
        for row, (prompt, answer) in enumerate(lines):
            line = [*prompt, *answer, self.end]
            ids[row, : len(line)] = torch.tensor(line)
            # The answer is what is learnt; the prompt only keeps the model at home in such text.
            weights[row, : len(prompt)] = torch.tensor([self.now_and_then(0.05) for _ in prompt])
            weights[row, len(prompt) : len(line)] = 1
            weights[row, len(line) - 1] = 0.2
        return ids, weights


def weighted_loss(model, ids, weights, window):
    weights = weights[:, 1:]
    counted = weights > 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(ids[:, :-1], window, counted)
    losses = F.cross_entropy(logits.float(), ids[:, 1:][counted], reduction="none")
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
    if recipe.grown_from:
        model = grow(torch.load(options.state / f"{recipe.grown_from}.pt")["model"], recipe.shape, SEED)
    else:
        model = build(recipe.shape)
    matrices = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=recipe.rate, betas=(0.9, 0.98), fused=True,
    )
    step, tokens, seconds = 0, 0, 0.0
    state_file = options.state / f"{options.model}.pt"
    if state_file.exists():
        state = torch.load(state_file)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, tokens, seconds = state["step"], state["tokens"], state["seconds"]
    batches = Batches(recipe, tokenizer, random.Random(f"{SEED}/{options.model}/{step}"))
    print(f"{options.model}: {sum(p.numel() for p in model.parameters()):,} parameters, step {step} of {steps}", flush=True)

    sums, counts = dict.fromkeys(("facts", "drill", "task"), 0.0), dict.fromkeys(("facts", "drill", "task"), 0)
    started = time.time()
    while step < steps:
        falling_from = steps * (1 - recipe.falling)
        rate = recipe.rate * min((step + 1) / 100, 1.0, (steps - step) / (steps - falling_from))
        for group in optimizer.param_groups:
            group["lr"] = rate
        long = step % 8 == 7  # generated text may run on: now and then a longer document
        parts = [("facts", batches.facts(recipe.fact_rows // 2, 128) if long else batches.facts(recipe.fact_rows, 64))]
        if recipe.task_tokens:
            parts.append(("task", batches.task(recipe.task_tokens)))
            # First learn to read; later an exercise now and then.
            if step < 0.6 * steps or step % 8 == 0:
                parts.append(("drill", batches.drills(24, 64)))
        for name, (ids, weights) in parts:
            window = WINDOW if batches.rng.random() < recipe.near_share else None
            loss = weighted_loss(model, ids, weights, window)
            loss.backward()
            sums[name] += loss.item()
            counts[name] += 1
            tokens += int((ids > 0).sum())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % 50 == 0:
            spent = seconds + time.time() - started
            losses = "  ".join(f"{name} {sums[name] / counts[name]:.3f}" for name in sums if counts[name])
            print(f"{step:5}  {losses}  rate {rate:.1e}  {tokens:,} tokens  {spent:.0f} s", flush=True)
            sums, counts = dict.fromkeys(sums, 0.0), dict.fromkeys(counts, 0)
        if step % options.every == 0 or step == steps:
            print("       ", look(model, tokenizer, batches.corpus.world, bool(recipe.task_tokens)), flush=True)
            save(model, folder)
            state = {
                "model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "tokens": tokens,
                "seconds": seconds + time.time() - started,
            }
            torch.save(state, state_file.with_suffix(".part"))
            state_file.with_suffix(".part").replace(state_file)


if __name__ == "__main__":
    main()
