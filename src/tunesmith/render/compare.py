"""A declarative template against the model's own: the text of both for one chat, in every way that it can be asked.

for outcome in compare(load_slots("qwen3"), compile_template(source), chat):
    outcome.way, outcome.kind, outcome.ours, outcome.theirs
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tunesmith.core.types import Chat
from tunesmith.render.auto import AutoTemplate
from tunesmith.render.cases import builtin_chats
from tunesmith.render.control import ControlTokens
from tunesmith.render.errors import RenderError
from tunesmith.render.jinja import JinjaTemplate, compile_template
from tunesmith.render.slot_files import SlotFile
from tunesmith.render.slots import SlotTemplate
from tunesmith.render.spans import join_text
from tunesmith.render.turns import KEEPING_WORDS

__all__ = ["BOS", "EOS", "Outcome", "compare", "compare_all", "deviations", "difference"]

_TOOL_WORDS = ("tools", "functions")
BOS, EOS = "{BOS}", "{EOS}"  # what both write for the tokenizer's own tokens


@dataclass(frozen=True, slots=True)
class _Settings:
    template: str | None = None
    train_on_prompt: bool = False
    mask_history: bool = False
    train_turns: str = "all"
    loss_weights: str | None = None
    enable_thinking: bool | None = True
    preserve_thinking: bool = False
    default_system: str | None = None
    tool_format: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """`way`: finished or open, with which switches. None for a text: that template refuses the chat."""

    way: str
    ours: str | None
    theirs: str | None

    @property
    def kind(self) -> str:
        """equal, refused (by both), lenient (theirs refuses), strict (ours refuses) or different."""
        if self.ours == self.theirs:
            return "equal" if self.ours is not None else "refused"
        if self.theirs is None:
            return "lenient"
        return "strict" if self.ours is None else "different"


def compare(slots: SlotFile, source: JinjaTemplate, chat: Chat) -> Iterator[Outcome]:
    """The texts of a chat, finished, and with an open reply where it ends with a question or a tool's result; with
    thinking on (as a run has it), left open and off, and with old thoughts kept, where the model's own template knows
    these words."""
    switches: list[tuple[str, _Settings]] = [("", _Settings())]
    if "enable_thinking" in source.variables:
        switches.append((" undecided", _Settings(enable_thinking=None)))
        switches.append((" no_thinking", _Settings(enable_thinking=False)))
    if not source.variables.isdisjoint(KEEPING_WORDS):
        switches.append((" keep_thoughts", _Settings(preserve_thinking=True)))
    can_open = chat.messages[-1].role in ("user", "tool")
    for words, settings in switches:
        special: dict[str, object] = {"bos_token": BOS, "eos_token": EOS}
        if "training_prompt" in source.source:  # writes the stop token behind the last reply, too
            special["training_prompt"] = True
        theirs = AutoTemplate(source, ControlTokens([], ""), settings, special)
        ours = SlotTemplate(slots, settings, BOS, EOS)
        for open_reply in (False, True) if can_open else (False,):
            way = ("open" if open_reply else "finished") + words
            yield Outcome(way, _text(ours, chat, open_reply), _text(theirs, chat, open_reply))


def _text(template: SlotTemplate | AutoTemplate, chat: Chat, open_reply: bool) -> str | None:
    try:
        return join_text(template.prompt(chat, open_reply))
    except RenderError:
        return None


def compare_all(slots: SlotFile, source: str) -> dict[str, Outcome]:
    """Every conversation of the catalog, by "case way"; those with tools where both have a form for tools, and those
    with calls where the model's own template writes calls. A template that a model has for chats with tools alone,
    so that it refuses the simplest one without, is compared on those."""
    compiled = compile_template(source, lenient=True)
    chats = dict(builtin_chats())
    if all(found.theirs is None for found in compare(slots, compiled, chats["one_turn"])):
        chats = {}
    if slots.dialect and not compiled.variables.isdisjoint(_TOOL_WORDS):
        chats |= builtin_chats(tools=True)
    elif slots.dialect and slots.dialect != "default" and "tool_calls" in source:  # calls, but no list of tools
        chats |= {case: replace(chat, tools=()) for case, chat in builtin_chats(tools=True).items()}
    if "tool_calls" not in source:
        chats = {case: chat for case, chat in chats.items() if not any(one.tool_calls for one in chat.messages)}
    return {f"{case} {found.way}": found for case, chat in chats.items() for found in compare(slots, compiled, chat)}


def deviations(found: Mapping[str, Outcome]) -> dict[str, list[str]]:
    """Cases that are not equal: what stands here and what there, or who refuses."""
    return {
        case: list(difference(it.ours or "", it.theirs or "")) if it.kind == "different" else [it.kind]
        for case, it in found.items()
        if it.kind not in ("equal", "refused")
    }


def difference(ours: str, theirs: str) -> tuple[str, str]:
    """What stands between the beginning and the end that both texts share."""
    start = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    rest = min(len(ours), len(theirs)) - start
    end = next((i for i in range(rest) if ours[-1 - i] != theirs[-1 - i]), rest)
    return ours[start : len(ours) - end], theirs[start : len(theirs) - end]
