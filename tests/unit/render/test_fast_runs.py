"""Runs encoded by kitoken have the ids and masks that tokenizers gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.config.template import TemplateConfig
from tunesmith.core.types import Chat, Message
from tunesmith.render import make_renderer
from tunesmith.render.control import ControlTokens
from tunesmith.render.encode import Encoder, Run, added_tokens_of
from tunesmith.render.errors import QuickWayFault
from tunesmith.render.fast_runs import FastRuns

pytest.importorskip("kitoken", reason="kitoken has no wheel for this machine")


def encoder_of(folder: Path, *added: str) -> Encoder:
    from transformers import AutoTokenizer

    backend = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    backend.add_tokens(list(added))
    return Encoder(backend, ControlTokens(added_tokens_of(backend), "<think></think>"))


@pytest.fixture(scope="module")
def encoders(assets: Path, tiny_model: Path) -> dict[str, Encoder]:
    names = ("qwen3", "llama3")
    return {"tiny": encoder_of(tiny_model), **{name: encoder_of(assets / "tokenizers" / name) for name in names}}


texts = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from([" ", "\n", "a", "Hello", "é", "e\u0301", "日本", "1234", "'s", "<|", "\t", "\U0001f469"])
    ).map("".join),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "qwen3", "llama3"])
def test_ids_and_masks_equal_those_of_tokenizers(name: str, encoders: dict[str, Encoder]) -> None:
    encoder = encoders[name]
    fast = FastRuns.make(encoder, str(id(encoder)))
    assert fast is not None
    taken: list[bool] = []

    @settings(max_examples=400, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(before=texts, middle=texts, after=texts)
    def check(before: str, middle: str, after: str) -> None:
        text = before + middle + after
        if not text or not middle:
            return
        ranges = [(len(before), len(before) + len(middle))]
        quick, slow = Run(text, False, list(ranges)), Run(text, False, list(ranges))
        taken.append(fast.fill(quick))
        if taken[-1]:
            encoder.encode_runs([slow])
            assert list(quick.ids) == list(slow.ids), text
            assert list(quick.mask) == list(slow.mask), (text, ranges)

    check()
    assert sum(taken) > 200


def test_several_trained_ranges(encoders: dict[str, Encoder]) -> None:
    encoder = encoders["qwen3"]
    fast = FastRuns.make(encoder, str(id(encoder)))
    assert fast is not None
    text = "one two three 日本語 four five"
    for ranges in ([(0, 3), (8, 13)], [(4, 7), (15, 16)], [(0, 1), (2, 3), (20, 25)], [(13, 17)]):
        quick, slow = Run(text, False, ranges), Run(text, False, ranges)
        assert fast.fill(quick)
        encoder.encode_runs([slow])
        assert list(quick.mask) == list(slow.mask)


def test_what_it_cannot_do_is_left_to_tokenizers(assets: Path, tiny_model: Path, encoders: dict[str, Encoder]) -> None:
    fast = FastRuns.make(encoders["qwen3"], str(id(encoders["qwen3"])))
    assert fast is not None
    assert not fast.fill(Run("e\u0301 is composed", False, True))  # NFC changes it
    assert fast.fill(Run("<think> is a control token, and text here", False, True))
    added = FastRuns.make(encoder_of(tiny_model, "hello there"), "with an added token")
    assert added is not None
    assert not added.fill(Run("Oh, hello there!", False, True))  # an added token that is ordinary text
    assert added.fill(Run("Oh, hello!", False, True))
    assert FastRuns.make(encoder_of(assets / "tokenizers" / "llama2_spm"), "no bytes") is None  # no byte-level BPE


def test_a_difference_is_noticed_and_everything_is_encoded_again(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    renderer = make_renderer(TemplateConfig(), AutoTokenizer.from_pretrained(tiny_model))
    chats = [Chat((Message("user", f"question {row}"), Message("assistant", f"answer {row}"))) for row in range(5)]
    expected = renderer.encode_chats(chats)
    renderer.speed_up()
    assert renderer.encoder_name.startswith("kitoken ")
    assert renderer.encode_chats(chats) == expected
    fast: Any = renderer._batches._fast
    honest = fast._encode
    fast._encode = lambda text, special: [*honest(text, special), 5]
    with pytest.raises(QuickWayFault):
        renderer.encode_batch(chats)
    assert renderer.encoder_name == "tokenizers"
    assert "kitoken" in renderer.notices[-1]
    assert renderer.encode_chats(chats) == expected


def test_what_kitoken_made_is_kept_and_a_damaged_file_made_again(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_DATA_CACHE", str(tmp_path))
    encoder = encoder_of(tiny_model)
    runs = []
    for state in ("new", "kept", "damaged", "cut off"):
        for file in (tmp_path / "encoders").glob("*.kit") if state == "damaged" else ():
            file.write_bytes(b"nonsense")
        for file in (tmp_path / "encoders").glob("*.json") if state == "cut off" else ():
            file.write_bytes(file.read_bytes()[:50])
        fast = FastRuns.make(encoder, "tiny")
        assert fast is not None
        runs.append(Run("What is red and blue? 3 + 4", False, [(5, 11)]))
        assert fast.fill(runs[-1])
    assert len({(tuple(run.ids), tuple(run.mask)) for run in runs}) == 1
