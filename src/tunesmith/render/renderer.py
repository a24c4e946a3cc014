"""The renderer of a run: a template and a tokenizer together.

renderer = make_renderer(config.template, tokenizer)
renderer.encode_chats(chats)          # training: ids and mask, one or more sequences per chat
renderer.encode_prompt(messages)      # generation: ids that end with the opening of a reply
renderer.parse(text)                  # what the model wrote, as a message
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import cached_property, partial
from hashlib import blake2b, sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import TemplateSyntaxError

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import Chat, Encoded, Message, Text
from tunesmith.render.auto import AutoTemplate
from tunesmith.render.batches import BatchEncoder, EncodedBatch
from tunesmith.render.control import ControlTokens
from tunesmith.render.encode import Encoder, added_tokens_of
from tunesmith.render.errors import QuickWayFault, RenderError
from tunesmith.render.fast_runs import FastRuns
from tunesmith.render.jinja import JinjaTemplate, compile_template
from tunesmith.render.jinja_reads import Reads, reads_of
from tunesmith.render.places import MediaTexts, check_media, expanded, media_of
from tunesmith.render.replies import ReplyReader, parse_reply
from tunesmith.render.shapes import Shapes
from tunesmith.render.slot_reads import reads_of_slots
from tunesmith.render.slot_text import Place, walk
from tunesmith.render.slots import SlotTemplate
from tunesmith.render.spans import Span, join_text
from tunesmith.render.turns import KEEPING_WORDS, Statistics, TemplateSettings, TextTemplate
from tunesmith.render.weights import Rule, Weigher, read_rules

__all__ = ["Renderer", "TemplateSettings", "make_renderer"]


class Renderer:
    """Chat -> spans -> ids and mask, and model text -> message. Immutable but for its statistics."""

    def __init__(
        self,
        template: TextTemplate,
        control: ControlTokens,
        tokenizer: Any,
        notices: Sequence[str],
        writes_calls: bool,
        read: Callable[[], Reads | None],
        identity: Sequence[str],
        rules: Sequence[Rule] = (),
        dated: bool = False,
        media: MediaTexts | None = None,
    ) -> None:
        """`read`: says what the template looks for in texts; asked when many chats come. `identity`: all that the
        template's text depends on, but for the date, which a `dated` one writes. `media`: what a model that sees or
        hears makes of media."""
        self.template = template
        self.media = media
        self._weigher = Weigher(rules, self.samples)
        self._identity = [template.name, *identity]
        self._dated = dated
        self._backend = tokenizer.backend_tokenizer
        self._read = read
        self.control = control
        self._writes_calls = writes_calls
        self.name = template.name
        self.notices: list[str] = list(notices)
        backend = tokenizer.backend_tokenizer
        self._encoder = Encoder(backend, control)
        stops = (backend.token_to_id(token) for token in template.stops)
        known = [tokenizer.eos_token_id, *stops]
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys(int(token) for token in known if token is not None))
        self._stop_texts = tuple(backend.id_to_token(token) for token in self.stop_ids)
        self._text_prefix, self._text_suffix = _around_text(backend, tokenizer.eos_token_id)

    @cached_property
    def _batches(self) -> BatchEncoder:
        return self._batch_encoder(self._shapes())

    def _batch_encoder(self, shapes: Shapes | None = None, fast: FastRuns | None = None) -> BatchEncoder:
        place = self.media.place if self.media is not None else None
        return BatchEncoder(self._encoder, self.samples, shapes, fast, self._weigher, place)

    def _shapes(self) -> Shapes | None:
        reads = self._read()
        return None if reads is None else Shapes(reads, self._encoder, self.samples, lambda: self.template.statistics)

    def speed_up(self) -> None:
        """For many chats: encode by a faster library where there is one that proves itself. It takes a second."""
        if fast := FastRuns.make(self._encoder, _digest(self._tokenizer_digest, *sorted(map(str, self.control.ids)))):
            self._batches = self._batch_encoder(self._shapes(), fast)

    @property
    def statistics(self) -> Statistics:
        """What rendering did to the chats so far; `statistics.lines()` says it in words."""
        return self.template.statistics

    def samples(self, chat: Chat, open_reply: bool = False) -> list[list[Span]]:
        """Training samples of a chat, each a list of spans; several where the template is not prefix-stable. With
        `open_reply` one that ends with the opening of the next reply, and nothing of it is trained.
        Raises RenderError if the template cannot take the chat."""
        check_media(chat, self.media)
        written = chat if self._writes_calls else _as_written(chat)
        found = [self.template.prompt(written, True)] if open_reply else self.template.samples(written)
        if chat.trusted_markup:
            found = [[Span(span.text, span.trained, trusted=True) for span in spans] for spans in found]
        if self.media is None or not (chat.trusted_markup or any(message.media for message in chat.messages)):
            return found
        return expanded(found, written, self.media)

    def text(self, chat: Chat, *, open_reply: bool = False) -> str:
        """The chat as text; `open_reply`: with the opening of the next reply."""
        return join_text(self.template.prompt(chat if self._writes_calls else _as_written(chat), open_reply))

    def encode_chats(self, chats: Sequence[Chat], *, open_reply: bool = False) -> list[list[Encoded]]:
        """Ids and mask of every training sample of every chat; with `open_reply` see `samples`. One RenderError tells
        all chats that do not fit; its `failed` holds their positions."""
        before = replace(self.statistics)
        try:
            batch = self.encode_batch(chats, open_reply=open_reply)
        except QuickWayFault:  # the quick ways are off now
            batch = self.encode_batch(chats, open_reply=open_reply)
        if batch.wrong:
            self.template.statistics = before  # the caller may come again without these chats
            raise RenderError([batch.wrong[index] for index in sorted(batch.wrong)], sorted(batch.wrong))
        return _unpacked(batch, chats)

    def encode_batch(self, chats: Sequence[Chat], *, open_reply: bool = False) -> EncodedBatch:
        """The training samples of all chats (see `samples`) as flat arrays, and what is wrong with those without any.

        Raises QuickWayFault where a quick way does not give what the long one does. No quick way is taken from then
        on; what it made before must be made again.
        """
        return self._quickly(lambda: self._batches.encode(chats, open_reply))

    def _quickly(self, encode: Callable[[], EncodedBatch]) -> EncodedBatch:
        try:
            return encode()
        except QuickWayFault as fault:
            self.give_up_quick_ways(fault)
            raise

    def give_up_quick_ways(self, fault: QuickWayFault) -> None:
        """After a fault, also one in another process: from now on each chat is rendered by itself."""
        self.notices.append(f"{fault}: chats are rendered one by one and encoded by tokenizers")
        self._batches = self._batch_encoder()

    def fingerprint(self) -> dict[str, Any]:
        """What ids and masks depend on, as plain values: the template's text, the run's settings, the tokenizer."""
        return {
            "template": [*self._identity, *([date.today().isoformat()] if self._dated else [])],
            "tokenizer": self._tokenizer_digest,
            "ends": [self._text_prefix, self._text_suffix],
            **({} if self.media is None else {"media": self.media.fingerprint()}),
        }

    @property
    def template_digest(self) -> str:
        """SHA-256 in hex of the template's text and of the settings that decide what it writes; not of the date."""
        return sha256("\0".join(self._identity).encode()).hexdigest()

    @cached_property
    def _tokenizer_digest(self) -> str:
        return _digest(self._backend.to_str(), version("tokenizers"))

    @property
    def encoder_name(self) -> str:
        """The library that turns text into ids."""
        return self._batches.encoder_name

    def encode_texts(self, texts: Sequence[Text]) -> list[Encoded]:
        """Pre-training texts: everything trained, the end-of-text token appended, a beginning-of-text token where
        the tokenizer adds one by itself. Look-alikes of control tokens in the text stay text, unless it is trusted."""
        batch = self.encode_text_batch(texts)
        if batch.wrong:
            raise RenderError([batch.wrong[index] for index in sorted(batch.wrong)], sorted(batch.wrong))
        return [found[0] for found in _unpacked(batch, texts)]

    def encode_text_batch(self, texts: Sequence[Text]) -> EncodedBatch:
        """`encode_texts` as flat arrays, with what is wrong with texts that cannot be encoded."""
        return self._quickly(lambda: self._batches.encode_texts(texts, self._text_prefix, self._text_suffix))

    def encode_prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Ids of a chat that ends with the opening of a reply, for generation."""
        return list(self.prompt(messages, tools).ids)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> Encoded:
        """The same, and where media stand in it."""
        found = self._encoder.encode(self.samples(Chat(messages, tools), open_reply=True))[0]
        media = media_of(messages)
        return replace(found, media=self.media.place(found.ids, media)) if self.media and media else found

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a text that a model is to continue, outside any chat: with the beginning-of-text token where the
        tokenizer adds one by itself. Look-alikes of control tokens in it stay text."""
        found = self._encoder.encode([[Span(text, trusted=False)]] if text else [])
        return [*self._text_prefix, *(found[0].ids if found else ())]

    def parse(self, text: str, tools: Sequence[Mapping[str, Any]] = ()) -> Message:
        """What the model wrote, as a message: thoughts and tool calls split off, stop tokens removed. `tools`: those
        of the chat, whose schemas tell types where the form of a call does not."""
        return parse_reply(text, self.template.thinking, self._stop_texts, self.template.dialect, tools)

    def reader(
        self, *, thinks_first: bool = False, reads_calls: bool = False, tools: Sequence[Mapping[str, Any]] = ()
    ) -> ReplyReader:
        """Takes a reply apart while the model writes it."""
        return ReplyReader(
            self.template.thinking,
            self.template.dialect,
            thinks_first=thinks_first,
            reads_calls=reads_calls,
            tools=tools,
        )


def make_renderer(
    config: TemplateSettings, tokenizer: Any, *, fallback: str | None = None, media: MediaTexts | None = None
) -> Renderer:
    """The renderer that a run asks for. `template` left out or "auto" is the model's own chat template if it has
    one, else the catalog's `fallback` (the model family's), else "default", which is said in `notices`.

    `tokenizer`: a fast tokenizer of transformers. `media`: of a model that sees or hears (`models.media`). Raises
    UsageError for an unknown template, RenderError for a template and a tokenizer that do not fit.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise RenderError(
            Problem(
                "E-RENDER-006",
                "this tokenizer does not tell which characters a token stands for",
                got=type(tokenizer).__name__,
                fix="use a model with a tokenizer.json, or convert the tokenizer to the fast form",
            )
        )
    wanted = config.template if config.template not in (None, "auto") else None
    rules = read_rules(config.loss_weights) if config.loss_weights else ()
    sources = _own_templates(tokenizer.chat_template) if wanted is None else None
    if sources:
        return _auto(config, tokenizer, rules, media, *sources)
    notices = []
    if wanted is None:
        wanted = fallback or "default"
        notices.append(f'the model has no chat template of its own: using "{wanted}" of the catalog')
    added = added_tokens_of(backend)
    placeholder = media.placeholder if media is not None else None
    template = SlotTemplate.load(wanted, config, tokenizer, {token["content"] for token in added}, placeholder)
    control = ControlTokens(added, "\0".join([*template.literals, *(media.literals if media else ())]))
    read = partial(reads_of_slots, template.slots)
    dated = any(
        isinstance(node, Place) and node.name == "today" for slot in template.slots.slots for node in walk(slot)
    )
    identity = [_digest(repr(template.slots)), str(tokenizer.bos_token), str(tokenizer.eos_token)]
    writes_calls = template.dialect is not None
    return Renderer(template, control, tokenizer, notices, writes_calls, read, identity, rules, dated, media)


def _auto(
    config: TemplateSettings,
    tokenizer: Any,
    rules: Sequence[Rule],
    media: MediaTexts | None,
    main: JinjaTemplate,
    tools: JinjaTemplate | None,
) -> Renderer:
    own = {*main.literals, *(tools.literals if tools else ()), *(media.literals if media else ())}
    literals = "\0".join(own)
    control = ControlTokens(added_tokens_of(tokenizer.backend_tokenizer), literals)
    template = AutoTemplate(main, control, config, tokenizer.special_tokens_map, tools)
    notices = []
    if "strftime_now" in main.variables:
        notices.append("the model's chat template may write today's date: rendering differs from day to day")
    if config.preserve_thinking and main.variables.isdisjoint(KEEPING_WORDS):
        notices.append("preserve_thinking has no effect: the model's chat template decides which thoughts it keeps")
    read = partial(reads_of, {one.source for one in (main, tools) if one is not None})
    writes_calls = "tool_calls" in (tools or main).source
    sources = [_digest(one.source) for one in (main, tools) if one is not None]
    special = sorted((name, str(token)) for name, token in tokenizer.special_tokens_map.items())
    identity = [*sources, repr(special), *_settings(config)]
    dated = "strftime_now" in main.variables
    return Renderer(template, control, tokenizer, notices, writes_calls, read, identity, rules, dated, media)


def _settings(config: TemplateSettings) -> list[str]:
    names = sorted(name for name in dir(TemplateSettings) if not name.startswith("_") and name != "template")
    values = [f"{name}={getattr(config, name)!r}" for name in names]
    return [*values, Path(config.loss_weights).expanduser().read_text("utf-8")] if config.loss_weights else values


def _digest(*texts: str) -> str:
    return blake2b("\0".join(texts).encode(), digest_size=16).hexdigest()


def _as_written(chat: Chat) -> Chat:
    """For a template that has no form for calls: calls that were parsed out of texts are text again. A chat that
    offers tools, or holds calls that were never text, is left for the template to refuse."""
    if chat.tools or not any(message.written is not None for message in chat.messages):
        return chat
    messages = [
        message if message.written is None else replace(message, content=message.written, tool_calls=(), written=None)
        for message in chat.messages
    ]
    return replace(chat, messages=messages)


def _own_templates(found: str | Mapping[str, str] | None) -> tuple[JinjaTemplate, JinjaTemplate | None] | None:
    """The model's chat template, and its other one for chats with tools if it has two."""
    if not found:
        return None
    named = found if isinstance(found, Mapping) else {"default": found}
    if "default" not in named:
        return None
    tools = named.get("tool_use")
    try:
        return compile_template(named["default"]), compile_template(tools) if tools else None
    except TemplateSyntaxError as error:
        fix = "get the model's chat template again, or name a template of the catalog"
        what = "the model's chat template is not valid Jinja"
        raise DataError(Problem("E-RENDER-013", what, f"line {error.lineno}", error.message, fix)) from error


def _unpacked(batch: EncodedBatch, rows: Sequence[Chat] | Sequence[Text]) -> list[list[Encoded]]:
    """The samples of each row."""
    encoded: list[list[Encoded]] = [[] for _ in rows]
    ids, trained, end = batch.ids.tolist(), batch.trained.tolist(), 0
    for number, (length, index) in enumerate(zip(batch.lengths.tolist(), batch.rows.tolist(), strict=True)):
        start, end = end, end + length
        weights = None if batch.weights is None else batch.weights[start:end].tolist()
        placed = batch.media.get(number, ())
        encoded[index].append(Encoded(ids[start:end], trained[start:end], rows[index].origin, weights, placed))
    return encoded


def _around_text(backend: Any, eos_id: int | None) -> tuple[list[int], list[int]]:
    """Ids before and after a pre-training text: what the tokenizer adds by itself, and the end of text, once."""
    found = backend.encode("a", add_special_tokens=True)
    added = [bool(flag) for flag in found.special_tokens_mask]
    first = added.index(False) if False in added else 0
    last = len(added) - added[::-1].index(False) if False in added else 0
    before, after = found.ids[:first], found.ids[last:]
    if eos_id is not None and eos_id not in after:
        after = [*after, eos_id]
    return before, after
