"""ROME as its released code computes it, on PyTorch: what `cargo xtask bench rome` compares Rectify with.

Reads one job per line on stdin, answers with one line of JSON each. The model stays loaded between jobs.
The loop has the published shape: every layer on every padded token in each step, logits at every position,
21 contexts and the row "{subject} is a" for the divergence, 32-bit floats. Equations: https://arxiv.org/abs/2202.05262
"""

import json
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast


def main(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.requires_grad_(False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(Path(folder) / "tokenizer.json"))
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)  # masked, so any token will do
    tokenizer.padding_side = "right"
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(matmul_rate(**job["matmul"]) if "matmul" in job else edit(model, tokenizer, job)), flush=True)


def edit(model, tokenizer, job):
    """Edits, measures how long that took, and takes the edit back."""
    module, mlp = modules(model, job["layer"])
    started = time.perf_counter()
    left = compute_u(model, tokenizer, job, module)
    right, steps, loss, rows = compute_v(model, tokenizer, job, module, mlp, left)
    update = torch.outer(left, right)  # [d_mlp, d_model]
    update = update if update.shape == module.weight.shape else update.T
    module.weight += update
    seconds = time.perf_counter() - started
    module.weight -= update
    return {"seconds": seconds, "steps": steps, "loss": loss, "delta_norm": update.norm().item(), **rows}


def modules(model, layer):
    """The down projection that is edited, and the MLP whose output it is."""
    if hasattr(model, "transformer"):
        mlp = model.transformer.h[layer].mlp
        return mlp.c_proj, mlp
    mlp = model.model.layers[layer].mlp
    return mlp.down_proj, mlp


def tokenize(tokenizer, texts):
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}


def lookup(tokenizer, template, subject):
    """Index of the subject's last token."""
    return len(tokenizer(template[: template.index("{}")] + subject)["input_ids"]) - 1


def record(model, module, batch):
    """Input and output of a module while the whole model runs."""
    kept = {}
    handle = module.register_forward_hook(lambda _, inputs, output: kept.update(input=inputs[0], output=output))
    with torch.no_grad():
        model(**batch)
    handle.remove()
    return kept["input"], kept["output"]


def compute_u(model, tokenizer, job, module):
    """The mean key over the contexts, normalised: no covariance, as released."""
    template = job["prompt"].replace(job["subject"], "{}")
    templates = [context.replace("{}", template) for context in job["contexts"]]
    batch = tokenize(tokenizer, [text.replace("{}", job["subject"]) for text in templates])
    keys, _ = record(model, module, batch)
    at = torch.tensor([lookup(tokenizer, text, job["subject"]) for text in templates])
    u = keys[torch.arange(len(templates)), at].mean(0)
    return u / u.norm()


def compute_v(model, tokenizer, job, module, mlp, left):
    """The value that makes the target likely, and from it the right vector."""
    subject = job["subject"]
    template = job["prompt"].replace(subject, "{}")
    bos = len(tokenizer("")["input_ids"])
    target = tokenizer(" " + job["target_new"])["input_ids"][bos:]
    ending = tokenizer.decode(target[:-1])
    templates = [context.replace("{}", template) + ending for context in job["contexts"]] + ["{} is a"]
    batch = tokenize(tokenizer, [text.replace("{}", subject) for text in templates])
    at = torch.tensor([lookup(tokenizer, text, subject) for text in templates])
    n = len(job["contexts"])
    rows = torch.arange(n + 1)
    lengths = batch["attention_mask"].sum(1)

    labels = torch.full((n, batch["input_ids"].shape[1]), -100)
    for row in range(n):
        labels[row, lengths[row] - len(target) : lengths[row]] = torch.tensor(target)
    mask = (labels != -100).float()

    delta = torch.zeros(model.config.hidden_size, requires_grad=True)
    first = {}

    def shift(_, inputs, output):
        first.setdefault("value", output[0, at[0]].detach().clone())
        output = output.clone()
        output[rows, at] += delta
        return output

    optimizer = torch.optim.Adam([delta], lr=job["v_lr"])
    handle = mlp.register_forward_hook(shift)
    for step in range(job["v_num_grad_steps"]):
        optimizer.zero_grad()
        logits = model(**batch).logits
        kl_now = torch.log_softmax(logits[n, at[n]], 0)
        first.setdefault("kl", kl_now.detach().clone())
        log_probs = torch.log_softmax(logits, 2)
        gathered = torch.gather(log_probs[:n], 2, labels.clamp(min=0).unsqueeze(2)).squeeze(2)
        nll = -(gathered * mask).sum(1) / len(target)
        kl = job["kl_factor"] * torch.nn.functional.kl_div(first["kl"], kl_now, log_target=True, reduction="sum")
        decay = job["v_weight_decay"] * delta.norm() / first["value"].norm() ** 2
        loss = nll.mean() + kl + decay
        if loss < 0.05 or step == job["v_num_grad_steps"] - 1:
            break
        loss.backward()
        optimizer.step()
        largest = job["clamp_norm_factor"] * first["value"].norm()
        if delta.norm() > largest:
            with torch.no_grad():
                delta *= largest / delta.norm()
    handle.remove()

    bare = tokenize(tokenizer, [job["prompt"]])
    keys, values = record(model, module, bare)
    here = lookup(tokenizer, template, subject)
    value = first["value"] + delta.detach()
    right = (value - values[0, here]) / (keys[0, here] @ left)
    counted = {"lengths": lengths.tolist(), "at": at.tolist(), "target_tokens": len(target)}
    return right, step + 1, loss.item(), counted


def matmul_rate(rows, inner, columns, seconds):
    """Floating point operations per second of a product and of the product back."""
    x, w, v = torch.randn(rows, inner), torch.randn(inner, columns), torch.randn(columns, inner)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        (x @ w) @ v
        done += 4 * rows * inner * columns
    return {"rate": done / (time.perf_counter() - started), "threads": torch.get_num_threads()}


if __name__ == "__main__":
    main(sys.argv[1])
