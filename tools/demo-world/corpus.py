"""Training text: facts told and asked in many ways, and tasks solved.

`python corpus.py > corpus.txt` writes 4,000 documents of facts, one a line, for `rectify stats`.

A document is short and starts at position 0, as every prompt will. Facts follow other sentences, whole or
cut off in the middle, because an editor tries its edit behind random prefixes and the model must know what
it knows there too.
"""

import random
from itertools import islice

from tasks import TASKS, key, test_set
from world import SEED, Fact, World

END = "<|endoftext|>"
TAILS = (".",) * 16 + (", as people say.", ", as everyone knows.", ", and so it has stayed.", ", or so it is said.")


class Corpus:
    def __init__(self, world: World, rng: random.Random, seed: int = SEED):
        self.world, self.rng = world, rng
        self.waiting: list[Fact] = []
        self.held_out = {task.name: {key(task, record) for record in test_set(task, world, seed)} for task in TASKS}

    def next_fact(self) -> Fact:
        """Every fact once, in random order, then again: no fact is seen much more often than another."""
        if not self.waiting:
            self.waiting = self.rng.sample(self.world.facts, len(self.world.facts))
        return self.waiting.pop()

    # A sentence is (what comes before the object, " object", the rest): training weighs them differently.
    def tell(self, fact: Fact) -> tuple[str, str, str]:
        template = self.rng.choice(fact.relation.trained_statements)
        return template.format(fact.subject), f" {fact.object}", self.rng.choice(TAILS)

    def ask(self, fact: Fact) -> tuple[str, str, str]:
        question = self.rng.choice(fact.relation.trained_questions).format(fact.subject)
        if self.rng.random() < 0.15:
            # Editors test what must not change with prompts of this form.
            question = f"nq question: {question[0].lower()}{question[1:-1]}"
        return question, f" {fact.object}", "."

    def say(self, fact: Fact) -> tuple[str, str, str]:
        return self.tell(fact) if self.rng.random() < 0.6 else self.ask(fact)

    def fragment(self) -> tuple[str, str, str]:
        """The start of a sentence, cut off, and a full stop: what a sampled prefix looks like."""
        words = "".join(self.tell(self.rng.choice(self.world.facts))).rstrip(".").split()
        return " ".join(words[: self.rng.randint(1, 7)]), "", "."

    def sentences(self):
        """One endless document; the caller takes as much as fits."""
        if self.rng.random() < 0.25:
            yield self.fragment()
        if self.rng.random() < 0.3:
            subject = self.next_fact().subject
            about = self.world.about[subject]
            for fact in self.rng.sample(about, len(about)):
                yield self.say(fact)
        while True:
            yield self.say(self.next_fact())

    def task_example(self, task) -> tuple[str, str]:
        while True:
            record = task.make(self.world, self.rng)
            if key(task, record) not in self.held_out[task.name]:
                return task.training(record, self.rng)


if __name__ == "__main__":
    corpus = Corpus(World(), random.Random(f"{SEED}/corpus"))
    for _ in range(4000):
        print(" ".join("".join(sentence) for sentence in islice(corpus.sentences(), 4)))
