"""The facts of declarative templates (`slot_facts.py`) as expressions of a chat template in Jinja.

The variables in them are set by what `to_jinja.py` writes around them.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["CALLING", "EMPTY", "MESSAGE", "OUTER", "OUTER_TOOLS", "REPLY", "TOOLS", "USER", "Facts"]

Facts = Mapping[str, str | bool]
"""True and False: known when the template is written."""

_CHAT: Facts = {
    "asked": "add_generation_prompt",
    "system": "has_system",
    "system_text": "system",
    "system_words": "system | trim",
    "unanswered": "replies == 0",
    "tools": False,
    "calls": False,
    "after_result": False,
    "before_result": False,
    "thinking": "thinking is true",
    "no_thinking": "thinking is false",
    "keep_thoughts": "keep_thoughts is true",
}
MESSAGE: Facts = {
    **_CHAT,
    "first": "loop.first",
    "last": "loop.last",
    "content": "content",
    "blank": "not content | trim",
    "thought": False,
    "has_thought": False,
    "answered": "seen.replies > 0",
    "answered_later": "seen.replies < replies",
    "final": "seen.questions == questions",
    "last_reply": False,
    "first_question": False,
    "last_question": False,
    "after_question": "seen.before == 'user'",
    "after_reply": "seen.before == 'assistant'",
    "before_reply": "loop.nextitem is defined and loop.nextitem.role == 'assistant'",
}
USER: Facts = {
    **MESSAGE,
    "final": False,
    "first_question": "seen.questions == 1",
    "last_question": "seen.questions == questions",
}
REPLY: Facts = {
    **MESSAGE,
    "thought": "thought",
    "has_thought": "has_thought",
    "answered": "seen.replies > 1",
    "last_reply": "seen.answers == answers",
}
OUTER: Facts = {  # as of a message behind the last
    **MESSAGE,
    "first": False,
    "last": False,
    "content": False,
    "blank": True,
    "final": True,
    "answered": "replies > 0",
    "answered_later": False,
    "after_question": "chat[-1].role == 'user'",
    "after_reply": "chat[-1].role == 'assistant'",
    "before_reply": False,
}
EMPTY: Facts = {  # as of a chat without messages, which a system message by default is written for
    **OUTER,
    "asked": False,
    "first": True,
    "system": False,
    "system_text": False,
    "system_words": False,
    "unanswered": True,
    "answered": False,
    "after_question": False,
    "after_reply": False,
}
# For templates that write tools.
TOOLS: Facts = {
    "tools": "tools",
    "calls": "message.tool_calls",
    "after_result": "seen.before == 'tool'",
    "before_result": "loop.nextitem is defined and loop.nextitem.role == 'tool'",
}
OUTER_TOOLS: Facts = {"tools": "tools", "after_result": "chat[-1].role == 'tool'"}
CALLING = "seen.replies > (0 if message.tool_calls else 1)"
