"""Facts, as edit sets have them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Neighbor:
    """A question about something else, whose answer an edit should leave alone."""

    prompt: str
    target: str | None = None
    """The right answer, where known: locality then compares predictions along it."""


@dataclass(frozen=True)
class Consequence:
    """A question whose right answer follows from the fact."""

    prompt: str
    target: str


@dataclass(frozen=True)
class Fact:
    """A fact to write into a model, and what else to ask before and after.

    `{}` in the prompt and in paraphrases stands for the subject. The prompt ends where the answer begins, without a
    space.
    """

    subject: str
    prompt: str
    target_new: str
    target_true: str | None = None
    paraphrases: Sequence[str] = ()
    neighbors: Sequence[str | Neighbor] = ()
    consequences: Sequence[Consequence] = ()

    def _record(self) -> dict[str, Any]:
        """The fact as a record of an edit set, without what it does not have."""
        neighbors = [Neighbor(ask) if isinstance(ask, str) else ask for ask in _list(self.neighbors)]
        record = {
            "subject": self.subject,
            "prompt": self.prompt.replace("{}", self.subject),
            "target_new": self.target_new,
            "target_true": self.target_true,
            "paraphrases": [prompt.replace("{}", self.subject) for prompt in _list(self.paraphrases)],
            "neighbors": [_without_none(neighbor) for neighbor in neighbors],
            "consequences": [_without_none(consequence) for consequence in self.consequences],
        }
        return {name: value for name, value in record.items() if value not in (None, [])}


def _list(prompts: Sequence[Any]) -> Sequence[Any]:
    if isinstance(prompts, str):
        raise TypeError(f"{prompts!r} is one text; expected several: [{prompts!r}]")
    return prompts


def _without_none(value: Neighbor | Consequence) -> dict[str, Any]:
    return {name: entry for name, entry in dataclasses.asdict(value).items() if entry is not None}


def edit_set(facts: Iterable[Fact | Mapping[str, Any]]) -> str:
    """The facts as the text of an edit set; mappings are records as they are."""
    return json.dumps([fact._record() if isinstance(fact, Fact) else dict(fact) for fact in facts], ensure_ascii=False)
