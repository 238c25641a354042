"""Grids: measured, read, drawn."""

from __future__ import annotations

import json
from pathlib import Path

import rectify_lm

GRID = """
model = "demo-nano"
facts = {facts}
index = [0, 3]
mode = "single"
regularizers = ["none", "rect 40%"]
editors = [{{ method = "rome", v_num_grad_steps = 3, contexts = {{ given = ["{{}}"] }} }}]
"""


def test_a_grid_is_measured_and_drawn(facts: Path, tmp_path: Path) -> None:
    spec, out = tmp_path / "grid.toml", tmp_path / "out"
    spec.write_text(GRID.format(facts=json.dumps(str(facts))), "utf-8")
    rows = rectify_lm.sweep(spec, out, device="cpu")
    facts_measured = rows[rows["kind"] == "fact"]
    assert len(facts_measured) == 2 * 3 and set(rows["kind"]) == {"fact", "edit"}
    assert set(facts_measured["regularizer"] + facts_measured["keep"].map(" {}".format)) == {"none nan", "rect 0.4"}

    drawn = rectify_lm.report(out, title="A grid")
    assert "A grid" in drawn.html.read_text("utf-8") and drawn.figures
    means = drawn.frame().set_index(["kept", "score"])["mean"]
    for kept, name in (("none", "none"), ("rect 40%", "rect")):
        of = facts_measured[facts_measured["regularizer"] == name]
        assert abs(means[kept, "reliability"] - of["reliability"].mean()) < 1e-12

    # Nothing is measured twice, and a row that is being written is no row yet.
    assert rectify_lm.sweep(spec, out, device="cpu").equals(rows)
    [file] = out.glob("*.jsonl")
    with file.open("a", encoding="utf-8") as half:
        half.write('{"regularizer": ')
    assert rectify_lm.rows(out).equals(rows)
