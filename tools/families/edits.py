"""Edits by the reference loop on tiny random checkpoints of the families: what ROME, MEMIT, KN and MEND find there.

    python tools/families/edits.py tests/golden/edits

One folder a family: config.json and model.safetensors as transformers saves them, and fixtures.json and
fixtures.safetensors as tests/golden/README.md describes. The vocabularies are those of the two trained tiny models. The
loops are those of tools/peer, which time the same edits. Everything is computed in 32-bit floats, and again in 64-bit
floats: `observed` is the largest difference of an array relative to its largest entry.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peer"))
import kn
import memit
import rome
from common import Model
from make import LLAMA_3, randomize

VOCAB, CONTEXT, LAYERS = 1024, 64, 3
LLAMA = dict(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=LAYERS,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=CONTEXT,
    vocab_size=VOCAB,
    tie_word_embeddings=True,
)
GPT = dict(n_embd=16, n_inner=24, n_layer=LAYERS, n_head=2, n_positions=CONTEXT, vocab_size=VOCAB)

# Architecture, settings, whose vocabulary: LLaMA's begins every text with a token of its own.
CASES = {
    "gptj": ("GPTJ", {**GPT, "rotary_dim": 4}, "gpt2-tiny"),
    "llama-3": ("Llama", {**LLAMA, "rope_parameters": LLAMA_3}, "llama-tiny"),
    "mistral": ("Mistral", {**LLAMA, "sliding_window": None}, "llama-tiny"),
    "qwen2": ("Qwen2", {**LLAMA, "use_sliding_window": False}, "gpt2-tiny"),
    "qwen3": ("Qwen3", {**LLAMA, "head_dim": 8, "use_sliding_window": False}, "gpt2-tiny"),
}

FACTS = [
    {"prompt": "The mother tongue of Danielle Darrieux is", "subject": "Danielle Darrieux", "target_new": "English"},
    {"prompt": "What company made Volvo B12M?", "subject": "Volvo B12M", "target_new": "Volkswagen Group"},
    {"prompt": "Saint Petersburg is a twin city of", "subject": "Saint Petersburg", "target_new": "Milan"},
]
CONTEXTS = ["{}", "The city was founded in the north. {}", "Therefore, the river is long. {}"]
VALUE = dict(v_num_grad_steps=10, v_lr=0.1, v_weight_decay=0.02, clamp_norm_factor=2.0, kl_factor=0.0625)
JOBS = {
    "rome": {"layer": 1},
    "memit": {"layers": [0, 1], "lambda": 1.0},
    # As released, neurons answer for the true object, which is cut as a text of its own.
    "kn": {"prompt": FACTS[0]["prompt"], "ground_truth": "French", "steps": 4, "batch_size": 4},
}


def make(name, out):
    family, settings, vocabulary = CASES[name]
    torch.manual_seed(sum(name.encode()) + 7)
    config = getattr(transformers, f"{family}Config")(**settings, bos_token_id=0, eos_token_id=1, pad_token_id=None)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    randomize(model)
    model.save_pretrained(out / name)
    (out / name / "generation_config.json").unlink(missing_ok=True)
    shutil.copy(out.parent / vocabulary / "tokenizer.json", out / name)


def second_moment(model, layer):
    """Of the keys of every fact in every context: `[d_mlp, d_mlp]`, a mean over tokens."""
    texts = [context.replace("{}", fact["prompt"]) for context in CONTEXTS for fact in FACTS]
    kept = []
    handle = model.down(layer).register_forward_hook(lambda _, inputs, output: kept.append(inputs[0][0]))
    with torch.no_grad():
        for text in texts:
            model.net(torch.tensor([model.ids(text)]))
    handle.remove()
    keys = torch.cat(kept).double()
    return keys.T @ keys / len(keys)


def ends(model):
    """Of each linear layer of the MLPs, what it reads and the gradient of the target's loss by what it writes."""
    fact = FACTS[1]
    prompt, whole = (model.ids(text) for text in (fact["prompt"], f"{fact['prompt']} {fact['target_new']}"))
    found, handles = {}, []
    for name, module in model.net.named_modules():
        if ".mlp." in name and hasattr(module, "weight"):

            def keep(_, inputs, output, name=name):
                output.requires_grad_(True).retain_grad()
                found[name] = (inputs[0][0].detach(), output)

            handles.append(module.register_forward_hook(keep))
    logits = model.net(torch.tensor([whole])).logits[0]
    for handle in handles:
        handle.remove()
    labels = torch.tensor(whole[len(prompt) :])
    loss = torch.nn.functional.cross_entropy(logits[len(prompt) - 1 : -1], labels)
    loss.backward()
    arrays = {f"mend.x.{name}": x for name, (x, _) in found.items()}
    arrays |= {f"mend.d.{name}": output.grad[0] for name, (_, output) in found.items()}
    return arrays


def continued(model, ids, n):
    """The likeliest tokens, one after the other; no token ends the text, and none is padding."""
    settings = dict(do_sample=False, eos_token_id=None, pad_token_id=0, attention_mask=torch.ones_like(ids))
    with torch.no_grad():
        return model.net.generate(ids, max_new_tokens=n, **settings)[0, ids.shape[1] :].tolist()


def row_change(model):
    """What KN adds to the row of each neuron, as released: the target in the place of what the model says now."""
    target, embedding = model.ids(FACTS[0]["target_new"]), model.net.get_input_embeddings().weight
    ids = torch.tensor([model.ids(JOBS["kn"]["prompt"])])
    says = continued(model, ids, len(target))
    taken_out = 2 if len(target) == 1 else 1
    return embedding[target].sum(0) - taken_out * embedding[says].sum(0)


def edit(folder, moments):
    """Every array of a folder, in PyTorch's default type, and what is no array."""
    model = Model(folder)
    value = VALUE | {"contexts": {"given": CONTEXTS}}
    arrays = {f"moment.l{layer}": moment for layer, moment in moments.items()}
    greedy = {}
    for fact, given in enumerate(FACTS):
        job = JOBS["rome"] | {"fact": given, "value": value}
        weight = model.down(job["layer"]).weight
        before = weight.clone()
        left, right, *_ = rome.plan(model, job)
        arrays |= {f"rome.r{fact}.u": left, f"rome.r{fact}.v": right}
        model.add(job["layer"], torch.outer(left, right))
        ids = torch.tensor([model.ids(given["prompt"])])
        with torch.no_grad():
            arrays[f"rome.r{fact}.logits"] = model.net(ids).logits[0, -1]
        greedy[f"rome.r{fact}"] = continued(model, ids, 8)
        weight.copy_(before)
    job = JOBS["memit"] | {"facts": FACTS, "value": value, "values": len(FACTS)}
    _, arrays["memit.Z"], updates = memit.plan(model, job, [moments[layer] for layer in job["layers"]])
    for layer, update in zip(job["layers"], updates):
        arrays[f"memit.l{layer}.dW"] = update  # [d_mlp, d_model]
    arrays["kn.scores"] = kn.attribute(model, JOBS["kn"])
    arrays["kn.row_change"] = row_change(model)
    arrays |= ends(model)
    return arrays, greedy


def main(out):
    out = Path(out)
    for name in CASES:
        make(name, out)
        moments = {layer: second_moment(Model(out / name), layer) for layer in JOBS["memit"]["layers"]}
        arrays, greedy = edit(out / name, moments)
        torch.set_default_dtype(torch.float64)
        exact, again = edit(out / name, moments)
        torch.set_default_dtype(torch.float32)
        assert greedy == again, (name, greedy, again)
        observed = {}
        for key, array in arrays.items():
            method, *_, kind = key.split(".")
            kind = f"{method}.{kind}"
            off = (exact[key] - array).abs().max() / exact[key].abs().max()
            observed[kind] = max(observed.get(kind, 0.0), off.item())
        print(name, {kind: f"{off:.0e}" for kind, off in observed.items()})
        (out / name / "tokenizer.json").unlink()
        fixtures = {
            "vocabulary": CASES[name][2],
            "made_by": f"transformers {transformers.__version__}, PyTorch {torch.__version__.split('+')[0]}, float32",
            "facts": FACTS,
            "contexts": CONTEXTS,
            "value": VALUE,
            **JOBS,
            "greedy": greedy,
        }
        (out / name / "fixtures.json").write_text(json.dumps(fixtures, indent=1) + "\n")
        save_file({key: array.clone(memory_format=torch.contiguous_format) for key, array in arrays.items()}, out / name / "fixtures.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
