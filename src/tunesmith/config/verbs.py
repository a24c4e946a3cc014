"""What a config can be for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.config.keys import all_keys

__all__ = ["LOOKING", "VERBS", "infer_verb"]

VERBS = (
    *("train", "predict", "score", "eval", "chat", "api", "export"),
    *("preview", "inspect", "stats", "check", "show"),
)
LOOKING = ("preview", "inspect", "stats")
"""Verbs that look at data; `inspect` also without a model, `stats` also with its weights. They read the rows of stages
that cannot be trained yet."""

# Arguments of transformers that other verbs read too.
_SHARED = {"seed", "use_cpu"}


_TRAINS = {"dataset", "do_train", "do_eval", "do_predict"}


def infer_verb(keys: Mapping[str, Any]) -> str:
    """What a file is for, by its keys: train if it has data or arguments of training, but score for a reward model with
    rows to judge and none to train on; else eval, api, export or chat."""
    known = all_keys()
    if keys.get("stage") == "rm" and "eval_dataset" in keys and _TRAINS.isdisjoint(keys):
        return "score"
    if not keys or any(name.endswith("dataset") or (known[name].passed_on and name not in _SHARED) for name in keys):
        return "train"
    if "task" in keys:
        return "eval"
    if not {"adapters", "adapter_dir"}.isdisjoint(keys):
        return "api"
    return "export" if "export_dir" in keys else "chat"
