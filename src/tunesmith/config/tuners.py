"""The kinds of adapters that PEFT has (`finetuning_type: peft`): one line of facts each.

A test compares the table with the installed release, and the matrix of docs/methods.md trains each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["TUNERS", "Tuner"]


@dataclass(frozen=True, slots=True)
class Tuner:
    """`places` is what it is put on: linear layers named by `lora_target`, what PEFT itself finds (none), or a learnt
    prompt: vectors in front of the embeddings (embeds) or of the keys and values (cache).

    defaults   settings that PEFT has no default for, or one that no small model can have
    needs      settings that the config has to bring
    merges     whether it can become part of the weights
    tasks      it asks for the number of a task with each row: all rows are of task 0
    replies    how it generates: tokens of several replies in one row (together), each reply by itself (alone), or that
               and all of it again for each token (again), where nothing can be kept
    recomputes whether layers with it can be computed again in the backward pass
    package    a package that PEFT needs for it
    padded     why rows cannot lie one after the other in a flat batch
    refused    why it does not train here, and what to use
    """

    places: Literal["linear", "own", "embeds", "cache"] = "linear"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    merges: bool = True
    tasks: bool = False
    replies: Literal["together", "alone", "again"] = "together"
    recomputes: bool = True
    package: str | None = None
    padded: str | None = None
    refused: str | None = None


_IN_FRONT: dict[str, Any] = {"merges": False, "replies": "alone", "padded": "a learnt prompt stands before each row"}
_PROMPT: dict[str, Any] = {**_IN_FRONT, "defaults": {"num_virtual_tokens": 20}}
_KEYS: dict[str, Any] = {**_PROMPT, "recomputes": False}
_SHADOW = "the model beside the base is not told where rows begin"

TUNERS: dict[str, Tuner] = {
    "adalora": Tuner(),
    "adamss": Tuner(package="scikit-learn"),
    "adaption_prompt": Tuner("own", {"adapter_len": 10, "adapter_layers": 2}, merges=False),
    "beft": Tuner(merges=False),
    "boft": Tuner(),
    "c3a": Tuner(needs=("block_size",)),
    "cartridge": Tuner("cache", **_KEYS),
    "cpt": Tuner("embeds", needs=("cpt_token_ids",), **_IN_FRONT),
    "deft": Tuner(),
    "delora": Tuner(),
    "fourierft": Tuner(),
    "frod": Tuner(),
    "glora": Tuner(),
    "gralora": Tuner(),
    "hira": Tuner(),
    "hra": Tuner(),
    "ia3": Tuner(),
    "lily": Tuner(merges=False),
    "ln_tuning": Tuner("own"),
    "loha": Tuner(),
    "lokr": Tuner(),
    "lora": Tuner(refused="it has a name of its own: finetuning_type: lora"),
    "miss": Tuner(),
    "multitask_prompt_tuning": Tuner("embeds", tasks=True, **_PROMPT),
    "oft": Tuner(refused="it has a name of its own: finetuning_type: oft"),
    "osf": Tuner(),
    "p_tuning": Tuner("embeds", **_PROMPT),
    "peanut": Tuner(),
    "poly": Tuner(tasks=True, merges=False),
    "prefix_tuning": Tuner("cache", **_KEYS),
    "prompt_tuning": Tuner("embeds", **_PROMPT),
    "psoft": Tuner(),
    "pvera": Tuner(),
    "randlora": Tuner(),
    "road": Tuner(),
    "shadow": Tuner("own", merges=False, replies="alone", padded=_SHADOW),
    "shira": Tuner(),
    "supertuning": Tuner(),
    "tinylora": Tuner(),
    "trainable_tokens": Tuner("own", needs=("token_indices",)),
    "unilora": Tuner(),
    "vblora": Tuner(),
    "vera": Tuner(),
    "waveft": Tuner(),
    "xlora": Tuner("own", needs=("adapters",), merges=False, replies="again", recomputes=False),
}
