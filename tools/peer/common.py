"""What the published editors share: the model, its modules, rows of tokens, and the loop that looks for a value."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast


class Model:
    """A checkpoint with its vocabulary, on PyTorch's default device."""

    def __init__(self, folder, dtype):
        net = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        self.net = net.to(torch.get_default_device()).eval()
        self.net.requires_grad_(False)
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(Path(folder) / "tokenizer.json"))
        self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(0)  # masked, so any token will do
        self.tokenizer.padding_side = "right"
        # GPT-2 and GPT-J call their parts alike; every other family calls them as LLaMA does.
        self.is_gpt = hasattr(self.net, "transformer")
        self.blocks = self.net.transformer.h if self.is_gpt else self.net.model.layers
        self.final_norm = self.net.transformer.ln_f if self.is_gpt else self.net.model.norm

    def mlp(self, layer, *names):
        """The first of these linear layers that the MLP has."""
        mlp = self.blocks[layer].mlp
        return next(getattr(mlp, name) for name in names if hasattr(mlp, name))

    def down(self, layer):
        """The down projection, which editors change."""
        return self.mlp(layer, "c_proj", "fc_out", "down_proj")

    def before_activation(self, layer):
        """The linear layer whose output the activation function reads."""
        return self.mlp(layer, "c_fc", "fc_in", "gate_proj")

    def add(self, layer, update):
        """Adds `update [d_mlp, d_model]` to a down projection, which Linear stores the other way round."""
        module = self.down(layer)
        module.weight += (update.T if isinstance(module, torch.nn.Linear) else update).to(module.weight.dtype)

    def ids(self, text):
        return self.tokenizer(text)["input_ids"]

    def batch(self, texts):
        batch = self.tokenizer(texts, return_tensors="pt", padding=True)
        return {name: batch[name].to(self.net.device) for name in ["input_ids", "attention_mask"]}

    def finish(self):
        """Waits for the device, so that a clock can be read."""
        if self.net.device.type == "cuda":
            torch.cuda.synchronize()


def first_of(output):
    return output[0] if isinstance(output, tuple) else output


def template_of(fact):
    return fact["prompt"].replace(fact["subject"], "{}")


def lookup(model, template, subject):
    """Index of the subject's last token."""
    return len(model.ids(template[: template.index("{}")] + subject)) - 1


def record(model, module, batch):
    """Input and output of a module while the whole model runs, in 32-bit floats."""
    kept = {}

    def keep(_, inputs, output):
        kept.update(input=inputs[0].float(), output=first_of(output).float())

    handle = module.register_forward_hook(keep)
    with torch.no_grad():
        model.net(**batch)
    handle.remove()
    return kept["input"], kept["output"]


def optimize(model, fact, value, module, logits_twice=False):
    """The shift of a module's output at the subject's last token that makes the target likely.

    Every layer runs on every padded token in each step, with logits at every position; MEMIT's released code computes
    the rewriting rows' logits a second time from the last block's output (`logits_twice`).
    """
    subject, template = fact["subject"], template_of(fact)
    contexts = value["contexts"]["given"]
    target = model.ids(" " + fact["target_new"])[len(model.ids("")) :]
    ending = model.tokenizer.decode(target[:-1])
    templates = [context.replace("{}", template) + ending for context in contexts] + ["{} is a"]
    batch = model.batch([text.replace("{}", subject) for text in templates])
    at = torch.tensor([lookup(model, text, subject) for text in templates])
    n = len(contexts)
    rows = torch.arange(n + 1)
    lengths = batch["attention_mask"].sum(1).tolist()

    labels = torch.full((n, batch["input_ids"].shape[1]), -100)
    for row in range(n):
        labels[row, lengths[row] - len(target) : lengths[row]] = torch.tensor(target)
    mask = (labels != -100).float()

    delta = torch.zeros(model.net.config.hidden_size, requires_grad=True)
    first, last = {}, {}

    def shift(_, inputs, output):
        hidden = first_of(output).clone()
        first.setdefault("value", hidden[0, at[0]].detach().float())
        hidden[rows, at] += delta.to(hidden.dtype)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    def keep(_, inputs, output):
        last["states"] = first_of(output)

    optimizer = torch.optim.Adam([delta], lr=value["v_lr"])
    handles = [module.register_forward_hook(shift), model.blocks[-1].register_forward_hook(keep)]
    for step in range(value["v_num_grad_steps"]):
        optimizer.zero_grad()
        logits = model.net(**batch).logits.float()
        kl_now = torch.log_softmax(logits[n, at[n]], 0)
        first.setdefault("kl", kl_now.detach().clone())
        if logits_twice:
            logits = model.net.lm_head(model.final_norm(last["states"][:n])).float()
        log_probs = torch.log_softmax(logits, 2)
        gathered = torch.gather(log_probs[:n], 2, labels.clamp(min=0).unsqueeze(2)).squeeze(2)
        nll = -(gathered * mask).sum(1) / len(target)
        kl = value["kl_factor"] * torch.nn.functional.kl_div(first["kl"], kl_now, log_target=True, reduction="sum")
        decay = value["v_weight_decay"] * delta.norm() / first["value"].norm() ** 2
        loss = nll.mean() + kl + decay
        if loss < 0.05 or step == value["v_num_grad_steps"] - 1:
            break
        loss.backward()
        optimizer.step()
        largest = value["clamp_norm_factor"] * first["value"].norm()
        if delta.norm() > largest:
            with torch.no_grad():
                delta *= largest / delta.norm()
    for handle in handles:
        handle.remove()
    counted = {"lengths": lengths, "at": at.tolist(), "target_tokens": len(target)}
    return first["value"] + delta.detach(), step + 1, loss.item(), counted
