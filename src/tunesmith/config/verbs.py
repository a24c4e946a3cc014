"""What a config can be for."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["VERBS", "infer_verb"]

VERBS = ("train", "chat", "export", "preview", "check", "show")

_TRAINS = {"dataset", "eval_dataset", "output_dir", "do_train", "do_eval", "do_predict"}


def infer_verb(keys: Collection[str]) -> str:
    """What a file is for, by its keys: export if it has `export_dir`, train if it has data or an output, else chat."""
    if "export_dir" in keys and not _TRAINS & set(keys):
        return "export"
    return "train" if _TRAINS & set(keys) or "stage" in keys or not keys else "chat"
