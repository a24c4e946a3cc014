"""Chats that a declarative template has no form for: each is refused with a sentence and a way out."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.errors import Problem
from tunesmith.core.types import Chat, Message
from tunesmith.render.errors import RenderError
from tunesmith.render.slot_files import SlotFile

__all__ = ["check_chat", "unseen_tools"]


def check_chat(slots: SlotFile, chat: Chat, messages: Sequence[Message]) -> None:
    """Refuse what the template has no form for. Raises RenderError."""
    roles = [message.role for message in messages if message.role != "system"]
    problem = None
    if (chat.tools or "tool" in roles or any(message.tool_calls for message in messages)) and not (
        slots.tool and slots.dialect
    ):
        problem = Problem(
            "E-RENDER-011",
            f'template "{slots.name}" has no form for tools, their calls and results',
            fix="use template: auto with a model whose own template writes tools, or name a form (tool_format: qwen)",
        )
    elif len(roles) < len(messages) and slots.system_in == "nowhere":
        problem = Problem(
            "E-RENDER-014",
            f'template "{slots.name}" has no form for a system message',
            fix="put its text into the first user message",
        )
    elif len(roles) < len(messages) and slots.system_in == "first_user" and "user" not in roles:
        problem = Problem(
            "E-RENDER-012",
            f'template "{slots.name}" writes a system message into the user message after it; there is none',
            fix="add a user message, or remove the system message",
        )
    elif slots.alternate and not _alternate(messages):
        problem = Problem(
            "E-RENDER-014",
            f'template "{slots.name}" takes questions and replies in turns only',
            got=", ".join(roles),
            fix="join messages of one role that follow each other",
        )
    if problem:
        raise RenderError(Problem(problem.code, problem.what, where=str(chat.origin), got=problem.got, fix=problem.fix))


def _alternate(messages: Sequence[Message]) -> bool:
    turns = [message.role for message in messages if message.role in ("user", "assistant") and not message.tool_calls]
    return all((role == "user") == (index % 2 == 0) for index, role in enumerate(turns))


def unseen_tools(slots: SlotFile, chat: Chat) -> RenderError:
    """The chat offers tools, and its text does not show them: they stand in the system message at the front."""
    return RenderError(
        Problem(
            "E-RENDER-014",
            f'template "{slots.name}" has no place for the tools of this chat',
            where=str(chat.origin),
            got=", ".join(message.role for message in chat.messages),
            fix="put the system message first, where the tools are written",
        )
    )
