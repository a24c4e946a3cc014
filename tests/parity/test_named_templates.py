"""The text of the catalog's templates, byte for byte, against the models' own over hostile conversations.

What differs on purpose is declared in the template's YAML, and stands in `deviations.json` as it is: run this file as
a script to write that anew, and read what changed.
"""

from __future__ import annotations

import json
import runpy
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from tests.official import official_source
from tunesmith.config.template import TemplateConfig
from tunesmith.core.errors import UsageError
from tunesmith.core.types import Chat, Message
from tunesmith.render.compare import BOS, EOS, Outcome, compare_all, deviations
from tunesmith.render.errors import RenderError
from tunesmith.render.slot_files import SlotFile, load_slots, raw_template, template_names
from tunesmith.render.slots import SlotTemplate
from tunesmith.render.spans import join_text

ROOT = Path(__file__).resolve().parents[2]
PINS = Path(__file__).with_name("deviations.json")
NAMES = [name for name in template_names() if raw_template(name).get("official")]
PAIRS = [(name, file) for name in NAMES for file in load_slots(name).official]


def outcomes(slots: SlotFile, file: str, assets: Path) -> dict[str, Outcome]:
    return compare_all(slots, official_source(file, assets))


def declared(slots: SlotFile, file: str) -> list[list[str]]:
    """Patterns of the cases that the template's YAML says to differ from the file, one list per entry."""
    entries = [entry for entry in slots.deviates if isinstance(entry, dict)]
    return [entry["cases"] for entry in entries if fnmatch(file, entry["file"])]


@pytest.mark.parametrize(("name", "file"), PAIRS, ids=[f"{name}:{file}" for name, file in PAIRS])
def test_text_equals_the_models_own_template(name: str, file: str, assets: Path) -> None:
    slots = load_slots(name)
    found = outcomes(slots, file, assets)
    different = deviations(found)
    entries = declared(slots, file)
    patterns = [pattern for entry in entries for pattern in entry]
    assert [case for case in different if not any(fnmatch(case, pattern) for pattern in patterns)] == []
    for entry in entries:
        assert any(fnmatch(case, pattern) for case in different for pattern in entry), f"declared and not so: {entry}"
    pinned = json.loads(PINS.read_text(encoding="utf-8")).get(f"{name} {file}", {})
    assert different == pinned
    assert "equal" in {outcome.kind for outcome in found.values()}


def test_every_deviation_has_a_reason() -> None:
    for name in NAMES:
        for entry in load_slots(name).deviates:
            if isinstance(entry, dict):
                assert set(entry) == {"file", "cases", "why"}, name
                assert len(entry["why"]) > 20, name


@pytest.mark.slow
def test_few_cases_deviate(assets: Path) -> None:
    """At most 2 of 100."""
    counts: Counter[str] = Counter()
    for name, file in PAIRS:
        found = outcomes(load_slots(name), file, assets)
        counts.update(outcome.kind for outcome in found.values())
    cases = sum(counts.values())
    assert cases > 3000
    assert (cases - counts["equal"] - counts["refused"]) / cases <= 0.02, counts


@pytest.mark.parametrize("name", NAMES)
def test_a_plain_chat_is_never_refused(name: str) -> None:
    """Also where the model's own template is one for chats with tools alone."""
    template = SlotTemplate(load_slots(name), TemplateConfig(), BOS, EOS)
    chat = Chat((Message("user", "What is 2+2?"), Message("assistant", "It is 4.")))
    assert "It is 4." in join_text(template.prompt(chat, False))


def test_the_witness_is_named(assets: Path) -> None:
    for name in template_names():
        raw = raw_template(name)
        if raw.get("source") == "missing":
            with pytest.raises(RenderError, match="E-RENDER-015"):
                load_slots(name)
            continue
        slots = load_slots(name)
        assert (slots.verified == "official") == bool(slots.official), name
        for file in slots.official:
            assert official_source(file, assets), (name, file)


def test_smollm2s_own_template_is_that_of_the_demos_model(assets: Path) -> None:
    from tunesmith.models.demo import TEMPLATE  # compared with the model's file where that is read

    assert official_source("official/SmolLM2-135M-Instruct.jinja", assets) == TEMPLATE


@pytest.mark.slow
def test_the_page_of_templates_is_current(assets: Path) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "generate_templates_doc.py"))
    page = (ROOT / "docs" / "templates.md").read_text(encoding="utf-8")
    assert page == script["templates_page"](assets), "run: python scripts/generate_templates_doc.py ASSETS"


MINE = """
user: "<q>{{content|trim}}</q>{% if last and not asked %}?{% endif %}"
system: "<s>{{content}}</s>"
assistant: {open: "<a>", body: "{{content}}", close: "{{eos}}"}
default_system: "Turn {{today:%Y}}"
"""


def test_a_template_of_the_users_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(MINE, encoding="utf-8")
    (tmp_path / "loud.yaml").write_text('extends: mine.yaml\nuser: "<Q>{{content}}</Q>"\n', encoding="utf-8")
    chat = Chat((Message("system", "s"), Message("user", " q "), Message("assistant", "a")))
    for path, user in ((file, "<q>q</q>"), (tmp_path / "loud.yaml", "<Q> q </Q>")):
        slots = load_slots(str(path))
        template = SlotTemplate(slots, TemplateConfig(template=str(path)), BOS, EOS)
        (spans,) = template.samples(chat)
        assert join_text(spans) == f"<s>s</s>{user}<a>a{EOS}"
        assert "".join(span.text for span in spans if span.trained) == f"a{EOS}"
    with pytest.raises(UsageError, match="E-RENDER-008"):
        load_slots(str(tmp_path / "none.yaml"))


def test_a_template_without_a_source_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "lost.yaml"
    file.write_text("source: missing\n", encoding="utf-8")
    with pytest.raises(RenderError, match="E-RENDER-015"):
        load_slots(str(file))


def write_pins(assets: Path) -> None:
    pins: dict[str, Any] = {}
    for name, file in PAIRS:
        if different := deviations(outcomes(load_slots(name), file, assets)):
            pins[f"{name} {file}"] = different
    PINS.write_text(json.dumps(pins, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_pins(Path(__file__).resolve().parents[3] / "shared" / "assets")
