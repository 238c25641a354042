"""Edits facts inside language models and shows what else changed.

Everything is done by the program ``rectify``, which comes in the same wheel; this package runs it and reads what it
writes. Begin with `Model`; ``docs/python.md`` in the repository shows each call.
"""

from importlib.metadata import version as _version

from ._edit import Adapter, Edit, Merged
from ._error import Kind, RectifyError, RectifyWarning
from ._evaluation import Evaluation
from ._fact import Consequence, Fact, Neighbor
from ._model import Model
from ._program import program
from ._reports import (
    Above,
    AdaptedModule,
    Answer,
    Candidate,
    EvalReport,
    FactReport,
    FailedRecord,
    Failure,
    Judgement,
    Measure,
    ModelInfo,
    Operation,
    Percentile,
    ProbabilityMeans,
    ProbabilityScores,
    Probe,
    RunCommand,
    RunReport,
    Step,
    Summary,
    Tally,
    TaskReport,
    TaskScores,
    Verdict,
    WeightChange,
    WrittenTensor,
)
from ._sweeps import Report, report, rows, static_folder, sweep

__version__ = _version("rectify-lm")

__all__ = [
    "Above",
    "AdaptedModule",
    "Adapter",
    "Answer",
    "Candidate",
    "Consequence",
    "Edit",
    "EvalReport",
    "Evaluation",
    "Fact",
    "FactReport",
    "FailedRecord",
    "Failure",
    "Judgement",
    "Kind",
    "Measure",
    "Merged",
    "Model",
    "ModelInfo",
    "Neighbor",
    "Operation",
    "Percentile",
    "ProbabilityMeans",
    "ProbabilityScores",
    "Probe",
    "RectifyError",
    "RectifyWarning",
    "Report",
    "RunCommand",
    "RunReport",
    "Step",
    "Summary",
    "Tally",
    "TaskReport",
    "TaskScores",
    "Verdict",
    "WeightChange",
    "WrittenTensor",
    "program",
    "report",
    "rows",
    "static_folder",
    "sweep",
]
