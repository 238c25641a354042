"""Write the edit sets, the ready examples and the task sets: `python publish.py ../../static`."""

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


def main(static: Path):
    world = World()
    for name, records in edits.records(world).items():
        # One record a line: small, and a diff shows which record changed.
        lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
        write(static / "facts" / name, f"[\n{lines}\n]\n")
    write(static / "facts" / "examples.json", json.dumps(edits.examples(world), ensure_ascii=False, indent=1) + "\n")
    for task in TASKS:
        write(static / "tasks" / "demo" / task.file, task.dump(test_set(task, world, SEED)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
