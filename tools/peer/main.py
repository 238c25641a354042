"""Published editors on PyTorch: what `cargo xtask bench` compares Rectify with.

Reads one job per line on stdin, answers with one line of JSON each. The model stays loaded between jobs, and
everything is computed in 32-bit floats unless the published code does not. Each module is one benchmark's peer.
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


def about(_, job):
    """Uses every processor this process may use, unless told how many, and says how many threads that are."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(job["threads"] or processors)
    return {
        "threads": torch.get_num_threads(),
        "name": f"PyTorch {torch.__version__}, transformers {transformers.__version__}",
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


def main(folder):
    model = Model(folder)
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(JOBS[job["job"]](model, job)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
