"""Checks of a row's shape: empty answers, messages out of order, pairs that do not differ or do not belong together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tunesmith.core.types import Chat, Feedback, Preference, Prompt, Text
from tunesmith.data.formats.turns import check_turns
from tunesmith.data.lint.base import PLACES, Context, Finding, Hit, LintRow, Place
from tunesmith.data.lint.columns import Columns
from tunesmith.data.lint.texts import excerpt, message_digest
from tunesmith.data.rows import RowError

__all__ = [
    "empty_answer",
    "identical_pair",
    "nothing_trained",
    "one_sided_feedback",
    "prompts_of_pair_differ",
    "roles_out_of_order",
]

ONE_SIDED = 0.1


def empty_answer(row: LintRow, context: Context) -> Iterator[Hit]:
    if isinstance(row.example, Text):
        if not row.example.text.strip():
            yield Hit("(an empty text)")
        return
    for answer in row.answers:
        if not any(message.content.strip() or message.tool_calls for message in answer):
            yield Hit(excerpt(row.question) or "(nothing at all)")


def roles_out_of_order(row: LintRow, context: Context) -> Iterator[Hit]:
    if isinstance(row.example, Chat):
        chats = [tuple(row.example.messages)]
    elif isinstance(row.example, Preference | Feedback):
        chats = [(*row.prompt, *answer) for answer in row.answers]
    else:
        return
    for messages in chats:
        try:
            check_turns(messages, None)
        except RowError as fault:
            if fault.code == "E-DATA-016":
                roles = " ".join(message.role for message in messages[:8]) or "no message"
                yield Hit(roles, fault.reason)
                return


def nothing_trained(row: LintRow, context: Context) -> Iterator[Hit]:
    if isinstance(row.example, Prompt):  # nothing is to be trained yet: the answers are still to be written
        return
    if row.sequences is not None and not any(any(sequence.trained) for sequence in row.sequences):
        yield Hit(excerpt(row.answer or row.question))


def identical_pair(row: LintRow, context: Context) -> Iterator[Hit]:
    if isinstance(row.example, Preference):
        chosen, rejected = row.answers
        if message_digest(chosen) == message_digest(rejected):
            yield Hit(excerpt(row.answer))


def prompts_of_pair_differ(row: LintRow, context: Context) -> Iterator[Hit]:
    """Both answers of a pair may hold further turns; what the user says in them must be the same."""
    if not isinstance(row.example, Preference):
        return
    asked = [[message for message in answer if message.role in ("system", "user")] for answer in row.answers]
    if message_digest(asked[0]) != message_digest(asked[1]):
        texts = [" / ".join(message.content for message in messages) or "(none)" for messages in asked]
        yield Hit(f"chosen: {excerpt(texts[0], width=40)}  rejected: {excerpt(texts[1], width=40)}")


def one_sided_feedback(columns: Columns, context: Context) -> Iterator[Finding]:
    for number, name in enumerate(columns.names):
        mine = (columns.dataset == number) & (columns.liked >= 0)
        total, liked = int(mine.sum()), int(columns.liked[mine].sum())
        fewer = min(liked, total - liked)
        # A dataset of one kind may stand beside one of the other: that all are of one kind is told elsewhere.
        if 0 < fewer < ONE_SIDED * total:
            rare = "liked" if fewer == liked else "disliked"
            places = [Place(int(row)) for row in np.flatnonzero(mine & (columns.liked == (rare == "liked")))[:PLACES]]
            weight = "kto_chosen_weight" if rare == "liked" else "kto_rejected_weight"
            fix = f"{weight}: {(total - fewer) / fewer:.3g} balances them, or add answers of that kind"
            yield Finding("E-LINT-006", "warning", f"{name}: few answers are {rare}", fewer, total, fix, places)
