"""A model, and what can be asked of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

from ._evaluation import Evaluation
from ._fact import Consequence, Fact, Neighbor, edit_set
from ._parse import parse
from ._program import Failed, flag, run
from ._reports import Answer, EvalReport, RunReport

if TYPE_CHECKING:
    from ._edit import Edit

StrPath = Union[str, "os.PathLike[str]"]

Regularizer = Literal["rect", "random", "pca", "low_rank", "prune"]


@dataclass(frozen=True)
class Model:
    """A model by its name: a bundled model's id, a folder in Hugging Face's layout, or owner/name on its Hub.

    Nothing is read before something is asked of it, and each call runs the program once.
    """

    name: StrPath
    device: str = "auto"
    """``cpu``, ``gpu``, ``auto`` (a card where there is one), ``wgpu``, ``vulkan`` or ``cuda``."""
    precision: Literal["f32", "f16", "int8"] | None = None
    """How matrices are stored; the program's own choice, 32 bits, when absent."""
    ignore: Sequence[str] = ()
    """Keys of ``config.json`` and tensors that would be refused, to be left out of account."""

    def ask(self, prompt: str, tokens: int = 20, top: int = 5, edits: Edit | StrPath | None = None) -> Answer:
        """Completes a prompt greedily by so many tokens, and lists candidates for the next one.

        Args:
            edits: A change to apply first: an `Edit`, or a folder or file that one was written to.
        """
        asked = [*flag("prompt", prompt), *flag("tokens", tokens), *flag("top", top), *flag("edits", edits)]
        return parse(Answer, json.loads(run(["ask", *self._arguments(), *asked, "--json"])), "the answer")

    def edit(
        self,
        *,
        subject: str,
        prompt: str,
        target_new: str,
        target_true: str | None = None,
        paraphrases: Sequence[str] = (),
        neighbors: Sequence[str | Neighbor] = (),
        consequences: Sequence[Consequence] = (),
        method: str = "rome",
        regularizer: Regularizer | None = None,
        keep: float | None = None,
        seed: int = 0,
        covariance: StrPath | None = None,
        hypernetwork: StrPath | None = None,
        hparams: StrPath | None = None,
        allow_harm: bool = False,
        out: StrPath | None = None,
        **settings: object,
    ) -> Edit:
        """Writes a fact into the model and measures before and after.

        Args:
            subject: Whom or what the fact is about.
            prompt: The text that ends where the answer begins; ``{}`` stands for the subject.
            target_new: What the model should answer.
            target_true: What it answers now, to be compared with.
            paraphrases: Other ways to ask, for generalization.
            neighbors: Questions about something else, for locality.
            consequences: Questions whose answers follow, for portability.
            method: The editor: ``rome``, ``memit``, ``emmet``, ``alphaedit``, ``kn``, ``mend`` or ``ft``.
            regularizer: What is kept of the update; all of it when absent.
            keep: The share that the regularizer keeps, above 0 and at most 1; the paper's 0.4 when absent.
            seed: Seeds the sampled contexts and the random regularizer.
            covariance: Second moments of keys: a folder of ``rectify stats``, ``identity`` or ``none``. Those beside
                the model when absent.
            hypernetwork: MEND's trained file; the one beside the model when absent.
            hparams: Settings from elsewhere: EasyEdit's YAML, ROME's or MEMIT's JSON, or our TOML.
            allow_harm: Go on even if an update is as large as its matrix or the model forgets how to speak.
            out: The folder to write to; a temporary one, which lives as long as the result, when absent.
            **settings: Any hyper-parameter by its name in the literature: ``layers=[5]``, ``v_lr=0.1``, ``key="mean"``.

        Raises:
            RectifyError: When the fact or a setting is wrong, or the edit cannot be made.
        """
        fact = Fact(subject, prompt, target_new, target_true, paraphrases, neighbors, consequences)
        flags = _flags(method, regularizer, keep, seed, covariance, hypernetwork, hparams, allow_harm, settings)
        return self._edit(["--facts", "-", *flags], edit_set([fact]), out)

    def edit_many(
        self,
        facts: Iterable[Fact | Mapping[str, Any]] | StrPath,
        mode: Literal["sequential", "batch"] = "sequential",
        *,
        index: range | None = None,
        skip_bad: bool = False,
        method: str = "rome",
        regularizer: Regularizer | None = None,
        keep: float | None = None,
        seed: int = 0,
        covariance: StrPath | None = None,
        hypernetwork: StrPath | None = None,
        hparams: StrPath | None = None,
        allow_harm: bool = False,
        out: StrPath | None = None,
        **settings: object,
    ) -> Edit:
        """Writes many facts into one model, ``sequential``: one on top of the other, or as one ``batch``.

        Args:
            facts: Of type `Fact`, records of an edit set, or its path: zsRE, CounterFact, KnowEdit or our own.
            index: Which records of it, a `range` with step 1; all when absent.
            skip_bad: Leave out records that cannot be edited; otherwise the first of them is an error, whose `partial`
                has the edits made before it.

        The other arguments are those of `edit`.
        """
        path, text = (facts, None) if isinstance(facts, (str, os.PathLike)) else ("-", edit_set(facts))
        flags = [*flag("facts", path), *flag("mode", mode)]
        if index is not None:
            if index.step != 1:
                raise ValueError(f"index is {index!r}; its step must be 1")
            flags += flag("index", f"{index.start}..{index.stop}")
        flags += ["--skip-bad"] if skip_bad else []
        flags += _flags(method, regularizer, keep, seed, covariance, hypernetwork, hparams, allow_harm, settings)
        return self._edit(flags, text, out)

    def evaluate(
        self,
        tasks: str | Sequence[str],
        data: StrPath,
        limit: int | None = None,
        edits: Edit | StrPath | None = None,
        *,
        out: StrPath | None = None,
        log_samples: bool = False,
    ) -> Evaluation:
        """Asks tasks of the model, as it is or with a change applied.

        Args:
            tasks: Their ids, or ``all``: the paper's eight.
            data: The folder of their files: ``rectify data fetch`` fetches the published ones, and `static_folder()`
                has small ones in ``tasks/demo``.
            limit: At most so many records of each, evenly spaced through the file.
            edits: A change to apply first: an `Edit`, or a folder or file that one was written to.
            out: Write the report into this folder.
            log_samples: Write there also each record's prompts, right answers, replies and how they were judged.
        """
        names = tasks if isinstance(tasks, str) else ",".join(tasks)
        arguments = [*flag("tasks", names), *flag("data", data), *flag("limit", limit), *flag("edits", edits)]
        arguments += [*flag("out", out), *(["--log-samples"] if log_samples else [])]
        printed = run(["eval", *self._arguments(), *arguments, "--json"])
        report = parse(EvalReport, json.loads(printed), "the report")
        return Evaluation(report, None if out is None else Path(out))

    def _arguments(self) -> list[str]:
        ignored = [word for name in self.ignore for word in flag("ignore", name)]
        return [*flag("model", self.name), *flag("device", self.device), *flag("precision", self.precision), *ignored]

    def _edit(self, flags: list[str], facts: str | None, out: StrPath | None) -> Edit:
        from ._edit import Edit, Temporary

        temporary = Temporary() if out is None else None
        folder = temporary.path / "edit" if temporary else Path(os.fspath(out or ""))

        def made(printed: str) -> Edit:
            return Edit(parse(RunReport, json.loads(printed), "the report"), folder, self, temporary)

        try:
            return made(run(["edit", *self._arguments(), *flags, *flag("out", folder), "--json"], facts))
        except Failed as failure:
            failure.partial = made(failure.output) if failure.output else None
            raise


def operand(path: StrPath) -> str:
    """A path where no flag says what it is: it must not look like one."""
    text = os.fspath(path)
    return os.path.join(os.curdir, text) if text.startswith("-") else text


def _flags(
    method: str,
    regularizer: str | None,
    keep: float | None,
    seed: int,
    covariance: StrPath | None,
    hypernetwork: StrPath | None,
    hparams: StrPath | None,
    allow_harm: bool,
    settings: Mapping[str, object],
) -> list[str]:
    flags = [*flag("method", method), *flag("seed", seed), *flag("regularizer", regularizer), *flag("keep", keep)]
    flags += [*flag("covariance", covariance), *flag("hypernetwork", hypernetwork), *flag("hparams", hparams)]
    for name, setting in settings.items():
        flags += flag("set", f"{name}={json.dumps(setting)}")
    return flags + (["--allow-harm"] if allow_harm else [])
