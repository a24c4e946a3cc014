"""Runs of text to ids by `kitoken`, where it gives what `tokenizers` gives, several times as fast.

It is used for byte-level BPE only, where the bytes of each id are known and a mask needs no offsets, and only for
runs that hold no added token. It proves itself on hard texts, on the first runs of the data, and on some of the later
ones; when it differs, the caller goes back to `tokenizers`.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any, TypeAlias

from tunesmith.core import env
from tunesmith.render.encode import NO_TEXT, Encoder, Run
from tunesmith.render.errors import QuickWayFault

__all__ = ["FastRuns"]

_PROVEN_FIRST = 64  # runs of the data that a process encodes, compared one by one
_PROVEN_EVERY = 512
_HARD = (
    "a",
    " a  b   c\t\td \n\n e\r\n",
    "don't I'LL we've you'd x'S",
    "1 12 123 1234 12345678901234567890 3.14 1,000,000",
    "naïve café Ünïcödé ß ﬁ ½ ² ㎏",
    "日本語のテキスト。中文字符，標點！한국어",
    "العربية עברית हिन्दी ไทย ελληνικά русский",
    "👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301 \u200b\u200d\ufeff",
    "def f(x):\n    return {'a': [1, 2, 3]}  # comment\n\n\n\tpass",
    "http://example.org/a?b=c&d=%20#e <b>&amp;</b> $x^2$ \\frac{1}{2}",
    "_____ ------ ====== !!!??? ...",
    "\x00\x01\x7f \u0085 \u2028 \u3000",
    "aAaAaA BBBbbb CamelCaseWords snake_case_words",
)


class FastRuns:
    """`fill(run)` sets the ids and the mask of a run, as `tokenizers` would, or leaves it to `tokenizers`."""

    def __init__(self, kitoken: Any, encoder: Encoder, facts: Mapping[str, Any]) -> None:
        self._encode: Callable[[str, bool], list[int]] = kitoken.encode
        self._encoder = encoder
        added = facts["added"]
        self._added = re.compile("|".join(map(re.escape, added))) if added else None
        self._composes = facts["composes"]
        self._bytes_of: Sequence[int] = facts["bytes_of"]
        self._checks_ids = facts["makes_control_tokens"]
        self.runs = 0

    @property
    def name(self) -> str:
        return f"kitoken {version('kitoken')}"

    def fill(self, run: Run) -> bool:
        """False: the run holds an added token, or characters that the tokenizer composes. Raises QuickWayFault."""
        text = run.text
        if not self._takes(text):
            return False
        ids = self._encode(text, False)
        self.runs += 1
        if (self.runs <= _PROVEN_FIRST or self.runs % _PROVEN_EVERY == 0) and ids != self._encoder.reference(text):
            raise QuickWayFault(f"kitoken's ids for {text[:60]!r} are others")
        if self._checks_ids and not self._encoder.forbidden.isdisjoint(ids):
            return False  # `tokenizers` will make them too, and say what is wrong
        run.ids = ids
        if isinstance(run.trained, bool):
            run.mask = [run.trained] * len(ids)
        else:
            run.mask = self._mask(text, ids, run.trained)
        return True

    def _takes(self, text: str) -> bool:
        if self._added is not None and self._added.search(text):
            return False
        return not self._composes or text.isascii() or unicodedata.is_normalized("NFC", text)

    def _mask(self, text: str, ids: Sequence[int], trained: Sequence[tuple[int, int]]) -> list[bool]:
        """A token is trained if any byte of it is. `trained`: ranges of characters, in order."""
        mask: list[bool] = []
        token, at, character, byte = 0, 0, 0, 0  # `token` begins at byte `at`; `character` begins at `byte`
        for first, last in trained:
            start = byte + len(text[character:first].encode())
            end = start + len(text[first:last].encode())
            character, byte = last, end
            while token < len(ids) and at + self._bytes_of[ids[token]] <= start:
                at += self._bytes_of[ids[token]]
                token += 1
            mask += [False] * (token - len(mask))
            if last == len(text):
                return mask + [True] * (len(ids) - token)
            while token < len(ids) and at < end:
                at += self._bytes_of[ids[token]]
                token += 1
            mask += [True] * (token - len(mask))
        return mask + [False] * (len(ids) - len(mask))

    @classmethod
    def make(cls, encoder: Encoder, identity: str) -> FastRuns | None:
        """None where the tokenizer is not byte-level BPE, where kitoken is not installed or cannot read it, or where
        it differs on the hard texts. `identity` stands for the tokenizer and its control tokens: what kitoken makes of
        them takes a second, and is kept under that name."""
        try:
            from kitoken import Kitoken
        except ImportError:
            return None
        name = f"{identity}-{version('kitoken')}"
        found = _kept(name, Kitoken) or _made(name, Kitoken, encoder)
        if found is None:
            return None
        inner, facts = found
        made = cls(inner, encoder, facts)
        proven = all(inner.encode(text, False) == encoder.reference(text) for text in _HARD if made._takes(text))
        return made if proven else None


Found: TypeAlias = tuple[Any, Mapping[str, Any]]
"""The tokenizer as kitoken has it, and what else is to be known of it."""


def _kept(name: str, kitoken: Any) -> Found | None:
    folder = env.data_cache_dir() / "encoders"
    with suppress(OSError, ValueError):
        facts = json.loads((folder / f"{name}.json").read_text("utf-8"))
        return kitoken((folder / f"{name}.kit").read_bytes()), facts
    return None


def _made(name: str, kitoken: Any, encoder: Encoder) -> Found | None:
    spec = encoder.describe()
    if not _is_byte_level(spec):
        return None
    try:
        inner = kitoken.from_tokenizers(json.dumps({**spec, "added_tokens": []}).encode())
    except ValueError:
        return None
    vocabulary: Mapping[str, int] = spec["model"]["vocab"]
    bytes_of = [0] * (max(vocabulary.values(), default=-1) + 1)
    for token, number in vocabulary.items():  # each character of a byte-level token stands for one byte
        bytes_of[number] = len(token)
    contents = [token["content"] for token in spec["added_tokens"]]
    facts = {
        "added": [content for content in contents if not content.startswith(NO_TEXT)],
        "composes": (spec.get("normalizer") or {}).get("type") == "NFC",
        "makes_control_tokens": not encoder.forbidden.isdisjoint(vocabulary.values()),
        "bytes_of": bytes_of,
    }
    folder = env.data_cache_dir() / "encoders"
    with suppress(OSError):  # what cannot be kept is made again next time
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, content in ((".kit", inner.to_bytes()), (".json", json.dumps(facts).encode())):
            draft = folder / f"{name}{suffix}.{os.getpid()}"
            draft.write_bytes(content)
            draft.replace(folder / f"{name}{suffix}")
    return inner, facts


def _is_byte_level(spec: Mapping[str, Any]) -> bool:
    model = spec["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback") or model.get("dropout"):
        return False
    if (spec.get("normalizer") or {}).get("type") not in (None, "NFC"):
        return False
    found = spec.get("pre_tokenizer") or {}
    steps = [found, *found.get("pretokenizers", ())]
    levels = [step for step in steps if step.get("type") == "ByteLevel"]
    return len(levels) == 1 and not levels[0].get("add_prefix_space", False)
