"""What a config says survives being written flat, as a mapping or as YAML, and read again."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tunesmith.config import dump_yaml, load_config
from tunesmith.config.keys import Key, all_keys
from tunesmith.core.errors import ConfigError, TunesmithError

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
NAMES = st.lists(TEXT, min_size=1, max_size=3).map(tuple)


def values(key: Key) -> st.SearchStrategy[Any]:
    """Values of the key's types; those out of its limits are refused by the loader and assumed away."""
    options: list[st.SearchStrategy[Any]] = []
    working = [choice for choice in key.choices if choice not in key.mark.later_values]
    for name in key.types:
        if working and name in ("str", "list"):
            options.append(st.sampled_from(working))
        elif name == "bool":
            options.append(st.booleans())
        elif name == "int":
            options.append(st.integers(1, 10**6))
        elif name == "float":
            options.append(st.floats(1e-12, 1, exclude_max=True) | st.integers(1, 1000))
        elif name == "names":
            options.append(NAMES)
        elif name == "numbers":
            options.append(st.lists(st.floats(0.01, 1), min_size=1, max_size=3).map(tuple))
        elif name == "dict":
            options.append(st.dictionaries(TEXT, st.floats(0, 1) | st.booleans(), max_size=2))
        else:
            options.append(TEXT)
    return st.one_of(options)


WORKING = [key for key in all_keys().values() if key.mark.state == "works"]
CONFIGS = st.lists(st.sampled_from(WORKING), max_size=6, unique_by=lambda key: key.name).flatmap(
    lambda keys: st.fixed_dictionaries({key.name: values(key) for key in keys})
)


@settings(max_examples=300, deadline=None)
@given(CONFIGS)
def test_a_config_survives_the_way_through_a_flat_mapping_and_yaml(keys: dict[str, Any]) -> None:
    try:
        config = load_config(keys, verb="show")
    except ConfigError:
        assume(False)
    assert load_config(config.to_flat(secrets="keep"), verb="show") == config

    overrides = dump_yaml(config, secrets="keep")
    if "\n" not in overrides.strip():  # one key: also as a person would type it
        key, _, text = overrides.strip().partition(": ")
        assert not text or load_config(None, [f"{key}={text}"], verb="show") == config


@settings(max_examples=100, deadline=None)
@given(CONFIGS)
def test_a_config_survives_the_way_through_a_file(tmp_path_factory: Any, keys: dict[str, Any]) -> None:
    try:
        config = load_config(keys, verb="show")
    except ConfigError:
        assume(False)
    path = tmp_path_factory.mktemp("round_trip") / "run.yaml"
    path.write_text(dump_yaml(config, secrets="keep"), encoding="utf-8")
    assert load_config(path, verb="show") == config


WORDS = [
    "lora_rank",
    "dataset",
    "lr_scheduler_kwargs",
    "a",
    "&x",
    "*x",
    "<<",
    "!!int",
    "1e-4",
    "2024-13-45",
    "1:30",
    "no",
    "~",
    ".nan",
    "é",
]
SIGNS = [":", ": ", "\n", "  ", "\t", "- ", "[", "]", "{", "}", ",", '"', "'", "#", "|", "=", "\x00"]
PIECES = st.sampled_from([*WORDS, *SIGNS, "9" * 5000, "[" * 2000])


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join), st.sampled_from(["yaml", "json", "toml"]))
def test_whatever_a_file_holds_nobody_sees_a_traceback(tmp_path_factory: Any, text: str, kind: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"anything.{kind}"
    path.write_text(text, encoding="utf-8")
    with suppress(TunesmithError):
        load_config(path, [text], verb="show")
