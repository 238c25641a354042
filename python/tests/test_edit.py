"""Asking, editing, and what goes wrong: nothing here needs more than the standard library and pandas."""

from __future__ import annotations

import copy
import dataclasses
import gc
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

import rectify_lm
from rectify_lm import (
    Edit,
    Fact,
    Model,
    Neighbor,
    RectifyError,
    RectifyWarning,
    program,
)

PROMPT = "Willa Farolde was born in the city of"


def same_but_for_time(value: Any) -> Any:
    """A document without what a clock decides."""
    if isinstance(value, dict):
        return {name: same_but_for_time(entry) for name, entry in value.items() if name != "seconds"}
    return [same_but_for_time(entry) for entry in value] if isinstance(value, list) else value


def raw(document: Any) -> dict[str, Any]:
    return dict(document.raw)


def test_the_report_is_the_command_line_s(edit: Edit, record: str) -> None:
    arguments = ["edit", "--model", "demo-gpt2", "--facts", "-", "--method", "rome", "--device", "cpu", "--json"]
    arguments += ["--regularizer", "rect", "--keep", "0.4"]
    by_hand = subprocess.run([program(), *arguments], input=record, capture_output=True, encoding="utf-8", check=True)
    assert same_but_for_time(raw(edit.report)) == same_but_for_time(json.loads(by_hand.stdout))
    assert raw(edit.report) == json.loads((edit.folder / "report.json").read_text("utf-8"))


def test_every_field_of_a_report_is_known(edit: Edit, model: Model) -> None:
    def check(value: object) -> None:
        if isinstance(value, tuple):
            for entry in value:
                check(entry)
        elif dataclasses.is_dataclass(value):
            names = {field.name for field in dataclasses.fields(value)} - {"raw"}
            unknown = set(raw(value)) - names
            # Each document says which version of its shape it is; an answer's is nobody's business.
            assert unknown <= {"schema"}, f"{type(value).__name__}: {unknown}"
            for name in names:
                check(getattr(value, name))

    check(edit.report)
    check(model.ask(PROMPT))
    check(model.evaluate("nli", rectify_lm.static_folder() / "tasks/demo", limit=3).report)


def test_an_edit_is_made_and_asked_again(edit: Edit, model: Model) -> None:
    [fact] = edit.facts
    assert (fact.subject, fact.prompt, fact.target_true) == ("Willa Farolde", PROMPT, "Larkmoor")
    assert fact.reliability == 1.0 and fact.after.p_new > fact.before.p_new
    assert edit.report.operations[0].spec["regularizer"] == {"name": "rect", "keep": 0.4}
    before, after = model.ask(PROMPT), model.ask(PROMPT, edits=edit)
    assert before.text.startswith(" Larkmoor.") and after.text.startswith(" Marrowfield.")
    assert [candidate.p for candidate in after.top] == sorted((c.p for c in after.top), reverse=True)
    assert model.ask(PROMPT, edits=edit.delta).top == after.top
    assert (len(model.ask(PROMPT, top=3).top), model.ask(PROMPT, tokens=1).text) == (3, " Larkmoor")


def test_what_was_asked_is_a_frame(edit: Edit) -> None:
    frame = edit.frame()
    assert list(frame["kind"]) == ["prompt", "paraphrase", "neighbor"]
    assert list(frame["prompt"]) == [
        PROMPT,
        "The birthplace of Willa Farolde is",
        "Wenna Merune was born in the city of",
    ]
    assert frame["score"][0] == edit.facts[0].reliability
    assert frame["p_new_after"][0] == edit.facts[0].after.p_new


def test_settings_reach_the_editor(model: Model, fact: dict[str, Any]) -> None:
    edit = model.edit(**fact, seed=3, layers=[0], v_num_grad_steps=2, key="mean", contexts={"given": ["{}"]})
    spec = edit.report.command.spec
    assert (spec["seed"], spec["regularizer"]) == (3, {"name": "none"})
    editor = spec["editor"]
    assert (editor["layers"], editor["key"]) == ([0], "mean")
    assert (editor["value"]["v_num_grad_steps"], editor["value"]["contexts"]) == (2, {"given": ["{}"]})


def test_many_facts_are_written_one_on_top_of_the_other_or_at_once(model: Model, facts: Path) -> None:
    sequential = model.edit_many(
        facts, index=range(0, 3), method="rome", v_num_grad_steps=3, contexts={"given": ["{}"]}
    )
    assert [operation.edits for operation in sequential.report.operations] == [1, 2, 3]
    assert sequential.report.final_measure is not None and len(sequential.report.final_measure) == 3
    assert set(sequential.frame()["when"]) == {"operation", "end"}
    prompt = "The birthplace of {} is"
    own = [
        Fact(
            "Willa Farolde",
            prompt,
            "Marrowfield",
            neighbors=[Neighbor(PROMPT.replace("Willa Farolde", "Wenna Merune"))],
        )
    ]
    batch = model.edit_many(
        [*own, Fact("Wenna Merune", prompt, "Juniport")], "batch", method="memit", v_num_grad_steps=2
    )
    [operation] = batch.report.operations
    assert [fact.subject for fact in operation.facts] == ["Willa Farolde", "Wenna Merune"]


def test_tasks_are_asked(model: Model, edit: Edit, tmp_path: Path) -> None:
    data = rectify_lm.static_folder() / "tasks" / "demo"
    out = tmp_path / "out"
    found = model.evaluate(["nli", "sentiment"], data, limit=5, edits=edit, out=out, log_samples=True)
    frame = found.frame()
    assert list(frame["task"]) == ["nli", "sentiment"] and list(frame["n"] + frame["skipped"]) == [5, 5]
    assert found.report.edits is not None and found.report.edits == str(edit.folder)
    assert (out / "samples.nli.jsonl").is_file() and found.folder == out


@pytest.mark.parametrize(
    ("change", "kind", "part"),
    [
        ({"keep": 1.5, "regularizer": "rect"}, "bad_input", "0.4 or 40%"),
        ({"keep": 0.4}, "bad_input", "keep has no meaning"),
        ({"regularizer": "rekt"}, "bad_input", 'did you mean "rect"'),
        ({"method": "rom"}, "bad_input", 'did you mean "rome"'),
        ({"v_lrr": 1}, "bad_input", 'did you mean "v_lr"'),
        ({"v_lr": "0.1"}, "bad_input", "v_lr cannot be"),
        ({"subject": "Nobody", "prompt": "Ada was born in"}, "bad_input", "does not occur in the prompt"),
        ({"target_new": ""}, "bad_input", "target_new is empty"),
        ({"covariance": "nowhere"}, "not_found", "nowhere"),
    ],
)
def test_what_is_wrong_with_an_edit_is_said(
    model: Model, fact: dict[str, Any], change: dict[str, Any], kind: str, part: str
) -> None:
    with pytest.raises(RectifyError) as error:
        model.edit(**(fact | change))
    assert error.value.kind == kind and part in error.value.message, error.value


def test_a_failure_names_its_field(model: Model, fact: dict[str, Any]) -> None:
    with pytest.raises(RectifyError) as error:
        model.edit(**(fact | {"target_new": ""}))
    assert error.value.field == "target_new"


def test_other_failures_are_said(model: Model, tmp_path: Path) -> None:
    def refused(kind: str, part: str, call: Any) -> None:
        with pytest.raises(RectifyError) as error:
            call()
        assert error.value.kind == kind and part in error.value.message, (error.value.kind, error.value)

    refused("not_found", "demo-gpt3", lambda: Model("demo-gpt3").ask("x"))
    refused("bad_input", "vulcan", lambda: Model("demo-gpt2", device="vulcan").ask("x"))
    refused("not_found", "rows", lambda: rectify_lm.rows(tmp_path))
    refused("not_found", "nowhere.toml", lambda: rectify_lm.sweep("nowhere.toml", tmp_path))
    refused("bad_input", "no rows of a sweep", lambda: rectify_lm.report(tmp_path))
    text: Any = "one text"
    with pytest.raises(TypeError, match="one text"):
        model.edit(subject="Ada", prompt="Ada is", target_new="x", paraphrases=text)


def test_an_edit_that_a_guard_rejects_is_a_failure_of_its_own_kind(facts: Path) -> None:
    small = Model("demo-nano", device="cpu")
    with pytest.raises(RectifyError, match="forget how to speak") as error:
        small.edit_many(facts, index=range(0, 1), method="kn")
    assert error.value.kind == "harmful" and error.value.partial is None


def test_edits_before_a_failure_are_kept(model: Model) -> None:
    good = Fact("Willa Farolde", "{} was born in the city of", "Marrowfield")
    long = Fact("Wenna Merune", "and " * 400 + "{} was born in the city of", "Juniport")
    settings = {"v_num_grad_steps": 2, "contexts": {"given": ["{}"]}}
    with pytest.raises(RectifyError, match="record 1") as error:
        model.edit_many([good, long], method="rome", **settings)  # type: ignore[arg-type]
    partial = error.value.partial
    assert partial is not None and [fact.subject for fact in partial.facts] == ["Willa Farolde"]
    assert partial.delta.is_file() and partial.report.failed[0].record == 1


def test_warnings_are_warnings(model: Model) -> None:
    with pytest.warns(RectifyWarning, match="ends in a space") as warned:
        model.ask("The ", tokens=1)
    assert warned[0].filename == __file__, "the call that is warned of is the caller's"


def test_what_the_program_says_is_shown_noted_or_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from rectify_lm._program import _Messages

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    caplog.set_level("INFO", logger="rectify_lm")
    progress = {"progress": {"text": "fact 1 of 2: loss 0.5", "done": 3, "total": 20}}
    said: list[dict[str, Any]] = [progress, {"say": "written"}, {"warning": "beware"}]
    failure = {"failure": {"kind": "harmful", "message": "no", "field": "v_lr"}}

    def messages(*lines: str) -> _Messages:
        thread = _Messages(io.StringIO("".join(line + "\n" for line in lines)))
        thread.join()
        thread.clear()
        return thread

    heard = messages(*map(json.dumps, [*said, failure]))
    assert terminal.getvalue() == "\r\x1b[Kfact 1 of 2: loss 0.5: 3 of 20\r\x1b[K"
    assert (caplog.messages, heard.warnings) == (["written"], ["beware"])
    error = heard.failure(2)
    assert (error.kind, error.message, error.field) == ("harmful", "no", "v_lr")
    # The parser of arguments, and a panic, say it in their own words.
    assert str(messages("error: no such flag", "", "Usage: …").failure(2)) == "no such flag\n\nUsage: …"
    assert (messages("thread 'main' panicked").failure(1).kind, messages().failure(130).kind) == (
        "internal",
        "cancelled",
    )


def test_what_looks_like_a_flag_is_a_text(model: Model) -> None:
    assert model.ask("--prompt", tokens=1).prompt == "--prompt"


def test_a_temporary_folder_lives_as_long_as_its_edit(model: Model, fact: dict[str, Any], tmp_path: Path) -> None:
    quick: dict[str, Any] = fact | {"v_num_grad_steps": 1, "contexts": {"given": ["{}"]}}
    edit = model.edit(**quick)
    folder = edit.folder
    assert sorted(path.name for path in folder.iterdir()) == ["delta.safetensors", "report.json"]
    del edit
    gc.collect()
    assert not folder.parent.exists()
    own = model.edit(**quick, out=tmp_path / "mine")
    del own
    gc.collect()
    assert (tmp_path / "mine" / "delta.safetensors").is_file()


INTERRUPTED = """
import json, signal, sys
from rectify_lm import Model
signal.signal(signal.SIGINT, signal.default_int_handler)  # Whoever started this may have it ignored.
fact = json.loads(sys.argv[1])
print("begins", flush=True)
try:
    Model("demo-gpt2", device="cpu").edit(**fact, out=sys.argv[2] or None, v_num_grad_steps=1000, v_lr=1e-9)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")
@pytest.mark.parametrize("named", [True, False])
def test_an_interrupted_edit_leaves_nothing(fact: dict[str, Any], tmp_path: Path, named: bool) -> None:
    temporary, out = tmp_path / "temporary", tmp_path / "out"
    temporary.mkdir()
    arguments = [sys.executable, "-c", INTERRUPTED, json.dumps(fact), str(out / "edit") if named else ""]
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, encoding="utf-8", env=os.environ | {"TMPDIR": str(temporary)}
    )
    assert process.stdout is not None and process.stdout.readline() == "begins\n"
    unfinished = out if named else temporary
    waited = time.monotonic()
    while not list(unfinished.glob("**/.rectify-unfinished-*")):
        assert time.monotonic() - waited < 60, "the program has not begun to write"
        time.sleep(0.05)
    time.sleep(0.5)  # It edits now.
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert said == "interrupted\n" and process.returncode == 0
    assert list(temporary.rglob("*")) == []
    assert list(out.rglob("*")) == []


def test_the_program_is_of_this_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert rectify_lm.__version__ in subprocess.run([program(), "--version"], capture_output=True, text=True).stdout
    other = tmp_path / "rectify"
    other.write_text("#!/bin/sh\necho rectify 99.0\n")
    other.chmod(0o755)
    monkeypatch.setenv("RECTIFY_PROGRAM", str(other))
    program.cache_clear()
    try:
        with pytest.raises(RectifyError, match="rectify 99.0"):
            program()
        monkeypatch.setenv("RECTIFY_PROGRAM", str(tmp_path / "none"))
        with pytest.raises(RectifyError, match="none"):
            program()
    finally:
        program.cache_clear()


def test_documents_that_are_not_as_expected_are_refused() -> None:
    from rectify_lm._parse import parse
    from rectify_lm._reports import Probe

    whole: dict[str, Any] = {"prompt": "a", "before": "b", "after": "c", "score": 1, "new": [2]}
    probe = parse(Probe, whole, "probe")
    assert (probe.score, probe.raw["new"]) == (1.0, [2])
    for change, part in (({"score": "1"}, "probe.score is '1'"), ({"prompt": None}, "probe.prompt")):
        with pytest.raises(RectifyError, match=part):
            parse(Probe, whole | change, "probe")
    del whole["after"]
    with pytest.raises(RectifyError, match="probe has no 'after'"):
        parse(Probe, whole, "probe")


def test_results_can_be_copied(edit: Edit) -> None:
    assert edit.folder.is_relative_to(tempfile.gettempdir())
    copied = copy.deepcopy(edit)
    assert copied == edit and pickle.loads(pickle.dumps(edit.report)) == edit.report
    del copied
    gc.collect()
    assert edit.delta.is_file()
