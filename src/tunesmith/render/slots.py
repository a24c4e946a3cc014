"""Rendering with a declarative template of the catalog: provenance and mask are known piece by piece.

One interpreter serves all templates; what a template does differently from others is a key of its YAML.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from tunesmith.core.errors import Problem
from tunesmith.core.types import Chat, Message
from tunesmith.render.errors import RenderError
from tunesmith.render.slot_files import Slot, SlotFile, load_slots, template_names
from tunesmith.render.spans import Span, join_text, merge
from tunesmith.render.turns import Statistics, TemplateSettings, replies, trained_replies, with_default_system

__all__ = ["SlotTemplate"]


class SlotTemplate:
    """A template of the catalog for one tokenizer (its begin and end tokens)."""

    def __init__(self, slots: SlotFile, settings: TemplateSettings, bos: str | None, eos: str | None) -> None:
        self.slots = slots
        self.name = slots.name
        self.settings = settings
        self.statistics = Statistics()
        self.thinking = (slots.thinking.open.strip(), slots.thinking.close.strip())
        self._values = {"bos": bos or "", "eos": eos or ""}
        self._stop = slots.stop[0] if slots.stop else self._values["eos"]
        self._history_differs = slots.thinking.history == "strip" or slots.thinking.empty == "last"

    @classmethod
    def load(cls, name: str, settings: TemplateSettings, tokenizer: Any, added: AbstractSet[str]) -> SlotTemplate:
        """The catalog's template `name`. Raises UsageError if there is none, RenderError if its stop token is not
        one token of the tokenizer. `added`: the tokenizer's added tokens."""
        slots = load_slots(name)
        if not _fits(slots, tokenizer.eos_token, added):
            fitting = [other for other in template_names() if _fits(load_slots(other), tokenizer.eos_token, added)]
            stop = slots.stop[0] if slots.stop else "its end-of-text token"
            raise RenderError(
                Problem(
                    "E-RENDER-009",
                    f'template "{name}" ends replies with {stop}, which is no token of this tokenizer',
                    where="template",
                    got=str(getattr(tokenizer, "name_or_path", "")) or None,
                    fix="leave template out (the model's own), or name one that fits: " + ", ".join(fitting),
                )
            )
        return cls(slots, settings, tokenizer.bos_token, tokenizer.eos_token)

    @property
    def literals(self) -> tuple[str, ...]:
        """Text that the template can write by itself."""
        thinking = self.slots.thinking
        pieces = [piece for slot in self.slots.slots for piece, is_place in slot if not is_place]
        return (*pieces, *self._values.values(), thinking.open, thinking.close, *self.slots.stop)

    @property
    def stops(self) -> tuple[str, ...]:
        return (self._stop, *self.slots.stop[1:])

    def samples(self, chat: Chat) -> list[list[Span]]:
        """Training samples of a chat: one, or one per reply where the template writes history differently."""
        self.statistics.chats += 1
        messages = self._messages(chat)
        wanted = trained_replies(chat, messages, self.settings.mask_history)
        if self.settings.train_on_prompt:
            return [self._all_but(chat, messages)]
        whole = self._render(chat, messages, wanted)
        if not self._history_differs:
            return [whole]
        single = [self._render(chat, messages[: turn + 1], {turn}) for turn in sorted(wanted)]
        text = join_text(whole)
        if all(text.startswith(_until_trained_end(spans)) for spans in single):
            return [whole]
        self.statistics.count_split(len(single))
        return single

    def _all_but(self, chat: Chat, messages: list[Message]) -> list[Span]:
        """train_on_prompt: everything, except replies that say they are not to be trained."""
        untrained = {turn for turn in replies(messages) if messages[turn].trained is False}
        spans = self._render(chat, messages, untrained)
        return merge(Span(span.text, not span.trained, span.trusted) for span in spans)

    def prompt(self, chat: Chat, open_reply: bool) -> list[Span]:
        return self._render(chat, self._messages(chat), set(), open_reply)

    def _messages(self, chat: Chat) -> list[Message]:
        if chat.tools or any(message.role == "tool" or message.tool_calls for message in chat.messages):
            raise RenderError(
                Problem(
                    "E-RENDER-011",
                    f'template "{self.name}" has no form for tools, their calls and results',
                    where=str(chat.origin),
                    fix="use template: auto with a model whose own template writes tools",
                )
            )
        default = self.settings.default_system
        return with_default_system(chat.messages, self.slots.default_system if default is None else default)

    def _render(
        self, chat: Chat, messages: Sequence[Message], wanted: AbstractSet[int], open_reply: bool = False
    ) -> list[Span]:
        spans = self._fill(self.slots.prefix, [])
        held: list[Span] = []  # a system message that waits for the first user message
        for index, message in enumerate(messages):
            if message.role == "assistant":
                spans += self._reply(messages, index, index in wanted)
                continue
            content = [Span(message.content, trusted=False)]
            if self.slots.trim and not (message.role == "system" and self.slots.system_in == "first_user"):
                content = _strip(content)
            if message.role == "user":
                spans += self._fill(self.slots.user, [*held, *content])
                held = []
            elif self.slots.system_in == "first_user":
                held = self._fill(self.slots.system, content)
            else:
                spans += self._fill(self.slots.system, content)
        if held:
            raise RenderError(
                Problem(
                    "E-RENDER-012",
                    f'template "{self.name}" writes a system message into the user message after it; there is none',
                    where=str(chat.origin),
                    fix="add a user message, or remove the system message",
                )
            )
        if open_reply:
            spans += self._fill(self.slots.open, [])
            if self.slots.thinking.empty == "last" and self.settings.enable_thinking is False:
                spans.append(Span(self.slots.thinking.open + self.slots.thinking.close))
        return merge(spans)

    def _reply(self, messages: Sequence[Message], index: int, trained: bool) -> list[Span]:
        """The header, then thought, text and stop token (trained if asked for), then what follows the stop."""
        message = messages[index]
        thinking = self.settings.enable_thinking
        reasoning = message.reasoning if thinking is not False else None
        content = [Span(message.content, trained, trusted=False)]
        header = self._fill(self.slots.open, [])
        if self._writes_thought(messages, index, reasoning is not None):
            words = self.slots.thinking
            # An empty thought is the model's to write only where it is asked to think.
            mine = trained and (reasoning is not None or thinking is True)
            text = reasoning or ""
            if self._history_differs:  # templates with a thought of their own set it off by their own line ends
                text = text.strip("\n")
                content = [Span(message.content.lstrip("\n"), trained, trusted=False)]
            thought = [Span(words.open, mine), Span(text, mine, trusted=False), Span(words.close, mine)]
            content = [*thought, *content]
        if self.slots.trim:
            content = _strip(content)
        body = self._fill(self.slots.body, content, trained)
        close = join_text(self._fill(self.slots.close, []))
        end = close.find(self._stop) + len(self._stop)
        return [*header, *body, Span(close[:end], trained), Span(close[end:])]

    def _writes_thought(self, messages: Sequence[Message], index: int, has_thought: bool) -> bool:
        words = self.slots.thinking
        questions = [position for position, message in enumerate(messages) if message.role == "user"]
        is_last = index == len(messages) - 1
        after_question = bool(questions) and index > questions[-1]
        if words.empty == "last" and is_last and after_question:
            return True
        keeps = words.history == "keep" or self.settings.preserve_thinking
        return has_thought and (after_question or keeps)

    def _fill(self, slot: Slot, content: Sequence[Span], trained: bool = False) -> list[Span]:
        spans: list[Span] = []
        for piece, is_place in slot:
            if not is_place:
                spans.append(Span(piece, trained))
            elif piece == "content":
                spans += content
            else:
                spans.append(Span(self._values[piece], trained))
        return spans


def _fits(slots: SlotFile, eos: str | None, added: AbstractSet[str]) -> bool:
    needs_eos = any(piece == ("eos", True) for slot in slots.slots for piece in slot)
    return (not needs_eos or bool(eos)) and (not slots.stop or slots.stop[0] in added)


def _until_trained_end(spans: Sequence[Span]) -> str:
    last = max((index for index, span in enumerate(spans) if span.trained), default=-1)
    return join_text(spans[: last + 1])


def _strip(spans: Sequence[Span]) -> list[Span]:
    """Without the blanks around the joined text."""
    kept = list(spans)
    while kept and not (first := kept[0].text.lstrip()):
        kept.pop(0)
    if kept:
        kept[0] = Span(first, kept[0].trained, kept[0].trusted)
    while kept and not (last := kept[-1].text.rstrip()):
        kept.pop()
    if kept:
        kept[-1] = Span(last, kept[-1].trained, kept[-1].trusted)
    return kept
