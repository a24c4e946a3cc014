"""A Modelfile beside exported weights: what `ollama create` needs to serve the model as it was trained.

Templates that Ollama's language (Go's text/template) can say are written in it from their syntax tree. For others
TEMPLATE is left out, and Ollama takes the chat template that the model's own files carry.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tunesmith.render.slot_files import SlotFile, Thinking
from tunesmith.render.slot_text import ALWAYS, Choice, Condition, Group, Literal, Node, Place, Slot, parse_slot, walk
from tunesmith.render.slots import SlotTemplate

if TYPE_CHECKING:
    from tunesmith.config.template import TemplateConfig
    from tunesmith.render import Renderer

__all__ = ["Unsayable", "modelfile", "ollama_template"]


class Unsayable(ValueError):
    """Ollama's templates have no word for what this names."""


# Facts in Go's form. Ollama joins messages of one role that follow each other, and always asks for a reply unless the
# chat ends with the beginning of one. True and False are known when the template is written.
Facts = Mapping[str, str | bool]
_CHAT: Facts = {
    "asked": True,
    "system": "$.System",
    "system_text": "$.System",
    "system_words": "$.System",
    "tools": False,
    "calls": False,
    "after_result": False,
    "before_result": False,
}
_MESSAGE: Facts = {
    **_CHAT,
    "first": "(eq $i 0)",
    "last": "$last",
    "content": ".Content",
    "blank": "(not .Content)",
    "thought": ".Thinking",
    "has_thought": ".Thinking",
    "final": "(gt $i $question)",
    "first_question": "(eq $i $first)",
    "last_question": "(eq $i $question)",
}
_USER: Facts = {**_MESSAGE, "thought": False, "has_thought": False, "final": False}
_REPLY: Facts = {**_MESSAGE, "first_question": False, "last_question": False}
_ASKING: Facts = {  # of the reply that is asked for
    **_CHAT,
    **dict.fromkeys(("first", "last", "content", "thought", "has_thought", "first_question", "last_question"), False),
    **dict.fromkeys(("blank", "final", "after_question"), True),
    "after_reply": False,
}
_PLACES = {"content": ".Content", "thought": ".Thinking", "system": "$.System"}
_TRIMS = {"trim", "ltrim", "rtrim"}
_BLANKS = {*_TRIMS, "lines", "llines", "rlines"}


def ollama_template(slots: SlotFile, settings: TemplateConfig, bos: str, eos: str, adds_bos: bool) -> str:
    """The template in Ollama's language, but for the removal of blanks around messages, which that cannot do.
    `adds_bos`: the tokenizer writes the beginning of text itself, so the template must not. Raises Unsayable."""
    writer = _Writer(slots, settings, bos, eos)
    prefix = slots.prefix[1:] if adds_bos and slots.prefix[:1] == (Place("bos"),) else slots.prefix
    user = writer.text(slots.user, _USER)
    system = writer.text(slots.system, _MESSAGE)
    reply = writer.text((*slots.open, *slots.body), _REPLY)
    close = writer.text(slots.close, _REPLY)
    asking = writer.text((*slots.suffix, *slots.open, *slots.prompt), _ASKING)
    text = [writer.text(prefix, _ASKING)]
    if no_system := writer.text(slots.no_system, _ASKING):
        text.append(f"{{{{ if not $.System }}}}{no_system}{{{{ end }}}}")
    if any("$question" in part or "$first" in part for part in (user, system, reply, close)):
        text.append('{{ $first := -1 }}{{ $question := -1 }}{{ range $i, $_ := .Messages }}{{ if eq .Role "user" }}')
        text.append("{{ if eq $first -1 }}{{ $first = $i }}{{ end }}{{ $question = $i }}{{ end }}{{ end }}")
    text.append("{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}")
    branches = [("system", system)] if system else []
    branches.append(("user", f"{user}{{{{ if $last }}}}{asking}{{{{ end }}}}" if asking else user))
    branches.append(("assistant", f"{reply}{{{{ if not $last }}}}{close}{{{{ end }}}}"))
    for word, (role, inner) in zip(("if", "else if", "else if"), branches, strict=False):
        text.append(f'{{{{ {word} eq .Role "{role}" }}}}{inner}')
    return "".join([*text, "{{ end }}{{ end }}"])


class _Writer:
    """Slots to text of a Go template."""

    def __init__(self, slots: SlotFile, settings: TemplateConfig, bos: str, eos: str) -> None:
        self._ends = {"bos": bos, "eos": eos}
        thinks = slots.thinking != Thinking() or any(
            isinstance(node, Place) and node.name == "thought" and node.filters for node in walk(slots.body)
        )
        self._more: dict[str, str | bool] = {"keep_thoughts": settings.preserve_thinking}
        if not thinks:  # not a template for thinking models: Ollama would take it for one
            self._more |= {"thought": False, "has_thought": False}
        said = settings.enable_thinking
        self._more["thinking"] = "(or (not $.IsThinkSet) $.Think)" if said else "(and $.IsThinkSet $.Think)"
        off = "(or (not $.IsThinkSet) (not $.Think))" if said is False else "(and $.IsThinkSet (not $.Think))"
        self._more["no_thinking"] = off

    def text(self, slot: Slot, facts: Facts) -> str:
        return "".join(self._node(node, facts) for node in slot)

    def _node(self, node: Node, facts: Facts) -> str:
        if isinstance(node, Literal):
            return _plain(node.text)
        if isinstance(node, Choice):
            return self._choice(node, facts)
        for name in node.filters:
            if name not in _BLANKS:
                raise Unsayable(f"the filter {name}")
        if isinstance(node, Group):
            return self.text(node.nodes, facts)
        if node.name in self._ends:
            return _plain(self._ends[node.name])
        if node.name in ("tools", "calls"):
            return ""
        if node.name not in _PLACES:
            raise Unsayable(f"{{{{{node.name}}}}}")
        return f"{{{{ {_PLACES[node.name]} }}}}"

    def _choice(self, node: Choice, facts: Facts) -> str:
        text, word = "", "if"
        for condition, inner in node.branches:
            told = self._condition(condition, facts)
            if told is False:
                continue
            written = self.text(inner, facts)
            if told is True:
                return text + (written if word == "if" else f"{{{{ else }}}}{written}{{{{ end }}}}")
            text += f"{{{{ {word} {told} }}}}{written}"
            word = "else if"
        return text + "{{ end }}" * (word != "if")

    def _condition(self, condition: Condition, facts: Facts) -> str | bool:
        if condition == ALWAYS:
            return True
        alternatives = []
        for alternative in condition:
            terms = []
            for name, wanted in alternative:
                fact = self._more.get(name, facts.get(name))
                if fact is None:
                    raise Unsayable(f"the condition {name}")
                if isinstance(fact, str):
                    terms.append(fact if wanted else f"(not {fact})")
                elif fact is not wanted:
                    break
            else:
                if not terms:
                    return True
                alternatives.append(_joined("and", terms))
        return _joined("or", alternatives) if alternatives else False


def _joined(word: str, terms: list[str]) -> str:
    return terms[0] if len(terms) == 1 else f"({word} {' '.join(terms)})"


def _plain(text: str) -> str:
    """A text as it stands in a template; as a quoted one where it looks like markup or a Modelfile would drop it."""
    if '"""' in text:
        raise Unsayable('the text """')
    if "{{" in text or not all(char.isprintable() or char == "\n" for char in text):
        return "{{ " + json.dumps(text) + " }}"
    return text


def modelfile(renderer: Renderer | None, settings: TemplateConfig, tokenizer: Any, context: int | None) -> str:
    """The whole Modelfile. `renderer`: None for a model without a chat template; `context`: the model's, in tokens."""
    lines = ["# ollama create NAME -f Modelfile", "FROM ."]
    template = renderer.template if renderer else None
    system = settings.default_system
    if isinstance(template, SlotTemplate):
        slots = template.slots
        lines += _template_lines(slots, settings, tokenizer)
        system = slots.default_system if system is None else system
        if system is slots.default_system and not all(isinstance(node, Literal) for node in parse_slot(system or "")):
            lines.append("# SYSTEM is left out: the template's own holds what changes, such as the date.")
            system = None
    else:
        lines.append("# TEMPLATE is left out: Ollama takes the chat template from the model's own files.")
    if system:
        lines += _system_lines(system)
    for stop in _stops(renderer, tokenizer):
        lines.append(f'PARAMETER stop "{stop}"')
    if context:
        lines.append(f"PARAMETER num_ctx {context}")
    return "\n".join(lines) + "\n"


def _template_lines(slots: SlotFile, settings: TemplateConfig, tokenizer: Any) -> list[str]:
    bos, eos = tokenizer.bos_token or "", tokenizer.eos_token or ""
    try:
        text = ollama_template(slots, settings, bos, eos, _adds_bos(tokenizer))
    except Unsayable as what:
        return [
            f'# TEMPLATE is left out: Ollama\'s language cannot say {what} of the template "{slots.name}".',
            "# Ollama takes the chat template from the model's own files.",
        ]
    lines = []
    nodes = [node for slot in (slots.system, slots.user, slots.body) for node in walk(slot)]
    if any(isinstance(node, Place | Group) and _TRIMS.intersection(node.filters) for node in nodes):
        lines.append("# In training blanks around messages were removed, which Ollama's templates cannot do.")
    if slots.dialect:
        lines.append("# Tools and their calls are not written here.")
    if slots.system_in == "nowhere":
        lines.append("# This template has no form for a system message: it is left out.")
    return [*lines, f'TEMPLATE """{text}"""']


def _system_lines(text: str) -> list[str]:
    if '"""' in text or not all(char.isprintable() or char in "\n\t" for char in text):
        return ["# SYSTEM is left out: a Modelfile cannot hold its text."]
    return [f'SYSTEM """{text}"""']


def _stops(renderer: Renderer | None, tokenizer: Any) -> Iterable[str]:
    ids = renderer.stop_ids if renderer else [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    stops = (tokenizer.convert_ids_to_tokens(token) for token in ids)
    return [stop for stop in stops if stop and '"' not in stop and stop.isprintable()]


def _adds_bos(tokenizer: Any) -> bool:
    """Whether encoding plain text begins with the beginning of text, which a converted model then does by itself."""
    return tokenizer.bos_token_id is not None and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
