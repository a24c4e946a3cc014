"""One submitted request on its way to the end of its reply."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.errors import TunesmithError
from tunesmith.core.log import get_logger
from tunesmith.engines.base import End, FinishReason, Piece, Request, Sink, Token
from tunesmith.engines.batching.choose import Chooser
from tunesmith.engines.batching.sight import Sight, keyed, span_of
from tunesmith.engines.batching.stops import ReplyText
from tunesmith.engines.detokenize import Detokenizer

__all__ = ["Job"]


class Job:
    """ids        prompt and reply so far, without a stop token
    prompt     its ids, with media told apart: where others begin alike is found by this
    span       from the first token that stands for a medium to one past the last
    room       how many tokens the reply may have
    held       what the runner keeps of it; None: nothing yet, or not any more
    cached     tokens of the prompt that were not computed
    sight      what it sees and hears, once that is read
    """

    def __init__(self, request: Request, sink: Sink, tokenizer: Any, stop_ids: tuple[int, ...], room: int) -> None:
        self.request, self.room = request, room
        self.ids = list(request.prompt)
        self.prompt = keyed(request.prompt, request.media)
        self.span = span_of(request.media)
        self.held: Any = None
        self.cached = 0
        self.sight: Sight | None = None
        self.cancelled = False
        self.reason: FinishReason | None = None
        """Why the reply has ended; None: it has not."""
        self.began = time.perf_counter()
        self.chooser = Chooser(request.sampling, request.prompt, request.constraint)
        detokenizer = Detokenizer(tokenizer, skip_special_tokens=request.sampling.skip_special_tokens)
        self._text = ReplyText(detokenizer, request.sampling.stop)
        self._sink, self._stop_ids = sink, stop_ids
        self._last: Piece | None = None
        self.count = 0
        """Tokens of the reply, the stop token among them."""

    def cancel(self) -> None:
        self.cancelled = True

    @property
    def client(self) -> str:
        return self.request.client

    @property
    def ended(self) -> bool:
        return self.reason is not None

    def array(self) -> NDArray[np.int64]:
        """As `prompt`, with the reply behind it."""
        return np.concatenate([self.prompt, np.asarray(self.ids[len(self.prompt) :], dtype=np.int64)])

    def take(self, token: Token) -> None:
        """The next token of the reply. It may be the last: then the job has `ended`."""
        self.count += 1
        if token.id in self._stop_ids:
            self.end("stop")
            return
        self.ids.append(token.id)
        text = self._text.push(token.id)
        constraint = self.request.constraint
        if self._text.stopped or (constraint is not None and constraint.finished):
            self.end("stop", text, (token,))
        elif self.count >= self.room:
            self.end("length", text, (token,))
        else:
            self._hand(Piece(text, (token,)))

    def end(
        self,
        reason: FinishReason,
        text: str = "",
        tokens: tuple[Token, ...] = (),
        error: TunesmithError | None = None,
    ) -> None:
        """The last piece; nothing comes after it. It is handed over by `tell_end`."""
        if self.ended:
            return
        self.reason = reason
        rest = self._text.flush()
        prompt, stop = len(self.request.prompt), self._text.stopped
        self._last = Piece(text + rest, tokens, End(reason, prompt, self.cached, self.count, stop, error))

    def tell_end(self) -> None:
        """When nothing is held any more."""
        if self._last is not None:
            self._hand(self._last)

    def _hand(self, piece: Piece) -> None:
        """A sink that fails ends this reply, and no other."""
        try:
            self._sink(piece)
        except Exception as error:
            self.reason = "error"
            get_logger().error("a reply ended, as what takes its pieces failed", exc_info=error)
