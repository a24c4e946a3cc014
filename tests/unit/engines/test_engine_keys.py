"""Keys that choose the engine and what it does with special tokens."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tunesmith import engines, load_config
from tunesmith.core.registry import Registry
from tunesmith.core.types import Message
from tunesmith.engines.base import Request, Sampling

pytestmark = pytest.mark.usefixtures("torch_one_thread")


class OtherEngine:
    @classmethod
    def from_config(cls, config: Any) -> str:
        return "the other engine"


def test_the_engine_is_looked_up_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    registry: Registry[Any] = Registry("infer_backend", code="E-ENGINE-001")
    registry.add("huggingface", "tunesmith.engines.hf:HFEngine")
    registry.add("other", f"{__name__}:OtherEngine")
    monkeypatch.setattr(engines, "ENGINES", registry)
    assert (
        engines.make_chat_engine(SimpleNamespace(engine=SimpleNamespace(infer_backend="other"))) == "the other engine"
    )


class Dictated:
    """A constraint that leaves one token each time."""

    finished = False

    def __init__(self, tokens: list[int]) -> None:
        self.left = tokens

    def restrict(self, scores: Any) -> None:
        kept = scores[self.left[0]].clone()
        scores.fill_(float("-inf"))
        scores[self.left[0]] = kept

    def accept(self, token: int) -> None:
        assert self.left.pop(0) == token


@pytest.mark.parametrize(("skip", "text"), [(True, "a cat"), (False, "a<|im_start|> cat")])
def test_special_tokens_inside_a_reply(tiny_model: Path, skip: bool, text: str) -> None:
    keys = {"model_name_or_path": str(tiny_model), "use_cpu": True, "skip_special_tokens": skip}
    with engines.make_engine(load_config(keys, verb="chat")) as engine:
        words = ("a", "<|im_start|>", " cat", "<|im_end|>")
        ids = [token for word in words for token in engine.tokenizer.encode(word, add_special_tokens=False)]
        told = ids[:-1]
        prompt = tuple(engine.renderer.encode_prompt([Message("user", "q")]))
        sampling = Sampling.of(engine.defaults)
        pieces = list(engine.run(Request(prompt, sampling, constraint=Dictated(ids))))
    assert "".join(piece.text for piece in pieces) == text
    assert [token.id for piece in pieces for token in piece.tokens] == told
