"""The engine of reward models: who is read together, what ends, and that rewards do not depend on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.pairs import PAD, classifier_of
from tunesmith.core.errors import DataError, MachineError, TunesmithError, UnavailableError
from tunesmith.engines.base import Overloaded
from tunesmith.engines.batching.rewards import Limits, RewardScheduler
from tunesmith.engines.rewards import RewardEngine


class Reader:
    """Gives each sequence its sum, keeps what it was asked for, and waits while it is held."""

    def __init__(self) -> None:
        self.batches: list[list[list[int]]] = []
        self.free, self.reading = threading.Event(), threading.Event()
        self.free.set()

    def __call__(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        self.batches.append([list(ids) for ids in sequences])
        self.reading.set()
        assert self.free.wait(10)
        sums = [float(sum(ids)) for ids in sequences]
        if -1.0 in sums:
            raise ValueError("a sequence that no model reads")
        if any(-2 in ids for ids in sequences) and len(sequences) > 1:
            raise MemoryError
        return torch.tensor([float("nan") if total == -3.0 else total for total in sums])


@contextmanager
def scheduler(reader: Any, **limits: Any) -> Iterator[RewardScheduler]:
    given = {"sequences": 4, "tokens": 100, "waiting": 8, "padded": False, **limits}
    made = RewardScheduler(reader, torch.device("cpu"), Limits(**given), "a model")
    try:
        yield made
    finally:
        getattr(reader, "free", threading.Event()).set()
        made.close()


@contextmanager
def held(reader: Reader, made: RewardScheduler) -> Iterator[None]:
    """While something is read, so that what is asked for now waits."""
    reader.free.clear()
    reader.reading.clear()
    first = made.submit([[0]], "first")
    assert reader.reading.wait(10)
    yield
    reader.free.set()
    assert first.result(10) == [0.0]


def test_what_clients_ask_for_at_a_time_is_one_forward() -> None:
    reader = Reader()
    with scheduler(reader) as made:
        with held(reader, made):
            found = [made.submit([[number, 1]], str(number)) for number in range(4)]
        assert [one.result(10) for one in found] == [[1.0], [2.0], [3.0], [4.0]]
        assert reader.batches[1:] == [[[0, 1], [1, 1], [2, 1], [3, 1]]]
        assert made.stats() == {"running": 0, "waiting": 0, "at_once": 4, "steps": 2, "sequences": 5, "tokens": 9}


def test_a_large_request_keeps_no_other_client_waiting() -> None:
    reader = Reader()
    with scheduler(reader, sequences=2) as made:
        with held(reader, made):
            large = made.submit([[number] for number in range(10, 16)], "large")
            small = made.submit([[5]], "small")
        assert (small.result(10), large.result(10)) == ([5.0], [float(number) for number in range(10, 16)])
        assert reader.batches[1] == [[10], [5]]


@pytest.mark.parametrize(("padded", "wanted"), [(False, [[6, 2, 2], [2]]), (True, [[6], [2, 2, 2]])])
def test_a_forward_has_no_more_tokens_than_it_may(padded: bool, wanted: list[list[int]]) -> None:
    """Padding counts where rows are padded. A sequence that is longer by itself is read alone."""
    reader = Reader()
    with scheduler(reader, tokens=10, padded=padded) as made:
        with held(reader, made):
            found = made.submit([[1] * size for size in (6, 2, 2, 2)], "a")
        found.result(10)
        assert [[len(ids) for ids in batch] for batch in reader.batches[1:]] == wanted
        assert made.submit([[1] * 30], "a").result(10) == [30.0]


def test_what_was_cancelled_is_not_read() -> None:
    reader = Reader()
    with scheduler(reader) as made:
        with held(reader, made):
            gone, kept = made.submit([[7], [8]], "a"), made.submit([[9]], "a")
            assert gone.cancel()
        assert kept.result(10) == [9.0]
        assert reader.batches[1:] == [[[9]]]
        with pytest.raises(CancelledError):
            gone.result()


def test_only_what_fails_by_itself_fails() -> None:
    reader = Reader()
    with scheduler(reader) as made:
        with held(reader, made):
            bad, broken, good = made.submit([[3], [-1]], "a"), made.submit([[-3]], "b"), made.submit([[4]], "c")
        assert good.result(10) == [4.0]
        with pytest.raises(TunesmithError, match="a sequence that no model reads"):
            bad.result(10)
        with pytest.raises(DataError, match="not finite, so there is no reward"):
            broken.result(10)
        assert made.submit([[5]], "a").result(10) == [5.0], "the engine goes on"


def test_where_memory_ends_halves_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.engines.batching import failures

    monkeypatch.setattr(failures, "is_out_of_memory", lambda error: isinstance(error, MemoryError))
    reader = Reader()
    with scheduler(reader) as made:
        with held(reader, made):
            found = made.submit([[5, -2], [6], [7], [8]], "a")
        assert found.result(10) == [3.0, 6.0, 7.0, 8.0]
        assert list(map(len, reader.batches[1:])) == [4, 2, 1, 1, 2]

        def never(sequences: Any) -> Tensor:
            raise MemoryError

    with scheduler(never) as made, pytest.raises(MachineError, match="no memory for this request, even alone"):
        made.submit([[5], [6]], "a").result(10)


def test_more_than_may_wait_is_refused() -> None:
    reader = Reader()
    with scheduler(reader, sequences=1, waiting=2) as made:
        with held(reader, made):
            waiting = [made.submit([[1]], "a") for _ in range(2)]
            with pytest.raises(Overloaded):
                made.submit([[1]], "b")
            waiting[0].cancel()
            waiting[0] = made.submit([[2]], "b")
        assert waiting[0].result(10) == [2.0]
        assert made.stats()["refused"] == 1


def test_who_waits_when_the_engine_closes_is_told() -> None:
    reader = Reader()
    with scheduler(reader) as made:
        reader.free.clear()
        first, second = made.submit([[1] * 100], "a"), made.submit([[1] * 100], "a")
        assert reader.reading.wait(10)
        threading.Thread(target=made.close).start()
        while not made._closed:
            time.sleep(0.01)
        reader.free.set()
        with pytest.raises(UnavailableError):
            second.result(10)
        assert first.result(10) == [100.0]
        with pytest.raises(UnavailableError):
            made.submit([[1]], "a")


# ---- with a model ----


def engine(*, flat: bool, **keys: Any) -> RewardEngine:
    from tunesmith.config.engine import EngineConfig

    tokenizer = SimpleNamespace(pad_token_id=PAD, eos_token_id=None)
    return RewardEngine(classifier_of("chunked"), tokenizer, None, EngineConfig(**keys), flat=flat)  # type: ignore[arg-type]


@pytest.mark.parametrize("flat", [True, False], ids=["flat", "padded"])
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=9), together=st.integers(1, 9), ends=st.booleans())
@settings(max_examples=15, deadline=None)
def test_rewards_are_those_of_transformers_whatever_is_read_together(
    flat: bool, lengths: list[int], together: int, ends: bool
) -> None:
    """`ends`: the padding token ends each sequence, too."""
    torch.manual_seed(len(lengths))
    sequences = [torch.randint(3, 97, (length,)).tolist() + [PAD] * ends for length in lengths]
    plain = classifier_of(None)
    with torch.no_grad():
        wanted = [float(plain(input_ids=torch.tensor([ids]), use_cache=False).logits) for ids in sequences]
    with engine(flat=flat, max_batch_requests=together, prefill_chunk_tokens=40) as made:
        assert made.rewards(sequences) == pytest.approx(wanted, abs=1e-5)


def test_a_sequence_has_tokens_and_fits_the_context() -> None:
    with engine(flat=True) as made:
        assert made.context
        for ids in ([], [5] * (made.context + 1)):
            with pytest.raises(DataError) as caught:
                made.submit([[1], ids])
            assert caught.value.code == "E-ENGINE-011"
        assert made.rewards([]) == []
