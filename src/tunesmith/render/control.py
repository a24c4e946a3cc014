"""Control tokens: which tokens only a template may write, and how their look-alikes in other text are disarmed.

A chat template is a program: it trims, splits and inspects the texts it is given. To tell afterwards who wrote a
`<|im_end|>`, one character of every look-alike in untrusted text is exchanged for a stand-in from the private use
area before the template runs, one for one, so that lengths and blanks stay as they are. Every control token found
in the output is then the template's own, and the stand-ins are exchanged back before the text is encoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ControlTokens", "Guard", "StandInClash"]

# Stand-ins come from plane 16; 16 blocks to choose from, should a text use some of these characters itself.
_BLOCK_SIZE = 1024
_BLOCK_STARTS = tuple(range(0x10C000, 0x110000, _BLOCK_SIZE))
# Words of tool schemas that templates compare with and look up: never disarmed for what stands beside them.
_SCHEMA_WORDS = frozenset({
    "type", "function", "name", "description", "parameters", "properties", "required", "enum", "items", "arguments",
    "object", "string", "number", "integer", "boolean", "array", "null", "default", "title", "return", "format",
    "anyOf", "allOf", "oneOf"
})  # fmt: skip
_UNSAFE_FIRST = set("\"\\'&") | set(" \t\r\n")  # characters that JSON or trimming would treat specially
# Tags that are ordinary text to a tokenizer that has them as added tokens, as Gemma's does. Without <s>, which ends
# and begins texts for many others.
_HTML = (
    "a|abbr|b|blockquote|body|br|button|caption|center|cite|code|dd|del|details|div|dl|dt|em|figcaption|figure|font|"
    "footer|form|head|header|hr|html|i|iframe|img|input|ins|kbd|label|li|link|main|mark|meta|nav|ol|option|p|pre|q|"
    "samp|script|section|select|small|span|strong|style|sub|summary|sup|svg|table|tbody|td|textarea|tfoot|th|thead|"
    "title|tr|tt|u|ul|var|video"
)
_MARKUP = re.compile(rf"<\|.+|.+\|>|<｜.+｜>|\[/?[A-Z][A-Z_]+\]|</?(?!(?:{_HTML})>)[A-Za-z_:.-]+>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ControlToken:
    """An added token as the tokenizer describes it. `lstrip`/`rstrip`: it swallows blanks beside it."""

    id: int
    content: str
    special: bool
    lstrip: bool
    rstrip: bool
    single_word: bool


class ControlTokens:
    """The control tokens of one tokenizer under one template.

    These are the tokenizer's special tokens, and those of its other added tokens that look like markup or that the
    template writes (`literals`: the text a template can write by itself): Qwen3's `<think>` and `<|fim_prefix|>` are
    not flagged special. All else is ordinary text, of which Gemma 3 has thousands of added tokens: blanks, letters,
    tags of HTML; and so are words with numbers in them, `<loc0123>`, which stand for places in an image.
    """

    def __init__(self, added_tokens: Iterable[Mapping[str, Any]], literals: str) -> None:
        self.tokens: dict[str, ControlToken] = {}
        for token in added_tokens:
            content = token["content"]
            written = content in literals and not content.isspace() and not content.isalnum()
            if content and (token["special"] or written or _MARKUP.fullmatch(content)):
                flags = (bool(token[flag]) for flag in ("special", "lstrip", "rstrip", "single_word"))
                self.tokens[content] = ControlToken(int(token["id"]), content, *flags)
        self.ids = frozenset(token.id for token in self.tokens.values())
        longest_first = sorted(self.tokens, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._strips = any(token.lstrip or token.rstrip or token.single_word for token in self.tokens.values())

    def __contains__(self, text: object) -> bool:
        return text in self.tokens

    def find(self, text: str, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, ControlToken]]:
        """Control tokens in text[start:end]: (first character, one past the last, token). Longest first, left to
        right, as the tokenizer itself matches them."""
        end = len(text) if end is None else end
        for match in self.pattern.finditer(text, start, end):
            token = self.tokens[match.group()]
            if self._strips and token.single_word and _inside_word(text, match.start(), match.end()):
                continue
            yield match.start(), match.end(), token


def _inside_word(text: str, start: int, end: int) -> bool:
    before, after = text[start - 1 : start], text[end : end + 1]
    return any(char.isalnum() or char == "_" for char in (before, after) if char)


class StandInClash(Exception):
    """A text holds characters that were to be stand-ins; take the next block."""


class Guard:
    """Disarms look-alikes of control tokens in untrusted text, and arms them again after rendering.

    `literals` are the pieces of text that the template can write: where one of them ends with the beginning of a
    control token, a text that would complete the token is disarmed too. `rewrites`: the template takes words out of
    texts, or changes their letters, which could make a token of what was none: every character that begins a token is
    exchanged then, but where a text has a word of the template's own that it may look for.
    """

    def __init__(
        self, control: ControlTokens, literals: Iterable[str], *, rewrites: bool = False, block: int = 0
    ) -> None:
        self._control = control
        self._literals = tuple(literals)
        self._rewrites = rewrites
        self._block = block
        first = _BLOCK_STARTS[block]
        self._stand_ins = re.compile(f"[{chr(first)}-{chr(first + _BLOCK_SIZE - 1)}]")
        self.mark_open, self.mark_close = chr(first + _BLOCK_SIZE - 2), chr(first + _BLOCK_SIZE - 1)
        contents = tuple(control.tokens)
        characters = sorted(set("".join(contents)))
        assert len(characters) <= _BLOCK_SIZE - 2, "more kinds of characters in control tokens than stand-ins"
        self._to = {char: chr(first + index) for index, char in enumerate(characters)}
        self._back = {first + index: char for index, char in enumerate(characters)}
        self._longest = max(map(len, contents), default=0)
        self._prefixes = frozenset(token[:length] for token in contents for length in range(1, len(token)))
        self._first_chars = tuple({token[0] for token in contents})
        self._beginnings = self._begin_tokens() if rewrites and contents else None
        # What would complete a token that a literal has begun.
        self._completions = tuple(
            {
                token[length:]
                for token in contents
                for length in range(1, len(token))
                if any(literal.endswith(token[:length]) for literal in self._literals)
            }
        )

    def next(self) -> Guard:
        """The same guard with other stand-ins."""
        assert self._block + 1 < len(_BLOCK_STARTS), "a text that uses all of plane 16"
        return Guard(self._control, self._literals, rewrites=self._rewrites, block=self._block + 1)

    def _begin_tokens(self) -> re.Pattern[str]:
        """A character that begins a token, but for one that begins a word which the template may look for."""
        firsts = "".join(sorted(set(self._first_chars) - _UNSAFE_FIRST))
        sought = {text for text in self._literals if text[:1] in firsts and len(text) > 1} - self._prefixes
        return re.compile(f"(?!{'|'.join(map(re.escape, sorted(sought))) or '(?!)'})[{re.escape(firsts)}]")

    def disarm(self, text: str) -> str:
        """`text` with stand-ins where it, alone or beside other text, would make a control token."""
        if not text.isascii() and self._stand_ins.search(text):
            raise StandInClash
        match = self._control.pattern.search(text)
        while match:
            at = next((i for i in range(match.start(), match.end()) if text[i] not in _UNSAFE_FIRST), match.start())
            text = self._exchange(text, at)
            match = self._control.pattern.search(text, match.start())
        if self._beginnings:
            text = self._beginnings.sub(lambda found: self._to[found.group()], text)
        if self._completions and (stripped := text.strip()):
            completes = stripped.startswith(self._completions)
            if completes or any(completion.startswith(stripped) for completion in self._completions):
                text = self._exchange(text, text.index(stripped[0]))
        return self._disarm_end(text)

    def _disarm_end(self, text: str) -> str:
        floor = max(0, len(text) - 2 * self._longest)
        if all(text.rfind(char, floor) < 0 for char in self._first_chars):
            return text
        stripped = text.rstrip()
        for candidate in (stripped, text):
            lengths = range(1, min(self._longest, len(candidate)) + 1)
            if any(candidate[-length:] in self._prefixes for length in lengths):
                return self._exchange(text, len(stripped) - 1)
        return text

    def _exchange(self, text: str, at: int) -> str:
        return text[:at] + self._to[text[at]] + text[at + 1 :]

    def disarm_data(self, value: Any) -> Any:
        """Disarm every string inside JSON-like data, keys included."""
        if isinstance(value, str):
            return value if value in _SCHEMA_WORDS else self.disarm(value)
        if isinstance(value, Mapping):
            return {self.disarm_data(key): self.disarm_data(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.disarm_data(item) for item in value]
        return value

    def stand_ins(self, text: str) -> list[tuple[int, int]]:
        """Ranges of stand-ins in rendered text."""
        if text.isascii():
            return []
        return [match.span() for match in self._stand_ins.finditer(text)]

    def arm(self, text: str) -> str:
        """The text with its own characters again."""
        return text if text.isascii() else text.translate(self._back)
