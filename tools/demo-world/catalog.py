"""Brings static/models.json up to date with the files it names: sizes and SHA-256; words and settings stay.

Run it after a model was trained: python3 tools/demo-world/catalog.py
"""

import hashlib
import json
from pathlib import Path

STATIC = Path(__file__).resolve().parents[2] / "static"


def listed(file: Path, folder: Path):
    content = file.read_bytes()
    path = file.relative_to(folder).as_posix()
    return {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def main():
    path = STATIC / "models.json"
    catalog = json.loads(path.read_text())
    for model in catalog["models"]:
        files = sorted(file for file in (STATIC / model["folder"]).iterdir() if file.is_file())
        config = json.loads((STATIC / model["folder"] / "config.json").read_text())
        model["layers"] = config.get("n_layer") or config["num_hidden_layers"]
        model["context"] = config.get("n_positions") or config["max_position_embeddings"]
        model["files"] = [listed(file, STATIC / model["folder"]) for file in files]
    for world in catalog["worlds"]:
        world["facts"] = listed(STATIC / world["facts"]["path"], STATIC)
        world["tasks"] = {task: listed(STATIC / file["path"], STATIC) for task, file in world["tasks"].items()}
    path.write_text(json.dumps(catalog, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
