"""Processors of models that see or hear: ids that are made of sizes alone are those that the processor makes of the
media themselves; a model has as many features as there are places for them; and it learns.

What needs torchvision runs in `make test-media`, which writes the table of docs/multimodal.md.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.media_checks import SOURCES, check, check_template, kinds_of, reason_not_to
from tests.media_families import CASES
from tests.official import official_source

_QUICK = {("llava", "image"), ("qwen2_vl", "image"), ("idefics3", "image"), ("qwen2_audio", "audio")}
_CELLS = [
    pytest.param(name, kind, marks=() if (name, kind) in _QUICK else pytest.mark.slow, id=f"{name}-{kind}")
    for name, case in CASES.items()
    for kind in kinds_of(case)
    if reason_not_to(case, kind) is None
]


@pytest.mark.parametrize(("name", "kind"), _CELLS)
def test_ids_features_and_gradients_are_the_processors_and_the_models(name: str, kind: str) -> None:
    found = check(name, kind)
    assert found["ids"]
    assert found["backward"] or found["why"].startswith("needs ")


@pytest.mark.parametrize("name", [name for name in SOURCES if reason_not_to(CASES[name], "image") is None])
def test_ids_are_those_of_apply_chat_template(name: str, assets: Path) -> None:
    check_template(name, official_source(SOURCES[name], assets))
