"""What a config can be for."""

from __future__ import annotations

from collections.abc import Collection

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


def infer_verb(keys: Collection[str]) -> str:
    """What a file is for, by its keys: train if it has data or arguments of training, else eval, api, export or
    chat."""
    known = all_keys()
    if not keys or any(name.endswith("dataset") or (known[name].passed_on and name not in _SHARED) for name in keys):
        return "train"
    if "task" in keys:
        return "eval"
    if not {"adapters", "adapter_dir"}.isdisjoint(keys):
        return "api"
    return "export" if "export_dir" in keys else "chat"
