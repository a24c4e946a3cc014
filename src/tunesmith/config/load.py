"""load_config: sources to a checked RunConfig, with everything that is wrong reported at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from tunesmith.config.checks import check
from tunesmith.config.convert import Mismatch, convert
from tunesmith.config.effects import without_effect
from tunesmith.config.foreign import DERIVED, ELSEWHERE, NEWER_NAMES
from tunesmith.config.hf import QUIET
from tunesmith.config.keys import SECTIONS, Key, all_keys
from tunesmith.config.legacy import modernise, other_names
from tunesmith.config.run_config import RunConfig
from tunesmith.config.source import Given, Overrides, Source, read_overrides, read_source
from tunesmith.config.verbs import LOOKING, VERBS, infer_verb
from tunesmith.core.errors import ConfigError, Problem
from tunesmith.core.suggest import did_you_mean

__all__ = ["load_config"]


def load_config(source: Source, overrides: Overrides = (), verb: str = "train") -> RunConfig:
    """Read, convert and check a config for a verb.

    `source`: path of a YAML, JSON or TOML file, a mapping, or None. `overrides`: `key=value` texts or a mapping; they
    win. `verb`: one of VERBS; "check" finds out what the config is for, "show" asks for no key in particular. Raises
    ConfigError with all problems, MissingInputError if there is no such file.
    """
    assert verb in VERBS, verb
    written, problems = read_source(source)
    added, more = read_overrides(overrides)
    problems += more
    givens = _merge([*written, *added])
    values, bad = _convert_all(givens.values(), problems, verb)
    places = {key: given.place for key, given in givens.items()}
    config, lost = _build(values, places, verb, source, problems)
    problems += check(config, bad)
    warnings = _warnings(config, lost, problems)
    if problems:
        raise ConfigError(problems)
    return _with_warnings(config, warnings)


def _merge(givens: Iterable[Given]) -> dict[str, Given]:
    """By key; the last one wins. `lr_scheduler_kwargs.min_lr=1e-6` adds to a mapping or changes one value in it."""
    merged: dict[str, Given] = {}
    for given in givens:
        outer, dot, inner = given.key.partition(".")
        if dot and inner and outer in all_keys() and "dict" in all_keys()[outer].types:
            before = merged[outer].value if outer in merged else None
            value = {**(before if isinstance(before, dict) else {}), inner: given.value}
            given = Given(outer, value, given.place)
        merged[given.key] = given
    return merged


def _convert_all(givens: Iterable[Given], problems: list[Problem], verb: str) -> tuple[dict[str, Any], frozenset[str]]:
    """Values by key, and the keys that are wrong; what is wrong with them is added to `problems`."""
    values: dict[str, Any] = {}
    bad = set()
    for given in givens:
        key = all_keys().get(given.key)
        if key is None:
            problems.append(_unknown(given, suggest=len(problems) < ConfigError.shown))
            continue
        try:
            value = convert(key, given.value, given.text)
        except Mismatch as mismatch:
            problems.append(_mismatch(given, mismatch))
            bad.add(given.key)
            continue
        looks = verb in LOOKING and key.section == "objective"  # which loss does not matter for looking at rows
        if not looks and (refusal := _refusal(key, value, given)) is not None:
            problems.append(refusal)
            bad.add(given.key)
        elif value is not None or key.default is not None:
            values[given.key] = value
    return values, frozenset(bad)


def _unknown(given: Given, *, suggest: bool) -> Problem:
    """`suggest` is off for problems that nobody sees: looking for like names takes a millisecond each."""
    if given.key in NEWER_NAMES:
        what = f'"{given.key}" is a name of another version'
        return Problem("E-CONFIG-010", what, given.place, fix=f"write {NEWER_NAMES[given.key]}")
    if given.key in DERIVED:
        what = f'"{given.key}" is derived and cannot be set'
        return Problem("E-CONFIG-010", what, given.place, fix=f"it follows from {DERIVED[given.key]}")
    if given.key in ELSEWHERE:
        fix = f'the key for this is "{ELSEWHERE[given.key]}"'
    else:
        near = did_you_mean(given.key, all_keys()) if suggest else None
        flat = "keys are flat: lora_rank, not lora: rank" if isinstance(given.value, Mapping) else None
        fix = flat or near or "`tunesmith config schema` lists all keys"
    return Problem("E-CONFIG-001", f'there is no key "{given.key}"', given.place, fix=fix)


def _mismatch(given: Given, mismatch: Mismatch) -> Problem:
    secret = all_keys()[given.key].mark.secret
    got = "(not shown)" if secret else _shown(given.value)
    default = all_keys()[given.key].default
    stated = f" (the default is {json.dumps(default)})" if isinstance(default, int | float) else ""
    fix = mismatch.fix or f"leave the key out{stated}"
    return Problem(mismatch.code, f'"{given.key}" must be {mismatch.wanted}', given.place, got, fix)


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    kinds = {str: "text", bool: "", int: "", float: "", list: "list", dict: "mapping"}
    kind = kinds.get(type(value), type(value).__name__)
    return f"{kind} {value!r}".strip() if not isinstance(value, bool) else str(value).lower()


def _refusal(key: Key, value: Any, given: Given) -> Problem | None:
    mark = key.mark
    if value == key.default or mark.state in ("works", "ignored"):
        if value not in mark.later_values or value == key.default:
            return None
        what = f'"{key.name}: {value}" is not supported by this version'
        rest = [choice for choice in key.choices if choice not in mark.later_values]
        return Problem("E-CONFIG-008", what, given.place, fix=f"use {' or '.join(rest)}")
    got = "(not shown)" if mark.secret else _shown(value)
    if mark.state == "never":
        return Problem("E-CONFIG-009", f'"{key.name}" is not supported', given.place, got, mark.note)
    what = f'"{key.name}" is not supported by this version: it belongs to {mark.note}'
    return Problem("E-CONFIG-008", what, given.place, got, "leave the key out")


def _build(
    values: dict[str, Any], places: Mapping[str, str], verb: str, source: Source, problems: list[Problem]
) -> tuple[RunConfig, dict[str, str]]:
    table = all_keys()
    split: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    passed_on = {}
    for name, value in values.items():
        if table[name].passed_on:
            passed_on[name] = value
        elif value is not None or table[name].nullable:
            split[table[name].section][name] = value
    arguments, contradictions, lost = modernise(values, passed_on, places.__getitem__)
    split["train"]["hf"] = arguments
    wanted, more = other_names(values, places.__getitem__)
    split["model"] |= wanted
    problems += contradictions + more
    sections: dict[str, Any] = {section: SECTIONS[section](**split[section]) for section in SECTIONS}
    path = None if source is None or isinstance(source, Mapping) else str(source)
    verb = infer_verb(values) if verb == "check" else verb
    return RunConfig(verb=verb, values=values, source=path, places=places, **sections), lost


def _warnings(config: RunConfig, lost: dict[str, str], problems: list[Problem]) -> tuple[str, ...]:
    """One line that names all keys without effect; with `strict_keys`, problems for those that never have one here."""
    reasons = dict(lost)
    rules = without_effect(config)
    for name, value in config.values.items():
        key = all_keys()[name]
        if name in rules:
            reasons[name] = rules[name].otherwise
        elif key.mark.state == "ignored" and value not in (key.default, QUIET.get(name, key.default)):
            reasons[name] = key.mark.note
    if config.train.strict_keys:
        for name in [name for name in reasons if name not in rules or not rules[name].of_verb]:
            what = f'"{name}" has no effect: {reasons.pop(name)}'
            problems.append(Problem("E-CONFIG-011", what, config.place(name), fix="remove the key, or strict_keys"))
    grouped: dict[str, list[str]] = {}
    for name, why in reasons.items():
        grouped.setdefault(why, []).append(name)
    listed = "; ".join(f"{', '.join(names)} ({why})" for why, names in grouped.items())
    return (f"keys without effect: {listed}",) if listed else ()


def _with_warnings(config: RunConfig, warnings: tuple[str, ...]) -> RunConfig:
    return replace(config, warnings=warnings) if warnings else config
