"""What a demo model knows and can do: `python measure.py ../../static/models/demo-gpt2`.

Loads the saved f16 weights in `transformers`, computes in f32, answers greedily, and scores as the published
evaluation does. Prints the table of the model card.
"""

import argparse
import re
import string
import time
from collections import defaultdict
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from corpus import END
from relations import RELATIONS
from tasks import TASKS, Entities, test_set
from world import SEED, World


class Model:
    def __init__(self, folder: Path):
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        self.model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
        self.context = AutoConfig.from_pretrained(folder).max_position_embeddings

    @torch.no_grad()
    def complete(self, prompts: list[str], tokens: int) -> list[str]:
        """Greedy continuations, with the end-of-text mark if it came. No padding: equal lengths go together."""
        groups = defaultdict(list)
        for i, prompt in enumerate(prompts):
            ids = self.tokenizer.encode(prompt)
            assert len(ids) + tokens <= self.context, prompt
            groups[len(ids)].append((i, ids))
        replies = [""] * len(prompts)
        for length, rows in groups.items():
            for start in range(0, len(rows), 64):
                part = rows[start : start + 64]
                ids = torch.tensor([ids for _, ids in part])
                out = self.model.generate(
                    ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False,
                    eos_token_id=0, pad_token_id=0,
                )[:, length:].tolist()
                for (i, _), new in zip(part, out):
                    if 0 in new:
                        new = new[: new.index(0) + 1]
                    replies[i] = self.tokenizer.decode(new, clean_up_tokenization_spaces=False)
        return replies

    def recalls(self, prompts: list[str], answers: list[str]) -> list[bool]:
        """Whether the greedy continuation is the answer, every token of it."""
        wanted = [self.tokenizer.encode(" " + answer) for answer in answers]
        texts = self.complete(prompts, max(map(len, wanted)))
        return [text.startswith(" " + answer) for text, answer in zip(texts, answers)]


def knowledge(model: Model, world: World):
    """Share of facts answered, over every trained statement and question, and over the held-out ones."""
    def share(pick, facts=world.facts):
        asked = [(template.format(f.subject), f.object) for f in facts for template in pick(f.relation)]
        hits = model.recalls(*map(list, zip(*asked)))
        return sum(hits) / len(hits)

    rows = [
        ("statements, as trained", share(lambda r: r.trained_statements)),
        ("questions, as trained", share(lambda r: r.trained_questions)),
        ("statement held out", share(lambda r: r.statements[-1:])),
        ("question held out", share(lambda r: r.questions[-1:])),
    ]
    by_relation = [
        (r.name, share(lambda r: r.statements[:1], world.of(r.id)), share(lambda r: (r.statements[-1], r.questions[-1]), world.of(r.id)))
        for r in RELATIONS
    ]
    return rows, by_relation


def one_of(reply: str, first: str, second: str):
    reply = reply.lower()
    return first if first in reply else second if second in reply else None


def normal(text: str) -> str:
    text = "".join(c for c in text.lower().replace("\n", " ") if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def matches(reply: str, aliases: list[str]) -> bool:
    """First word, last word, or any run of words from the first on equals an alias."""
    words, aliases = normal(reply).split(), {normal(alias) for alias in aliases}
    spans = {" ".join(words[:n]) for n in range(1, len(words) + 1)} | set(words[-1:])
    return bool(spans & aliases)


def rouge(hypothesis: str, reference: str) -> float:
    """Mean F of ROUGE-1, -2 and -L as the Python package `rouge` 1.0.1 has them (sets of n-grams)."""
    def sentences(text):
        return [" ".join(s.split()).split(" ") for s in text.split(".") if s]

    def f(overlap, h, r):
        p, q = (overlap / h if h else 0.0), (overlap / r if r else 0.0)
        return 2 * p * q / (p + q + 1e-8)

    hyp, ref = sentences(hypothesis), sentences(reference)
    if not hyp or not ref:
        return 0.0
    scores = []
    for n in (1, 2):
        h, r = ({tuple(w[i : i + n]) for w in [sum(s, [])] for i in range(len(w) - n + 1)} for s in (hyp, ref))
        scores.append(f(len(h & r), len(h), len(r)))
    union = set()
    for r in ref:
        for h in hyp:
            union |= common(r, h)
    scores.append(f(len(union), len({w for s in hyp for w in s}), len({w for s in ref for w in s})))
    return sum(scores) / 3


def common(reference: list[str], hypothesis: list[str]) -> set[str]:
    """The words of the longest common subsequence."""
    rows, columns = len(reference), len(hypothesis)
    table = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i, r in enumerate(reference, 1):
        for j, h in enumerate(hypothesis, 1):
            table[i][j] = table[i - 1][j - 1] + 1 if r == h else max(table[i - 1][j], table[i][j - 1])
    words, i, j = set(), rows, columns
    while i and j:
        if reference[i - 1] == hypothesis[j - 1]:
            words.add(reference[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return words


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def entities_score(model: Model, task: Entities, records: list[dict]) -> dict[str, float]:
    """Substring recall per type. A sentence without Miscellaneous counts against it, as published."""
    asked = [task.asked(record) for record in records]
    replies = model.complete([prompt for four in asked for prompt, _ in four], task.tokens)
    scores = {}
    for n, tag in enumerate(task.TYPES):
        hits = total = 0
        for i, record in enumerate(records):
            gold = task.spans(record["tokens"], tag)
            hits += sum(span in replies[4 * i + n] for span in gold)
            total += len(gold) or (tag == "MISC")
        scores[tag] = hits / total
    return scores


def abilities(model: Model, world: World):
    for task in TASKS:
        records = test_set(task, world, SEED)
        if isinstance(task, Entities):
            scores = entities_score(model, task, records)
            yield task.name, mean(scores.values()), len(records), "  ".join(f"{k} {v:.3f}" for k, v in scores.items())
            continue
        asked = [task.asked(record) for record in records]
        replies = model.complete([pairs[-1][0] for pairs in asked], task.tokens)
        wanted = [pairs[-1][1] for pairs in asked]
        both = list(zip(replies, records))
        note = ""
        match task.name:
            case "reasoning":
                score = mean(r["answer"].split("#### ")[1] in reply for reply, r in both)
            case "entailment":
                score = mean(one_of(reply, "true", "false") == ("true" if r["label"] == "entailment" else "false") for reply, r in both)
            case "open question":
                score = mean(matches(reply, r["answer"]) for reply, r in both)
                bare = model.complete([pairs[0][0] for pairs in asked], task.tokens)
                score_bare = mean(matches(reply, r["answer"]) for reply, r in zip(bare, records))
                note = f"with \". Answer:\"; without it {score_bare:.3f}"
            case "closed question":
                score = mean(one_of(reply, "yes", "no") == ("yes" if r["answer"] == "True" else "no") for reply, r in both)
            case "dialogue":
                score = mean(r["answers"] in reply for reply, r in both)
            case "summary":
                score = mean(rouge(reply[:-13], r["summary"]) if len(reply) > 14 else 0.0 for reply, r in both)
                note = "mean of ROUGE-1, -2, -L"
            case "sentiment":
                score = mean(one_of(reply, "positive", "negative") == ("positive" if r["label"] else "negative") for reply, r in both)
        whole = mean(reply.removesuffix(END).startswith(answer) for reply, answer in zip(replies, wanted))
        yield task.name, score, len(records), f"{note + '; ' if note else ''}whole answer {whole:.3f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--people", type=int, default=170, help="how many people this model was taught")
    parser.add_argument("--facts-only", action="store_true", help="skip the abilities")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.time()
    model, world = Model(options.folder), World(n_people=options.people)
    rows, by_relation = knowledge(model, world)
    print(f"| knows ({len(world.facts)} facts) | share |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value:.3f} |")
    print("\n| relation | facts | first statement | held out (statement and question) |\n|---|---|---|---|")
    for relation, (name, plain, new) in zip(RELATIONS, by_relation):
        print(f"| {name} | {len(world.of(relation.id))} | {plain:.3f} | {new:.3f} |")
    if not options.facts_only:
        print("\n| ability | score | items | detail |\n|---|---|---|---|")
        for name, score, n, note in abilities(model, world):
            print(f"| {name} | {score:.3f} | {n} | {note} |", flush=True)
    print(f"\n{time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
