"""An edit that was made, and what can be done with it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ._error import RectifyError
from ._model import Model, StrPath
from ._parse import parse
from ._program import flag, run
from ._reports import AdaptedModule, FactReport, MergeReport, RunReport, WrittenTensor

if TYPE_CHECKING:
    import pandas
    import torch

    M = TypeVar("M", bound=torch.nn.Module)


class Temporary:
    """A folder that lives as long as this object, and no longer than Python."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="rectify-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def __deepcopy__(self, memo: object) -> Temporary:
        return self  # It is one folder, however often it is named.


@dataclass(frozen=True)
class Edit:
    """What an edit did, and the change itself."""

    report: RunReport
    folder: Path
    """Has ``report.json`` and ``delta.safetensors``. A temporary folder goes when this object goes."""
    model: Model
    _temporary: Temporary | None = field(default=None, repr=False, compare=False)

    def __fspath__(self) -> str:
        return os.fspath(self.folder)

    @property
    def delta(self) -> Path:
        """The change: a safetensors file with a matrix for each that changed, named and shaped as in the checkpoint."""
        return self.folder / "delta.safetensors"

    @property
    def facts(self) -> tuple[FactReport, ...]:
        """Each fact, right after the operation that wrote it."""
        return tuple(fact for operation in self.report.operations for fact in operation.facts)

    def frame(self) -> pandas.DataFrame:
        """A line a question that was asked: the prompts themselves, paraphrases, neighbours and consequences.

        `when` is ``operation``, right after the operation that wrote the fact, or ``end``, with all edits in place
        (sequential mode). `score` is the reliability of a prompt, the token accuracy of a paraphrase or consequence,
        and of a neighbour the share of predictions that stayed.
        """
        import pandas

        return pandas.DataFrame(_lines(self.report), columns=_COLUMNS)

    def apply_to(self, model: M) -> M:
        """Adds the change to a model's parameters, in place, and returns the model.

        Parameters are found by their names, with or without the prefix that a class adds (``transformer.``), and must
        have the shapes that the checkpoint has. Sums are made in 32 bits and rounded once to the parameter's type. All
        is checked before anything is changed.

        Raises:
            RectifyError: When a matrix is not there, or more than once, or has another shape, or is stored in another
                way (quantized).
        """
        import torch
        from safetensors.torch import load_file

        changes = load_file(self.delta)
        parameters = dict(model.named_parameters())
        found = {name: _parameter(name, change, parameters) for name, change in changes.items()}
        with torch.no_grad():
            for name, parameter in found.items():
                change = changes[name].to(parameter.device)
                parameter.copy_((parameter.float() + change).to(parameter.dtype))
        return model

    def merge(self, out: StrPath, dtype: Literal["f16", "f32"] | None = None) -> Merged:
        """Writes the edited model whole, with a model card, for `from_pretrained` and others.

        Args:
            out: A new or empty folder.
            dtype: The type of every float; each keeps its own when absent.
        """
        report = self._merge(out, ["--format=model", *flag("dtype", dtype)])
        return Merged(Path(out), report.tensors)

    def adapter(self, out: StrPath, rank: int | None = None) -> Adapter:
        """Writes the change as a LoRA adapter for PEFT.

        Args:
            out: A new or empty folder.
            rank: The adapter's rank; the smallest that leaves out nothing but noise when absent.
        """
        report = self._merge(out, ["--format=lora", *flag("rank", rank)])
        return Adapter(Path(out), report.modules)

    def _merge(self, out: StrPath, more: list[str]) -> MergeReport:
        arguments = [*flag("model", self.model.name), *flag("edits", self.delta), *flag("out", out), *more]
        printed = run(["models", "merge", *arguments, "--json"])
        return parse(MergeReport, json.loads(printed), "the report")


@dataclass(frozen=True)
class Merged:
    """A whole model with an edit in it. Stands for its folder where a path is wanted."""

    folder: Path
    tensors: tuple[WrittenTensor, ...]
    """Each matrix that was changed, and what rounding did to its change."""

    def __fspath__(self) -> str:
        return os.fspath(self.folder)

    def __str__(self) -> str:
        return str(self.folder)  # What transformers makes of a path.


@dataclass(frozen=True)
class Adapter:
    """An edit as a LoRA adapter. Stands for its folder where a path is wanted."""

    folder: Path
    modules: tuple[AdaptedModule, ...]
    """Each matrix that is adapted, and how much of its change is left out."""

    def __fspath__(self) -> str:
        return os.fspath(self.folder)

    def __str__(self) -> str:
        return str(self.folder)  # What transformers makes of a path.


def _parameter(name: str, change: torch.Tensor, parameters: dict[str, torch.nn.Parameter]) -> torch.nn.Parameter:
    """The one parameter of this name, which the change fits."""
    names = [other for other in parameters if f".{other}".endswith(f".{name}") or f".{name}".endswith(f".{other}")]
    if len(names) != 1:
        found = f"{len(names)} parameters: {', '.join(names)}" if names else "no parameter"
        raise RectifyError("bad_input", f"the change of {name!r} fits {found}; is it another model?")
    parameter = parameters[names[0]]
    if parameter.shape != change.shape:
        shapes = f"{list(parameter.shape)}, but its change is {list(change.shape)}"
        raise RectifyError("bad_input", f"{names[0]!r} is {shapes}; is it another model?")
    if not parameter.is_floating_point() or parameter.dtype.itemsize < 2 or parameter.is_meta:
        stored = "on no device" if parameter.is_meta else f"stored as {parameter.dtype}"
        raise RectifyError("bad_input", f"{names[0]!r} is {stored}, to which nothing can be added")
    return parameter


_COLUMNS = [
    "when",
    "operation",
    "subject",
    "kind",
    "prompt",
    "target",
    "before",
    "after",
    "score",
    "p_new_before",
    "p_new_after",
    "p_true_before",
    "p_true_after",
]


def _lines(report: RunReport) -> Iterator[dict[str, Any]]:
    for number, operation in enumerate(report.operations):
        for fact in operation.facts:
            yield from _fact_lines({"when": "operation", "operation": number, "subject": fact.subject}, fact)
    for fact in report.final_measure or ():
        yield from _fact_lines({"when": "end", "operation": None, "subject": fact.subject}, fact)


def _fact_lines(common: dict[str, Any], fact: FactReport) -> Iterator[dict[str, Any]]:
    yield common | {
        "kind": "prompt",
        "prompt": fact.prompt,
        "target": fact.target_new,
        "before": fact.before.text,
        "after": fact.after.text,
        "score": fact.reliability,
        "p_new_before": fact.before.p_new,
        "p_new_after": fact.after.p_new,
        "p_true_before": fact.before.p_true,
        "p_true_after": fact.after.p_true,
    }
    probes = {"paraphrase": fact.paraphrases, "neighbor": fact.neighbors, "consequence": fact.consequences}
    for kind, asked in probes.items():
        for probe in asked:
            said = {"prompt": probe.prompt, "before": probe.before, "after": probe.after, "score": probe.score}
            yield common | {"kind": kind} | said
