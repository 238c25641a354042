"""Published editors on PyTorch: what `cargo xtask bench` compares Rectify with.

`main.py MODEL [DEVICE] [TYPE]`: on the CPU in 32-bit floats, or on a device and in a type by PyTorch's names.

Reads one job per line on stdin, answers with one line of JSON each. The model stays loaded between jobs, and
everything is computed in its type unless the published code does not. Each module is one benchmark's peer.
"""

import json
import os
import sys

import torch
import transformers

import algebra
import kn
import memit
import rome
import tasks
from common import Model


def about(model, job):
    """Uses every processor this process may use, unless told how many, and says how many threads that are."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(job["threads"] or processors)
    device = model.net.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "threads": torch.get_num_threads(),
        "name": f"PyTorch {torch.__version__}, transformers {transformers.__version__}, {model.net.dtype} on {name}",
    }


JOBS = {
    "about": about,
    "rome": rome.edit,
    "memit": memit.edit,
    "kn": kn.locate,
    "solve": algebra.solve,
    "rect": algebra.rect,
    "matmul": algebra.matmul,
    "answer": tasks.batched,
    "answer_one_by_one": tasks.one_by_one,
}


def main(folder, device="cpu", dtype="float32"):
    torch.set_default_device(device)
    # A comparison in 32 bits is one: PyTorch's own default.
    torch.backends.cuda.matmul.allow_tf32 = False
    model = Model(folder, getattr(torch, dtype))
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(JOBS[job["job"]](model, job)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
