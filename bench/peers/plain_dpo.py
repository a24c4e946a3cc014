"""DPO in the plain way, watched; bench/preference.py runs it.

    python bench/peers/plain_dpo.py SETTINGS.json

Transformers' model, PEFT's adapter, torch's optimizer and a loop, nothing of Tunesmith: both answers of each pair stand
behind its prompt in padded rows, all positions have logits, and a float32 log-softmax of all of them is read at the
tokens of the answers. The reference is the same forward without the adapter. The last line is JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import logsigmoid
from watch import Watch


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    watch = Watch()
    train(settings, watch)
    watch.print_report()


def train(settings: dict[str, Any], watch: Watch) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if settings["bf16"] else torch.float32
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=dtype)
    model = PeftModel.from_pretrained(model, settings["adapter"], is_trainable=True).train()
    if settings["gradient_checkpointing"]:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings["learning_rate"], weight_decay=0.0)
    pairs = [json.loads(line) for line in Path(settings["rows"]).read_text().splitlines()]
    watch.on_train_begin(None, None, None, model=model)
    for step in range(settings["steps"]):
        batch = pairs[step * settings["batch"] : (step + 1) * settings["batch"]]
        with torch.autocast("cpu", torch.bfloat16, enabled=settings["bf16"]):
            loss = _loss(model, batch, settings["beta"])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        watch.on_log(None, None, None, logs={"loss": loss.item(), "grad_norm": norm.item()})
        watch.on_step_end()


def _loss(model: Any, pairs: list[dict[str, Any]], beta: float) -> torch.Tensor:
    """Sequences of a batch: all chosen ones, then all rejected ones."""
    rows = [pair[name] for name in ("chosen", "rejected") for pair in pairs]
    longest = max(len(row["input_ids"]) for row in rows)
    ids, labels = torch.zeros(len(rows), longest).long(), torch.full((len(rows), longest), -100)
    seen = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        size = len(row["input_ids"])
        ids[number, :size], labels[number, :size] = torch.tensor(row["input_ids"]), torch.tensor(row["labels"])
        seen[number, :size] = 1
    policy = _log_probs(model, ids, seen, labels)
    model.eval()
    with torch.no_grad(), model.disable_adapter():
        reference = _log_probs(model, ids, seen, labels)
    model.train()
    chosen, rejected = (policy - reference).chunk(2)
    return -logsigmoid(beta * (chosen - rejected)).mean()


def _log_probs(model: Any, ids: torch.Tensor, seen: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[K] of rows [K, T]."""
    logits = model(input_ids=ids, attention_mask=seen, use_cache=False).logits[:, :-1].float()
    targets = labels[:, 1:]
    each = logits.log_softmax(-1).gather(2, targets.clamp(min=0)[..., None])[..., 0]
    return (each * (targets != -100)).sum(1)


if __name__ == "__main__":
    main()
