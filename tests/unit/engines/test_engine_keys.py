"""Keys that choose the engine and what it does with special tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tunesmith import engines, load_config
from tunesmith.core.registry import Registry
from tunesmith.core.types import Message
from tunesmith.engines.hf import HFEngine

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
    assert engines.make_engine(SimpleNamespace(engine=SimpleNamespace(infer_backend="other"))) == "the other engine"


@pytest.mark.parametrize(("skip", "text"), [(True, "a cat"), (False, "a<|im_start|> cat")])
def test_special_tokens_inside_a_reply(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, skip: bool, text: str
) -> None:
    def ids(self: HFEngine, prompt: list[int], sampling: Any) -> Iterator[int]:
        pieces = ("a", "<|im_start|>", " cat", "<|im_end|>")
        yield from (token for piece in pieces for token in self.tokenizer.encode(piece, add_special_tokens=False))

    monkeypatch.setattr(HFEngine, "generate_ids", ids)
    keys = {"model_name_or_path": str(tiny_model), "use_cpu": True, "skip_special_tokens": skip}
    with engines.make_engine(load_config(keys, verb="chat")) as engine:
        question = [Message("user", "q")]
        assert engine.generate(question).text == text
        assert "".join(engine.stream(question)) == text
