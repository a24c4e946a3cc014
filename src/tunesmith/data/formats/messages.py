"""A list of messages as datasets write it: who speaks, what is said, thoughts, tool calls and loss weights.

Two vocabularies are known without further words, sharegpt's `from`/`value` and OpenAI's `role`/`content`, and the roles
of both. Which keys a message has is looked up once per set of keys, because all rows of a file have the same few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tunesmith.core.types import PLACE, Medium, Message, Origin, Role, ToolCall
from tunesmith.data.formats.base import check_text, kind_of
from tunesmith.data.formats.markup import split_thought
from tunesmith.data.formats.media import part_medium
from tunesmith.data.formats.turns import parse_tool_calls
from tunesmith.data.notes import Notes
from tunesmith.data.rows import RowError

__all__ = ["MESSAGE_KEYS", "PARTS", "ROLES", "ROLE_TAGS", "MessageReader"]

ROLES: Mapping[str, str] = MappingProxyType(
    {
        word: role
        for role, words in {
            "system": ("system", "developer"),
            "user": ("user", "human"),
            "assistant": ("assistant", "gpt", "model"),
            "call": ("function_call", "tool_call"),
            "tool": ("tool", "observation", "function", "function_response", "tool_response", "ipython"),
        }.items()
        for word in words
    }
)
"""What stands for a role; `call` is an assistant's message whose content is the tool call, or several."""

ROLE_TAGS = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "call",
    "system_tag": "system",
}
"""What the tags of a dataset_info.json stand for."""

ROLE_KEYS, CONTENT_KEYS = ("role", "from"), ("content", "value")
THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")
CALL_KEYS = ("tool_calls", "function_call")
MESSAGE_KEYS = (*THOUGHT_KEYS, *CALL_KEYS, "tool_call_id", "name", "refusal", "weight", "train")
"""Keys of a message that are read, beside those of its role and its content."""

PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal", "thinking": "thinking"}
"""Types of content parts, and the key that holds the text. A `thinking` part is the thought of an answer."""

LARGEST_WEIGHT = 1e30  # far inside of float32
_SHAPES_KEPT = 1000
_NAME_ROLES = (
    'say what they stand for, as in "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human", '
    '"assistant_tag": "gpt"}'
)


@dataclass(frozen=True, slots=True)
class _Shape:
    """What messages with a certain set of keys have. `plain`: nothing but a role and a content."""

    role: str | None
    content: str | None
    plain: bool


class MessageReader:
    """Reads lists of messages. `tags` are those of a dataset_info.json: they replace the vocabularies."""

    def __init__(self, notes: Notes, tags: Mapping[str, str] | None = None, *, say_from: bool = False) -> None:
        """`say_from`: errors speak of `from` and `value`."""
        self.notes = notes
        self.role_keys: tuple[str, ...] = ROLE_KEYS[::-1] if say_from else ROLE_KEYS
        self.content_keys: tuple[str, ...] = CONTENT_KEYS[::-1] if say_from else CONTENT_KEYS
        self.roles = ROLES
        if tags is not None:
            self.role_keys, self.content_keys = (tags["role_tag"],), (tags["content_tag"],)
            self.roles = {tags[tag]: role for tag, role in ROLE_TAGS.items() if tag in tags}
        self._shapes: dict[tuple[Any, ...], _Shape] = {}

    def read(self, turns: Any, column: str, origin: Origin) -> list[Message]:
        """Raises RowError with the number of the message at fault."""
        if not isinstance(turns, list):
            raise RowError("E-DATA-014", f"the field is {kind_of(turns)}, not a list of messages", column, turns)
        messages = []
        for index, turn in enumerate(turns):
            try:
                messages.append(self.message(turn, column, origin))
            except RowError as error:
                fault = (error.code == "E-DATA-015" and self._unknown_roles(turns, column)) or error
                raise fault.at(f"message {index + 1} of {len(turns)}") from None
        return messages

    def message(self, turn: Any, column: str, origin: Origin) -> Message:
        if type(turn) is not dict:
            raise RowError("E-DATA-014", "a message is not an object", column, turn)
        shape = self._shapes.get(tuple(turn)) or self._shape(turn, column, origin)
        tag = turn[shape.role] if shape.role is not None else None
        role = self.roles.get(tag) if type(tag) is str else None
        if role is None:
            raise RowError("E-DATA-015", _role_fault(tag, self.role_keys), column, ", ".join(map(str, turn)))
        if shape.plain and role != "call":
            text = turn[shape.content]
            if type(text) is str:
                text = check_text(text, f"{column}.{shape.content}")
                if role == "assistant":
                    thought, text = split_thought(text)
                    return Message("assistant", text, thought)
                return Message(role, text)  # type: ignore[arg-type]  # a role of the table
        return self._full(turn, role, shape, column)

    def _shape(self, turn: Mapping[str, Any], column: str, origin: Origin) -> _Shape:
        role = next((key for key in self.role_keys if key in turn), None)
        content = next((key for key in self.content_keys if key in turn), None)
        others = [key for key in turn if key not in (role, content)]
        unknown = tuple(key for key in others if key not in MESSAGE_KEYS)
        told = [key for key in unknown if turn[key] is not None]
        for key in told:
            self.notes.say(f'messages in "{column}" hold "{key}", which is not read', origin)
        shape = _Shape(role, content, content is not None and len(unknown) == len(others))
        # Keys that are null so far (Parquet has every key in every message) may hold something later.
        if len(told) == len(unknown) and len(self._shapes) < _SHAPES_KEPT:
            self._shapes[tuple(turn)] = shape
        return shape

    def _full(self, turn: Mapping[str, Any], role: str, shape: _Shape, column: str) -> Message:
        key = shape.content or self.content_keys[0]
        field = f"{column}.{key}"
        calls, thought = _calls(turn, column) if role == "assistant" else (), None
        media: tuple[Medium, ...] = ()
        text = turn.get(key)
        if role == "assistant":
            text = _said(turn, text, calls)
        if text is None and shape.content is None:
            raise RowError("E-DATA-015", f'a message without "{key}"', column, ", ".join(map(str, turn)))
        if isinstance(text, list) and role != "call":
            thought, text, media = _join_parts(text, field)
        if role == "call" and not isinstance(text, dict | list):
            thought, text = split_thought(check_text(text, field))
        elif role == "assistant":
            thought, text = _thought(turn, thought, check_text(text, field), column)
        trained, weight = _loss_weight(turn, column)
        call_id, name = _optional(turn, "tool_call_id", column), _optional(turn, "name", column)
        if role == "call":
            calls, text, role = parse_tool_calls(text, field), "", "assistant"
        speaker: Role = role  # type: ignore[assignment]  # a role of the table, `call` replaced
        text = check_text(text, field)
        return Message(speaker, text, thought, calls, call_id, name, trained, weight=weight, media=media)

    def _unknown_roles(self, turns: Sequence[Any], column: str) -> RowError | None:
        """The error that names every unknown role of a row, so that rows are counted by what they have."""
        tags = [turn[key] for turn in turns if isinstance(turn, dict) for key in self.role_keys if key in turn]
        words = dict.fromkeys(tag for tag in tags if isinstance(tag, str))
        unknown = [repr(tag) for tag in words if tag not in self.roles]
        if not unknown:
            return None
        plural = "s" if len(unknown) > 1 else ""
        reason = f"unknown role{plural} {', '.join(unknown)} (known: {', '.join(self.roles)})"
        return RowError("E-DATA-015", reason, column, f"roles of the row: {', '.join(words)}", _NAME_ROLES)


def _role_fault(tag: Any, keys: Sequence[str]) -> str:
    return f'a message without "{keys[0]}"' if tag is None else f"a role that is {kind_of(tag)}"


def _calls(turn: Mapping[str, Any], column: str) -> tuple[ToolCall, ...]:
    calls = turn.get("tool_calls") or ([turn["function_call"]] if turn.get("function_call") else None)
    return parse_tool_calls(calls, f"{column}.tool_calls") if calls else ()


def _said(turn: Mapping[str, Any], text: Any, calls: Sequence[ToolCall]) -> Any:
    """The content of an answer; a refusal is what the model said in its place, and a call needs no words."""
    if text is None and turn.get("refusal") is not None:
        return turn["refusal"]
    return "" if text is None and calls else text


def _thought(turn: Mapping[str, Any], part: str | None, text: str, column: str) -> tuple[str | None, str]:
    """(thought, text) of an answer: the thought has a key or a content part of its own, or opens the text."""
    for name in THOUGHT_KEYS:
        if turn.get(name) is not None:
            return check_text(turn[name], f"{column}.{name}"), text
    return split_thought(text) if part is None else (part, text)


def _optional(turn: Mapping[str, Any], key: str, column: str) -> str | None:
    value = turn.get(key)
    return None if value is None else check_text(value, f"{column}.{key}")


def _join_parts(parts: Sequence[Any], field: str) -> tuple[str | None, str, tuple[Medium, ...]]:
    """(thought, text, media) of a content that is a list of parts; each medium has its place in the text."""
    texts: dict[str, list[str]] = {"text": [], "thinking": []}
    media: dict[int, Medium] = {}  # by the place in the list of texts
    for part in parts:
        if not isinstance(part, dict):
            raise RowError("E-DATA-014", f"a content part is {kind_of(part)}, not an object", field, part)
        kind = part.get("type")
        if (medium := part_medium(part, field)) is not None:
            media[len(texts["text"])] = medium
            texts["text"].append(PLACE)
            continue
        if not isinstance(kind, str) or kind not in PARTS:
            why = f"read are: {', '.join(PARTS)}, images, video and audio"
            raise RowError("E-DATA-018", f"a content part of type {kind!r}; {why}", field, part)
        into = "thinking" if kind == "thinking" else "text"
        texts[into].append(check_text(part.get(PARTS[kind], part.get("value")), field))
    said = texts["text"]
    if media:
        said = [text if at in media else text.replace(PLACE, "\ufffd") for at, text in enumerate(said)]
    return ("".join(texts["thinking"]) if texts["thinking"] else None), "".join(said), tuple(media.values())


def _loss_weight(turn: Mapping[str, Any], column: str) -> tuple[bool | None, float | None]:
    """(trained, weight) as the keys `weight` and `train` of a message say; None where they say nothing."""
    weight, train = turn.get("weight"), turn.get("train")
    if train is not None and not isinstance(train, bool):
        raise RowError("E-DATA-014", '"train" is neither true nor false', f"{column}.train", train)
    if weight is None:
        return train, None
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= LARGEST_WEIGHT:
        raise RowError("E-DATA-014", "the weight is not a number of 0 or more", f"{column}.weight", weight)
    if train is not None and train != (weight > 0):
        reason = '"train" and "weight" contradict each other'
        raise RowError("E-DATA-014", reason, f"{column}.weight", f"train {train}, weight {weight}")
    return weight > 0, float(weight)
