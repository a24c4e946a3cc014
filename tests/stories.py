"""stories260K as the part that reads text in a model with parts beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["language_of", "put_in", "template_of", "training_keys"]


def language_of(stories: Path, token: str) -> tuple[Any, Any]:
    """(tokenizer, model) with a token more, which stands for media."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(stories)
    # The row of </s> in the output layer has not been trained: with that layer frozen nobody can learn to write it.
    tokenizer.eos_token = tokenizer.bos_token
    tokenizer.add_special_tokens({"additional_special_tokens": [token]})
    language = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32)
    language.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    torch.manual_seed(0)  # of the parts beside it
    return tokenizer, language


def put_in(model: Any, language: Any) -> None:
    """Give the model the weights of the language model."""
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.lm_head.load_state_dict(language.lm_head.state_dict())


def template_of(kind: str, token: str) -> str:
    """A chat template: contents one behind the other, `token` for each medium of this kind, an end behind replies."""
    return (
        "{% for message in messages %}"
        "{% if message['content'] is string %}{{ message['content'] }}"
        "{% else %}{% for part in message['content'] %}"
        f"{{% if part['type'] == '{kind}' %}}{{{{ '{token}' }}}}{{% else %}}{{{{ part['text'] }}}}{{% endif %}}"
        "{% endfor %}{% endif %}"
        "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
        "{% endfor %}"
    )


def training_keys(model: Path, rows: Path, held: Path, out: Path) -> dict[str, Any]:
    """Keys of a short run that trains and evaluates on a processor."""
    return {
        "model_name_or_path": str(model),
        "stage": "sft",
        "finetuning_type": "full",
        "do_train": True,
        "dataset": str(rows),
        "eval_dataset": str(held),
        "output_dir": str(out),
        "per_device_train_batch_size": 8,
        "lr_scheduler_type": "constant",
        "compute_accuracy": True,
        "do_eval": True,
        "use_cpu": True,
    }
