"""Matrices alone: MEMIT's system as its released code solves it, RECT's selection, and how fast products are."""

import time

import numpy as np
import torch
from safetensors.torch import load_file

files = {}


def tensors(file):
    """A file's tensors, of the last file only: some are large."""
    if file not in files:
        files.clear()
        files[file] = load_file(file)
    return files[file]


def mean_seconds(work, least):
    """Seconds of one run, from as many as take `least` seconds, and what the last one gave."""
    done, started = 0, time.perf_counter()
    while done == 0 or time.perf_counter() - started < least:
        result = work()
        done += 1
    return (time.perf_counter() - started) / done, result


def solve(_, job):
    """`(lambda C + K K^T)^-1 K` in f64 by elimination, whatever the number of facts."""
    given = tensors(job["file"])
    keys = given["keys"][:, : job["facts"]].contiguous()
    residual = given["residual"][: job["facts"]]
    direct = lambda: torch.linalg.solve(job["lambda"] * given["moment"] + keys @ keys.T, keys)
    seconds, left = mean_seconds(direct, job["least"])
    update = left @ residual
    return {"seconds": seconds, "delta_norm": update.norm().item(), "sums": update.sum(0).tolist()}


def rect(_, job):
    """`|dW / W|`, then the floor(N (1 - k)) smallest by argpartition set to zero."""
    given = tensors(job["file"])
    delta, weight = given["delta"].numpy(), given["weight"].numpy()

    def select():
        with np.errstate(all="ignore"):
            relative = np.abs(delta / weight).ravel()
        dropped = int(np.floor(relative.size * (1 - job["keep"])))
        kept = delta.copy()
        kept.ravel()[np.argpartition(relative, dropped)[:dropped]] = 0
        return kept

    seconds, kept = mean_seconds(select, job["least"])
    answer = {"seconds": seconds, "survivors": int(np.count_nonzero(kept))}
    if job["compare"]:
        theirs = load_file(job["compare"])["kept"].numpy()
        differ = (theirs != 0) != (kept != 0)
        with np.errstate(all="ignore"):
            relative = np.abs(delta / weight)
        at_threshold = relative[kept == 0].max()
        answer |= {
            "differing": int(differ.sum()),
            "differing_untied": int((differ & (relative != at_threshold)).sum()),
            "same_values": bool((theirs[~differ] == kept[~differ]).all()),
        }
    return answer


def matmul(_, job):
    """Floating point operations per second of a product and of the product back."""
    rows, inner, columns = job["rows"], job["inner"], job["columns"]
    x, w, v = torch.randn(rows, inner), torch.randn(inner, columns), torch.randn(columns, inner)
    seconds, _ = mean_seconds(lambda: (x @ w) @ v, job["least"])
    return {"rate": 4 * rows * inner * columns / seconds}
