"""What tests share: the bundled GPT-2, a fact of its world, and an edit of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

# Whatever a test needs is in the wheel.
os.environ["HF_HUB_OFFLINE"] = "1"

from rectify_lm import Edit, Model, static_folder


@pytest.fixture(scope="session")
def model() -> Model:
    return Model("demo-gpt2", device="cpu")


@pytest.fixture(scope="session")
def facts() -> Path:
    return static_folder() / "facts" / "demo_counterfact.json"


@pytest.fixture(scope="session")
def fact() -> dict[str, Any]:
    """As `Model.edit` takes it."""
    return {
        "subject": "Willa Farolde",
        "prompt": "{} was born in the city of",
        "target_new": "Marrowfield",
        "target_true": "Larkmoor",
        "paraphrases": ["The birthplace of {} is"],
        "neighbors": ["Wenna Merune was born in the city of"],
    }


@pytest.fixture(scope="session")
def edit(model: Model, fact: dict[str, Any]) -> Edit:
    return model.edit(**fact, method="rome", regularizer="rect", keep=0.4)


@pytest.fixture(scope="session")
def record(fact: dict[str, Any]) -> str:
    """The fact as an edit set."""
    filled = {name: fact[name] for name in ("subject", "target_new", "target_true")}
    filled["prompt"] = fact["prompt"].replace("{}", fact["subject"])
    filled["paraphrases"] = [prompt.replace("{}", fact["subject"]) for prompt in fact["paraphrases"]]
    filled["neighbors"] = [{"prompt": prompt} for prompt in fact["neighbors"]]
    return json.dumps([filled])
