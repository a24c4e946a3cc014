"""Is a template right for a model? Its text against the model's own template, and the masks of `auto`, chat by chat.

Used by `tunesmith template check` on built-in conversations and the user's rows, and by `train` on a sample of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tunesmith.core.types import Chat, Message
from tunesmith.render.cases import builtin_chats
from tunesmith.render.compare import Outcome, difference
from tunesmith.render.errors import RenderError
from tunesmith.render.renderer import Renderer
from tunesmith.render.spans import Span, join_text

__all__ = ["Checked", "Finding", "builtin_chats", "check_masks", "check_texts", "difference", "marked_text"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with one chat: which, what, and the two texts where there are two."""

    case: str
    what: str
    ours: str | None = None
    theirs: str | None = None

    def parts(self) -> tuple[str, str]:
        """The two texts from where they part until they meet again."""
        return difference(self.ours or "", self.theirs or "")


@dataclass(slots=True)
class Checked:
    """How many chats were compared, were equal, were refused by both; and what was wrong."""

    cases: int = 0
    equal: int = 0
    refused: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.findings

    def line(self) -> str:
        refused = f", {self.refused} refused by both" if self.refused else ""
        return f"{self.equal} of {self.cases} equal{refused}, {len(self.findings)} different"


def check_texts(ours: Renderer, theirs: Renderer, chats: Mapping[str, Chat]) -> Checked:
    """The text of each chat by a template and by the model's own. A chat that both refuse is no difference."""
    checked = Checked()
    for case, chat in chats.items():
        can_open = chat.messages[-1].role in ("user", "tool")
        for open_reply in (False, True) if can_open else (False,):
            outcome = Outcome(
                "open" if open_reply else "", _text(ours, chat, open_reply), _text(theirs, chat, open_reply)
            )
            _count(checked, case, outcome)
    return checked


def _text(renderer: Renderer, chat: Chat, open_reply: bool) -> str | None:
    try:
        return renderer.text(chat, open_reply=open_reply)
    except RenderError:
        return None


_WORDS = {
    "different": "the texts differ",
    "lenient": "the model's own template refuses this chat",
    "strict": "this template refuses a chat that the model's own takes",
}


def _count(checked: Checked, case: str, outcome: Outcome) -> None:
    checked.cases += 1
    kind = outcome.kind
    if kind == "equal":
        checked.equal += 1
    elif kind == "refused":
        checked.refused += 1
    else:
        name = f"{case} ({outcome.way})" if outcome.way else case
        checked.findings.append(Finding(name, _WORDS[kind], outcome.ours, outcome.theirs))


def check_masks(renderer: Renderer, chats: Mapping[str, Chat]) -> Checked:
    """Whether every reply of every chat is trained once, whole, with what ends it, and nothing of others is.

    A chat that the template refuses counts as refused; a chat without a reply has no mask to check.
    """
    checked = Checked()
    for case, chat in chats.items():
        replies = [message for message in chat.messages if message.role == "assistant"]
        if not replies:
            continue
        checked.cases += 1
        try:
            samples = renderer.samples(chat)
        except RenderError:
            checked.refused += 1
            continue
        wrong = _mask_fault(samples, chat, replies)
        if wrong:
            checked.findings.append(Finding(case, wrong, "".join(map(marked_text, samples))))
        else:
            checked.equal += 1
    return checked


def _mask_fault(samples: Sequence[Sequence[Span]], chat: Chat, replies: Sequence[Message]) -> str | None:
    runs = [run for sample in samples for run in _trained_runs(sample)]
    if len(runs) != len(replies):
        return f"{len(replies)} replies, {len(runs)} trained parts"
    for number, (run, reply) in enumerate(zip(runs, replies, strict=True), 1):
        if reply.content.strip() not in run:
            return f"reply {number} is not wholly trained"
    trained = "\0".join(runs)
    for message in chat.messages:
        text = message.content.strip()
        own = any(text in reply.content for reply in replies)
        if message.role != "assistant" and len(text) > 3 and not own and text in trained:
            return f"text of the {message.role} is trained"
    return None


def marked_text(sample: Iterable[Span]) -> str:
    """A sample's text with what is trained between marks."""
    return "".join(f"⟦{span.text}⟧" if span.trained else span.text for span in sample)


def _trained_runs(sample: Iterable[Span]) -> Iterator[str]:
    run: list[Span] = []
    for span in sample:
        if span.trained:
            run.append(span)
        elif run:
            yield join_text(run)
            run = []
    if run:
        yield join_text(run)
