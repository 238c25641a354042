"""Grids of edits: measured, read, drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ._error import RectifyError
from ._model import StrPath, operand
from ._program import flag, run

if TYPE_CHECKING:
    import pandas


def static_folder() -> Path:
    """The folder of what comes with the program: bundled models, facts, tasks, grids and settings."""
    return Path(run(["models", "where"]).strip())


def sweep(
    spec: StrPath,
    out: StrPath,
    device: str = "auto",
    *,
    precision: Literal["f32", "f16", "int8"] | None = None,
    skip_bad: bool = False,
    repair: bool = False,
) -> pandas.DataFrame:
    """Measures a grid of editors, regularizers and seeds, and returns its rows. What `out` already has is not measured
    again, so a sweep that was stopped goes on by the same call.

    Args:
        spec: The grid, a TOML file; `static_folder()` has examples in ``sweeps``.
        out: Where rows are written.
        skip_bad: Leave out records that cannot be used; otherwise the first such record is an error.
        repair: Move lines that are not rows aside, and measure again what they stood for.

    Raises:
        RectifyError: Of kind ``unfinished`` when another process measures a part of the grid.
    """
    arguments = [operand(spec), *flag("out", out), *flag("device", device), *flag("precision", precision)]
    run(["sweep", *arguments, *(["--skip-bad"] if skip_bad else []), *(["--repair"] if repair else [])])
    return rows(out)


def rows(folder: StrPath) -> pandas.DataFrame:
    """The rows of a sweep's folder, a line a measurement, those of an unfinished sweep as well.

    Columns: what tells a row from others (`cell`, `model`, `mode`, `method`, `seed`, `batch`, `regularizer`, `keep`,
    `edits`, `kind`, `item`), and beside them what was measured, by its name in the file.
    """
    import pandas

    files = sorted(Path(folder).glob("*.jsonl"))
    if not files:
        raise RectifyError("not_found", f"{folder} has no rows of a sweep")
    return pandas.DataFrame([row for file in files for row in _rows(file)])


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    # The last line may be half written, by a process that is at work.
    lines = file.read_text("utf-8").splitlines(keepends=True)
    lines = [line for line in lines if line.endswith("\n")]
    if not lines:
        return
    cell = json.loads(lines[0])
    common = {"cell": file.stem, "model": cell["model"], "mode": cell["mode"], "method": cell["editor"]["method"]}
    common |= {"seed": cell["seed"], "batch": cell["batch"]}
    for line in lines[1:]:
        row = json.loads(line)
        [(kind, measured)] = row["measured"].items()
        kept: Mapping[str, Any] = row["regularizer"]
        told = {"regularizer": kept["name"], "keep": kept.get("keep"), "edits": row["edits"], "kind": kind}
        scores = measured.pop("scores", {})
        yield common | told | {"item": measured.pop("item")} | measured | scores


@dataclass(frozen=True)
class Report:
    """What `report` wrote."""

    html: Path
    """Figures, tables and findings in one file that needs no network."""
    csv: Path
    """Every score, a line a score."""
    figures: tuple[Path, ...]
    """Each figure as SVG."""

    def frame(self) -> pandas.DataFrame:
        """Every score, a line a score: its `mean` over seeds, and between which values they lie."""
        import pandas

        return pandas.read_csv(self.csv, keep_default_na=False, na_values=[""])


def report(folder: StrPath, title: str | None = None) -> Report:
    """Draws the paper's figures and tables from the rows in a folder and the folders within."""
    printed = run(["report", operand(folder), *flag("title", title)])
    html = Path(printed.strip())
    return Report(html, html.with_suffix(".csv"), tuple(sorted((html.parent / "figures").glob("*.svg"))))
