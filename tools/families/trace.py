"""Causal traces of tiny checkpoints: what putting states back brings back, by hooks on transformers' modules.

    python tools/families/trace.py tests/golden [ROME]

Writes traces/NAME.json and traces/NAME.safetensors as tests/golden/README.md describes. The noise is drawn as in the
released code of ROME and is part of the files, so that everyone adds the same. Everything is computed in 32-bit floats,
and again in 64-bit floats: `observed` is the largest difference of a probability. Where ROME is a folder with the released
code (kmeng01/rome), its `trace_with_patch` computes every number too, and `released` is the largest difference from it.
"""

import importlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from unittest.mock import MagicMock

import numpy
import torch
import transformers
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peer"))
from common import Model, first_of

# Where the model is, and whose vocabulary it has.
MODELS = {"gpt2-tiny": ("gpt2-tiny",) * 2, "llama-tiny": ("llama-tiny",) * 2, "gptj": ("edits/gptj", "gpt2-tiny")}
CASES = [
    {"prompt": "The mother tongue of Danielle Darrieux is", "subject": "Danielle Darrieux", "samples": 10, "window": 3},
    {"prompt": "Thomas Joannes Stieltjes was a native speaker of", "subject": "Thomas Joannes Stieltjes", "samples": 4,
     "window": 2},
]
SUBJECTS = ["Ramalinaceae", "Volvo B12M", "Danielle Darrieux", "Thomas Joannes Stieltjes"]
KINDS = ["states", "mlp", "attention"]


def load(golden, name, dtype):
    folder, vocabulary = MODELS[name]
    with tempfile.TemporaryDirectory() as copy:
        for file in ["config.json", "model.safetensors"]:
            shutil.copy(golden / folder / file, copy)
        shutil.copy(golden / vocabulary / "tokenizer.json", copy)
        return Model(copy, dtype)


def module(model, kind, layer):
    block = model.blocks[layer]
    if kind == "states":
        return block
    return block.mlp if kind == "mlp" else getattr(block, "attn" if model.is_gpt else "self_attn")


def embeddings(model):
    return model.net.get_input_embeddings()


def windows(kind, layers, width):
    """The layers that are put back together, for each layer."""
    if kind == "states":
        return [[layer] for layer in range(layers)]
    half, rest = width // 2, width - width // 2
    return [[near for near in range(layers) if layer - half <= near < layer + rest] for layer in range(layers)]


def changed(output, change):
    """A module's output after a change of its first part."""
    if isinstance(output, tuple):
        return (change(output[0]), *output[1:])
    return change(output)


class Trace:
    """One clean run and several corrupted ones, which are separate passes."""

    def __init__(self, model, ids, subject, noise):
        self.model, self.ids, self.subject, self.noise = model, torch.tensor([ids]), subject, noise
        self.clean = {}
        hooks = []
        for kind in KINDS:
            for layer in range(len(model.blocks)):
                def keep(_module, _input, output, at=(kind, layer)):
                    self.clean[at] = first_of(output)[0].clone()

                hooks.append(module(model, kind, layer).register_forward_hook(keep))
        last = self.last(1, hooks)[0]
        self.high, self.answer = (part.item() for part in last.max(0))

    def last(self, rows, hooks):
        """Probabilities of what follows each row."""
        with torch.no_grad():
            logits = self.model.net(self.ids.expand(rows, -1)).logits[:, -1]
        for hook in hooks:
            hook.remove()
        return logits.softmax(1)

    def restored(self, kind=None, layers=(), token=None):
        """The answer's mean probability with one token's values put back in some layers."""
        start, end = self.subject

        def corrupt(_module, _input, output):
            return torch.cat([output[:, :start], output[:, start:end] + self.noise, output[:, end:]], 1)

        hooks = [embeddings(self.model).register_forward_hook(corrupt)]
        for layer in layers:
            def restore(_module, _input, output, value=self.clean[kind, layer][token]):
                here = torch.arange(len(self.ids[0]))[None, :, None] == token
                return changed(output, lambda hidden: torch.where(here, value, hidden))

            hooks.append(module(self.model, kind, layer).register_forward_hook(restore))
        return self.last(len(self.noise), hooks)[:, self.answer].mean().item()

    def map(self, kind, width):
        layers = windows(kind, len(self.model.blocks), width)
        return [[self.restored(kind, near, token) for near in layers] for token in range(len(self.ids[0]))]


def texts(model, ids):
    return [model.tokenizer.decode([id]) for id in ids]


def find(tokens, subject):
    """The tokens that hold a part of the subject, special ones being there with their names."""
    start = "".join(tokens).index(subject)
    ends = numpy.cumsum([len(token) for token in tokens])
    inside = [i for i, end in enumerate(ends) if end > start and end - len(tokens[i]) < start + len(subject)]
    return inside[0], inside[-1] + 1


def deviation(model):
    """Of the subjects' own tokens: LLaMA's first one, which stands before every text, is nobody's."""
    ids = [model.tokenizer(subject, add_special_tokens=False)["input_ids"] for subject in SUBJECTS]
    return embeddings(model)(torch.tensor(sum(ids, []))).double().std().item()


def traced(model, case, noise):
    ids = model.ids(case["prompt"])
    trace = Trace(model, ids, find(texts(model, ids), case["subject"]), noise.to(model.net.dtype))
    maps = {kind: torch.tensor(trace.map(kind, case["window"]), dtype=torch.float64) for kind in KINDS}
    return trace, {"high": trace.high, "low": trace.restored()}, maps


def difference(ones, others):
    (scores, maps), (other_scores, other_maps) = ones, others
    most = max((maps[kind] - other_maps[kind]).abs().max().item() for kind in KINDS)
    return max([most] + [abs(scores[name] - other_scores[name]) for name in scores])


class Released:
    """The released code. What it imports for data sets and drawing is not there and not used."""

    def __init__(self, folder):
        os.chdir(folder)
        sys.path.insert(0, ".")
        for name in ["datasets", "matplotlib", "dsets", "rome", "rome.tok_dataset"]:
            sys.modules[name] = MagicMock()
        self.code = importlib.import_module("experiments.causal_trace")
        self.layername = self.code.layername

    def traced(self, model, case, sigma):
        self.code.layername = self.layername if model.is_gpt else llama_names
        ids = model.ids(case["prompt"])
        subject = self.code.find_token_range(model.tokenizer, ids, case["subject"])
        batch = {"input_ids": torch.tensor([ids] * (case["samples"] + 1))}
        answer, high = (part[0].item() for part in self.code.predict_from_input(model.net, batch))

        def score(restored):
            return self.code.trace_with_patch(model.net, batch, restored, answer, subject, noise=sigma).item()

        maps, layers, width = {}, len(model.blocks), case["window"]
        for kind in KINDS:
            name = {"states": None, "mlp": "mlp", "attention": "attn"}[kind]
            table = maps[kind] = torch.zeros(len(ids), layers, dtype=torch.float64)
            for token in range(len(ids)):
                for layer in range(layers):
                    near = range(max(0, layer - width // 2), min(layers, layer - (-width // 2)))
                    near = [layer] if name is None else near
                    table[token, layer] = score([(token, self.code.layername(model.net, at, name)) for at in near])
        return subject, {"high": high, "low": score([])}, maps


def llama_names(_model, layer, kind=None):
    if kind == "embed":
        return "model.embed_tokens"
    return f"model.layers.{layer}" + {None: "", "mlp": ".mlp", "attn": ".self_attn"}[kind]


def main(golden, rome=None):
    golden = Path(golden).resolve()
    (golden / "traces").mkdir(exist_ok=True)
    released = rome and Released(rome)
    for name in MODELS:
        single, double = (load(golden, name, dtype) for dtype in [torch.float32, torch.float64])
        sigma, rows, arrays = 3 * deviation(single), [], {}
        for i, case in enumerate(CASES):
            ids = single.ids(case["prompt"])
            start, end = find(texts(single, ids), case["subject"])
            width = single.net.config.hidden_size
            noise = sigma * numpy.random.RandomState(1).randn(case["samples"], end - start, width)
            arrays[f"{i}.noise"] = noise = torch.from_numpy(noise).float()
            trace, scores, maps = traced(single, case, noise)
            arrays |= {f"{i}.{kind}": maps[kind] for kind in KINDS}
            found = {"answer": trace.answer, "ids": ids, "tokens": texts(single, ids), "subject_range": [start, end]}
            exact = traced(double, case, noise)
            assert exact[0].answer == trace.answer
            rows.append({**case, **found, **scores, "observed": difference((scores, maps), exact[1:])})
            if released:
                subject, *theirs = released.traced(single, case, sigma)
                assert subject == (start, end), (subject, start, end)
                rows[-1]["released"] = difference((scores, maps), theirs)
        document = {
            "model": MODELS[name][0],
            "vocabulary": MODELS[name][1],
            "subjects": SUBJECTS,
            "sigma": sigma,
            "cases": rows,
            "made_with": {"torch": torch.__version__, "transformers": transformers.__version__},
        }
        (golden / "traces" / f"{name}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        save_file(arrays, golden / "traces" / f"{name}.safetensors")
        for row in rows:
            shown = ["high", "low", "observed", "released"]
            print(name, {key: row.get(key) for key in shown}, file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
