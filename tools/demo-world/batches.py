"""Batches: token ids and, for each token, how much it counts.

What can be known counts fully: a fact's object, a task's answer, a drill's answers. The rest of a fact's sentence
counts a little, so that what the model generates is language; the rest of a task or drill is only read.
"""

import random

import torch
from tokenizers import Tokenizer

from corpus import END, Corpus
from drills import Drills
from recipe import DRILLS, FIRST_DRILLS, NEXT_DRILLS, TASK_WEIGHTS, Recipe
from tasks import TASKS
from world import World

LONGEST_DRILL = 96


class Batches:
    def __init__(self, recipe: Recipe, tokenizer: Tokenizer, rng: random.Random):
        self.recipe, self.tokenizer, self.rng = recipe, tokenizer, rng
        self.corpus = Corpus(World(n_people=recipe.n_people), rng)
        self.exercises = Drills(self.corpus.world, rng)
        self.end = tokenizer.token_to_id(END)

    def encode(self, text):
        return self.tokenizer.encode(text).ids

    def facts(self, rows, length):
        return padded([self.document(length) for _ in range(rows)], length)

    def document(self, length):
        line = []
        for before, thing, after in self.corpus.sentences():
            before, thing, after = (self.encode(part) for part in ((" " if line else "") + before, thing, after))
            if len(line) + len(before) + len(thing) + len(after) > length - 1:
                return [*line, (self.end, 0.1)]
            line += [(token, self.now_and_then(0.05)) for token in before]
            line += [(token, 1.0) for token in thing]
            line += [(token, self.now_and_then(0.05)) for token in after]

    def now_and_then(self, worth):
        """`worth` on average, as 1 in so many places and 0 elsewhere: a place without weight costs no logits."""
        return float(self.rng.random() < worth)

    def drill(self, name, tokens):
        def one():
            pieces = [(self.encode(text), float(answer)) for text, answer in getattr(self.exercises, name)()]
            return [(token, worth) for part, worth in pieces for token in part][:LONGEST_DRILL]

        return filled(one, tokens)

    def task(self, name, tokens):
        task = next(task for task in TASKS if task.name == name)

        def one():
            prompt, answer = map(self.encode, self.corpus.task_example(task))
            # The answer is what is learnt.
            return [(token, 0.0) for token in prompt] + [(token, 1.0) for token in answer] + [(self.end, 0.2)]

        return filled(one, tokens)

    def of_step(self, step):
        """(name, ids, weights) of the batches whose gradients make one step."""
        recipe, parts = self.recipe, []
        if step < recipe.reading:
            parts.append(("repeat", *self.drill("repeat", 640)))
            if step >= recipe.repeating:
                name = self.drawn(FIRST_DRILLS if step < recipe.reading * 0.4 else NEXT_DRILLS)
                parts.append((name, *self.drill(name, 1500)))
            return parts
        drilling = step < recipe.drilling
        rows = recipe.fact_rows // 2 if drilling else recipe.fact_rows
        long = step % 8 == 7  # generated text may run on: now and then a longer document
        parts.append(("facts", *(self.facts(rows // 2, 128) if long else self.facts(rows, 64))))
        for _ in range(recipe.tasks):
            name = self.drawn(TASK_WEIGHTS)
            parts.append((name, *self.task(name, 1000)))
        if drilling:
            name = self.drawn(DRILLS)
            parts.append((name, *self.drill(name, 1000)))
        return parts

    def drawn(self, shares):
        return self.rng.choices(list(shares), list(shares.values()))[0]


def filled(one, tokens):
    """Rows until there are so many tokens."""
    rows, size = [], 0
    while size < tokens:
        rows.append(one())
        size += len(rows[-1])
    return padded(rows, max(map(len, rows)))


def padded(rows, length):
    """Rows of (token, weight) as two matrices."""
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    weights = torch.zeros(len(rows), length)
    for row, line in enumerate(rows):
        ids[row, : len(line)] = torch.tensor([token for token, _ in line])
        weights[row, : len(line)] = torch.tensor([weight for _, weight in line])
    return ids, weights
