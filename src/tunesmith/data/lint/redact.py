"""Keys and addresses that do not belong into training data, and how they are shown without giving them away.

Only forms with a sure mark are looked for: what merely may be a password is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["HIDDEN", "Secret", "find_addresses", "find_secrets", "redact", "secret_ranges"]

HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class _Form:
    """`hints`: a text without any of these words holds no such secret."""

    kind: str
    pattern: re.Pattern[str]
    hints: tuple[str, ...]


_FORMS = (
    _Form("Hugging Face token", re.compile(r"hf_[A-Za-z0-9]{30,}?(?=hf_|[^A-Za-z0-9]|\Z)"), ("hf_",)),
    _Form("OpenAI or Anthropic key", re.compile(r"\bsk-[A-Za-z0-9_-]{20,}"), ("sk-",)),
    _Form("AWS access key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), ("AKIA", "ASIA")),
    _Form("GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{50,})"), ("gh", "github_pat_")),
    _Form("Google API key", re.compile(r"\bAIza[0-9A-Za-z_-]{35}"), ("AIza",)),
    _Form("Slack token", re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,}"), ("xox",)),
    _Form("Stripe key", re.compile(r"\b[rs]k_live_[A-Za-z0-9]{20,}"), ("k_live_",)),
    _Form(
        "private key",
        re.compile(
            r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----.*?"
            r"(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|\Z)",
            re.DOTALL,
        ),
        ("PRIVATE KEY",),
    ),
    _Form("JSON web token", re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"), ("eyJ",)),
    _Form(
        "Weights & Biases key",
        re.compile(r"(?:(?<=wandb)|(?<=WANDB)).{0,40}?\b[0-9a-f]{40}\b|\bwandb_v\d_\w{20,}"),
        ("wandb", "WANDB"),
    ),
)
_ADDRESS = re.compile(r"(?<![\w.+-])([A-Za-z0-9._%+-]{1,64})@((?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24})(?![\w-])")
# Reserved for documentation (RFC 2606): nobody's address.
_NOBODY = re.compile(r"(?:.*\.)?example(?:\.[a-z]+)?|.*\.(?:test|invalid|local)|domain\.com", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Secret:
    kind: str
    start: int
    end: int


def find_secrets(text: str) -> Iterator[Secret]:
    """Keys in a text."""
    for form in _FORMS:
        if any(hint in text for hint in form.hints):
            for match in form.pattern.finditer(text):
                yield Secret(form.kind, *match.span())


def find_addresses(text: str) -> Iterator[Secret]:
    """E-mail addresses in a text, those reserved for examples left out."""
    if "@" in text:
        for match in _ADDRESS.finditer(text):
            if not _NOBODY.fullmatch(match[2]):
                yield Secret("e-mail address", *match.span())


def secret_ranges(text: str) -> list[tuple[int, int]]:
    """What must not be shown of a text: [start, end) of keys and addresses, sorted, not overlapping."""
    found = sorted((one.start, one.end) for one in (*find_secrets(text), *find_addresses(text)))
    ranges: list[tuple[int, int]] = []
    for start, end in found:
        if ranges and start < ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
        else:
            ranges.append((start, end))
    return ranges


def redact(text: str) -> str:
    """The text with keys and addresses hidden but for their first characters, by which they can be found again."""
    ranges = secret_ranges(text)
    pieces, done = [], 0
    for start, end in ranges:
        shown = 1 if "@" in text[start:end] else 3
        pieces += [text[done : start + shown], HIDDEN]
        done = end
    return "".join([*pieces, text[done:]])
