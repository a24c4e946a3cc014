"""The model's own chat template: its text, and a mask that follows from its structure.

Where the template has `{% generation %}` marks they are the mask. Else a reply is what a render with it adds to a
render that asks for it:

    render(messages[:i], add_generation_prompt=True)   <user>Hi</user><assistant>
    render(messages[:i + 1])                           <user>Hi</user><assistant>Hello!</user>
                                                                                 ^^^^^^^^^^^^^ trained

A template may write a reply differently once others follow it (Qwen3 drops old thoughts). Then no single text has
every reply as the model would write it, and the chat becomes one sample per reply.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any

import jinja2

from tunesmith.core.errors import Problem
from tunesmith.core.types import PLACE, Chat, Message
from tunesmith.render.borders import Region, quick_regions, reply_end, with_stops
from tunesmith.render.control import ControlTokens, Guard, StandInClash
from tunesmith.render.errors import RenderError
from tunesmith.render.jinja import JinjaTemplate
from tunesmith.render.places import part_list
from tunesmith.render.spans import Span, cut_at
from tunesmith.render.turns import (
    KEEPING_WORDS,
    Statistics,
    TemplateSettings,
    replies,
    trained_replies,
    with_default_system,
)

__all__ = ["AutoTemplate"]

# What a template raises when it is given something it does not know.
_TEMPLATE_ERRORS = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
_QUESTION, _ANSWER = "tunesmith question", "tunesmith answer"


class AutoTemplate:
    """A Jinja chat template (`tools_template`: the one for chats with tools, where a model has two)."""

    name = "auto"
    dialect: str | None = None

    def __init__(
        self,
        template: JinjaTemplate,
        control: ControlTokens,
        settings: TemplateSettings,
        special_tokens: Mapping[str, Any],
        tools_template: JinjaTemplate | None = None,
    ) -> None:
        self.template = template
        self.tools_template = tools_template or template
        self.control = control
        self.settings = settings
        self.special_tokens = dict(special_tokens)
        self.statistics = Statistics()
        literals = {*template.literals, *self.tools_template.literals}
        self.guard = Guard(control, literals, rewrites=template.rewrites or self.tools_template.rewrites)
        joined = "\0".join(literals)
        self.thinking = next((pair for pair in _THOUGHT_WORDS if pair[1] in joined), _THOUGHT_WORDS[0])

    @cached_property
    def thought_form(self) -> str:
        """How the template takes a thought: under a "key" of the message, as one of "blocks" of the content, or in the
        "text" of the content, for templates that cut it out themselves or know no thoughts."""
        if "reasoning_content" in self.template.names or "reasoning" in self.template.names:
            return "key"
        if "thinking" not in self.template.names:
            return "text"
        user, thought = {"role": "user", "content": _QUESTION}, "tunesmith thought"
        if thought in self._probe([user, {"role": "assistant", "content": _ANSWER, "thinking": thought}]):
            return "key"
        blocks = [{"type": "thinking", "thinking": thought}, {"type": "text", "text": _ANSWER}]
        return "blocks" if thought in self._probe([user, {"role": "assistant", "content": blocks}]) else "key"

    def samples(self, chat: Chat) -> list[list[Span]]:
        """Training samples of a chat: one, or one per reply where the template is not prefix-stable."""
        self.statistics.chats += 1
        return self._guarded(chat, lambda session: session.samples())

    def prompt(self, chat: Chat, open_reply: bool) -> list[Span]:
        """The text of a chat, without a mask; `open_reply`: with the opening of the next reply."""
        return self._guarded(chat, lambda session: [session.text(open_reply)])[0]

    def _guarded(self, chat: Chat, make: Any) -> list[list[Span]]:
        guard = self.guard
        while True:
            try:
                spans: list[list[Span]] = make(_Session(self, chat, guard))
                return spans
            except StandInClash:
                guard = guard.next()

    @cached_property
    def stops(self) -> tuple[str, ...]:
        """Control tokens that end a reply: found by rendering short chats and looking behind the answer."""
        found: dict[str, None] = {}
        if isinstance(eos := self.special_tokens.get("eos_token"), str):
            found[eos] = None
        user, answer = {"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}
        for messages in ([user, answer], [user, answer, user, answer]):
            text = self._probe(messages)
            start = text.find(_ANSWER)
            if start >= 0:
                behind = text[start + len(_ANSWER) :]
                token = next(self.control.find(behind), None)
                # Only what follows at once: anything else between means that the reply has no stop token.
                if token and not behind[: token[0]].strip():
                    found.setdefault(token[2].content)
        if "tool_calls" in self.tools_template.source:
            call = {"type": "function", "id": "abcdefghi", "function": {"name": "probe", "arguments": {}}}
            text = self._probe([user, {"role": "assistant", "content": "", "tool_calls": [call]}])
            tokens = list(self.control.find(text, max(0, text.rfind("probe"))))
            # Special tokens only: `</tool_call>` ends a call, not the reply.
            if tokens and tokens[-1][2].special and not text[tokens[-1][1] :].strip():
                found.setdefault(tokens[-1][2].content)
        return tuple(found)

    @cached_property
    def closing(self) -> str:
        """What follows a reply when a question comes after it, up to the stop token; for replies that the template
        ends with none. The tokenizer's own end where there is no such token."""
        user, answer = {"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}
        text = self._probe([user, answer, user, answer])
        start = text.find(_ANSWER) + len(_ANSWER)
        token = next(self.control.find(text, start), None) if start >= len(_ANSWER) else None
        if token and not text[start : token[0]].strip():
            return text[start : token[1]]
        eos = self.special_tokens.get("eos_token")
        return eos if isinstance(eos, str) and eos in self.control else ""

    @cached_property
    def takes_parts_only(self) -> bool:
        """True for templates that do not write a content that is a text, but a list of parts (LLaVA's)."""
        if "text" not in self.template.names or _QUESTION in self._tried([{"role": "user", "content": _QUESTION}]):
            return False
        return _QUESTION in self._tried([{"role": "user", "content": [_text_part(_QUESTION)]}])

    def _probe(self, messages: list[dict[str, Any]]) -> str:
        if self.takes_parts_only:
            messages = [{**one, "content": _parts_of(one["content"])} for one in messages]
        return self._tried(messages)

    def _tried(self, messages: list[dict[str, Any]]) -> str:
        variables = {**self.special_tokens, **self.tools_as_text([]), "messages": messages}
        try:
            return self.tools_template.render(**variables, add_generation_prompt=False)
        except _TEMPLATE_ERRORS:
            return ""

    def tools_as_text(self, tools: Sequence[Any]) -> dict[str, str]:
        """What templates want that take the tools as text (FireFunction's), and with them the day."""
        if "functions" not in self.tools_template.variables:
            return {}
        return {"functions": json.dumps(tools, ensure_ascii=False), "datetime": f"{datetime.now():%Y-%m-%d}"}

    @cached_property
    def arguments_as_text(self) -> bool:
        """True for templates that join a call's arguments to other text, so that they must be JSON text."""
        call = {"type": "function", "id": "abcdefghi", "function": {"name": "probe", "arguments": {"a": 1}}}
        reply = {"role": "assistant", "content": "", "tool_calls": [call]}
        if self._probe([{"role": "user", "content": _QUESTION}, reply]):
            return False
        call["function"] = {"name": "probe", "arguments": '{"a": 1}'}
        return bool(self._probe([{"role": "user", "content": _QUESTION}, reply]))


_THOUGHT_WORDS = (("<think>", "</think>"), ("<seed:think>", "</seed:think>"), ("[THINK]", "[/THINK]"))


class _Session:
    """One chat under one template: its messages in the template's form, and its renders."""

    def __init__(self, owner: AutoTemplate, chat: Chat, guard: Guard) -> None:
        self.owner, self.chat, self.guard = owner, chat, guard
        self.settings = owner.settings
        self.messages: Sequence[Message] = with_default_system(chat.messages, owner.settings.default_system)
        self.template = owner.tools_template if chat.tools else owner.template
        self.tools = [guard.disarm_data(tool) for tool in chat.tools] or None
        if self.tools and self.template.variables.isdisjoint(("tools", "functions")):
            raise RenderError(
                Problem(
                    "E-RENDER-003",
                    "the model's chat template does not write tools",
                    where=str(chat.origin),
                    fix="use a model with tool calling, or remove the tools from the row",
                )
            )
        self.plain = [self._message(message) for message in self.messages]

    def _message(self, message: Message) -> dict[str, Any]:
        """A message as templates expect it: OpenAI's names, untrusted text disarmed."""
        guard = self.guard
        plain: dict[str, Any] = {"role": message.role, "content": self._content(message)}
        if message.name is not None:
            plain["name"] = guard.disarm(message.name)
        if message.tool_call_id is not None:
            plain["tool_call_id"] = guard.disarm(message.tool_call_id)
        if message.tool_calls:
            plain["tool_calls"] = [self._tool_call(call) for call in message.tool_calls]
        if message.reasoning is not None and self.settings.enable_thinking is not False:
            reasoning = guard.disarm(message.reasoning)
            if self.owner.thought_form == "key":
                plain["reasoning_content"] = plain["thinking"] = reasoning
            elif reasoning and self.owner.thought_form == "blocks":
                plain["content"] = [{"type": "thinking", "thinking": reasoning}, *_parts_of(plain["content"])]
            elif reasoning:
                opening, closing = self.owner.thinking
                thought = f"{opening}\n{reasoning}\n{closing}\n\n"
                plain["content"] = _led_by(thought, plain["content"])
        return plain

    def _content(self, message: Message) -> Any:
        """Text, or a list of parts where there are media and where the template takes nothing else."""
        if message.media or self.owner.takes_parts_only:
            return part_list(message, self.guard.disarm)
        return self.guard.disarm(message.content)

    def _tool_call(self, call: Any) -> dict[str, Any]:
        arguments = self.guard.disarm_data(dict(call.arguments))
        if self.owner.arguments_as_text:
            arguments = json.dumps(arguments, ensure_ascii=False)
        plain: dict[str, Any] = {
            "type": "function",
            "function": {"name": self.guard.disarm(call.name), "arguments": arguments},
        }
        if call.id is not None:
            plain["id"] = self.guard.disarm(call.id)
        return plain

    def _variables(self, count: int, open_reply: bool, reply: int | None) -> dict[str, Any]:
        """Template variables for the first `count` messages. `reply`: the reply whose thinking decides."""
        variables: dict[str, Any] = {
            **self.owner.special_tokens,
            "messages": self.plain[:count],
            "tools": self.tools,
            "documents": None,
            "add_generation_prompt": open_reply,
        }
        if self.tools:
            variables |= self.owner.tools_as_text(self.tools)
        if "enable_thinking" in self.template.variables:
            thinking = self.settings.enable_thinking
            if thinking is None and reply is not None:  # as the data says
                thinking = self.messages[reply].reasoning is not None
            if thinking is not None:
                variables["enable_thinking"] = thinking
        if self.settings.preserve_thinking:
            variables |= {word: keeps for word, keeps in KEEPING_WORDS.items() if word in self.template.variables}
        return variables

    def render(self, count: int, open_reply: bool = False, reply: int | None = None) -> str:
        try:
            return self.template.render(**self._variables(count, open_reply, reply))
        except _TEMPLATE_ERRORS as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> RenderError:
        has_system = any(message.role == "system" for message in self.messages)
        fix = "change the row to what the template takes, or name another template"
        if has_system and "system" in str(error).lower():
            fix = "remove the system message or put its text into the first user message; or name a template that does"
        roles = ", ".join(message.role for message in self.messages)
        return RenderError(
            Problem(
                "E-RENDER-001",
                f"the model's chat template refuses this chat: {error}",
                where=str(self.chat.origin),
                got=roles,
                fix=fix,
            )
        )

    def text(self, open_reply: bool) -> list[Span]:
        return self._spans(self.render(len(self.plain), open_reply), [])

    def samples(self) -> list[list[Span]]:
        count = len(self.plain)
        turns = replies(self.messages)
        wanted = trained_replies(self.chat, self.messages, self.settings)
        if self.settings.train_on_prompt and not self.chat.replies_only:
            return [self._all_but([turn for turn in turns if self.messages[turn].trained is False])]
        if self.template.has_marks:
            return [self._marked(turns, wanted)]
        whole = self.render(count, reply=turns[-1] if turns else None)
        if len(wanted) > 1 and (found := self._quick(whole, turns)):
            return [self._trained(whole, {turn: found[turn] for turn in sorted(wanted)})]
        regions: dict[int, tuple[str, Region]] = {}
        for turn in sorted(wanted):
            full = whole if turn == count - 1 else self.render(turn + 1, reply=turn)
            regions[turn] = full, self.region(full, turn)
        if all(full is whole or whole.startswith(full[: region[1]]) for full, region in regions.values()):
            return [self._trained(whole, {turn: region for turn, (_, region) in regions.items()})]
        self.owner.statistics.count_split(len(regions))
        return [self._trained(full, {turn: region}) for turn, (full, region) in regions.items()]

    @property
    def control(self) -> ControlTokens:
        return self.owner.control

    @property
    def stops(self) -> tuple[str, ...]:
        return self.owner.stops

    def _quick(self, whole: str, turns: Sequence[int]) -> dict[int, Region] | None:
        if self.settings.enable_thinking is None and "enable_thinking" in self.template.variables:
            return None  # each reply has a setting of its own
        before = replace(self.owner.statistics)
        found = quick_regions(self, whole, turns)
        self.owner.statistics = before  # what a single reply told is not counted twice
        return found

    def _all_but(self, untrained: Sequence[int]) -> list[Span]:
        """train_on_prompt: everything, except replies that say they are not to be trained."""
        whole = self.render(len(self.plain))
        start = 0
        trained: list[Region] = []
        for turn in untrained:
            full = self.render(turn + 1, reply=turn)
            first, last = self.region(full, turn)
            if not whole.startswith(full[:last]):
                raise self._unclear(turn, whole, first)
            trained.append((start, first))
            start = last
        return self._spans(whole, [*trained, (start, len(whole))])

    def _marked(self, turns: list[int], wanted: set[int]) -> list[Span]:
        """The template's own marks; turn by turn where only some replies are trained."""
        marks = (self.guard.mark_open, self.guard.mark_close)
        variables = self._variables(len(self.plain), False, turns[-1] if turns else None)
        try:
            text, regions = self.template.render_marked(marks, **variables)
        except _TEMPLATE_ERRORS as error:
            raise self._refused(error) from error
        if len(regions) == len(turns):
            return self._trained(text, {turn: regions[at] for at, turn in enumerate(turns) if turn in wanted})
        if wanted != set(turns):
            raise self._unclear(turns[0], text, 0)
        return self._spans(text, regions)

    def region(self, full: str, turn: int) -> Region:
        """Where the reply `turn`, the last message of the rendered text `full`, begins and ends."""
        prompt = self._prompt(full, turn)
        start = len(prompt)
        if not full.startswith(prompt):
            start = self._other_opening(full, prompt, turn)
            self.owner.statistics.other_openings += 1
        message = self.messages[turn]
        if (thought := self.guard.disarm(message.reasoning or "").strip()) and thought not in full[start:]:
            self.owner.statistics.dropped_thoughts += 1
        for call in message.tool_calls:
            if self.guard.disarm(call.name) not in full[start:]:
                raise RenderError(
                    Problem(
                        "E-RENDER-004",
                        "the model's chat template does not write the tool calls of a reply",
                        where=str(self.chat.origin),
                        got=call.name,
                        fix="use a model with tool calling, or write the calls into the text of the reply",
                    )
                )
        return start, reply_end(full, start, self.control, self.stops)

    def _prompt(self, full: str, turn: int) -> str:
        if turn > 0:
            return self.render(turn, open_reply=True, reply=turn)
        # Nothing comes before the reply, and few templates can render nothing: take the opening from a chat of ours.
        probe = replace(self.chat, messages=[Message("user", _QUESTION)], tools=())
        session = _Session(self.owner, probe, self.guard)
        return full[: self._behind_opening(full, session.render(1), session.render(1, open_reply=True), turn)]

    def _behind_opening(self, full: str, closed: str, opened: str, turn: int) -> int:
        """Where the last opening of a reply in `full` ends; the opening is what `opened` adds to `closed`. It must
        hold a control token, which no content can: else the place would be a guess."""
        opening = opened[len(closed) :] if opened.startswith(closed) else ""
        at = full.rfind(opening) if opening else -1
        if at < 0 or next(self.owner.control.find(opening), None) is None:
            raise self._unclear(turn, full, _common_prefix(full, opened))
        return at + len(opening)

    def _other_opening(self, full: str, prompt: str, turn: int) -> int:
        """The reply's start where the text that opens it is not kept: behind the last control token or line end of
        the opening that both share, else where the messages before it end."""
        closed = self.render(turn, reply=turn)
        common, before = _common_prefix(full, prompt), _common_prefix(prompt, closed)
        # Two control tokens may begin alike: what is shared ends with a whole one.
        common = min([first for first, end, _ in self.control.find(full) if first < common < end], default=common)
        changed = common < before  # the reply changed the text of a message before it, if only by a blank
        if changed or (common == before and prompt[before:] and prompt[before:] in full[before:]):
            return self._behind_opening(full, closed, prompt, turn)
        if common == before and any(first == before for first, _, _ in self.control.find(full, before)):
            raise self._unclear(turn, full, before)
        ends = [end for _, end, _ in self.owner.control.find(prompt, 0, common)]
        return max([*ends, prompt.rfind("\n", 0, common) + 1, before])

    def _unclear(self, turn: int, text: str, at: int) -> RenderError:
        near = text[max(0, at - 60) : at + 60]
        return RenderError(
            Problem(
                "E-RENDER-002",
                f"cannot tell where message {turn + 1}, a reply, begins in the text of the model's chat template",
                where=str(self.chat.origin),
                got=self.guard.arm(near),
                fix="name a template of the catalog that fits the model, or use a chat template with generation marks",
            )
        )

    def _trained(self, text: str, found: Mapping[int, Region]) -> list[Span]:
        """Spans with these replies trained, each with its stop token."""
        owner = self.owner
        for turn, (start, end) in found.items():
            words = self.guard.disarm(self.messages[turn].content).replace(PLACE, " ").split()
            if words and not any(word in text[start:end] for word in words):
                raise RenderError(
                    Problem(
                        "E-RENDER-016",
                        f"the model's chat template does not write the text of message {turn + 1}, a reply",
                        where=str(self.chat.origin),
                        got=self.guard.arm(text[max(0, start - 60) : end + 60]),
                        fix="name a template of the catalog that fits the model",
                    )
                )
        regions = list(found.values())
        text, widened, without = with_stops(text, regions, owner.control, owner.stops, owner.closing)
        owner.statistics.unstopped += without
        return self._spans(text, widened)

    def _spans(self, text: str, trained: Sequence[Region]) -> list[Span]:
        """Spans of rendered text, with its own characters again; stand-ins show what was not the template's."""
        return cut_at(self.guard.arm(text), trained, self.guard.stand_ins(text))


def _text_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _parts_of(content: Any) -> list[Any]:
    return [_text_part(content)] if isinstance(content, str) else content


def _led_by(thought: str, content: Any) -> Any:
    """A thought before a content, in one piece of text with its beginning: templates may write one piece of a reply."""
    if isinstance(content, str):
        return thought + content
    first, *rest = content
    return [_text_part(thought + first["text"]), *rest] if first["type"] == "text" else [_text_part(thought), *content]


def _common_prefix(one: str, other: str) -> int:
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return index
    return min(len(one), len(other))
