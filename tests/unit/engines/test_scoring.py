"""Scores of given continuations against a plain forward of transformers, one pair at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tests.busy_engine import engine_of, greedy, prompts
from tests.tiny_models import tiny_model
from tunesmith.core.errors import DataError, MachineError, UsageError
from tunesmith.engines.base import Pair, Piece, Request, Score
from tunesmith.engines.batching.runners import Alone, Together

pytestmark = pytest.mark.usefixtures("torch_one_thread")


def plain(model: Any, prompt: Sequence[int], continuation: Sequence[int]) -> Score:
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *continuation]])).logits[0].float()
    rows = logits[len(prompt) - 1 : -1].log_softmax(-1)
    found = [float(row[token]) for row, token in zip(rows, continuation, strict=True)]
    return Score(tuple(found), rows.argmax(-1).tolist() == list(continuation))


def pairs_of(model: Any) -> list[Pair]:
    """Of all lengths; some share their prompt, some are what the model would say."""
    asked, said = prompts(9, 40, 97), prompts(9, 12, 97, seed=1)
    found: list[Pair] = list(zip(asked, reversed(said), strict=True))
    found += [(asked[4], (token,)) for token in (5, 6, 7, 8)]
    for prompt in asked[2:4]:
        with torch.inference_mode():
            best = int(model(torch.tensor([prompt])).logits[0, -1].argmax())
        found += [(prompt, (best,)), (list(prompt), [best, 9])]
    return found


def same(found: Sequence[Score], expected: Sequence[Score]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        assert one.greedy == other.greedy


@pytest.mark.parametrize(
    ("model_type", "runner"), [("llama", Together), ("mistral", Together), ("gemma2", Together), ("bamba", Alone)]
)
def test_scores_equal_a_plain_forward(model_type: str, runner: type) -> None:
    reference = tiny_model(model_type, None)
    pairs = pairs_of(reference)
    expected = [plain(reference, *pair) for pair in pairs]
    assert any(score.greedy for score in expected)
    assert not all(score.greedy for score in expected)
    with engine_of(tiny_model(model_type, None), prefill_chunk_tokens=50) as engine:
        assert isinstance(engine._fitted.runner, runner)
        same(engine.score(pairs), expected)
        assert engine.score([]) == []


def test_continuations_that_differ_in_their_last_token_share_a_forward() -> None:
    model, lengths = tiny_model("llama", None), list[int]()
    model.register_forward_pre_hook(
        lambda _, __, inputs: lengths.append(inputs["input_ids"].shape[1]), with_kwargs=True
    )
    with engine_of(model) as engine:
        lengths.clear()
        engine.score([((5, 6, 7), (token,)) for token in (8, 9, 10, 11)] + [((5, 6), (7, token)) for token in (8, 9)])
    assert lengths == [3]


def test_scores_of_an_adapter(tmp_path: Any) -> None:
    from tests.unit.engines.test_named_adapters import adapted

    tuned = adapted(tiny_model("llama", None), 1)
    tuned.save_pretrained(tmp_path / "one")
    pairs = pairs_of(tuned)
    with engine_of(tiny_model("llama", None)) as engine:
        engine.load_adapter("one", str(tmp_path / "one"))
        same(engine.score(pairs, "one"), [plain(tuned, *pair) for pair in pairs])
        same(engine.score(pairs), [plain(tiny_model("llama", None), *pair) for pair in pairs])
        with pytest.raises(UsageError, match="E-ENGINE-006"):
            engine.score(pairs, "two")


def test_what_cannot_be_scored_is_refused() -> None:
    with engine_of(tiny_model("llama", None)) as engine:
        context = engine.context
        assert context is not None
        for pair in (((), (5,)), ((5,), ()), ((5,) * context, (6, 7))):
            with pytest.raises(DataError, match="E-ENGINE-011"):
                engine.score([((5,), (6,)), pair])
        assert len(engine.score([((5,) * context, (6,))])[0].logprobs) == 1  # the last token is not read


def test_replies_go_on_while_much_is_scored() -> None:
    told: list[float] = []

    def sink(piece: Piece) -> None:
        told.append(time.perf_counter())

    with engine_of(tiny_model("llama", None), (), prefill_chunk_tokens=16) as engine:
        engine.submit(Request((5,), greedy(60)), sink)
        begin = time.perf_counter()
        engine.score([((5, number % 90 + 3, number // 90 + 3), (7,)) for number in range(600)])
        end = time.perf_counter()
    assert sum(begin < at < end for at in told) > 20


def test_where_memory_ends_the_halves_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama", None)
    pairs = pairs_of(model)
    with engine_of(model) as engine:
        runner, logits, room = engine._fitted.runner, engine._fitted.runner.logits, 60

        def scarce(sequences: Any, adapter: str | None) -> Any:
            if sum(len(one.ids) for one in sequences) > room:
                raise torch.OutOfMemoryError("out of memory")
            return logits(sequences, adapter)

        expected = engine.score(pairs)
        monkeypatch.setattr(runner, "logits", scarce)
        same(engine.score(pairs), expected)
        room = 10
        with pytest.raises(MachineError, match="E-ENGINE-008"):
            engine.score(pairs)


def test_values_that_are_not_finite_are_an_error() -> None:
    model = tiny_model("llama", None)
    with torch.no_grad():
        model.lm_head.weight[3, 0] = float("nan")
    with engine_of(model) as engine, pytest.raises(DataError, match="E-ENGINE-003"):
        engine.score([((5,), (6,))])
