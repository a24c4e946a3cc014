"""Writes docs/templates.md: every template of the catalog, its witness, and how many cases equal the model's own text.

python scripts/generate_templates_doc.py ASSETS      the folder that holds `templates/`
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.official import AUTO_RIGHT, official_source  # noqa: E402
from tunesmith.config.template import TemplateConfig  # noqa: E402
from tunesmith.core.types import Chat, Message  # noqa: E402
from tunesmith.render.cases import builtin_chats  # noqa: E402
from tunesmith.render.compare import compare_all  # noqa: E402
from tunesmith.render.errors import RenderError  # noqa: E402
from tunesmith.render.slot_files import SlotFile, load_slots, template_names  # noqa: E402
from tunesmith.render.slots import SlotTemplate  # noqa: E402
from tunesmith.render.spans import join_text  # noqa: E402

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

The last column is the form in which tools and calls are written (docs/tools.md); `tool_format: NAME` chooses another.
`default` is LlamaFactory's for models without one: the tools follow the system text, a call is a reply, and a result is
written as a question is. Where there is none, rows with tools are refused.

| template | witness | official file | cases equal / cases | refused | tools |
|---|---|---|---|---|---|
"""


AUTO = """
## The model's own template
`template: auto` needs no entry here. Of {files} official templates {right} take a plain chat, and on each of those its
masks are right: every reply is trained whole, with its stop token, and nothing of others. The rest are for chats with
tools alone.
"""

THOUGHTS = """
## Which thought tokens are trained
- A reply's thought is trained with the words around it, as far as the model has to write them: an opening that the
  template puts into the prompt is given, not learnt.
- `enable_thinking: true`: a reply without a thought learns what the template writes for one (an empty thought, a
  closing word, or nothing). `false`: that stands in the prompt and is not learnt; thoughts of the data are left out.
  `null`: as the data has it; a reply with a thought is as under `true`, one without as under `false`.
- Thoughts of earlier turns: where the template keeps them they are learnt with their replies, in one sequence. Where it
  takes them out once a question follows, a chat is split into a sample per reply, in which its thought is learnt
  while the earlier ones are gone, as in use; `preserve_thinking: true` keeps them and the chat whole. A thought that a
  template never writes is not learnt, and the run says how many there were.
- `mask_history: true`: the last reply's thought alone. `train_on_prompt: true`: the text of the finished chat, so with
  the thoughts that stand in it; a chat is not split.
- `tunesmith data preview` shows it on the run's own rows.

What each template trains (`T` a thought, `A` an answer, the stop token left out; *history*: `keeps`, `takes out` or
`never writes` the thoughts of earlier turns):

| with a thought | without, `true` | without, `false` | history | templates |
|---|---|---|---|---|
"""


def thoughts_table() -> str:
    """Templates that do the same in one row."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name in template_names():
        try:
            load_slots(name)
        except RenderError:
            continue
        key = (_learnt(name, "T", True), _learnt(name, None, True), _learnt(name, None, False), _history(name))
        rows.setdefault(key, []).append(name)
    lines = [f"| `{'` | `'.join(key[:3])}` | {key[3]} | {', '.join(names)} |" for key, names in rows.items()]
    return "\n".join(lines) + "\n"


def _template(name: str, thinking: bool) -> SlotTemplate:
    return SlotTemplate(load_slots(name), TemplateConfig(enable_thinking=thinking), "", "\N{END OF TEXT}")


def _learnt(name: str, thought: str | None, thinking: bool) -> str:
    """What is trained of one reply, up to its stop token."""
    template = _template(name, thinking)
    (spans,) = template.samples(Chat((Message("user", "Q"), Message("assistant", "A", reasoning=thought))))
    text = "".join(span.text for span in spans if span.trained)
    end = min(at for stop in template.stops if (at := text.find(stop)) >= 0)
    return text[:end].rstrip("\n").replace("\n", "\\n").replace("|", "\\|")


def _history(name: str) -> str:
    template = _template(name, True)
    turns = [Message("user", "Q"), Message("assistant", "A", reasoning="T1"), Message("user", "Q")]
    written = "T1" in join_text(template.prompt(Chat(tuple(turns[:2])), False))
    kept = "T1" in join_text(template.prompt(Chat((*turns, Message("assistant", "A"))), False))
    return "keeps" if kept else "takes out" if written else "never writes"


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
    right, files = AUTO_RIGHT
    rest = AUTO.format(files=files, right=right) + THOUGHTS + thoughts_table()
    return head + "\n".join(rows) + "\n" + foot + told + rest


def _kinds(slots: SlotFile, source: str) -> Counter[str]:
    return Counter(found.kind for found in compare_all(slots, source).values())


if __name__ == "__main__":
    TARGET.write_text(templates_page(Path(sys.argv[1])), encoding="utf-8")
    print(f"wrote {TARGET}")
