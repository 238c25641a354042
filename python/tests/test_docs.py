"""What the documentation and the notebook show is run."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
GUIDE = HERE.parents[1] / "docs" / "python.md"
NOTEBOOK = HERE.parent / "examples" / "edit_and_measure.ipynb"


def installed(*names: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in names)


def test_every_snippet_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(snippets) > 5
    names: dict[str, Any] = {}
    for snippet in snippets:
        wanted = [name for name in ("torch", "transformers", "peft") if re.search(rf"(from|import) {name}\b", snippet)]
        if "from_pretrained" in snippet and not installed("torch", "transformers", *wanted):
            with capsys.disabled():
                print(f"\nSKIPPED, for not all of torch, {', '.join(wanted)} is installed:\n{snippet}")
            continue
        exec(compile(snippet, str(GUIDE), "exec"), names)


def test_the_notebook_runs(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    for name in ("ipykernel", "matplotlib", "torch", "transformers"):
        pytest.importorskip(name)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert pictures, "Figure 7 is drawn"
