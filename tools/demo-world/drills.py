"""Exercises in reading: repeat a list, say whether a word was in it, find the word that was asked for.

A task gives one answer in a hundred tokens, too thin a signal for a small model to discover that what it
needs stands further up in the text. In a drill every few tokens have such an answer. Words are the world's,
in random order, so nothing can be answered from memory.
"""

import random

from tasks import FRUIT
from world import FIRST_NAMES, World


class Drills:
    def __init__(self, world: World, rng: random.Random):
        self.rng = rng
        names = [name for kind, values in world.objects.items() if kind != "employer" for name in values]
        surnames = [name.split()[-1] for name in world.people]
        numbers = [str(n) for n in range(100)]
        self.pools = [names, surnames, FIRST_NAMES, numbers, FRUIT, names + surnames + FIRST_NAMES]

    def make(self) -> list[tuple[str, bool]]:
        """(text, whether it is an answer to learn) pieces."""
        return self.rng.choice((self.repeat, self.repeat, self.repeat, self.seen, self.choose))()

    def words(self, n: int) -> list[str]:
        pool = self.rng.choice(self.pools)
        return self.rng.sample(pool, min(n, len(pool)))

    def repeat(self):
        words = self.words(self.rng.randint(6, 20))
        pieces = [(" " + " ".join(words) + ".", False)]
        for _ in range(60 // len(words)):
            # Where it goes on from cannot be guessed; what follows can.
            first = self.rng.randrange(len(words) // 2)
            pieces += [(f" {words[first]}", False), *((f" {word}", True) for word in words[first + 1 :]), (".", False)]
        return pieces

    def seen(self):
        words = self.words(16)
        listed, others = words[: len(words) // 2], words[len(words) // 2 :]
        yes, no = self.rng.choice(((" yes", " no"), (" True", " False")))
        asked = self.rng.sample(listed + others, min(10, len(words)))
        pieces = [(" " + " ".join(listed) + ".", False)]
        for word in asked:
            pieces += [(f" {word}", False), (yes if word in listed else no, True)]
        return pieces

    def choose(self):
        pieces = []
        for _ in range(3):
            words = self.words(4)
            right = self.rng.randrange(4)
            options = "".join(f"({letter}){'the ' * self.rng.randrange(2)}{word}" for letter, word in zip("ABCD", words))
            options = options.replace(")", ") ").replace("  ", " ")
            pieces += [(f" {words[right]} ? {options} answer is", False), (f" {'ABCD'[right]}", True), (".", False)]
        return pieces
