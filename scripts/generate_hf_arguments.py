"""Writes src/tunesmith/config/hf_training_arguments.json: the keys of the installed transformers' training arguments.

    python scripts/generate_hf_arguments.py

With that list the config layer knows names, types, defaults and choices without importing transformers.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[1] / "src" / "tunesmith" / "config" / "hf_training_arguments.json"
PLAIN = {bool: "bool", int: "int", float: "float", str: "str", dict: "dict", list: "list"}


def describe(annotation: Any) -> tuple[list[str], bool, list[str]]:
    """Names of the plain types that a key takes, whether it may be null, and its choices if it is an enumeration."""
    names: list[str] = []
    nullable = False
    choices: list[str] = []
    origin = typing.get_origin(annotation)
    parts = typing.get_args(annotation) if origin in (typing.Union, types.UnionType) else (annotation,)
    for part in parts:
        base = typing.get_origin(part) or part
        if part is type(None):
            nullable = True
        elif base is typing.Literal:
            names.append("bool")
        elif base is list:
            names.append("list")
            inner = typing.get_args(part)[0] if typing.get_args(part) else str
            if isinstance(inner, type) and issubclass(inner, enum.Enum):
                choices = [str(item.value) for item in inner]
        elif isinstance(base, type) and issubclass(base, enum.Enum):
            names.append("str")
            choices = [str(item.value) for item in base]
        else:
            names.append(PLAIN.get(base, "object"))
    return sorted(set(names)), nullable, choices


def collect() -> list[dict[str, Any]]:
    """One entry per field of `Seq2SeqTrainingArguments`, in its order."""
    from transformers import Seq2SeqTrainingArguments
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    hints = typing.get_type_hints(Seq2SeqTrainingArguments)
    entries = []
    for item in dataclasses.fields(Seq2SeqTrainingArguments):
        names, nullable, choices = describe(hints[item.name])
        choices = choices or [str(choice) for choice in item.metadata.get("choices") or ()]
        if item.name == "report_to":
            choices = ["all", "none", *INTEGRATION_TO_CALLBACK]
        default = item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
        default = default.value if isinstance(default, enum.Enum) else default
        entry: dict[str, Any] = {"name": item.name, "types": names, "nullable": nullable, "default": default}
        if choices:
            entry["choices"] = choices
        entries.append(entry)
    return entries


def text() -> str:
    """The file's content: one line per key, so that a change of version reads well in a diff."""
    lines = ",\n".join("  " + json.dumps(entry) for entry in collect())
    return f"[\n{lines}\n]\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
    print(f"wrote {TARGET}")
