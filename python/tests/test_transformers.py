"""Edits in transformers and PEFT: skipped where they are not installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rectify_lm import Edit, Model, RectifyError, static_folder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PROMPT = "Willa Farolde was born in the city of"
FOLDER = static_folder() / "models" / "demo-gpt2"


def load(folder: os.PathLike[str] = FOLDER, dtype: Any = None) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype or torch.float32).eval()


def next_token(model: Any) -> Any:
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
    with torch.no_grad():
        logits = model(**tokenizer(PROMPT, return_tensors="pt")).logits[0, -1]
    return torch.softmax(logits.double(), dim=-1)


def check_answers(model: Any, ours: Model, edits: Edit | None, within: float = 1e-6) -> None:
    """The program's candidates have the probabilities that transformers gives."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
    answer = ours.ask(PROMPT, top=20, edits=edits)
    found = next_token(model)
    values, ids = found.topk(20)
    for candidate, value, token in zip(answer.top, values.tolist(), ids.tolist(), strict=True):
        assert abs(candidate.p - value) < within, (candidate, value)
        if candidate.p > 1e-3:
            assert candidate.token == tokenizer.decode([token])


def test_the_change_is_added_to_a_model_s_parameters(model: Model, edit: Edit) -> None:
    theirs = load()
    check_answers(theirs, model, None)
    before = next_token(theirs)
    assert edit.apply_to(theirs) is theirs
    assert (next_token(theirs) - before).abs().max() > 0.1
    check_answers(theirs, model, edit)


def test_parameters_are_found_without_the_head_s_prefix_and_rounded_once(edit: Edit) -> None:
    [name] = [weight.name for weight in edit.report.operations[0].weights]
    whole = edit.apply_to(load())
    bare = edit.apply_to(transformers.AutoModel.from_pretrained(FOLDER, dtype=torch.float32))
    half = edit.apply_to(load(dtype=torch.float16))
    [parameter] = [value for key, value in whole.named_parameters() if key.endswith(name)]
    short = name.removeprefix("transformer.")
    assert torch.equal(dict(bare.named_parameters())[short], parameter)
    assert torch.equal(dict(half.named_parameters())["transformer." + short], parameter.half())


def test_another_model_is_refused_and_not_touched(edit: Edit) -> None:
    def refused(theirs: Any, part: str) -> None:
        before = {name: value.clone() for name, value in theirs.named_parameters()}
        with pytest.raises(RectifyError, match=part) as error:
            edit.apply_to(theirs)
        assert error.value.kind == "bad_input"
        assert all(torch.equal(before[name], value) for name, value in theirs.named_parameters())

    folder = static_folder() / "models"
    refused(load(folder / "demo-nano"), "but its change is")
    refused(load(folder / "demo-llama"), "fits no parameter")
    refused(torch.nn.ModuleList([load(), load()]), "fits 2 parameters")


def test_a_merged_model_answers_as_the_edit_does(model: Model, edit: Edit, tmp_path: Path) -> None:
    merged = edit.merge(tmp_path / "merged", dtype="f32")
    assert [tensor.dtype for tensor in merged.tensors] == ["F32"]
    check_answers(load(merged), model, edit)
    check_answers(load(merged), Model(merged, device="cpu"), None)
    with pytest.raises(RectifyError, match="name a new or empty folder"):
        edit.merge(tmp_path / "merged")
    with pytest.raises(RectifyError, match="f23"):
        edit.merge(tmp_path / "other", dtype="f23")  # type: ignore[arg-type]


def test_an_adapter_answers_as_the_edit_does(model: Model, fact: dict[str, Any], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    # Without a regularizer the change has rank one.
    edit = model.edit(**fact)
    adapter = edit.adapter(tmp_path / "adapter")
    [module] = adapter.modules
    assert module.rank == 1 and module.error < 1e-5
    check_answers(peft.PeftModel.from_pretrained(load(), adapter.folder).eval(), model, edit)


def test_llama_is_edited_as_well(fact: dict[str, Any], tmp_path: Path) -> None:
    ours = Model("demo-llama", device="cpu")
    edit = ours.edit(**fact, v_num_grad_steps=5, contexts={"given": ["{}"]})
    folder = static_folder() / "models" / "demo-llama"
    theirs = edit.apply_to(load(folder))
    values, _ = next_token(theirs).topk(5)
    for candidate, value in zip(ours.ask(PROMPT, edits=edit).top, values.tolist(), strict=True):
        assert abs(candidate.p - value) < 1e-6
