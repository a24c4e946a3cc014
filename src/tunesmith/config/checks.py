"""Rules across sections: one small function each, in a table with the keys it reads and the verbs it is for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from tunesmith.config.run_config import RunConfig
from tunesmith.core.errors import Problem

__all__ = ["CHECKS", "check"]

Finder: TypeAlias = Callable[[RunConfig], Iterator[Problem]]

_TRAIN = ("train",)
_DATA = ("train", "preview")
_ALL = ("train", "preview", "chat", "export")


@dataclass(frozen=True, slots=True)
class Check:
    find: Finder
    keys: frozenset[str]
    verbs: tuple[str, ...]


CHECKS: list[Check] = []


def _rule(verbs: tuple[str, ...], *keys: str) -> Callable[[Finder], Finder]:
    """Register a rule. It is left out when one of its keys is wrong by itself, so that one mistake is told once."""

    def register(find: Finder) -> Finder:
        CHECKS.append(Check(find, frozenset(keys), verbs))
        return find

    return register


def check(config: RunConfig, bad: Collection[str] = ()) -> list[Problem]:
    """Every rule that is broken for the config's verb. `bad`: keys that are already known to be wrong."""
    problems: list[Problem] = []
    for item in CHECKS:
        if config.verb in item.verbs and not item.keys & set(bad):
            problems += item.find(config)
    return problems


def _missing(key: str, what: str, fix: str) -> Problem:
    return Problem("E-CONFIG-020", f'"{key}" is missing: {what}', fix=fix)


@_rule(_ALL, "model_name_or_path")
def _model_is_named(config: RunConfig) -> Iterator[Problem]:
    if not config.model.model_name_or_path:
        yield _missing("model_name_or_path", "no model is named", "model_name_or_path: a folder or a hub repository")


@_rule(_TRAIN, "output_dir")
def _output_is_named(config: RunConfig) -> Iterator[Problem]:
    if not config.train.output_dir:
        yield _missing("output_dir", "the run has no folder to write to", "output_dir: runs/my-first-run")


@_rule(("export",), "export_dir")
def _export_is_named(config: RunConfig) -> Iterator[Problem]:
    if not config.export.export_dir:
        yield _missing("export_dir", "the model has no folder to be written to", "export_dir: models/merged")


@_rule(_TRAIN, "do_train", "dataset")
def _training_has_data(config: RunConfig) -> Iterator[Problem]:
    if config.train.do_train and not config.data.dataset:
        yield _missing("dataset", "there is nothing to train on", "dataset: path/to/rows.jsonl, or a registered name")
