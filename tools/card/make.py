"""A checkpoint of a known shape with numbers by chance: `make.py FOLDER small|xl|7b|tiny TOKENIZER`.

How long an edit takes does not depend on the numbers. They are pieces of one long list, in half precision.
"""

import json
import shutil
import struct
import sys
from pathlib import Path

import numpy as np

VOCAB = 50257
GPT2 = {"small": (12, 768, 12), "xl": (48, 1600, 25), "tiny": (4, 64, 4)}
LLAMA = {"7b": (32, 4096, 11008, 32)}
CHANCE = np.random.default_rng(1).standard_normal(1 << 24, dtype=np.float32)


def chance(shape, spread, seed):
    """Numbers of a spread, from somewhere in the list on, as often as they are needed."""
    n = int(np.prod(shape))
    listed = np.roll((CHANCE * spread).astype(np.float16), seed * 104729)
    return np.resize(listed, n).tobytes()


def gpt2(layers, d, heads):
    config = {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": d, "n_head": heads, "n_layer": layers,
        "n_positions": 1024, "vocab_size": VOCAB, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new",
        "bos_token_id": 50256, "eos_token_id": 50256,
    }
    shapes = {"wte.weight": (VOCAB, d), "wpe.weight": (1024, d), "ln_f.weight": (d,), "ln_f.bias": (d,)}
    for layer in range(layers):
        block = f"h.{layer}."
        for name, rows, columns in [("attn.c_attn", d, 3 * d), ("attn.c_proj", d, d), ("mlp.c_fc", d, 4 * d), ("mlp.c_proj", 4 * d, d)]:
            shapes |= {f"{block}{name}.weight": (rows, columns), f"{block}{name}.bias": (columns,)}
        for name in ["ln_1", "ln_2"]:
            shapes |= {f"{block}{name}.weight": (d,), f"{block}{name}.bias": (d,)}
    return config, shapes


def llama(layers, d, d_mlp, heads):
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": d, "intermediate_size": d_mlp,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads, "vocab_size": VOCAB,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
        "hidden_act": "silu", "bos_token_id": 50256, "eos_token_id": 50256,
    }
    shapes = {"model.embed_tokens.weight": (VOCAB, d), "lm_head.weight": (VOCAB, d), "model.norm.weight": (d,)}
    for layer in range(layers):
        block = f"model.layers.{layer}."
        shapes |= {f"{block}self_attn.{name}_proj.weight": (d, d) for name in "qkvo"}
        shapes |= {f"{block}mlp.{name}_proj.weight": (d_mlp, d) for name in ["gate", "up"]}
        shapes[f"{block}mlp.down_proj.weight"] = (d, d_mlp)
        shapes |= {f"{block}{name}_layernorm.weight": (d,) for name in ["input", "post_attention"]}
    return config, shapes


def write(file, shapes, seed):
    """A safetensors file: a length, a table in JSON, and the numbers."""
    table, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        table[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(table).encode()
    with open(file, "wb") as out:
        out.write(struct.pack("<Q", len(header)) + header)
        for i, (name, shape) in enumerate(shapes.items()):
            if len(shape) == 1:
                out.write(np.full(shape, 0.0 if name.endswith("bias") else 1.0, np.float16).tobytes())
            else:
                out.write(chance(shape, 0.01 if "wpe" in name else 0.02, seed + i))


def main(folder, kind, tokenizer):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config, shapes = gpt2(*GPT2[kind]) if kind in GPT2 else llama(*LLAMA[kind])
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(tokenizer, folder / "tokenizer.json")
    # Shards of two billion numbers at the most.
    shards, size = [{}], 0
    for name, shape in shapes.items():
        size += int(np.prod(shape))
        if size > 2e9:
            shards.append({})
            size = int(np.prod(shape))
        shards[-1][name] = shape
    if len(shards) == 1:
        write(folder / "model.safetensors", shards[0], 0)
        return
    names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    for i, (name, shard) in enumerate(zip(names, shards)):
        write(folder / name, shard, 1000 * i)
    files = {tensor: name for name, shard in zip(names, shards) for tensor in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


if __name__ == "__main__":
    main(*sys.argv[1:])
