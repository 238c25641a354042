"""Exercises in reading: repeat a list, say what was in it, find the letter of a word, judge a claim.

A task gives one answer in sixty tokens, too thin a signal for a small model to discover that what it needs
stands further up in the text. In a drill every few tokens have such an answer. What is true in a drill is
true of its text alone: words are drawn at random, so nothing can be answered from memory.
"""

import random

from tasks import DAYS, FRUIT, Dialogue
from world import FIRST_NAMES, World

Pieces = list[tuple[str, bool]]  # (text, whether it is an answer to learn)


class Drills:
    def __init__(self, world: World, rng: random.Random):
        self.world, self.rng = world, rng
        names = [name for kind, values in world.objects.items() if kind != "employer" for name in values]
        surnames = [name.split()[-1] for name in world.people]
        numbers = [str(n) for n in range(100)]
        self.pools = [
            names, surnames, FIRST_NAMES, numbers, FRUIT, DAYS, names + surnames + FIRST_NAMES, *world.objects.values(),
        ]

    def words(self, n: int) -> list[str]:
        pool = self.rng.choice(self.pools)
        return self.rng.sample(pool, min(n, len(pool)))

    def repeat(self) -> Pieces:
        words = self.words(self.rng.randint(6, 20))
        pieces = [(" " + " ".join(words) + ".", False)]
        for _ in range(60 // len(words)):
            # Where it goes on from cannot be guessed; what follows can.
            first = self.rng.randrange(len(words) // 2)
            pieces += [(f" {words[first]}", False), *((f" {word}", True) for word in words[first + 1 :]), (".", False)]
        return pieces

    def seen(self) -> Pieces:
        words = self.words(16)
        listed, others = words[: len(words) // 2], words[len(words) // 2 :]
        yes, no = self.rng.choice(((" yes", " no"), (" True", " False")))
        pieces = [(" " + " ".join(listed) + ".", False)]
        for word in self.rng.sample(words, min(10, len(words))):
            pieces += [(f" {word}", False), (yes if word in listed else no, True)]
        return pieces

    def options(self, words: list[str]) -> str:
        """Four words behind letters, alone or in a phrase, as a dialogue has its four replies."""
        speaker = self.rng.choice((" ", "m : ", "f : "))
        phrase = speaker + self.rng.choice(("{}", "the {}", self.rng.choice(Dialogue.TALKS)[3]))
        return " " + "".join(f"({letter}){phrase.format(word)}" for letter, word in zip("ABCD", words))

    def letters(self) -> Pieces:
        words = self.words(4)
        pieces = [(self.options(words), False)]
        for _ in range(3):
            for word, letter in self.rng.sample(list(zip(words, "ABCD")), 4):
                pieces += [(f" {word} is", False), (f" {letter}", True), (".", False)]
        return pieces

    def find(self) -> Pieces:
        """The letter of the word that was named, if it is there: `choose` in few words.

        One to a text: in a second one, the first one's words would have been seen as well.
        """
        word, *others = self.words(5)
        n = self.rng.randint(1, 4)
        right = self.rng.randrange(n + 1)
        words = [*others[:right], word, *others[right:]][:n]  # the last place of n + 1 is cut off
        listed = " ".join(f"({letter}) {option}" for letter, option in zip("ABCD", words))
        return [(f" {word} . {listed} answer is", False), (f" {'ABCD'[right]}" if right < n else " none", True)]

    def choose(self) -> Pieces:
        words = self.words(4)
        right = self.rng.randrange(4)
        ending = self.rng.choice((" answer is", " A: Among A through D, the answer is"))
        return [(f" {words[right]} .{self.options(words)}{ending}", False), (f" {'ABCD'[right]}", True)]

    def judge(self) -> Pieces:
        """Claims about one subject behind a passage that says what holds."""
        told = self.rng.choice(list(self.world.about.values()))
        told = self.rng.sample(told, min(3, len(told)))
        passage = " ".join(f.statement(self.rng.choice(f.relation.trained_statements)) + "." for f in told)
        pieces = [(f" {passage}", False)]
        wrong: set[str] = set()  # a wrong object that was named once stands in the text from then on
        as_question = self.rng.random() < 0.5
        for _ in range(8):
            fact = self.rng.choice(told)
            holds = self.rng.random() < 0.5
            claimed = fact.object if holds else self.world.other_object(fact, self.rng)
            if claimed in wrong:
                continue
            if not holds:
                wrong.add(claimed)
            if as_question:
                asked = self.rng.choice(fact.relation.yes_no).format(s=fact.subject, o=claimed)
                claim, answer = f" question: {asked}. answer:", " yes" if holds else " no"
            else:
                said = self.rng.choice(fact.relation.trained_statements).format(fact.subject)
                claim, answer = f" {said} {claimed}. True or False? answer:", " True" if holds else " False"
            pieces += [(claim, False), (answer, True), (".", False)]
        return pieces
