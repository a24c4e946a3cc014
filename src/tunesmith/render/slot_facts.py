"""What is true of each message of a chat: the facts that a declarative template's choices ask for."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.types import Message
from tunesmith.render.slot_files import SlotFile
from tunesmith.render.slot_text import FACTS, Choice, walk
from tunesmith.render.turns import TemplateSettings

__all__ = ["asked_facts", "facts_of", "follows_later"]

# Facts about a message or reply that change when the chat goes on.
_LATER = frozenset({"last", "final", "last_reply", "last_question", "before_reply", "unanswered", "answered_later"})


def follows_later(slots: SlotFile) -> bool:
    """Whether the template writes a message differently when others follow it. What stands between a call and its
    results follows every such reply at once, and is no history."""
    return slots.call_ids == "history" or bool(asked_facts(slots) & _LATER)


def asked_facts(slots: SlotFile) -> set[str]:
    """Names of the facts that a template's choices ask for."""
    return {
        name
        for slot in slots.slots
        for node in walk(slot)
        if isinstance(node, Choice)
        for condition, _ in node.branches
        for facts in condition
        for name, _ in facts
    }


def facts_of(
    messages: Sequence[Message], settings: TemplateSettings, thinking: bool | None, tools: bool, asked: bool
) -> list[dict[str, bool]]:
    """Facts of every message, then those of the chat as a whole (as of a message behind the last)."""
    questions = [index for index, message in enumerate(messages) if message.role == "user"]
    answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
    plain = [index for index in answers if not messages[index].tool_calls]
    first_question, last_question = (questions[0], questions[-1]) if questions else (-1, -1)
    system = next((message for message in messages if message.role == "system"), None)
    chat = {
        "asked": asked,
        "system": system is not None,
        "system_text": system is not None and bool(system.content),
        "system_words": system is not None and bool(system.content.strip()),
        "unanswered": not plain,
        "tools": tools,
        "thinking": thinking is True,
        "no_thinking": thinking is False,
        "keep_thoughts": settings.preserve_thinking,
    }
    roles = [None, *(message.role for message in messages), None]
    found = []
    for index, message in enumerate([*messages, None]):
        before, after = roles[index], roles[index + 2] if index < len(messages) else None
        found.append(
            {
                **chat,
                "first": index == 0,
                "last": index == len(messages) - 1,
                "content": message is not None and bool(message.content),
                "blank": message is None or not message.content.strip(),
                "thought": message is not None and bool(message.reasoning),
                "has_thought": message is not None and message.reasoning is not None,
                "calls": message is not None and bool(message.tool_calls),
                "answered": bool(plain) and index > plain[0],
                "answered_later": bool(plain) and index < plain[-1],
                "final": index > last_question,
                "last_reply": bool(answers) and index == answers[-1],
                "first_question": index == first_question,
                "last_question": index == last_question,
                "after_question": before == "user",
                "after_reply": before == "assistant",
                "after_result": before == "tool",
                "before_reply": after == "assistant",
                "before_result": after == "tool",
            }
        )
    assert found[0].keys() == FACTS.keys()
    return found
