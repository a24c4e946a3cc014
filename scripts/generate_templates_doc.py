"""Writes docs/templates.md: every template of the catalog, its witness, and how many cases equal the model's own text.

python scripts/generate_templates_doc.py ASSETS      the folder that holds `templates/`
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.official import official_source  # noqa: E402
from tunesmith.render.cases import builtin_chats  # noqa: E402
from tunesmith.render.compare import compare_all  # noqa: E402
from tunesmith.render.errors import RenderError  # noqa: E402
from tunesmith.render.slot_files import SlotFile, load_slots, template_names  # noqa: E402

TARGET = ROOT / "docs" / "templates.md"

HEAD = """# Templates

`template: NAME` takes a chat format of the catalog, `template: path/to/mine.yaml` one of yours; left out, the model's
own template is used, which is right for nearly every model that has one. `tunesmith template show NAME` prints a
format, `tunesmith template check` compares one with a model's own.

Written by `scripts/generate_templates_doc.py`. The witness says whose text a template equals. `official` is the
model's own Jinja: both write {plain} conversations ({tools} more where the template has a form for tools), finished
and with an open reply, with thinking on, off and undecided where the model's template asks for it, and the texts are
compared byte for byte. "Refused" are cases that both refuse, such as roles that do not take turns; they count as
equal. A case that differs is declared in the template's YAML with the reason, and pinned by a test. `llamafactory` is
the text of LlamaFactory 0.9.6 for the name. A template whose witness is missing is refused on use.

| template | witness | official file | cases equal / cases | refused | tools |
|---|---|---|---|---|---|
"""


def templates_page(assets: Path) -> str:
    rows = []
    counts: Counter[str] = Counter()
    reasons = []
    for name in template_names():
        try:
            slots = load_slots(name)
        except RenderError:
            rows.append(f"| {name} | missing | | | | |")
            continue
        tools = slots.dialect or ""
        if not slots.official:
            rows.append(f"| {name} | {slots.verified} | | | | {tools} |")
        for file in slots.official:
            kinds = _kinds(slots, official_source(file, assets))
            counts += kinds
            same = kinds["equal"] + kinds["refused"]
            file = file.removesuffix(".jinja")
            rows.append(f"| {name} | official | {file} | {same} / {kinds.total()} | {kinds['refused']} | {tools} |")
        for entry in slots.deviates:
            text = entry if isinstance(entry, str) else f"{entry['why']} ({', '.join(entry['cases'])})"
            reasons.append(f"- `{name}`: {text}")
    same, cases = counts["equal"] + counts["refused"], counts.total()
    rate = (cases - same) / cases
    head = HEAD.format(plain=len(builtin_chats()), tools=len(builtin_chats(tools=True)))
    foot = f"\n{same:,} of {cases:,} cases are equal, {cases - same} deviate as declared ({rate:.1%}).\n"
    told = "\n## Where a template differs on purpose\n" + "\n".join(reasons) + "\n"
    return head + "\n".join(rows) + "\n" + foot + told


def _kinds(slots: SlotFile, source: str) -> Counter[str]:
    return Counter(found.kind for found in compare_all(slots, source).values())


if __name__ == "__main__":
    TARGET.write_text(templates_page(Path(sys.argv[1])), encoding="utf-8")
    print(f"wrote {TARGET}")
