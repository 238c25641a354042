"""Greedy continuations by transformers: in batches of about equal length, and as the published scripts do."""

import time

import torch


def generate(model, rows, new_tokens):
    """Continues rows of tokens, padded on the left."""
    width = max(len(row) for row in rows)
    pad = model.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return continued(model, ids, mask, new_tokens)


def continued(model, ids, mask, new_tokens):
    end = model.net.config.eos_token_id
    with torch.no_grad():
        out = model.net.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False, pad_token_id=end
        )
    rows = []
    for row in out[:, ids.shape[1] :].tolist():
        rows.append(row[: row.index(end)] if end in row else row)
    return rows


def batched(model, job):
    """Longest first, as many rows as fit `job["batch"]` padded tokens, one resident model."""
    started = time.perf_counter()
    rows = [model.ids(prompt) for prompt in job["prompts"]]
    new_tokens, context = job["new_tokens"], model.net.config.max_position_embeddings
    order = [row for row in range(len(rows)) if len(rows[row]) + new_tokens <= context]
    order.sort(key=lambda row: -len(rows[row]))
    texts, tokens = [None] * len(rows), 0
    while order:
        n = max(1, job["batch"] // (len(rows[order[0]]) + new_tokens))
        some, order = order[:n], order[n:]
        for row, new in zip(some, generate(model, [rows[row] for row in some], new_tokens)):
            texts[row] = model.tokenizer.decode(new)
            tokens += len(rows[row]) + len(new)
    return {"seconds": time.perf_counter() - started, "texts": texts, "tokens": tokens}


def one_by_one(model, job):
    """One prompt at a time, padded on the left to `job["width"]` tokens."""
    started = time.perf_counter()
    texts, pad = [], model.tokenizer.pad_token_id
    for prompt in job["prompts"]:
        row = model.ids(prompt)
        padding = max(0, job["width"] - job["new_tokens"] - len(row))
        ids = torch.tensor([[pad] * padding + row])
        mask = torch.tensor([[0] * padding + [1] * len(row)])
        texts.append(model.tokenizer.decode(continued(model, ids, mask, job["new_tokens"])[0]))
    return {"seconds": time.perf_counter() - started, "texts": texts}
