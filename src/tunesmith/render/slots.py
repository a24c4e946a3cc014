"""Rendering with a declarative template of the catalog: provenance and mask are known piece by piece.

One interpreter serves all templates; what a template does differently from others is a text or a key of its YAML.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from tunesmith.core.errors import Problem
from tunesmith.core.types import Chat, Message, ToolCall
from tunesmith.render.errors import RenderError
from tunesmith.render.places import Placeholder, pieces
from tunesmith.render.slot_facts import asked_facts, facts_of, follows_later
from tunesmith.render.slot_files import EOS_STOP, SlotFile, load_slots, template_names
from tunesmith.render.slot_refusals import check_chat, unseen_tools
from tunesmith.render.slot_text import FILTERS, Choice, Group, Literal, Place, Slot, parse_slot, walk
from tunesmith.render.spans import Span, join_text, merge
from tunesmith.render.tools import get_dialect
from tunesmith.render.turns import Statistics, TemplateSettings, replies, trained_replies, with_default_system

__all__ = ["SlotTemplate"]

Facts = Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class Values:
    """What stands in the places of a message: texts, and the calls that belong to its content."""

    texts: Mapping[str, Sequence[Span]]
    calls: Sequence[ToolCall] = ()
    tools: Sequence[Mapping[str, Any]] = ()
    earlier: int = 0
    """How many calls the chat has had before."""


class SlotTemplate:
    """A template of the catalog for one tokenizer (its begin and end tokens)."""

    def __init__(
        self,
        slots: SlotFile,
        settings: TemplateSettings,
        bos: str | None,
        eos: str | None,
        placeholder: Placeholder | None = None,
    ) -> None:
        """`placeholder`: what stands for a medium in the texts of this model."""
        self.slots = slots
        self.name = slots.name
        self.dialect = slots.dialect
        self.settings = settings
        self._placeholder = placeholder
        self.statistics = Statistics()
        self.thinking = (slots.thinking.open.strip(), slots.thinking.close.strip())
        self._ends = {"bos": [Span(bos or "")], "eos": [Span(eos or "")]}
        found = tuple((eos or "") if stop == EOS_STOP else stop for stop in slots.stop or (EOS_STOP,))
        self._stops = tuple(dict.fromkeys(stop for stop in found if stop))
        self._history_differs = follows_later(slots)
        self._asks_thinking = bool(asked_facts(slots) & {"thinking", "no_thinking"})

    @classmethod
    def load(
        cls,
        name: str,
        settings: TemplateSettings,
        tokenizer: Any,
        added: AbstractSet[str],
        placeholder: Placeholder | None = None,
    ) -> SlotTemplate:
        """The catalog's template `name`. Raises UsageError if there is none, RenderError if its stop token is not
        one token of the tokenizer. `added`: the tokenizer's added tokens."""
        slots = load_slots(name, settings.tool_format)
        if not _fits(slots, tokenizer.eos_token, added):
            stop = slots.stop[0] if slots.stop and slots.stop[0] != EOS_STOP else "its end-of-text token"
            raise RenderError(
                Problem(
                    "E-RENDER-009",
                    f'template "{name}" ends replies with {stop}, which is no token of this tokenizer',
                    where="template",
                    got=str(getattr(tokenizer, "name_or_path", "")) or None,
                    fix="leave template out (the model's own), or name one that fits: "
                    + ", ".join(_fitting(tokenizer.eos_token, added)),
                )
            )
        return cls(slots, settings, tokenizer.bos_token, tokenizer.eos_token, placeholder)

    @property
    def literals(self) -> tuple[str, ...]:
        """Text that the template can write by itself."""
        thinking = self.slots.thinking
        pieces = [node.text for slot in self.slots.slots for node in walk(slot) if isinstance(node, Literal)]
        ends = [span.text for spans in self._ends.values() for span in spans]
        return (*pieces, *ends, thinking.open, thinking.close, *self._stops)

    @property
    def stops(self) -> tuple[str, ...]:
        return self._stops

    def samples(self, chat: Chat) -> list[list[Span]]:
        """Training samples of a chat: one, or one per reply where the template writes history differently."""
        self.statistics.chats += 1
        messages = self._messages(chat)
        wanted = trained_replies(chat, messages, self.settings)
        if self.settings.train_on_prompt and not chat.replies_only:
            return [self._all_but(chat, messages)]
        before = self.statistics.dropped_thoughts, self.statistics.unstopped
        whole = self._render(chat, messages, wanted)
        if not (self._history_differs or (self.settings.enable_thinking is None and self._asks_thinking)):
            return [self._stopped(whole, messages, wanted)]
        # A thought that is dropped from history only is no loss, and what is told of single replies counts once.
        self.statistics.dropped_thoughts, self.statistics.unstopped = before
        single = [self._render(chat, messages[: turn + 1], {turn}) for turn in sorted(wanted)]
        text = _told(whole)
        if all(text.startswith(_until_trained_end(spans)) for spans in single):
            return [self._stopped(whole, messages, wanted)]
        self.statistics.count_split(len(single))
        return [
            self._stopped(spans, messages[: turn + 1], {turn})
            for turn, spans in zip(sorted(wanted), single, strict=True)
        ]

    def _stopped(self, spans: list[Span], messages: Sequence[Message], wanted: AbstractSet[int]) -> list[Span]:
        """Where the next turn's beginning ends a reply, the last reply gets the stop token that would follow."""
        if self.slots.stop_follows and len(messages) - 1 in wanted and not _ends_with(spans, self.stops):
            return merge([*spans, Span(self.stops[0], trained=True)])
        return spans

    def _all_but(self, chat: Chat, messages: list[Message]) -> list[Span]:
        """train_on_prompt: everything, except replies that say they are not to be trained."""
        untrained = {turn for turn in replies(messages) if messages[turn].trained is False}
        spans = self._render(chat, messages, untrained)
        return merge(Span(span.text, not span.trained, span.trusted) for span in spans)

    def prompt(self, chat: Chat, open_reply: bool) -> list[Span]:
        return self._render(chat, self._messages(chat), set(), open_reply)

    def _messages(self, chat: Chat) -> list[Message]:
        default = self.settings.default_system
        if default is None and self.slots.default_system:
            facts = facts_of([], self.settings, self.settings.enable_thinking, bool(chat.tools), False)[-1]
            default = join_text(self._fill(parse_slot(self.slots.default_system), Values(self._ends), facts))
        messages = with_default_system(chat.messages, default)
        check_chat(self.slots, chat, messages)
        return messages

    def _render(
        self, chat: Chat, messages: Sequence[Message], wanted: AbstractSet[int], open_reply: bool = False
    ) -> list[Span]:
        thinking = self.settings.enable_thinking
        messages = [_thoughtless(message) for message in messages] if thinking is False else messages
        if thinking is None and wanted:  # as the data says: the text is that of the last reply's setting
            thinking = messages[max(wanted)].reasoning is not None
        every = facts_of(messages, self.settings, thinking, bool(chat.tools), open_reply)
        outer = every[-1]
        system = next((message for message in messages if message.role == "system"), None)
        texts = {
            **self._ends,
            "system": [Span(system.content if system else "", trusted=False)],
            "tools": self._tools(chat, thinking is True),
        }
        ends = Values(texts)
        spans = self._fill(self.slots.prefix, ends, outer)
        if system is None:
            spans += self._fill(self.slots.no_system, ends, outer)
        turn, earlier, numbers = -1, 0, Counter[str]()
        waiting: list[tuple[int, ToolCall]] = []  # calls whose results have not come, with their number
        for index, (message, facts) in enumerate(zip(messages, every, strict=False)):
            turn += message.role == "user"
            own = {**_texts(message, turn), "content": pieces(message, self._placeholder, numbers, self.slots.media)}
            if message.role == "tool":
                own |= self._answered(message, waiting)
            values = Values({**texts, **own}, self._calls(message, facts), chat.tools, earlier)
            if message.tool_calls:
                waiting = list(enumerate(message.tool_calls, earlier))
                earlier += len(message.tool_calls)
            if message.role == "assistant":
                spans += self._reply(values, facts, self._own_facts(message, facts) if index in wanted else None)
            elif self.slots.stop_follows and index - 1 in wanted:
                spans += self._with_first_token_trained(self._fill(self._slot(message), values, facts))
            else:
                spans += self._fill(self._slot(message), values, facts)
        spans += self._fill(self.slots.suffix, ends, outer)
        if open_reply:
            spans += self._fill(self.slots.open, ends, outer) + self._fill(self.slots.prompt, ends, outer)
        if (tools := join_text(texts["tools"]).strip()) and tools not in join_text(spans):
            raise unseen_tools(self.slots, chat)
        return merge(spans)

    def _slot(self, message: Message) -> Slot:
        return {"user": self.slots.user, "system": self.slots.system, "tool": self.slots.tool}[message.role]

    def _answered(self, message: Message, waiting: list[tuple[int, ToolCall]]) -> dict[str, Sequence[Span]]:
        """Id and name of the call that a result answers: the one it names, else the next that waits."""
        named = [item for item in waiting if item[1].id is not None and item[1].id == message.tool_call_id]
        found = (named or waiting)[:1]
        if not found or not self.slots.dialect:
            return {}
        waiting.remove(found[0])
        number, call = found[0]
        call_id = get_dialect(self.slots.dialect).call_id(call, number)
        texts = {"name": message.name or call.name, "id": call_id or message.tool_call_id or ""}
        return {key: [Span(text, trusted=False)] for key, text in texts.items()}

    def _calls(self, message: Message, facts: Facts) -> Sequence[ToolCall]:
        if self.slots.call_ids == "history" and facts["last"]:
            return [replace(call, id=None) for call in message.tool_calls]
        return message.tool_calls

    def _tools(self, chat: Chat, thinking: bool) -> list[Span]:
        if not chat.tools or not self.slots.dialect:
            return []
        return _spans(get_dialect(self.slots.dialect).tools_text(chat.tools, thinking))

    def _own_facts(self, message: Message, facts: Facts) -> Facts:
        """The facts of the prompt that a reply answers: where the data says whether it thinks, each says it itself."""
        if self.settings.enable_thinking is not None:
            return facts
        thinks = message.reasoning is not None
        return {**facts, "thinking": thinks, "no_thinking": not thinks}

    def _reply(self, values: Values, facts: Facts, asked: Facts | None) -> list[Span]:
        """The header, then what the model writes, up to the stop token, then what follows that. What the prompt
        writes behind the header is the prompt's, in a finished reply as well. `asked`: the facts of that prompt, of a
        reply that is trained."""
        header = self._fill(self.slots.open, values, facts)
        body = self._fill(self.slots.body, values, facts)
        close = self._fill(self.slots.close, values, facts)
        if asked is None:
            return [*header, *body, *close]
        if (thought := join_text(values.texts["thought"]).strip()) and thought not in join_text(body):
            self.statistics.dropped_thoughts += 1
        # Whether a message is the last is not known where a reply is asked for.
        given = join_text(self._fill(self.slots.prompt, values, asked))
        text, behind = join_text(body), join_text(close)
        # A part of the prompt counts if words are shared, not where both have a line end.
        shared = (size for size in range(len(given), 0, -1) if size == len(given) or given[-size:].strip())
        start = next((size for size in shared if text.startswith(given[-size:])), 0)
        ends = [at + len(stop) for stop in self.stops if (at := behind.find(stop)) >= 0]
        stop = min(ends, default=0)
        self.statistics.unstopped += not (stop or self.slots.stop_follows)
        return [*header, *_train(body, start, len(text)), *_train(close, 0, stop)]

    def _with_first_token_trained(self, spans: list[Span]) -> list[Span]:
        text = join_text(spans)
        stop = next((stop for stop in self.stops if text.startswith(stop)), "")
        return _train(spans, 0, len(stop))

    def _fill(self, slot: Slot, values: Values, facts: Facts) -> list[Span]:
        spans: list[Span] = []
        for node in slot:
            if isinstance(node, Literal):
                spans.append(Span(node.text))
            elif isinstance(node, Choice):
                for condition, inner in node.branches:
                    if any(all(facts[name] is wanted for name, wanted in facts_) for facts_ in condition):
                        spans += self._fill(inner, values, facts)
                        break
            elif isinstance(node, Group):
                spans += self._group(node, values, facts)
            else:
                spans += self._place(node, values)
        return spans

    def _group(self, node: Group, values: Values, facts: Facts) -> list[Span]:
        if not (node.whole and values.calls and self.slots.dialect):
            return _filtered(self._fill(node.nodes, values, facts), node.filters)
        dialect = get_dialect(self.slots.dialect)
        own = values.texts["content"]
        inner = self._fill(node.nodes, Values(values.texts), facts) if dialect.takes_content else own
        content = _filtered(inner, node.filters)
        text = join_text(content)
        written = _spans(dialect.write_calls(values.calls, text, values.tools, values.earlier))
        # The dialect takes the content for one text; who wrote which part of it is known here.
        at = next((index for index, span in enumerate(written) if text and span.text == text), None)
        return written if at is None else [*written[:at], *content, *written[at + 1 :]]

    def _place(self, node: Place, values: Values) -> list[Span]:
        if node.name == "today":
            return [Span(datetime.now().strftime(node.argument))]
        if values.calls and node.name in ("content", "calls") and self.slots.dialect:
            content = join_text(_filtered(values.texts["content"], node.filters)) if node.name == "content" else ""
            return _spans(
                get_dialect(self.slots.dialect).write_calls(values.calls, content, values.tools, values.earlier)
            )
        return _filtered(values.texts.get(node.name, ()), node.filters)


def _texts(message: Message, turn: int) -> dict[str, Sequence[Span]]:
    told = {
        "thought": message.reasoning or "",
        "name": message.name or "",
        "id": message.tool_call_id or "",
    }
    texts = {name: [Span(text, trusted=False)] for name, text in told.items()}
    return {**texts, "turn": [Span(str(turn + 1))], "turn0": [Span(str(turn))]}


def _spans(pieces: Sequence[tuple[str, bool]]) -> list[Span]:
    return [Span(text, trusted=trusted) for text, trusted in pieces]


def _thoughtless(message: Message) -> Message:
    if message.reasoning is None:
        return message
    return replace(message, reasoning=None)


def _fits(slots: SlotFile, eos: str | None, added: AbstractSet[str]) -> bool:
    nodes = (node for slot in slots.slots for node in walk(slot))
    needs_eos = any(not isinstance(node, Literal) and getattr(node, "name", "") == "eos" for node in nodes)
    needs_eos = needs_eos or slots.stop[:1] == (EOS_STOP,)
    return (not needs_eos or bool(eos)) and (not slots.stop or slots.stop[0] in {EOS_STOP, *added})


def _fitting(eos: str | None, added: AbstractSet[str]) -> list[str]:
    """Names of the catalog's templates that fit a tokenizer."""
    found = []
    for name in template_names():
        try:
            slots = load_slots(name)
        except RenderError:  # one without a source
            continue
        if _fits(slots, eos, added):
            found.append(name)
    return found


def _ends_with(spans: Sequence[Span], stops: Sequence[str]) -> bool:
    """Whether the last trained stretch ends with one of the stop tokens, not with text that looks so."""
    last = next((span for span in reversed(spans) if span.trained), None)
    return last is not None and last.trusted and last.text.endswith(tuple(stops))


def _until_trained_end(spans: Sequence[Span]) -> str:
    last = max((index for index, span in enumerate(spans) if span.trained), default=-1)
    return _told(spans[: last + 1])


def _told(spans: Sequence[Span]) -> str:
    """The text, with marks where what the template wrote and what it was given meet: the same text by another is
    not the same."""
    kinds = merge(Span(span.text, False, span.trusted) for span in spans)
    return "".join([("\0T" if span.trusted else "\0U") + span.text for span in kinds])


def _train(spans: Sequence[Span], start: int, end: int) -> list[Span]:
    """The spans with the characters [start, end) of their joined text trained."""
    cut: list[Span] = []
    at = 0
    for span in spans:
        first, last = min(max(start - at, 0), len(span.text)), min(max(end - at, 0), len(span.text))
        at += len(span.text)
        cut += [
            Span(span.text[:first], False, span.trusted),
            Span(span.text[first:last], True, span.trusted),
            Span(span.text[last:], False, span.trusted),
        ]
    return cut


def _filtered(spans: Sequence[Span], filters: Sequence[str]) -> list[Span]:
    """The spans after the filters, which see the joined text. Filters that only strip keep who wrote what."""
    for name in filters:
        text = join_text(spans)
        found = FILTERS[name](text)
        at = text.find(found) if found else 0
        if found == text:
            continue
        if len(spans) > 1:
            assert at >= 0, f"filter {name!r} over a mixture of texts must only strip"
            spans = _slice(spans, at, at + len(found))
        else:
            spans = [Span(found, span.trained, span.trusted) for span in spans]
    return list(spans)


def _slice(spans: Sequence[Span], start: int, end: int) -> list[Span]:
    kept = []
    at = 0
    for span in spans:
        text = span.text[max(start - at, 0) : max(end - at, 0)]
        at += len(span.text)
        kept.append(Span(text, span.trained, span.trusted))
    return kept
