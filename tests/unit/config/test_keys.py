"""The table of keys: complete, declared once, and every state keeps its word."""

from __future__ import annotations

import ast
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tests.config_samples import sample, written
from tunesmith.config import hf, load_config, shown
from tunesmith.config.fields import mark_of
from tunesmith.config.foreign import DERIVED, ELSEWHERE, NEWER_NAMES
from tunesmith.config.keys import SECTIONS, Key, all_keys
from tunesmith.config.legacy import OLDER_NAMES
from tunesmith.config.shown import shown_by
from tunesmith.core.errors import ConfigError

ROOT = Path(__file__).parents[3]
V0_KEYS: dict[str, Any] = json.loads((ROOT / "tests" / "assets" / "v0_keys.json").read_text())


def in_state(*states: str) -> list[Any]:
    return [pytest.param(key, id=key.name) for key in all_keys().values() if key.mark.state in states]


def arrived(config: Any, key: Key) -> Any:
    return config.train.hf[key.name] if key.passed_on else getattr(getattr(config, key.section), key.name)


def test_every_key_is_declared_once() -> None:
    names = [item.name for cls in SECTIONS.values() for item in fields(cls) if mark_of(item.metadata)]
    assert len(names) == len(set(names))


def test_only_the_passed_on_arguments_are_no_key() -> None:
    others = [item.name for cls in SECTIONS.values() for item in fields(cls) if not mark_of(item.metadata)]
    assert others == ["hf"]


@pytest.mark.parametrize("name", V0_KEYS)
def test_every_key_of_the_field_is_there_with_its_default(name: str) -> None:
    default = all_keys()[name].default
    default = (",".join(default) or None) if isinstance(default, tuple) else default
    assert default == V0_KEYS[name]
    assert isinstance(default, bool) == isinstance(V0_KEYS[name], bool)


@pytest.mark.parametrize("key", in_state("works", "ignored"))
@pytest.mark.parametrize("channel", ["python", "text"])
def test_a_working_key_reaches_its_section(key: Key, channel: str) -> None:
    value = sample(key)
    source = {key.name: value} if channel == "python" else [f"{key.name}={written(value)}"]
    config = load_config(None, source, verb="show")
    assert arrived(config, key) == value
    assert type(arrived(config, key)) is type(value)
    assert config.user_keys == {key.name}


@pytest.mark.parametrize("key", in_state("later"))
def test_a_key_whose_feature_comes_later_is_refused(key: Key) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({key.name: sample(key)}, verb="show")
    assert caught.value.code == "E-CONFIG-008"
    assert key.mark.note in str(caught.value)


@pytest.mark.parametrize("key", in_state("never"))
def test_a_key_that_never_comes_names_the_alternative(key: Key) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({key.name: sample(key)}, verb="show")
    assert caught.value.code == "E-CONFIG-009"
    assert caught.value.problems[0].fix == key.mark.note


@pytest.mark.parametrize("key", in_state("later", "never"))
def test_the_default_of_a_refused_key_is_accepted(key: Key) -> None:
    default = list(key.default) if isinstance(key.default, tuple) else key.default
    config = load_config({key.name: default}, verb="show")
    assert key.passed_on or arrived(config, key) == key.default
    assert config.warnings == ()


@pytest.mark.parametrize("key", [param for param in in_state("works") if param.values[0].mark.later_values])
def test_a_value_that_comes_later_is_refused_with_those_that_work(key: Key) -> None:
    for value in key.mark.later_values:
        with pytest.raises(ConfigError) as caught:
            load_config({key.name: value}, verb="show")
        assert caught.value.code == "E-CONFIG-008"
        assert str(key.default) in str(caught.value.problems[0].fix)


@pytest.mark.parametrize("name", sorted({shown_by(name) for name in shown._by_key()}))
def test_the_test_that_a_key_names_exists(name: str) -> None:
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_working_key_has_a_test_of_its_effect() -> None:
    assert shown._by_key().keys() == {name for name, key in all_keys().items() if key.mark.state == "works"}


def test_every_state_but_works_has_a_note() -> None:
    assert [key.name for key in all_keys().values() if key.mark.state != "works" and not key.mark.note] == []


def test_names_of_others_are_no_keys_and_lead_to_keys() -> None:
    for table in (DERIVED, ELSEWHERE, NEWER_NAMES):
        assert set(table) & set(all_keys()) == set()
    for target in ELSEWHERE.values():
        assert target.partition(":")[0] in all_keys()


def test_older_names_lead_to_arguments_that_are_passed_on() -> None:
    for old, new in OLDER_NAMES.items():
        assert not all_keys()[old].passed_on
        assert all_keys()[new].passed_on


def test_what_is_said_about_training_arguments_is_about_existing_ones() -> None:
    assert hf.arguments().keys() >= hf.SPECIAL


def test_sections_are_frozen_and_refuse_unknown_fields() -> None:
    section = SECTIONS["method"](lora_rank=4)
    assert section == SECTIONS["method"](lora_rank=4)
    assert section != SECTIONS["method"]()
    with pytest.raises(AttributeError, match="frozen"):
        section.lora_rank = 8
    with pytest.raises(TypeError, match="lorarank"):
        SECTIONS["method"](lorarank=4)
