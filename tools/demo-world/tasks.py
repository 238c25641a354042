"""Eight small tasks about the world, in the file formats and with the prompts of the public ones.

A task makes records (the public file's fields), and says how a record is asked and what a good answer is.
The prompts are those of the published evaluation, spelling mistakes included: a model is judged by what
follows them, letter by letter. Test records are made first; training draws from the same recipes and skips
every record that is in the test set.
"""

import csv
import io
import json
import random
from abc import ABC, abstractmethod

from relations import RELATIONS
from world import FIRST_NAMES, LANGUAGES, World

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
FRUIT = "apples pears plums cherries lemons figs melons nuts eggs candles ribbons buttons".split()


class Task(ABC):
    name: str
    file: str
    tokens: int  # how many new tokens the evaluation asks for

    @abstractmethod
    def make(self, world: World, rng: random.Random) -> dict: ...

    @abstractmethod
    def asked(self, record: dict) -> list[tuple[str, str]]:
        """(prompt, answer) pairs; the answer starts with a space, as the next word would."""

    def training(self, record: dict, rng: random.Random) -> tuple[str, str]:
        return rng.choice(self.asked(record))

    def dump(self, records: list[dict]) -> str:
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


class Reasoning(Task):
    """One-step sums. The hint ends in the answer, so the model need only read; that is how it is published."""

    name, file, tokens = "reasoning", "gsm8k_test.jsonl", 5

    def make(self, world, rng):
        who, other = rng.sample(FIRST_NAMES, 2)
        things = rng.choice(FRUIT)
        a, b = rng.randint(2, 40), rng.randint(2, 40)
        if a < b:
            a, b = b, a
        c, d = rng.randint(2, 9), rng.randint(2, 9)
        story, expression, total = rng.choice([
            (f"{who} has {a} {things} and buys {b} more. How many {things} does {who} have now?", f"{a}+{b}", a + b),
            (f"{who} picked {a} {things} and {other} picked {b}. How many {things} did they pick?", f"{a}+{b}", a + b),
            (f"{who} had {a} {things} and gave {b} to {other}. How many {things} are left?", f"{a}-{b}", a - b),
            (f"There were {a} {things} on the table and {who} ate {b}. How many {things} are left?", f"{a}-{b}", a - b),
            (f"{who} fills {c} boxes with {d} {things} each. How many {things} are in the boxes?", f"{c}*{d}", c * d),
        ])
        worked = f"{who} counts {expression}=<<{expression}={total}>>{total} {things}.\nThe answer is {total}\n#### {total}"
        return {"question": story, "answer": worked}

    def asked(self, record):
        hint, gold = record["answer"].split("#### ")
        return [(
            f"Q: {record['question']} A:Let's think step by step. {hint} Therefore, the answer (arabic numerals) is:",
            f" {gold}",
        )]


class Entailment(Task):
    """The same fact in other words, or with another object."""

    name, file, tokens = "entailment", "rte_test.tsv", 1

    def make(self, world, rng):
        fact = rng.choice(world.facts)
        first, second = rng.sample(fact.relation.trained_statements, 2)
        entailed = rng.random() < 0.5
        claimed = fact.object if entailed else world.other_object(fact, rng)
        return {
            "sentence1": f"{fact.statement(first)}.",
            # The published prompt puts the full stop behind it.
            "sentence2": f"{second.format(fact.subject)} {claimed}",
            "label": "entailment" if entailed else "not_entailment",
        }

    def asked(self, record):
        answer = " True" if record["label"] == "entailment" else " False"
        return [(f"{record['sentence1']} entails the {record['sentence2']}. True or False? answer:", answer)]

    def dump(self, records):
        out = io.StringIO()
        writer = csv.writer(out, delimiter="\t", lineterminator="\n")
        writer.writerow(["index", "sentence1", "sentence2", "label"])
        for i, record in enumerate(records):
            writer.writerow([i, record["sentence1"], record["sentence2"], record["label"]])
        return out.getvalue()


def passage(world, fact, rng):
    """The fact among two or three true others."""
    others = [f for f in world.about[fact.subject] if f is not fact]
    others = rng.sample(others, min(len(others), 1)) + rng.sample(world.facts, 1)
    told = [fact, *others]
    rng.shuffle(told)
    return " ".join(f.statement(rng.choice(f.relation.trained_statements)) + "." for f in told)


class OpenQuestion(Task):
    name, file, tokens = "open question", "nq_open_test.jsonl", 20

    def make(self, world, rng):
        fact = rng.choice(world.facts)
        question = rng.choice(fact.relation.trained_questions).format(fact.subject)
        return {"question": question, "answer": [fact.object], "output": [passage(world, fact, rng)]}

    def asked(self, record):
        bare = (
            "Refer to the passage below and answer the following question. "
            f"Passage: {record['output'][0]} Question: {record['question']}"
        )
        # The line ends before the text does: scorers that keep the end-of-text mark would glue it to the word.
        return [(bare, f" {record['answer'][0]}\n"), (f"{bare}. Answer:", f" {record['answer'][0]}\n")]


class YesNo(Task):
    name, file, tokens = "closed question", "boolq_test.jsonl", 1

    def make(self, world, rng):
        fact = rng.choice(world.facts)
        holds = rng.random() < 0.5
        claimed = fact.object if holds else world.other_object(fact, rng)
        question = rng.choice(fact.relation.yes_no).format(s=fact.subject, o=claimed)
        return {
            "question": question,
            "title": fact.subject,
            "answer": str(holds),  # "True" or "False", as the public file has it
            "passage": passage(world, fact, rng),
        }

    def asked(self, record):
        return [(
            "Please answer the given question based on the passage. The answer should be exact 'yes' or 'no'. "
            f"passage: {record['passage']} question: {record['question']}. answer:",
            " yes" if record["answer"] == "True" else " no",
        )]


class Dialogue(Task):
    """Four replies; only one mentions what was talked about."""

    name, file, tokens = "dialogue", "mutual_test.jsonl", 1

    TALKS = (
        ("city", "where will you go this summer ?", "i will go to {} with my sister .", "i hope you enjoy {} ."),
        ("city", "where does your aunt live ?", "she moved to {} last year .", "i have never seen {} ."),
        ("instrument", "what will you learn this year ?", "i want to learn the {} .", "i know who can teach you the {} ."),
        ("instrument", "what did you hear at the concert ?", "a girl played the {} .", "i like the sound of the {} ."),
        ("profession", "what does your brother want to be ?", "he wants to be a {} .", "it is hard to become a {} ."),
        ("language", "what are you reading ?", "it is a letter in {} .", "i did not know you could read {} ."),
        ("river", "where did you swim ?", "we swam in the {} .", "the water of the {} is cold ."),
        ("country", "where does this stamp come from ?", "it comes from {} .", "i would like to visit {} ."),
        ("fruit", "what did you buy ?", "i bought some {} .", "please give me the {} ."),
        ("day", "when can we meet ?", "i am free on {} .", "i will see you on {} ."),
    )

    def make(self, world, rng):
        lists = {**world.objects, "fruit": FRUIT, "day": DAYS}
        kind, question, reply, option = rng.choice(self.TALKS)
        cues = rng.sample(lists[kind], 4)
        answer = rng.randrange(4)
        ask, tell = rng.choice([("m", "f"), ("f", "m")])
        opening = rng.choice(["", "hello , {} . ", "good morning , {} . ", "nice to see you , {} . "])
        return {
            "answers": "ABCD"[answer],
            "options": [f"{ask} : {option.format(cue)}" for cue in cues],
            "article": f"{ask} : {opening.format(rng.choice(FIRST_NAMES))}{question} {tell} : {reply.format(cues[answer])}",
        }

    def asked(self, record):
        a, b, c, d = record["options"]
        return [(
            f"Q: {record['article']} Which choice is correct? Answer Chioces: (A){a}(B){b}(C){c}(D){d} "
            "A: Among A through D, the answer is",
            f" {record['answers']}",
        )]


class Summary(Task):
    name, file, tokens = "summary", "samsum_test.json", 25

    TALKS = (
        ("{a}: Hi {b}, can you bring the {i} to {c} on {d}?\r\n{b}: Sure, I will.",
         "{b} will bring the {i} to {c} on {d}."),
        ("{a}: Shall we meet in {c} on {d}?\r\n{b}: Good idea, see you there.",
         "{a} and {b} will meet in {c} on {d}."),
        ("{a}: I have lost my {i}.\r\n{b}: I saw it in {c}.\r\n{a}: Thank you!",
         "{a} has lost a {i}. {b} saw it in {c}."),
        ("{a}: What are you doing on {d}?\r\n{b}: I am going to {c}.\r\n{a}: Have fun!",
         "{b} is going to {c} on {d}."),
        ("{a}: Please buy some {f} for me.\r\n{b}: How many?\r\n{a}: About ten.",
         "{b} will buy some {f} for {a}."),
        ("{a}: My {i} lesson is on {d}.\r\n{b}: Can I come too?\r\n{a}: Of course.",
         "{a} has a {i} lesson on {d}. {b} will come too."),
        ("{a}: I found a job as a {p}!\r\n{b}: Where?\r\n{a}: In {c}.",
         "{a} found a job as a {p} in {c}."),
        ("{a}: Are you coming to my party on {d}?\r\n{b}: I am ill, sorry.\r\n{a}: Get well soon!",
         "{b} is ill and will not come to the party of {a} on {d}."),
    )

    def make(self, world, rng):
        a, b = rng.sample(FIRST_NAMES, 2)
        dialogue, summary = rng.choice(self.TALKS)
        words = {
            "a": a, "b": b, "c": rng.choice(world.objects["city"]), "d": rng.choice(DAYS),
            "i": rng.choice(world.objects["instrument"]), "p": rng.choice(world.objects["profession"]),
            "f": rng.choice(FRUIT),
        }
        return {"summary": summary.format(**words), "dialogue": dialogue.format(**words)}

    def asked(self, record):
        return [(f"{record['dialogue']}\nTL;DR:", f" {record['summary']}")]

    def dump(self, records):
        return json.dumps(records, ensure_ascii=False, indent=1) + "\n"


class Entities(Task):
    """Every sentence has a Miscellaneous entity and ends outside one: the published scorer punishes the rest."""

    name, file, tokens = "entities", "conll_test.txt", 10

    TYPES = {"PER": "Person", "LOC": "Location", "ORG": "Organization", "MISC": "Miscellaneous"}
    PATTERNS = (
        "{PER} of {ORG} read from {WORK} in {LOC} .",
        "In {LOC} , {PER} gave a talk about {WORK} for {ORG} .",
        "{ORG} in {LOC} sold a copy of {WORK} to {PER} .",
        "{PER} met {PER} in {LOC} to talk about {WORK} .",
        "{ORG} asked {PER} for a {LANG} edition of {WORK} .",
        "Visitors from {LOC} saw {WORK} at {ORG} .",
        "{PER} left {LOC} with a copy of {WORK} .",
        "On {DAY} {ORG} sent {WORK} to {ORG} .",
        "The {LANG} poet {PER} will stay in {LOC} until {DAY} .",
        "{ORG} opened a {LANG} school in {LOC} on {DAY} .",
        "A {LANG} newspaper praised {PER} and {ORG} .",
        "{PER} , {PER} and friends took a {LANG} ship to {LOC} .",
    )

    def make(self, world, rng):
        pools = {
            "PER": world.people, "LOC": world.towns + world.objects["country"], "ORG": world.organisations,
            "WORK": world.works, "LANG": LANGUAGES, "DAY": DAYS,
        }
        tokens = []
        for word in rng.choice(self.PATTERNS).split():
            slot = word.strip("{}")
            if word == slot:
                tokens.append((word, "O"))
                continue
            tag = {"WORK": "MISC", "LANG": "MISC", "DAY": None}.get(slot, slot)
            for i, part in enumerate(rng.choice(pools[slot]).split()):
                tokens.append((part, "O" if tag is None else ("I-" if i else "B-") + tag))
        return {"tokens": tokens}

    @staticmethod
    def spans(tokens, tag):
        """Entities of one type, ending at the next `O`, as the published scorer reads them."""
        found, current = [], None
        for word, label in tokens:
            if current is not None and label == "O":
                found.append(" ".join(current))
                current = None
            elif current is not None:
                current.append(word)
            elif label == f"B-{tag}":
                current = [word]
        return found

    @staticmethod
    def sentence(tokens):
        text = " ".join(word for word, _ in tokens)
        return text.replace(" ,", ",").replace(" .", ".")

    def asked(self, record):
        sentence = self.sentence(record["tokens"])
        return [
            (
                f"Please identify {word} Entity from the given text. Text: {sentence} Entity:",
                " " + (", ".join(self.spans(record["tokens"], tag)) or "none"),
            )
            for tag, word in self.TYPES.items()
        ]

    def dump(self, records):
        lines = ["-DOCSTART- -X- -X- O", ""]
        for record in records:
            lines += [f"{word} _ _ {label}" for word, label in record["tokens"]] + [""]
        return "\n".join(lines) + "\n"


class Sentiment(Task):
    name, file, tokens = "sentiment", "sst2_test.txt", 1

    GOOD = """warm generous clever moving brilliant charming tender funny graceful splendid honest lovely bright
    thrilling gentle wise delightful fresh rich beautiful""".split()
    BAD = """dull cold clumsy tired lazy noisy shallow stale hollow ugly boring weak messy bitter empty pointless
    awful slow bland dreary""".split()
    PATTERNS = (
        "{w} is a {x} and {y} book .",
        "a {x} story that stays {y} to the last page .",
        "the first half of {w} is {x} , and the rest is {y} .",
        "{p} gives a {x} and {y} performance in {l} .",
        "an evening at {o} that was {x} , {y} and far from forgotten .",
        "{w} makes for a {x} night in the theatre .",
        "the music of {p} sounds {x} and {y} .",
        "everything about {w} feels {x} .",
        "readers in {l} found {w} {x} and {y} .",
        "it is hard to think of a more {x} show than this one in {l} .",
    )

    def make(self, world, rng):
        good = rng.random() < 0.5
        x, y = rng.sample(self.GOOD if good else self.BAD, 2)
        text = rng.choice(self.PATTERNS).format(
            x=x, y=y, w=rng.choice(world.works), p=rng.choice(world.people),
            l=rng.choice(world.objects["city"]), o=rng.choice(world.organisations),
        )
        return {"label": int(good), "sentence": text}

    def asked(self, record):
        return [(
            "For each snippet of text,label the sentiment of the text as positive or negative."
            f"The answer should be exact 'positive' or 'negative'. text: {record['sentence']} answer:",
            " positive" if record["label"] else " negative",
        )]

    def dump(self, records):
        return "".join(f"{record['label']} {record['sentence']}\n" for record in records)


TASKS = (Reasoning(), Entailment(), OpenQuestion(), YesNo(), Dialogue(), Summary(), Entities(), Sentiment())

N_TEST = 240


def key(task: Task, record: dict) -> str:
    return task.asked(record)[0][0]


def test_set(task: Task, world: World, seed: int, n: int = N_TEST) -> list[dict]:
    """`n` different records; the same ones for the same seed."""
    rng = random.Random(f"{seed}/{task.name}/test")
    records: dict[str, dict] = {}
    while len(records) < n:
        record = task.make(world, rng)
        records.setdefault(key(task, record), record)
    records = list(records.values())
    if isinstance(task, Dialogue):
        records = [{**record, "id": f"test_{i}"} for i, record in enumerate(records, 1)]
    if isinstance(task, Summary):
        records = [{"id": str(10_000 + i), **record} for i, record in enumerate(records)]
    return records
