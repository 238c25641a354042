"""Train the byte-level BPE: GPT-2's algorithm and file format, 2,048 tokens, every name of the world short."""

import json
import random
import sys
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from corpus import END, Corpus
from tasks import TASKS
from world import FIRST_NAMES, SEED, World

VOCABULARY = 2048


def train() -> Tokenizer:
    world = World()
    rng = random.Random(f"{SEED}/tokenizer")
    corpus = Corpus(world, rng)
    texts = []
    for _ in range(1500):
        texts.append(" ".join("".join(sentence) for sentence in islice(corpus.sentences(), 6)))
    for task in TASKS:
        for _ in range(150):
            texts.append("".join(corpus.task_example(task)))
    names = sorted(set(word for kind in (world.subjects, world.objects) for name in sum(kind.values(), []) for word in name.split()))
    # Names are a small part of running text and would be cut in pieces: weigh them up.
    texts += [" " + " ".join(names)] * 60
    texts += [name + "\n" for name in FIRST_NAMES] * 60
    texts += [" " + " ".join(map(str, range(100)))] * 60
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


if __name__ == "__main__":
    tokenizer = train()
    world = World()
    for what, names in [*world.subjects.items(), *world.objects.items()]:
        lengths = [len(tokenizer.encode(" " + name).ids) for name in names]
        print(f"{what:12} {min(lengths)}-{max(lengths)} tokens, mean {sum(lengths) / len(lengths):.2f}")
    for task in TASKS:
        rng = random.Random(1)
        lengths = [
            len(tokenizer.encode(prompt + answer).ids)
            for record in (task.make(world, rng) for _ in range(300))
            for prompt, answer in task.asked(record)
        ]
        print(f"{task.name:16} {min(lengths)}-{max(lengths)} tokens, mean {sum(lengths) / len(lengths):.0f}")
    for folder in sys.argv[1:]:
        Path(folder).mkdir(parents=True, exist_ok=True)
        tokenizer.save(f"{folder}/tokenizer.json", pretty=False)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END,
            "model_max_length": 256, "clean_up_tokenization_spaces": False,
        }
        Path(folder, "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
