"""docs/keys.md: every key with its section, default, state and meaning, written from the table of keys."""

from __future__ import annotations

import json

from tunesmith.config.keys import SECTIONS, Key, all_keys
from tunesmith.config.resume import policy_of
from tunesmith.config.schema import described
from tunesmith.config.shown import shown_by

__all__ = ["keys_page"]

_INTRODUCTION = """\
# Keys

Every key of a config, by section. The sections are those of the code; in a file all keys stand side by side.
This page is written by `scripts/generate_keys_doc.py`; `tunesmith config schema` prints the same as a JSON Schema.

State:

- **works**: has its effect; the test that shows it is named.
- **no effect**: accepted, because the field's files carry it; a value other than the default earns a warning.
- **comes later**: refused for now. The default is accepted.
- **never**: refused for good, with what to use instead. The default is accepted.

{counts}
"""
_PASSED_ON = """\
## Training arguments of transformers

These reach `transformers.Seq2SeqTrainingArguments` as they are; its documentation explains them. Where the column of
states says nothing else, their type is checked here and their effect is that of transformers.
"""
_RESUMED = """\
## When a run is resumed

Values are compared with those that the checkpoint recorded ([checkpoints.md](checkpoints.md)).

- **frozen**: another value is an error, unless `resume_allow` names the key: {frozen}.
  So is the number of rows in a step (`global_batch_size`), however they are split.
- **live**: another value holds from there on: {live}.
- **ignored**: names, places and ways of work, that are not compared: {ignored}.
"""
_HEAD = "| key | default | state | meaning |\n|---|---|---|---|\n"
_STATES = {"works": "works", "ignored": "no effect", "later": "comes later", "never": "never"}


def keys_page() -> str:
    """The whole page as Markdown."""
    keys = all_keys().values()
    counts = ", ".join(f"{sum(key.mark.state == state for key in keys)} {words}" for state, words in _STATES.items())
    parts = [_INTRODUCTION.format(counts=f"{len(keys)} keys: {counts}.")]
    for section, cls in SECTIONS.items():
        own = [key for key in keys if key.section == section and not key.passed_on]
        parts.append(f"## {section}\n\n{(cls.__doc__ or '').strip()}\n\n{_HEAD}{''.join(map(_row, own))}")
    parts.append(f"{_PASSED_ON}\n{_HEAD}{''.join(_row(key) for key in keys if key.passed_on)}")
    by_policy: dict[str, list[str]] = {"frozen": [], "live": [], "ignored": []}
    for key in keys:
        if (policy := policy_of(key.name)) is not None:
            by_policy[policy].append(f"`{key.name}`")
    parts.append(_RESUMED.format(**{policy: ", ".join(names) for policy, names in by_policy.items()}))
    return "\n".join(parts)


def _row(key: Key) -> str:
    meaning = "" if key.passed_on else described(key)
    cells = (f"`{key.name}`", _default(key), _state(key), meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _default(key: Key) -> str:
    if key.default is None or key.default == ():
        return "-"
    default = ",".join(map(str, key.default)) if isinstance(key.default, tuple) else key.default
    return f"`{default}`" if isinstance(default, str) and default else f"`{json.dumps(default)}`"


def _state(key: Key) -> str:
    mark = key.mark
    if mark.state == "works":
        later = f"; later: {', '.join(map(str, mark.later_values))}" if mark.later_values else ""
        return f"works{later} (`{shown_by(key.name).removeprefix('tests/')}`)"
    return f"{_STATES[mark.state]}: {mark.note}"
