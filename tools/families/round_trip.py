"""An edit's file, added to a checkpoint in Python and loaded by transformers, says what `rectify ask --edits` says.

    python tools/families/round_trip.py target/debug/rectify

For every family in tests/golden, ROME and RECT 40 %: edits with the program, adds each tensor of delta.safetensors to the
weight of the same name, saves the checkpoint, and continues each fact's prompt in both.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from edits import FACTS
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

GOLDEN = Path(__file__).resolve().parents[2] / "tests/golden"
TOKENS = 8


def checkpoint(name, folder):
    """A whole checkpoint of a family."""
    files = GOLDEN / name
    fixtures = json.loads((files / "fixtures.json").read_text())
    shutil.copytree(files, folder, ignore=shutil.ignore_patterns("fixtures.*"))
    shutil.copy(GOLDEN / fixtures.get("vocabulary", name) / "tokenizer.json", folder)


def rectify(program, *arguments):
    done = subprocess.run([program, *map(str, arguments), "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{arguments}\n{done.stderr}")
    return json.loads(done.stdout)


def merged(folder, edits, out):
    """The checkpoint with the change added, as a person would do it."""
    shutil.copytree(folder, out)
    weights, delta = load_file(out / "model.safetensors"), load_file(edits / "delta.safetensors")
    assert delta and set(delta) <= set(weights), set(delta) - set(weights)
    for name, change in delta.items():
        assert change.shape == weights[name].shape, name
        weights[name] = weights[name] + change
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})


def continued(folder, prompt):
    net = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    settings = dict(do_sample=False, pad_token_id=0, attention_mask=torch.ones_like(ids))
    with torch.no_grad():
        new = net.generate(ids, max_new_tokens=TOKENS, **settings)[0, ids.shape[1] :].tolist()
        p = torch.softmax(net(ids).logits[0, -1], 0)
    ends = net.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    new = new[: min([new.index(end) for end in ends if end in new], default=len(new))]
    return tokenizer.decode(new, skip_special_tokens=True), p.max().item()


def main(program):
    program = Path(program).resolve()
    for name in ["gpt2-tiny", "llama-tiny", *(f"edits/{folder.name}" for folder in sorted((GOLDEN / "edits").iterdir()))]:
        for kept in [(), ("--regularizer", "rect", "--keep", "0.4")]:
            with tempfile.TemporaryDirectory() as place:
                place = Path(place)
                checkpoint(name, place / "model")
                (place / "facts.json").write_text(json.dumps(FACTS[:1]))
                edit = ["edit", "--model", place / "model", "--facts", place / "facts.json", "--method", "rome"]
                edit += ["--layer", "1", "--covariance", "none", "--out", place / "edits", *kept]
                rectify(program, *edit)
                merged(place / "model", place / "edits", place / "merged")
                prompt = FACTS[0]["prompt"]
                ask = ["ask", "--model", place / "model", "--edits", place / "edits", "--prompt", prompt]
                ours = rectify(program, *ask, "--tokens", TOKENS)
                theirs, p = continued(place / "merged", prompt)
                off = abs(ours["top"][0][1] - p)
                assert ours["text"] == theirs and off < 1e-4, (name, kept, ours["text"], theirs, off)
                print(f"{name} {' '.join(kept) or 'whole'}: {theirs!r}, p differs by {off:.0e}")


if __name__ == "__main__":
    main(*sys.argv[1:])
