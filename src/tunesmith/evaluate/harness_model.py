"""An engine as a model of lm-evaluation-harness: texts are cut into tokens and windows as its own model for
transformers does it, and the engine scores and writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import Chat, Message
from tunesmith.engines import Engine, Sampling
from tunesmith.engines.base import Pair, Request, Score
from tunesmith.train.counting import Counting

__all__ = ["EngineModel"]

NO_LIMIT = 2048
"""The context of a model that tells none, as in the harness."""
WRITTEN = 256
"""Tokens of a reply where a task says nothing, as in the harness."""
# Settings of tasks that are ours by the same name, with their types.
_SETTINGS: dict[str, Callable[[Any], Any]] = {
    "do_sample": bool,
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "repetition_penalty": float,
}


class EngineModel(TemplateLM):  # type: ignore[misc]  # mypy does not look into the harness
    """`batch_size`: pairs that are scored in one call."""

    def __init__(self, engine: Engine, batch_size: int, seed: int) -> None:
        super().__init__()
        self.engine, self.tokenizer = engine, engine.tokenizer
        self._batch_size, self._seed = batch_size, seed
        self.max_length = engine.context or NO_LIMIT

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        begins = self.tokenizer.bos_token_id
        return self.eot_token_id if begins is None else int(begins)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """`add_special_tokens` None: those of the tokenizer, unless the text begins with them already."""
        if add_special_tokens is None and string.startswith(self.tokenizer.decode([self.prefix_token_id])):
            add_special_tokens = False
        how: dict[str, Any] = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return [int(token) for token in self.tokenizer.encode(string, **how)]

    # ---- what tasks ask for ----

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, Sequence[int], Sequence[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Sums over the tokens of each continuation. A prompt that does not fit loses its beginning."""
        pairs = [self._fitted(prompt, continuation) for _text, prompt, continuation in requests]
        found = [(sum(score.logprobs), score.greedy) for score in self._score(pairs)]
        for (asked, *_rest), answer in zip(requests, found, strict=True):
            if asked is not None:
                self.cache_hook.add_partial("loglikelihood", asked, answer)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts, each token with as much before it as fits."""
        windows: list[tuple[int, Pair]] = []
        for number, request in enumerate(requests):
            (text,) = request.args
            rolled = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
            windows += [(number, make_disjoint_window(window)) for window in rolled]
        found = [0.0] * len(requests)
        for (number, _), score in zip(windows, self._score([pair for _, pair in windows]), strict=True):
            found[number] += sum(score.logprobs)
        for request, value in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, value)
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy unless a task says otherwise. Raises DataError for a setting that is not known, and the error that
        ended a reply."""
        asked = [self._request(number, *request.args) for number, request in enumerate(requests)]
        found: dict[int, str] = {}
        with Counting("answering", "requests") as count:
            for number, reply in self.engine.run_all(asked):
                if reply.end and reply.end.error:
                    raise reply.end.error
                found[number] = reply.text
                self.cache_hook.add_partial("generate_until", requests[number].args, reply.text)
                count(len(found), len(requests))
        return [found[number] for number in range(len(requests))]

    # ---- chats ----

    @property
    def tokenizer_name(self) -> str:
        """Tells the prompts of one model and template from those of another."""
        return f"{self.tokenizer.name_or_path}-{self.engine.renderer.template_digest[:16]}".replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str:
        return self.engine.renderer.name if chat_template else ""

    def apply_chat_template(self, chat_history: Sequence[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """By the engine's renderer. Without `add_generation_prompt` the last message is the beginning of the reply."""
        messages = [Message(one["role"], one["content"]) for one in chat_history]  # type: ignore[arg-type]
        begun = "" if add_generation_prompt else messages.pop().content
        return self.engine.renderer.text(Chat(messages), open_reply=True) + begun

    # ---- tokens ----

    def _fitted(self, prompt: Sequence[int], continuation: Sequence[int]) -> Pair:
        whole = [*prompt, *continuation][-(self.max_length + 1) :]
        return whole[: -len(continuation)], list(continuation)

    def _score(self, pairs: Sequence[Pair]) -> list[Score]:
        """In the order of the pairs; those of one length are read together."""
        found: dict[int, Score] = {}
        order = sorted(range(len(pairs)), key=lambda number: -sum(map(len, pairs[number])))
        with Counting("scoring", "texts") as count:
            for begin in range(0, len(order), self._batch_size):
                batch = order[begin : begin + self._batch_size]
                found |= zip(batch, self.engine.score([pairs[number] for number in batch]), strict=True)
                count(len(found), len(pairs))
        return [found[number] for number in range(len(pairs))]

    def _request(self, number: int, text: str, settings: dict[str, Any]) -> Request:
        asked: dict[str, Any] = dict(normalize_gen_kwargs(settings, WRITTEN))
        stop = handle_stop_sequences(asked.pop("until", None), self.tokenizer.decode([self.eot_token_id]))
        most = int(asked.pop("max_gen_toks"))
        if unknown := sorted(asked.keys() - _SETTINGS.keys()):
            fix = f"known are {', '.join(_SETTINGS)}, until and max_gen_toks"
            what = "a task asks for a way of writing that is not known"
            raise DataError(Problem("E-EVAL-009", what, "task", ", ".join(unknown), fix))
        how = {name: convert(asked[name]) for name, convert in _SETTINGS.items() if name in asked}
        plain = {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
        sampling = Sampling(
            **{**plain, **how}, max_new_tokens=most, stop=tuple(filter(None, stop)), seed=self._seed + number
        )
        room = self.max_length - most
        if room <= 0:
            got, fix = f"{most} tokens, the context is {self.max_length}", "a model with a longer context"
            raise DataError(Problem("E-EVAL-009", "a task asks for replies as long as the context", "task", got, fix))
        return Request(tuple(self.tok_encode(text)[-room:]), sampling)
