"""Scores of tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ._reports import EvalReport

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Evaluation:
    """What `Model.evaluate` found."""

    report: EvalReport
    folder: Path | None
    """Where it was written, if it was to be."""

    def frame(self) -> pandas.DataFrame:
        """A line a task: its scores as the paper and as the metric's name has them, and what they are of."""
        import pandas

        tasks = self.report.tasks
        columns = {
            "task": [task.task for task in tasks],
            "name": [task.name for task in tasks],
            "n": [task.scores.n for task in tasks],
            "skipped": [task.skipped for task in tasks],
            "paper": [task.scores.paper for task in tasks],
            "strict": [task.scores.strict for task in tasks],
            "unparsed": [task.scores.sum.strict.unparsed for task in tasks],
        }
        return pandas.DataFrame(columns)
