"""The words after a verb: a config file and keys, in any of the spellings people use.

run.yaml learning_rate=1e-4        run.yaml --learning_rate 1e-4        --model-name-or-path X --do-train
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.core.errors import Problem, UsageError

if TYPE_CHECKING:
    from tunesmith.config import RunConfig

__all__ = ["load", "split", "take"]

_ASSIGNMENT = re.compile(r"[A-Za-z_][\w.-]*=")
_FILES = {".yaml", ".yml", ".json", ".toml"}


def split(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """A verb's words as (config file or None, ["key=value", ...]).

    `--key value` and `--key=value` become `key=value`, dashes in a key become underscores, and `--key` alone is
    `key=true`. Raises UsageError for a word that is neither.
    """
    source: str | None = None
    overrides: list[str] = []
    problems: list[Problem] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("--") and len(word) > 2:
            key, equals, value = word[2:].partition("=")
            if not equals:
                value = rest.pop(0) if rest and _is_value(rest[0]) else "true"
            overrides.append(f"{key.replace('-', '_')}={value}")
        elif _ASSIGNMENT.match(word) and not _is_file(word):
            key, _, value = word.partition("=")
            overrides.append(f"{key.replace('-', '_')}={value}")
        elif source is None and not word.startswith("-"):
            source = word
        else:
            fix = f"write key=value, or --key {word}" if source is not None else "write --key value"
            problems.append(Problem("E-CLI-002", f'the word "{word}" belongs to nothing', fix=fix))
    if problems:
        raise UsageError(problems)
    return source, overrides


def take(words: Sequence[str], names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Options with a value that a verb has beside the config's keys: the words without them, and what was given.

    A verb that has to start quickly declares only flags: others cost it the import of pydantic (see `app._QuickHelp`).
    Raises UsageError for one without its value.
    """
    given: dict[str, str] = {}
    left: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in names:
            left.append(word)
        elif equals or (rest and _is_value(rest[0])):
            given[name] = value if equals else rest.pop(0)
        else:
            raise UsageError(Problem("E-CLI-003", f'"{word}" needs a value', fix=f"write --{name} VALUE"))
    return left, given


def _is_value(word: str) -> bool:
    return not word.startswith("--") and not (_ASSIGNMENT.match(word) and not _is_file(word))


def _is_file(word: str) -> bool:
    return Path(word).suffix in _FILES and Path(word).is_file()


def load(words: Sequence[str], verb: str, *, show_warnings: bool = True) -> RunConfig:
    """The config that a verb's words describe. Its warnings are printed to standard error."""
    source, overrides = split(words)
    if source is None and not overrides:
        fix = "name a file (run.yaml), or give keys (--model_name_or_path MODEL ...)"
        raise UsageError(Problem("E-CLI-004", "neither a config file nor keys", fix=fix))

    from tunesmith.config import load_config

    config = load_config(source, overrides, verb=verb)
    # A training config given to another verb: that its training keys have no effect there needs no telling.
    if show_warnings and not (
        verb in ("predict", "score", "eval", "chat", "api", "export") and "output_dir" in config.user_keys
    ):
        for warning in config.warnings:
            print(f"warning: {warning}", file=sys.stderr)
    return config
