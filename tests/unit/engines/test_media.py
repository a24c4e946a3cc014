"""Requests with pictures in the engine, beside others without."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.busy_engine import answers, engine_of, greedy, ids_of
from tests.media_families import CASES
from tests.seeing_engine import Sighted
from tests.tiny_models import tiny_model
from tunesmith.core.errors import DataError, Problem, UsageError
from tunesmith.core.types import MediaFacts, Medium, Placed
from tunesmith.engines.base import Overloaded, Piece, Request, Sampling
from tunesmith.engines.batching.sight import keyed, span_of
from tunesmith.engines.hf import HFEngine

pytestmark = pytest.mark.usefixtures("torch_one_thread")


@pytest.fixture(scope="module")
def sighted() -> Sighted:
    return Sighted(CASES["llava"])


@pytest.fixture
def engine(sighted: Sighted) -> Iterator[HFEngine]:
    with sighted.engine(max_batch_requests=3, max_queued_requests=4) as engine:
        yield engine


def test_two_pictures_behind_the_same_ids_are_told_apart(sighted: Sighted, engine: HFEngine) -> None:
    _, one, other, *_ = (sighted.request(chat, greedy(4, logprobs=0)) for chat in sighted.chats())
    assert one.prompt == other.prompt
    first, again, second = answers(engine, [one, one, other])
    assert [token.logprob for token in first.tokens] == [token.logprob for token in again.tokens]
    assert [token.logprob for token in first.tokens] != [token.logprob for token in second.tokens]


def test_a_seeded_reply_does_not_depend_on_what_else_runs(sighted: Sighted, engine: HFEngine) -> None:
    seeded = [sighted.request(chat, Sampling(max_new_tokens=8, seed=5)) for chat in sighted.chats()]
    together = [ids_of(piece) for piece in answers(engine, seeded)]
    assert together == [ids_of(answers(engine, [one])[0]) for one in seeded]


def test_more_than_may_wait_are_refused(sighted: Sighted, engine: HFEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, picture = Slow(sighted, monkeypatch), sighted.request(sighted.chats()[1], greedy(4))
    for _ in range(3):  # as many as may run; they wait for their pictures, and take the places
        engine.submit(picture, lambda piece: None)
    while len(engine._scheduler._reading) < 3:
        slow.asked.wait(0.01)
    for _ in range(4):
        engine.submit(picture, lambda piece: None)
    with pytest.raises(Overloaded):
        engine.submit(picture, lambda piece: None)
    slow.go.set()


class Slow:
    """A reader of media that waits until it is told."""

    def __init__(self, sighted: Sighted, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.asked = threading.Event(), threading.Event()
        inputs = sighted.media.inputs

        def wait(media: Any) -> Any:
            self.asked.set()
            assert self.go.wait(20)
            return inputs(media)

        monkeypatch.setattr(sighted.media, "inputs", wait)


def test_text_is_answered_while_a_picture_is_read(
    sighted: Sighted, engine: HFEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, pieces = Slow(sighted, monkeypatch), queue.SimpleQueue[Piece]()
    text, picture, *_ = (sighted.request(chat, greedy(4)) for chat in sighted.chats())
    engine.submit(picture, pieces.put)
    assert slow.asked.wait(20)
    assert len(ids_of(answers(engine, [text])[0])) == 4
    assert pieces.empty()
    assert engine.stats()["waiting"] == 1
    slow.go.set()
    assert pieces.get(timeout=20).text is not None


def test_what_waits_for_its_picture_can_be_cancelled(
    sighted: Sighted, engine: HFEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, pieces = Slow(sighted, monkeypatch), queue.SimpleQueue[Piece]()
    text, picture, *_ = (sighted.request(chat, greedy(4)) for chat in sighted.chats())
    handle = engine.submit(picture, pieces.put)
    assert slow.asked.wait(20)
    handle.cancel()
    answers(engine, [text])  # a round of the engine
    ended = pieces.get(timeout=20).end
    assert ended is not None
    assert ended.finish_reason == "cancelled"
    slow.go.set()


def test_an_engine_that_closes_ends_what_is_read(sighted: Sighted, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, pieces = Slow(sighted, monkeypatch), queue.SimpleQueue[Piece]()
    engine = sighted.engine()
    engine.submit(sighted.request(sighted.chats()[1], greedy(4)), pieces.put)
    assert slow.asked.wait(20)
    threading.Timer(0.2, slow.go.set).start()
    engine.close()
    ended = pieces.get(timeout=20).end
    assert ended is not None
    assert ended.finish_reason == "cancelled"


def test_a_picture_that_cannot_be_read_ends_its_own_reply(sighted: Sighted, engine: HFEngine) -> None:
    text, picture, *_ = (sighted.request(chat, greedy(4)) for chat in sighted.chats())
    bad = Medium("image", "nowhere", MediaFacts(70, 60, digest="nowhere"))
    placed = Placed(bad, picture.media[0].start, picture.media[0].end, "rows.json:3")

    def fail(_: Medium) -> Any:
        raise DataError(Problem("E-MEDIA-014", "the file is damaged", "nowhere"))

    sighted.shelf.things["nowhere"] = SimpleNamespace(resize=fail)
    spoilt, fine, plain = answers(engine, [Request(picture.prompt, greedy(4), media=(placed,)), picture, text])
    assert spoilt.end is not None
    assert spoilt.end.error is not None
    assert spoilt.end.error.code == "E-MEDIA-014"
    assert spoilt.end.error.problems[0].where == "rows.json:3: nowhere"
    assert len(ids_of(fine)) == len(ids_of(plain)) == 4


def test_an_engine_of_a_text_model_refuses_pictures(sighted: Sighted) -> None:
    placed = sighted.request(sighted.chats()[1], greedy(4)).media
    with engine_of(tiny_model("llama", None)) as engine, pytest.raises(UsageError, match="E-MEDIA-060"):
        engine.submit(Request((5, 6, 7), greedy(2), media=placed), lambda piece: None)


def test_messages_with_pictures_are_answered(sighted: Sighted, engine: HFEngine) -> None:
    chat = sighted.chats()[1]
    reply = engine.generate(chat, do_sample=False, max_new_tokens=5)
    expected = answers(engine, [sighted.request(chat, greedy(5))])[0]
    assert reply.text == expected.text
    assert reply.prompt_tokens == len(sighted.renderer.prompt(chat).ids)
    assert "".join(engine.stream(chat, do_sample=False, max_new_tokens=5)) == expected.text


def lora(sighted: Sighted, folder: Path, targets: str) -> str:
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    get_peft_model(sighted.model(), LoraConfig(target_modules=targets, init_lora_weights=False)).save_pretrained(folder)
    return str(folder)


def test_adapters_by_name_answer_about_pictures(sighted: Sighted, tmp_path: Path) -> None:
    from peft import PeftModel

    language = lora(sighted, tmp_path / "language", r".*language_model.*\.(q|v)_proj")
    chat = sighted.chats()[1]
    said, likely = sighted.generated(PeftModel.from_pretrained(sighted.model(), language).eval(), chat, 4)
    asked = sighted.request(chat, greedy(4, logprobs=0))
    with sighted.engine() as engine:
        engine.load_adapter("poet", language)
        base, poet = answers(engine, [asked, replace(asked, adapter="poet")])
        assert ids_of(poet)[: said.sure] == said.ids[: said.sure]
        assert [token.logprob for token in poet.tokens[: said.sure]] == pytest.approx(likely[: said.sure], abs=1e-4)
        assert poet.tokens[0].logprob != base.tokens[0].logprob
        with pytest.raises(UsageError, match="E-ENGINE-010"):
            engine.load_adapter("painter", lora(sighted, tmp_path / "all", r".*\.q_proj"))
        assert engine.adapters == ("poet",)
        assert answers(engine, [asked])[0].tokens == base.tokens


def test_where_memory_runs_out_fewer_run_at_once(
    sighted: Sighted, engine: HFEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    asked = [sighted.request(chat, greedy(6)) for chat in sighted.chats()]
    before = [ids_of(piece) for piece in answers(engine, asked)]
    real = engine._fitted.runner.step

    def step(jobs: Any) -> Any:
        if len(jobs) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return real(jobs)

    monkeypatch.setattr(engine._fitted.runner, "step", step)
    assert [ids_of(piece) for piece in answers(engine, asked)] == before
    assert engine.stats()["at_once"] == 1
    assert engine.stats()["sent_back"] > 0


def test_ids_are_alike_where_their_media_are() -> None:
    def placed(digest: str, start: int) -> Placed:
        return Placed(Medium("image", "x", MediaFacts(1, 1, digest=digest)), start, start + 3)

    ids = (5, 7, 7, 7, 6)
    one, again, other = (keyed(ids, [placed(digest, 1)]) for digest in ("a", "a", "b"))
    assert one.tolist() == again.tolist()
    assert one[[0, 4]].tolist() == [5, 6]
    assert all(one[1:4] < 0)
    assert not any(one[1:4] == other[1:4])
    assert keyed((5, 7, 8, 7, 6), [placed("a", 1)])[2] != one[2]  # ids among them count as well
    assert span_of([placed("a", 1), placed("b", 6)]) == (1, 9)
    assert span_of([]) == (0, 0)
