"""Writes tests/golden/smollm2-135m/answers.json: what transformers answers to real records of the eight tasks.

    python tools/peer/golden_answers.py MODEL_FOLDER DATA_FOLDER 20 > tests/golden/smollm2-135m/answers.json

Prompts come from our own program `bench` (`cargo build --package rectify-tests --bin bench`); answers are greedy, one
prompt at a time, unpadded, in 32-bit floats. Prompts and answers are kept as hashes, because some of the data may not be
passed on. `gap` is the smallest distance between the two largest logits on the way: a text can only differ by rounding
where that is tiny.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import torch
import transformers

from common import Model

BENCH = Path(__file__).resolve().parents[2] / "target/debug/bench"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def answer(model, prompt, new_tokens):
    ids = model.ids(prompt)
    if len(ids) + new_tokens > model.net.config.max_position_embeddings:
        return None, None
    end = model.net.config.eos_token_id
    ids = torch.tensor([ids])
    with torch.no_grad():
        out = model.net.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=end,
            output_logits=True,
            return_dict_in_generate=True,
        )
    new = out.sequences[0, ids.shape[1] :].tolist()
    gaps = [float(-torch.diff(logits[0].topk(2).values)) for logits in out.logits]
    new = new[: new.index(end)] if end in new else new
    return model.tokenizer.decode(new), min(gaps)


def main(folder, data, limit):
    bench = subprocess.Popen([BENCH, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    job = {"job": "prompts", "data": data, "tasks": ["all"], "limit": int(limit)}
    bench.stdin.write(json.dumps(job) + "\n")
    bench.stdin.flush()
    asked = json.loads(bench.stdout.readline())["tasks"]
    bench.kill()
    model = Model(folder)
    tasks = {}
    for task in asked:
        tasks[task["task"]] = rows = []
        for prompt in task["prompts"]:
            text, gap = answer(model, prompt, task["new_tokens"])
            rows.append(
                {
                    "prompt": sha256(prompt.encode()),
                    "answer": None if text is None else sha256(text.encode()),
                    "gap": gap and round(gap, 6),
                }
            )
        print(task["task"], len(rows), file=sys.stderr)
    golden = {
        "model": sha256((Path(folder) / "model.safetensors").read_bytes()),
        "made_by": f"transformers {transformers.__version__}, PyTorch {torch.__version__.split('+')[0]}, float32",
        "records": int(limit),
        "tasks": tasks,
    }
    json.dump(golden, sys.stdout, indent=1)
    print()


main(*sys.argv[1:])
