"""Write the edit sets, the ready examples, the page's sequence and the task sets: `python publish.py ../../static`.

Run catalog.py after it.
"""

import json
import sys
from pathlib import Path

import edits
from tasks import TASKS, test_set
from world import SEED, World


def write(path: Path, text: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


# The page writes this many facts one after another at the most.
SEQUENCE = 40


def sequence(records):
    """The first zsRE records as the program reads them, for a page that reads no edit sets."""
    for record in records[:SEQUENCE]:
        fact = {
            "subject": record["subject"],
            "prompt": record["src"],
            "target_new": record["alt"],
            "target_true": record["answers"][0],
            "paraphrases": [record["rephrase"]],
            "neighbors": [{"prompt": record["loc"], "target": record["loc_ans"]}],
        }
        if portability := record.get("portability"):
            new = {"prompt": portability["New Question"], "target": portability["New Answer"]}
            fact["consequences"] = [new]
        yield fact


def main(static: Path):
    world = World()
    sets = edits.records(world)
    for name, records in sets.items():
        # One record a line: small, and a diff shows which record changed.
        lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
        write(static / "facts" / name, f"[\n{lines}\n]\n")
    write(static / "facts" / "examples.json", json.dumps(edits.examples(world), ensure_ascii=False, indent=1) + "\n")
    facts = list(sequence(sets["demo_zsre.json"]))
    write(static / "facts" / "sequence.json", json.dumps(facts, ensure_ascii=False, indent=1) + "\n")
    for task in TASKS:
        write(static / "tasks" / "demo" / task.file, task.dump(test_set(task, world, SEED)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
