"""The engine of reward models: token ids in, a reward out, for many requests at once (`engines.batching.rewards`).

Rewards are those of transformers' own class for sequences with one label, one sequence after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

from tunesmith.config.engine import EngineConfig
from tunesmith.core.errors import DataError, Problem, UsageError
from tunesmith.core.types import Feedback, Message

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.config import RunConfig
    from tunesmith.config.model import ModelConfig
    from tunesmith.render import Renderer

__all__ = ["RewardEngine", "gives_rewards"]

_TOKENS_ON_A_GPU = 8192
"""Of a forward, where nobody says otherwise: no reply waits between two of them, and a GPU likes large ones."""


def gives_rewards(config: ModelConfig) -> bool:
    """Whether what the config names is a reward model: by its last adapter, else by config.json."""
    from tunesmith.methods.base import Adapters
    from tunesmith.methods.merge import is_reward_adapter
    from tunesmith.models.load import settings_of
    from tunesmith.models.reward import is_reward_model

    adapters = Adapters.of(config)
    if adapters.names and is_reward_adapter(adapters.names[-1], adapters):
        return True
    return is_reward_model(settings_of(config))


class RewardEngine:
    """A loaded reward model. All methods may be called from any thread.

    flat     it reads sequences one behind the other; otherwise padded rows
    context  most tokens of a sequence; None: no limit is known
    at_once  how many sequences a forward may have
    """

    adapters: tuple[str, ...] = ()
    """None has a name: a reward model has one output layer, which comes with its adapter."""

    def __init__(
        self, model: Any, tokenizer: Any, renderer: Renderer, settings: EngineConfig | None = None, *, flat: bool
    ) -> None:
        from tunesmith.engines.batching.rewards import Limits, RewardScheduler
        from tunesmith.models.rope import context_of
        from tunesmith.models.tokenizer import pad_id_of

        settings = settings or EngineConfig()
        self.model, self.tokenizer, self.renderer = model.eval(), tokenizer, renderer
        self._flat, self._pad = flat, pad_id_of(tokenizer)
        self._tokenizing = threading.Lock()
        self.context, self.at_once = context_of(model.config), settings.max_batch_requests
        limits = Limits(self.at_once, settings.prefill_chunk_tokens, settings.max_queued_requests, padded=not flat)
        self._scheduler = RewardScheduler(self._forward, model.device, limits, str(model.config.name_or_path))

    @classmethod
    def from_config(cls, config: RunConfig) -> RewardEngine:
        """Raises MissingInputError (E-MODEL-035) where the model gives no rewards, UsageError for another engine than
        that of this package, and what loading raises."""
        from tunesmith.methods.base import Adapters
        from tunesmith.methods.merge import attach_adapter, merge_adapters
        from tunesmith.models.catalog import fallback_template
        from tunesmith.models.fast_path import plan_fast_path, prove
        from tunesmith.models.load import infer_dtype, load
        from tunesmith.models.machine import pick_device
        from tunesmith.models.quantization.plan import base_of
        from tunesmith.render import make_renderer

        if (backend := config.engine.infer_backend) != "huggingface":
            what, fix = "rewards are computed by the engine of this package", "infer_backend: huggingface"
            raise UsageError(Problem("E-ENGINE-035", what, config.place("infer_backend"), backend, fix))
        device = pick_device(bool(config.train.hf.get("use_cpu")))
        fast = plan_fast_path(config.model)
        loaded = load(
            config.model,
            dtype=infer_dtype(config.model, device),
            attention=fast.at_load,
            device=device,
            quantization=base_of(config, device),
            head="saved reward",
        )
        adapters = Adapters.of(config.model)
        model = merge_adapters(loaded.model, adapters.only(adapters.names[:-1]))
        fast = prove(model, loaded.family, fast, config.model)
        if adapters.names:  # the last one stays beside the weights: exact, also where the base is in bfloat16
            model = attach_adapter(model, adapters.names[-1], adapters)
        fallback = fallback_template(config.model.model_name_or_path)
        renderer = make_renderer(config.template, loaded.tokenizer, fallback=fallback)
        settings = config.engine
        if device != "cpu" and "prefill_chunk_tokens" not in config.user_keys:
            settings = replace(settings, prefill_chunk_tokens=_TOKENS_ON_A_GPU)
        return cls(model, loaded.tokenizer, renderer, settings, flat=fast.flat)

    # ---- what is scored, as ids ----

    def encode_text(self, text: str) -> list[int]:
        """A text as it is, with the control tokens that it holds: what a template has written, or ids decoded."""
        with self._tokenizing:  # a call may change settings of the tokenizer, and then no other one may run
            ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def encode_chat(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """A chat that ends with a reply, as training reads answers. Raises DataError for one that the template
        refuses."""
        from tunesmith.data.sequences import encode_examples

        example = Feedback(messages[:-1], messages[-1:], True, tools)
        (found,) = encode_examples(self.renderer, [example])
        if isinstance(found, Problem):
            raise DataError(found)
        return list(found[0].samples[0].ids)

    # ---- rewards ----

    def submit(self, sequences: Sequence[Sequence[int]], client: str = "") -> Future[list[float]]:
        """The reward of each sequence, some time; the future may be cancelled until then. `client`: the queue is fair
        between clients.

        Raises DataError for a sequence that is empty or longer than the context, Overloaded where the queue is full.
        """
        for ids in sequences:
            if not ids or (self.context and len(ids) > self.context):
                what = "a text is longer than the context" if ids else "there is nothing to score"
                got = f"{len(ids)} tokens, the context is {self.context}" if ids else "an empty text"
                raise DataError(Problem("E-ENGINE-011", what, got=got, fix="shorten it" if ids else None))
        return self._scheduler.submit(sequences, client)

    def rewards(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """Of each sequence. Raises what `submit` raises, and what happens meanwhile."""
        return self.submit(sequences).result()

    def _forward(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        import torch

        from tunesmith.models.fast_path import flat_inputs

        pieces = [torch.tensor(list(ids), device=self.model.device) for ids in sequences]
        if self._flat:
            inputs = flat_inputs(pieces)
            ends = [(0, start, end, start, start) for start, end in pairwise(inputs["bounds"])]
        else:
            width = max(map(len, pieces))
            ids = torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True, padding_value=self._pad)
            lengths = torch.tensor([len(piece) for piece in pieces], device=ids.device)
            mask = torch.arange(width, device=ids.device) < lengths[:, None]
            inputs = {"input_ids": ids, "attention_mask": mask.long()}
            ends = [(row, 0, width, 0, 0) for row in range(len(pieces))]
        found: Tensor = self.model(**inputs, reward_ends=torch.tensor(ends, device=self.model.device))["rewards"]
        return found

    # ---- its life ----

    def stats(self) -> dict[str, float]:
        """What it does now and has done, by name."""
        return self._scheduler.stats()

    def close(self) -> None:
        """End what is asked for, and free the model."""
        self._scheduler.close()
        self.__dict__.pop("model", None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
