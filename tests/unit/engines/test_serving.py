"""What requests that run together may do to each other: nothing. Order, limits, memory, failures."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from tests.busy_engine import answers, differing, engine_of, generated, greedy, ids_of, prompts
from tests.tiny_models import tiny_model
from tunesmith.core.errors import DataError, TunesmithError
from tunesmith.engines.base import Overloaded, Piece, Request, Sampling
from tunesmith.engines.batching.prefix import MOST, SHORTEST
from tunesmith.engines.batching.runners import Together
from tunesmith.engines.batching.slots import LayerShape, Memory
from tunesmith.engines.hf import HFEngine

pytestmark = pytest.mark.usefixtures("torch_one_thread")

BAD = 96
"""A token of which the embedding is not finite."""


@pytest.fixture(scope="module")
def model() -> Any:
    made = tiny_model("llama", None, max_position_embeddings=600)
    with torch.no_grad():
        made.get_input_embeddings().weight[BAD] = float("nan")
        made.lm_head.weight[BAD] = 0
    return made


@pytest.fixture
def make(model: Any) -> Iterator[Callable[..., HFEngine]]:
    engines: list[HFEngine] = []

    def engine(**settings: Any) -> HFEngine:
        engines.append(engine_of(model, (), **settings))
        return engines[-1]

    yield engine
    for one in engines:
        one.close()


def memory_of(engine: HFEngine) -> Memory:
    runner = engine._fitted.runner
    assert isinstance(runner, Together)
    return runner.memory


def places(engine: HFEngine) -> int:
    return sum(len(lane.places) for lane in memory_of(engine).lanes.values())


def gigabytes(engine_memory: Memory, tokens: int) -> float:
    return tokens * sum(shape.bytes_per_token for shape in engine_memory.shapes) / 1024**3


class Collected:
    """A sink that waits for the end. `after`: called with the number of pieces so far."""

    def __init__(self, after: Callable[[int], None] = lambda count: None) -> None:
        self.pieces: list[Piece] = []
        self._after, self._ended = after, threading.Event()

    def __call__(self, piece: Piece) -> None:
        self.pieces.append(piece)
        if piece.end:
            self._ended.set()
        self._after(len(self.pieces))

    def wait(self) -> Piece:
        assert self._ended.wait(60)
        return self.pieces[-1]


def test_a_prefix_is_computed_once(make: Callable[..., HFEngine], model: Any) -> None:
    engine = make()
    beginning = prompts(1, 40, 90)[0] * 40
    first, second = (*beginning, 5, 6, 7), (*beginning, 8, 9)
    said = [generated(model, one, 12, ()) for one in (first, second)]
    found = [answers(engine, [Request(one, greedy(12))])[0] for one in (first, second)]
    assert differing(found, said, ()) == []
    assert [one.end and one.end.cached_tokens for one in found] == [0, len(beginning)]
    assert engine.stats()["cached_tokens"] == len(beginning)
    # The reply was kept as well, for a conversation that goes on.
    longer = first + tuple(ids_of(found[0])) + (4, 4)
    again = answers(engine, [Request(longer, greedy(5))])[0]
    assert again.end is not None
    assert again.end.cached_tokens == len(first) + 12 - 1
    assert differing([again], [generated(model, longer, 5, ())], ()) == []


def test_requests_that_come_together_share_a_prefix(make: Callable[..., HFEngine], model: Any) -> None:
    """As the replies to one question (`n`), or rows with the same long instruction."""
    engine, beginning = make(prefill_chunk_tokens=32), prompts(2, 100, 90)[1]
    asked = [beginning, beginning, (*beginning, 7), (*beginning[:50], 8, 9), (5, 6, 7)]
    said = [generated(model, prompt, 8, ()) for prompt in asked]
    found = answers(engine, [Request(prompt, greedy(8)) for prompt in asked])
    assert differing(found, said, ()) == []
    computed = sum(map(len, asked)) - engine.stats()["cached_tokens"]
    assert computed <= len(beginning) + 1 + 1 + 2 + SHORTEST + 3


def test_the_last_token_of_a_prompt_is_always_computed(make: Callable[..., HFEngine]) -> None:
    engine, prompt = make(), prompts(1, 30, 90)[0] * 30
    first, second = (answers(engine, [Request(prompt, greedy(6))])[0] for _ in range(2))
    assert ids_of(first) == ids_of(second)
    assert second.end is not None
    assert second.end.cached_tokens == len(prompt) - 1


def test_a_seeded_reply_does_not_depend_on_what_else_runs(make: Callable[..., HFEngine]) -> None:
    engine = make(max_batch_requests=6)
    drawn = [Sampling(temperature=1.5, top_k=0, top_p=0.95, max_new_tokens=20, seed=seed) for seed in range(6)]
    requests = [Request(prompt, one) for prompt, one in zip(prompts(6, 20, 90), drawn, strict=True)]
    alone = [ids_of(answers(engine, [request])[0]) for request in requests]
    assert [ids_of(piece) for piece in answers(engine, requests)] == alone
    assert len({tuple(ids) for ids in alone}) == 6


def test_clients_take_turns(make: Callable[..., HFEngine]) -> None:
    engine, order = make(max_batch_requests=1), list[str]()
    blocking = threading.Event()
    first = Collected(lambda count: blocking.wait(60) and None)
    engine.submit(Request((5,), greedy(1), client="z"), first)
    sinks = []
    for client in ("a", "a", "a", "b", "c"):
        sinks.append(Collected(lambda count, client=client: order.append(client)))
        engine.submit(Request((5,), greedy(1), client=client), sinks[-1])
    blocking.set()
    for sink in (first, *sinks):
        sink.wait()
    assert order == ["a", "b", "c", "a", "a"]


def test_a_full_queue_refuses(make: Callable[..., HFEngine]) -> None:
    engine, going = make(max_batch_requests=1, max_queued_requests=2), threading.Event()
    first = Collected(lambda count: going.wait(60) and None)
    handles = [engine.submit(Request((5,), greedy(300)), first)]
    while engine.stats()["running"] < 1:
        time.sleep(0.001)
    sinks = [Collected(), Collected()]
    handles += [engine.submit(Request((5,), greedy(3)), sink) for sink in sinks]
    with pytest.raises(Overloaded) as caught:
        engine.submit(Request((5,), greedy(3)), Collected())
    assert caught.value.retry_after >= 1
    assert caught.value.code == "E-ENGINE-004"
    handles[0].cancel()
    going.set()
    assert [sink.wait().end.finish_reason for sink in (first, *sinks)] == ["cancelled", "length", "length"]  # type: ignore[union-attr]


def test_cancelling_takes_one_step(make: Callable[..., HFEngine]) -> None:
    engine, handles = make(), list[Any]()
    sink = Collected(lambda count: handles[0].cancel() if count == 3 else None)
    ready = threading.Event()

    def first_waits(piece: Piece) -> None:
        ready.wait(60)
        sink(piece)

    handles.append(engine.submit(Request((5, 6), greedy(200)), first_waits))
    ready.set()
    end = sink.wait().end
    assert end is not None
    assert (end.finish_reason, end.completion_tokens, len(sink.pieces)) == ("cancelled", 3, 4)
    handles[0].cancel()
    assert places(engine) == 0


def test_a_closed_iterator_cancels(make: Callable[..., HFEngine]) -> None:
    engine = make()
    for piece in engine.run(Request((5, 6), greedy(500))):
        assert piece.tokens
        break
    while engine.stats()["running"]:
        time.sleep(0.001)
    assert engine.stats()["ended_cancelled"] == 1


class Failing:
    finished = False

    def restrict(self, scores: torch.Tensor) -> None:
        raise ZeroDivisionError("not today")

    def accept(self, token: int) -> None: ...


def test_what_fails_ends_alone(make: Callable[..., HFEngine], model: Any) -> None:
    engine, good = make(), prompts(4, 20, 90)
    said = [generated(model, prompt, 15, ()) for prompt in good]
    bad = [Request((5, 6, BAD), greedy(15)), Request((5, 6), greedy(15), constraint=Failing())]
    for _ in range(2):  # what was not finite is not there the second time
        found = answers(engine, [bad[0], *(Request(prompt, greedy(15)) for prompt in good), bad[1]])
        assert differing(found[1:5], said, ()) == []
        codes = [piece.end.error.code for piece in (found[0], found[5]) if piece.end and piece.end.error]
        assert codes == ["E-ENGINE-003", "E-ENGINE-007"]


def test_a_sink_that_fails_ends_alone(make: Callable[..., HFEngine], model: Any) -> None:
    engine, prompt = make(), (5, 6, 7)

    def fails(piece: Piece) -> None:
        raise ConnectionError("the reader has gone")

    engine.submit(Request(prompt, greedy(100)), fails)
    assert differing(answers(engine, [Request(prompt, greedy(15))]), [generated(model, prompt, 15, ())], ()) == []
    assert places(engine) == 0


def test_a_step_that_fails_is_tried_one_by_one(
    make: Callable[..., HFEngine], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, asked = make(), prompts(5, 20, 90)
    said = [generated(model, prompt, 10, ()) for prompt in asked]
    real = engine._fitted.runner.step

    def step(jobs: Any) -> Any:
        if any(len(job.request.prompt) == 7 for job in jobs):
            raise RuntimeError("this prompt breaks the kernel")
        return real(jobs)

    monkeypatch.setattr(engine._fitted.runner, "step", step)
    found = answers(engine, [*(Request(prompt, greedy(10)) for prompt in asked), Request((5,) * 7, greedy(10))])
    assert differing(found[:5], said, ()) == []
    assert found[5].end is not None
    assert isinstance(found[5].end.error, TunesmithError)
    assert "this prompt breaks the kernel" in str(found[5].end.error)


def test_where_memory_runs_out_fewer_run_at_once(
    make: Callable[..., HFEngine], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, asked = make(max_batch_requests=8), prompts(8, 20, 90)
    said = [generated(model, prompt, 10, ()) for prompt in asked]
    real, sizes = engine._fitted.runner.step, list[int]()

    def step(jobs: Any) -> Any:
        sizes.append(len(jobs))
        if len(jobs) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return real(jobs)

    monkeypatch.setattr(engine._fitted.runner, "step", step)
    found = answers(engine, [Request(prompt, greedy(10)) for prompt in asked])
    assert differing(found, said, ()) == []
    assert engine.stats()["at_once"] <= 2
    assert max(sizes[-10:]) <= 2


def test_a_device_with_less_than_the_budget(
    make: Callable[..., HFEngine], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory ends while a lane grows, in the midst of its layers: what was held is still there."""
    engine, asked = make(), prompts(6, 20, 90)
    said = [generated(model, prompt, 8, ()) for prompt in asked]
    real, ends = LayerShape.zeros, list[int]()

    def zeros(shape: LayerShape, *sizes: int) -> Any:
        if len(sizes) == 2 and sizes[0] > 2 and shape.layer == 1:
            ends.append(sizes[0])
            raise torch.OutOfMemoryError("out of memory")
        return real(shape, *sizes)

    monkeypatch.setattr(LayerShape, "zeros", zeros)
    assert differing(answers(engine, [Request(prompt, greedy(8)) for prompt in asked]), said, ()) == []
    assert ends
    monkeypatch.setattr(LayerShape, "zeros", lambda shape, *sizes: zeros(shape, 9, 9))
    (found,) = answers(engine, [Request((5,) * 30, greedy(3))])
    assert found.end is not None
    assert found.end.error is not None
    assert found.end.error.code == "E-ENGINE-008"


def test_the_cache_stays_within_its_memory(make: Callable[..., HFEngine], model: Any) -> None:
    """Room for three requests of the shortest lane: of five the youngest are sent back and read again."""
    shapes = memory_of(make())
    engine = make(kv_cache_gb=gigabytes(shapes, 3 * 256 + 200), max_batch_requests=8)
    asked = prompts(5, 60, 90)
    said = [generated(model, prompt, 230, ()) for prompt in asked]
    most = list[int]()
    runner = engine._fitted.runner
    real = runner.step

    def step(jobs: Any) -> Any:
        most.append(memory_of(engine).used)
        return real(jobs)

    runner.step = step  # type: ignore[method-assign]
    found = answers(engine, [Request(prompt, greedy(230)) for prompt in asked])
    assert differing(found, said, ()) == []
    assert max(most) <= memory_of(engine).budget
    assert engine.stats()["sent_back"] > 0
    assert engine.context == 600


def test_a_prompt_that_memory_has_no_room_for_is_refused(make: Callable[..., HFEngine]) -> None:
    shapes = memory_of(make())
    engine = make(kv_cache_gb=gigabytes(shapes, 100))
    assert engine.context == 100
    with pytest.raises(DataError, match="E-ENGINE-002"):
        engine.submit(Request((5,) * 100, greedy(1)), Collected())
    found = answers(engine, [Request((5,) * 80, greedy(50))])[0]
    assert found.end is not None
    assert (found.end.finish_reason, found.end.completion_tokens) == ("length", 20)


def test_replies_go_on_while_a_long_prompt_is_read(make: Callable[..., HFEngine]) -> None:
    engine, seen = make(prefill_chunk_tokens=16), list[str]()
    short = Collected(lambda count: seen.append("token"))
    engine.submit(Request((5,), greedy(200)), short)
    while len(short.pieces) < 3:
        time.sleep(0.001)
    long = Collected(lambda count: seen.append("first"))
    engine.submit(Request((7,) * 320, greedy(1)), long)
    long.wait()
    begun = len(seen) - seen[::-1].index("first") if "first" in seen else 0
    assert begun > 320 // 16  # a token of the short one for each part of the long one


def test_hidden_states_of_prompts(make: Callable[..., HFEngine], model: Any) -> None:
    engine, asked = make(), prompts(3, 12, 90)
    for prompt, mean, last in zip(asked, engine.embed(asked, "mean"), engine.embed(asked, "last"), strict=True):
        with torch.inference_mode():
            hidden = model.model(torch.tensor([prompt])).last_hidden_state[0]
        assert torch.allclose(torch.tensor(mean), hidden.mean(0), atol=1e-5)
        assert torch.allclose(torch.tensor(last), hidden[-1], atol=1e-5)
    with pytest.raises(DataError, match="E-ENGINE-002"):
        engine.embed([()])


def test_closing_ends_what_runs(model: Any) -> None:
    engine, sinks = engine_of(model, (), max_batch_requests=1), [Collected(), Collected()]
    for sink in sinks:
        engine.submit(Request((5,), greedy(500)), sink)
    engine.close()
    assert [sink.wait().end.finish_reason for sink in sinks] == ["cancelled", "cancelled"]  # type: ignore[union-attr]


@pytest.mark.slow
def test_no_slot_leaks(make: Callable[..., HFEngine]) -> None:
    """Many short requests from several threads, a third of them given up at some point."""
    engine, chance = make(max_batch_requests=16, max_queued_requests=2000), random.Random(0)
    sinks = []
    for number in range(1000):
        handle: list[Any] = []
        leave = chance.choice((0, 0, 1 + chance.randrange(12)))
        sink = Collected(lambda count, leave=leave, handle=handle: handle[0].cancel() if count == leave else None)
        size = 1 + chance.randrange(60)
        ready = threading.Event()

        def waits(piece: Piece, ready: threading.Event = ready, sink: Collected = sink) -> None:
            ready.wait(60)
            sink(piece)

        request = Request((5 + number % 7,) * size, greedy(1 + chance.randrange(30)), client=str(number % 5))
        handle.append(engine.submit(request, waits))
        ready.set()
        sinks.append(sink)
    reasons = [sink.wait().end.finish_reason for sink in sinks]  # type: ignore[union-attr]
    assert set(reasons) == {"length", "cancelled"}
    while engine.stats()["running"]:
        time.sleep(0.001)
    memory = memory_of(engine)
    runner = engine._fitted.runner
    assert places(engine) == 0
    assert isinstance(runner, Together)
    assert memory.used == runner.prefixes.tokens
    assert len(runner.prefixes) <= MOST
    while runner.prefixes.give_back(memory):
        pass
    assert memory.used == 0
