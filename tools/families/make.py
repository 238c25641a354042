"""Tiny random checkpoints of every family and option, and what transformers says of them.

    python tools/families/make.py tests/golden/families            # transformers 5
    python tools/families/make.py tests/golden/families --older    # transformers 4

The first writes one folder a checkpoint: config.json as this version of transformers saves it, model.safetensors, and
expected.json with the ids of a text, the logits of what follows it, and a greedy continuation. Everything is computed
in 32-bit floats. The second reads the weights again
with the older program, insists on the same logits, and writes config.v4.json as that one saves it.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

VOCAB, CONTEXT = 256, 64
LLAMA = dict(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=CONTEXT,
    vocab_size=VOCAB,
    bos_token_id=0,
    eos_token_id=1,
    pad_token_id=None,
)
GPT = dict(n_embd=16, n_layer=2, n_head=2, n_positions=CONTEXT, vocab_size=VOCAB, bos_token_id=0, eos_token_id=0)


def rope(kind, **more):
    return {"rope_type": kind, "rope_theta": 10000.0, **more}


LLAMA_3 = rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)

CASES = {
    "gpt2": ("GPT2", GPT),
    "gpt2-scaled-untied": ("GPT2", {**GPT, "scale_attn_by_inverse_layer_idx": True, "tie_word_embeddings": False}),
    "gpt2-unscaled": ("GPT2", {**GPT, "scale_attn_weights": False}),
    "gptj": ("GPTJ", {**GPT, "rotary_dim": 4}),
    "llama": ("Llama", LLAMA),
    "llama-tied": ("Llama", {**LLAMA, "tie_word_embeddings": True}),
    "llama-biases": ("Llama", {**LLAMA, "attention_bias": True, "mlp_bias": True}),
    "llama-head-dim": ("Llama", {**LLAMA, "head_dim": 6}),
    "llama-rope-linear": ("Llama", {**LLAMA, "rope_parameters": rope("linear", factor=4.0)}),
    "llama-rope-llama3": ("Llama", {**LLAMA, "rope_parameters": LLAMA_3}),
    "mistral": ("Mistral", {**LLAMA, "sliding_window": None}),
    "qwen2": ("Qwen2", {**LLAMA, "use_sliding_window": False}),
    "qwen3": ("Qwen3", {**LLAMA, "head_dim": 8, "use_sliding_window": False}),
}


def randomize(model):
    """Draws every weight, so that a bias or a norm which is left out shows."""
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.25)
            elif "norm" in key or ".ln_" in key and key.endswith("weight"):
                weight.normal_(1, 0.2)
            else:
                weight.normal_(0, 0.2)


def make(name, family, settings, out):
    torch.manual_seed(sum(name.encode()))
    config = getattr(transformers, f"{family}Config")(**settings)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    randomize(model)
    folder = out / name
    model.save_pretrained(folder)
    # Whole texts, a short one and one that most of the context holds.
    texts = [torch.randint(2, VOCAB, (1, length)) for length in (5, 50)]
    expected = []
    for ids in texts:
        with torch.no_grad():
            logits = model(ids).logits[0, -1]
            greedy = model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
        expected.append({
            "ids": ids[0].tolist(),
            "logits": [float(f"{value:.8g}") for value in logits.tolist()],
            "greedy": greedy[0, ids.shape[1]:].tolist(),
        })
    made = {"transformers": transformers.__version__, "texts": expected}
    (folder / "expected.json").write_text(json.dumps(made) + "\n")
    for extra in ["generation_config.json"]:
        (folder / extra).unlink(missing_ok=True)


def older(name, family, settings, out):
    settings = dict(settings)
    if parameters := settings.pop("rope_parameters", None):
        settings["rope_theta"] = parameters["rope_theta"]
        settings["rope_scaling"] = {key: value for key, value in parameters.items() if key != "rope_theta"}
    folder = out / name
    config = getattr(transformers, f"{family}Config")(**settings)
    # The other ways of attending leave GPT-2's `scale_attn_*` out of account in 4.57.
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    weights = load_file(folder / "model.safetensors")
    missing, unexpected = model.load_state_dict(weights, strict=False)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    assert not unexpected and set(missing) <= tied, (missing, unexpected)
    model.tie_weights()
    for text in json.loads((folder / "expected.json").read_text())["texts"]:
        with torch.no_grad():
            logits = model(torch.tensor([text["ids"]])).logits[0, -1]
        torch.testing.assert_close(logits, torch.tensor(text["logits"]), rtol=1e-5, atol=1e-5)
    config.architectures = [type(model).__name__]
    config.torch_dtype = "float32"
    (folder / "config.v4.json").write_text(config.to_json_string())


def main(out, *options):
    for name, (family, settings) in CASES.items():
        (older if options == ("--older",) else make)(name, family, settings, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
