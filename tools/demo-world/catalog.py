"""Brings static/models.json up to date with the files in static/models: sizes and SHA-256; words and settings stay.

Run it after a model was trained: python3 tools/demo-world/catalog.py
"""

import hashlib
import json
from pathlib import Path

STATIC = Path(__file__).resolve().parents[2] / "static"


def main():
    path = STATIC / "models.json"
    catalog = json.loads(path.read_text())
    for model in catalog["models"]:
        files = sorted(file for file in (STATIC / model["folder"]).iterdir() if file.is_file())
        config = json.loads((STATIC / model["folder"] / "config.json").read_text())
        model["layers"] = config.get("n_layer") or config["num_hidden_layers"]
        model["context"] = config.get("n_positions") or config["max_position_embeddings"]
        model["files"] = [
            {"path": file.name, "size": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
            for file in files
        ]
    path.write_text(json.dumps(catalog, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
