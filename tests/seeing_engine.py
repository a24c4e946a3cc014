"""Tiny models that see or hear behind an engine, and what transformers' `generate` says to the same chats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tests.busy_engine import GAP, Said
from tests.media_cases import Case, Shelf, media_of_case, tokenizer_of
from tunesmith.config.engine import EngineConfig
from tunesmith.config.generate import GenerateConfig
from tunesmith.config.template import TemplateConfig
from tunesmith.core.types import PLACE, Chat, Medium, Message
from tunesmith.engines.base import Request, Sampling
from tunesmith.engines.hf import HFEngine
from tunesmith.render import make_renderer

__all__ = ["Sighted"]

_TEXT = "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
_ARGUMENTS = {"image": "images", "video": "videos", "audio": "audio"}


class Sighted:
    """One family: its tokenizer, processor and renderer, and a shelf of media that are in no files."""

    def __init__(self, case: Case) -> None:
        self.case, self.shelf, self.tokenizer = case, Shelf(), tokenizer_of(case)
        self.media = media_of_case(case, self.shelf, tokenizer=self.tokenizer)
        parts = "{% if p.type == 'text' %}{{ p.text }}" + "".join(
            f"{{% elif p.type == '{kind}' %}}{self.media.placeholder(kind, 1)}" for kind in self.media.kinds
        )
        start = "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n"
        end = "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
        opening = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        self.tokenizer.chat_template = start + _TEXT + parts + end + opening
        self.renderer = make_renderer(TemplateConfig(), self.tokenizer, media=self.media)

    def model(self) -> Any:
        """The same one each time."""
        import transformers

        assert self.case.config is not None
        torch.manual_seed(0)
        config = self.case.config(self.tokenizer.convert_tokens_to_ids)
        return getattr(transformers, self.case.model)(config).eval()

    def engine(self, *, one_by_one: bool = False, **settings: Any) -> HFEngine:
        how = GenerateConfig(), EngineConfig(**settings)
        return HFEngine(self.model(), self.tokenizer, self.renderer, *how, one_by_one=one_by_one)

    def some(self) -> list[Medium]:
        """Three, of which the first two differ in nothing but what is in them."""
        if "audio" in self.case.feature:
            return [self.shelf.audio(0.7), self.shelf.audio(0.7), self.shelf.audio(1.3)]
        return [self.shelf.image(70, 60), self.shelf.image(70, 60), self.shelf.image(40, 120)]

    def chats(self) -> list[list[Message]]:
        """Text alone; one medium, and another one behind the same ids; two, in two turns."""
        one, other, third = self.some()
        later = [
            Message("user", f"See {PLACE}", media=[one]),
            Message("assistant", "A thing."),
            Message("user", f"And {PLACE}?", media=[third]),
        ]
        return [
            [Message("user", "Hello there, who are you?")],
            [Message("user", f"{PLACE}What is this?", media=[one])],
            [Message("user", f"{PLACE}What is this?", media=[other])],
            later,
            [Message("user", "And what do you like best of all?")],
        ]

    def request(self, messages: Sequence[Message], sampling: Sampling) -> Request:
        prompt = self.renderer.prompt(messages)
        return Request(tuple(prompt.ids), sampling, media=tuple(prompt.media))

    def generated(self, model: Any, messages: Sequence[Message], tokens: int) -> tuple[Said, list[float]]:
        """What `generate` says, after the processor has made all of its inputs, and how likely each token was."""
        inputs = self._inputs(messages)
        output = model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=tokens,
            eos_token_id=list(self.renderer.stop_ids),
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
        ids = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        logits = torch.stack([one[0].float() for one in output.logits])  # [tokens, V]
        best = logits.topk(2).values
        close = (best[:, 0] - best[:, 1] < GAP).nonzero().flatten().tolist()
        return Said(ids, close[0] if close else len(ids)), logits.log_softmax(-1).max(-1).values.tolist()

    def _inputs(self, messages: Sequence[Message]) -> dict[str, Any]:
        text = self.case.told(self.renderer.text(Chat(messages), open_reply=True))
        given: dict[str, Any] = {}
        for kind, name in _ARGUMENTS.items():
            some = [self.shelf.read(one) for message in messages for one in message.media if one.kind == kind]
            if some:
                settings = {**self.case.call.get(kind, {}), **({"sampling_rate": 16_000} if kind == "audio" else {})}
                given |= {name: some, f"{name}_kwargs": settings}
        if not given:  # not every processor takes text alone
            ids = torch.tensor([list(self.renderer.prompt(messages).ids)])
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return dict(self.media.processor(text=[text], return_tensors="pt", **given))
