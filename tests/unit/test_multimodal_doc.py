"""docs/multimodal.md: its tables are what the facts and the last comparison of all families say."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.media_checks import kinds_of
from tests.media_families import CASES
from tests.media_groups import NO_CLASS, PLUGINS
from tunesmith.models.families.media import MEDIA

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = json.loads((ROOT / "bench" / "results" / "multimodal.json").read_text("utf-8"))
    return results


def test_the_page_is_up_to_date(found: list[dict[str, Any]]) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "generate_multimodal_doc.py"))
    page = (ROOT / "docs" / "multimodal.md").read_text("utf-8")
    assert script["page"](page, found) == page, "python scripts/generate_multimodal_doc.py"


def test_every_kind_of_every_family_was_compared(found: list[dict[str, Any]]) -> None:
    assert {(one["family"], one["kind"]) for one in found if one.get("ids")} == {
        (name, kind) for name, case in CASES.items() for kind in kinds_of(case)
    }


def test_facts_are_of_processors_that_were_compared() -> None:
    assert set(MEDIA) <= {case.processor for case in CASES.values()}


def test_at_most_five_plugins_have_no_family() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    assert len(PLUGINS) + 1 == 25
    assert sum(not own for own in PLUGINS.values()) <= 5
    assert {one for own in PLUGINS.values() for one in own} <= set(CASES)
    assert not {kind for own in NO_CLASS.values() for kind in own} & set(CONFIG_MAPPING_NAMES)
