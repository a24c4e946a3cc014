"""The JSON Schema and the page of keys."""

from __future__ import annotations

import json
from pathlib import Path

from tunesmith.config.document import keys_page
from tunesmith.config.keys import all_keys
from tunesmith.config.schema import described, json_schema

PAGE = Path(__file__).parents[3] / "docs" / "keys.md"


def test_the_schema_has_every_key_and_is_json() -> None:
    schema = json.loads(json.dumps(json_schema()))
    assert schema["properties"].keys() == all_keys().keys()
    assert schema["additionalProperties"] is False


def test_the_schema_says_what_a_key_takes() -> None:
    properties = json_schema()["properties"]
    assert properties["lora_rank"] == {
        "description": "lora: rank of the matrices.",
        "type": "integer",
        "minimum": 1,
        "default": 8,
        "x-section": "method",
        "x-state": "works",
    }
    assert properties["finetuning_type"]["enum"] == ["lora", "oft", "freeze", "full", "peft"]
    assert properties["stage"]["x-later-values"] == ["ppo"]
    assert properties["lora_target"]["anyOf"] == [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]
    items = {"anyOf": [{"type": "string"}, {"type": "object"}]}
    assert properties["dataset"]["anyOf"] == [{"type": "array", "items": items}, {"type": "string"}]
    assert properties["max_samples"]["anyOf"] == [{"type": "integer", "minimum": 1}, {"type": "null"}]
    assert properties["hf_hub_token"]["writeOnly"] is True
    assert properties["use_swanlab"]["x-note"] == all_keys()["use_swanlab"].mark.note
    assert properties["seed"]["x-section"] == "train"


def test_every_key_is_described_in_one_sentence_or_two() -> None:
    for key in all_keys().values():
        text = described(key)
        assert text.endswith((".", "?")), key.name
        assert 5 <= len(text) <= 160, key.name


def test_the_page_of_keys_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == keys_page(), "run: python scripts/generate_keys_doc.py"


def test_the_page_names_every_key_once_with_its_state() -> None:
    rows = [line for line in keys_page().splitlines() if line.startswith("| `")]
    assert sorted(row.split("`")[1] for row in rows) == sorted(all_keys())
    assert all(row.count(" | ") == 3 for row in rows)
