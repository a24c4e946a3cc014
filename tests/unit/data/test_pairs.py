"""Pairs, feedback and prompts from rows to arrays: what is trained, what is left out, and that no pair is torn."""

from __future__ import annotations

import json
import sys
from itertools import takewhile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from tunesmith.config.data import DataConfig
from tunesmith.config.template import TemplateConfig
from tunesmith.core.errors import DataError, UsageError
from tunesmith.data import Datasets, TokenDataset, build_datasets, read_examples
from tunesmith.data import prepare as prepare_module
from tunesmith.data import prepared as prepared_module
from tunesmith.data.cache import entries
from tunesmith.data.dataset import CHOSEN, DISLIKED, LIKED, PROMPT, REJECTED
from tunesmith.data.pack import PackedDataset
from tunesmith.data.streaming.build import build_stream
from tunesmith.data.streaming.samples import SampleStream
from tunesmith.render import Renderer, make_renderer

forks = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")


def pair(prompt: str, chosen: Any, rejected: Any) -> dict[str, Any]:
    return {"instruction": prompt, "chosen": chosen, "rejected": rejected}


def build(renderer: Any, name: str, stage: str = "dpo", **settings: Any) -> Datasets:
    return build_datasets(DataConfig(dataset=(name,), **settings), renderer, stage=stage, seed=1)


def pairs_of(dataset: Any) -> list[tuple[str, ...]]:
    """The two texts of each pair, stops written as a dot; what is trained is in brackets."""
    assert isinstance(dataset, PackedDataset)
    found = []
    for sample in dataset:
        ends = np.cumsum(sample["lengths"])
        assert sample["kinds"].tolist() == [CHOSEN, REJECTED] * (len(ends) // 2)
        texts = []
        for begin, end in zip(ends - sample["lengths"], ends, strict=True):
            ids, trained = sample["input_ids"][begin:end], sample["trained"][begin:end]
            given, own = (bytes(ids[mask].tolist()).replace(b"\0", b".").decode() for mask in (~trained, trained))
            texts.append(f"{given}[{own}]")
        found += zip(texts[::2], texts[1::2], strict=True)
    return found


def test_a_pair_is_one_item_of_two_sequences(write: Any, renderer: Any) -> None:
    name = write("x.jsonl", [pair("q", "good", "bad"), {**pair("r", "yes", "no"), "history": [["a", "b"]]}])
    found = build(renderer, name)
    assert pairs_of(found.train) == [("q.[good.]", "q.[bad.]"), ("a.b.r.[yes.]", "a.b.r.[no.]")]
    assert found.train is not None
    first = found.train[0]
    assert first["lengths"].tolist() == [7, 6]
    assert first["shared"].tolist() == [2]
    assert str(found.train.origin(1)) == "x.jsonl:2"
    assert found.longest == 10
    assert renderer.batches == [4], "both of all pairs go through one batch"


@pytest.mark.parametrize("settings", [{}, {"packing": True}, {"streaming": True}])
def test_margins_stay_with_their_pairs(write: Any, renderer: Any, settings: dict[str, Any]) -> None:
    """Over blocks, rows that are left out, answers that are cut, packs and windows; nothing of it in stage dpo."""
    rows = [{**pair(f"q{n}", "good" * (n % 3 + 1), "bad"), "margin": n / 4} for n in range(12)]
    rows[5]["chosen"], rows[7]["rejected"] = "unrenderable", "bad" * 30
    del rows[8]["margin"]
    keys = {"cutoff_len": 16, "on_bad_row": "skip", "preprocessing_batch_size": 4, **settings}
    name = write("x.jsonl", rows)
    if not settings:  # before what stage rm keeps in the cache
        assert all("margins" not in sample for sample in build(renderer, name, "dpo", **keys).train or ())
    if "streaming" in settings:
        keys |= {"buffer_size": 5, "preprocessing_num_workers": 0}
        stream = build_stream(DataConfig(dataset=(name,), **keys), renderer, stage="rm", seed=1).train
        assert isinstance(stream, SampleStream)
        windows = takewhile(lambda window: window.epoch == 0, stream.windows())
        found: list[Any] = [sample for window in windows for sample in window.samples]
    else:
        found = list(build(renderer, name, "rm", **keys).train or ())
    margins = {}
    for sample in found:
        ends = np.cumsum(sample["lengths"])
        for begin, one, two in zip(
            (ends - sample["lengths"])[::2], sample["margins"][::2], sample["margins"][1::2], strict=True
        ):
            assert one == two
            asked = bytes(sample["input_ids"][begin : begin + 4].tolist()).partition(b"\0")[0].decode()
            margins[asked] = float(one)
    assert margins == {f"q{n}": 0.0 if n == 8 else n / 4 for n in range(12) if n != 5}


def test_both_answers_may_begin_alike(write: Any, renderer: Any) -> None:
    """What is shared ends where something is trained, not where the answers differ."""
    name = write("x.jsonl", [pair("q", "same, good", "same, bad")])
    (sample,) = build(renderer, name).train or ()
    assert sample["shared"].tolist() == [2]


def test_feedback_is_one_sequence_with_its_label(write: Any, renderer: Any) -> None:
    rows = [{"instruction": "q", "output": text, "kto_tag": text == "good"} for text in ("good", "bad", "good")]
    found = build(renderer, write("x.jsonl", rows), "kto").train
    assert isinstance(found, TokenDataset)
    assert found.kinds.tolist() == [LIKED, DISLIKED, LIKED]
    assert [sample["kinds"].tolist() for sample in found] == [[LIKED], [DISLIKED], [LIKED]]
    assert found[-1]["kinds"].tolist() == [LIKED]
    assert bytes(found[1]["input_ids"].tolist()) == b"q\0bad\0"
    assert found[1]["trained"].tolist() == [False] * 2 + [True] * 4
    packed = build(renderer, "x.jsonl", "kto", packing=True, cutoff_len=13).train
    assert isinstance(packed, PackedDataset)
    assert sorted(sorted(sample["kinds"].tolist()) for sample in packed) == [[LIKED], [LIKED, DISLIKED]]
    assert all("shared" not in sample for sample in packed)


def test_a_prompt_ends_with_the_opening_of_a_reply_and_trains_nothing(write: Any, renderer: Any) -> None:
    name = write("x.jsonl", [{"instruction": "q"}, {"instruction": "unrenderable"}])
    found = build(renderer, name, "ppo", on_bad_row="skip")
    assert isinstance(found.train, TokenDataset)
    assert [bytes(sample["input_ids"].tolist()) for sample in found.train] == [b"q\0>"]
    assert found.train.kinds.tolist() == [PROMPT]
    assert not found.train[0]["trained"].any()
    (report,) = found.report.datasets
    assert (report.rows, report.kept, report.samples, report.trained) == (2, 1, 1, 0)


def test_plain_rows_have_no_kinds(write: Any, renderer: Any) -> None:
    found = build(renderer, write("x.jsonl", [{"instruction": "q", "output": "a"}]), "sft").train
    assert isinstance(found, TokenDataset)
    assert not found.has_kinds
    assert found[0].keys() == {"input_ids", "trained"}


# --- rows that are left out ---


def test_half_a_pair_is_a_bad_row(write: Any, renderer: Any) -> None:
    rows = [pair("q", "good", "unrenderable"), pair("q", "good", "bad"), pair("unrenderable", "good", "bad")]
    name = write("x.jsonl", rows)
    with pytest.raises(DataError, match="E-RENDER-003") as caught:
        build(renderer, name)
    assert "2 of 3 rows" in str(caught.value), "a row counts once, though both of its answers cannot be rendered"
    assert "x.jsonl:1, :3" in str(caught.value)
    found = build(renderer, name, on_bad_row="skip", preprocessing_batch_size=1)
    assert pairs_of(found.train) == [("q.[good.]", "q.[bad.]")]
    (report,) = found.report.datasets
    assert (report.rows, report.kept, report.samples) == (3, 1, 2)
    assert report.dropped == {"no such thing": 2}


@pytest.mark.parametrize("stage", ["dpo", "sft"])
def test_a_block_without_a_usable_row(stage: str, write: Any, renderer: Any) -> None:
    row = {**pair("q", "good", "bad"), "output": "fine"}
    name = write("x.jsonl", "".join(json.dumps(row) + "\n" for _ in range(2)) + "{broken\n{broken\n")
    found = build(renderer, name, stage, on_bad_row="skip", preprocessing_batch_size=2)
    assert len(found.train or ()) == 2
    assert found.report.datasets[0].rows == 4


def test_a_pair_with_an_untrained_answer_is_left_out(write: Any, renderer: Any) -> None:
    untrained = {"role": "assistant", "content": "bad", "weight": 0}
    asked = [{"role": "user", "content": "q"}]
    rows = [
        {"messages": asked, "chosen": {"role": "assistant", "content": "good"}, "rejected": other}
        for other in (untrained, {**untrained, "weight": 1})
    ]
    found = build(renderer, write("x.jsonl", rows))
    assert pairs_of(found.train) == [("q.[good.]", "q.[bad.]")]
    (report,) = found.report.datasets
    assert report.dropped == {"nothing of one of its answers is trained": 1}
    assert report.dropped_places == {"nothing of one of its answers is trained": ["x.jsonl:1"]}


def real(tiny_model: Path, **settings: Any) -> Renderer:
    from transformers import AutoTokenizer

    return make_renderer(TemplateConfig(**settings), AutoTokenizer.from_pretrained(tiny_model))


TALK = [{"role": who, "content": text} for who, text in (("user", "1"), ("assistant", "2"), ("user", "3"))]
LONG = [{"role": who, "content": text} for who, text in (("assistant", "4"), ("user", "5"), ("assistant", "6"))]


@pytest.mark.parametrize("settings", [{}, {"train_on_prompt": True}, {"mask_history": True}, {"train_turns": "last"}])
@pytest.mark.parametrize("template", [None, "chatml"])
def test_the_answer_is_what_is_trained_whatever_a_run_says_of_chats(
    settings: dict[str, Any], template: str | None, write: Any, tiny_model: Path
) -> None:
    """Of an answer of several turns all replies, and nothing of the prompt, which holds a reply too."""
    renderer = real(tiny_model, template=template, **settings)
    row = {"prompt": TALK, "chosen": LONG, "rejected": [{"role": "assistant", "content": "7"}]}
    (sample,) = build(renderer, write("x.jsonl", [row])).train or ()
    ids, trained = sample["input_ids"], sample["trained"]
    tokenizer = renderer._backend
    told = [tokenizer.decode([token], skip_special_tokens=False) for token in ids[trained]]
    assert [text for text in told if text.isdigit()] == ["4", "6", "7"]
    every = [tokenizer.decode([token], skip_special_tokens=False) for token in ids]
    assert [text for text in every if text.isdigit()] == [*"123456", *"1237"]


def test_an_answer_that_the_template_splits_is_a_bad_row(write: Any, assets: Path) -> None:
    """Qwen3 drops the thought of a reply once a question follows it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(assets / "tokenizers" / "qwen3")
    tokenizer.chat_template = (assets / "templates" / "official" / "Qwen-Qwen3-0.6B.jinja").read_text()
    renderer = make_renderer(TemplateConfig(), tokenizer)
    thinking = [{**LONG[0], "reasoning_content": "hm"}, *LONG[1:]]
    rejected = [{"role": "assistant", "content": "7"}]
    rows = [{"prompt": TALK, "chosen": thinking, "rejected": rejected}]
    rows.append({"prompt": TALK, "chosen": rejected, "rejected": [{"role": "assistant", "content": "8"}]})
    name = write("x.jsonl", rows)
    with pytest.raises(DataError, match="E-RENDER-017") as caught:
        build(renderer, name)
    assert "x.jsonl:1" in str(caught.value)
    found = build(renderer, name, on_bad_row="skip")
    assert found.train is not None
    assert [str(found.train.origin(index)) for index in range(len(found.train))] == ["x.jsonl:2"]


# --- length ---


def test_cutoff_len_is_for_each_sequence(write: Any, renderer: Any) -> None:
    """A pair whose rejected answer has too long a beginning is lost as a whole."""
    asked, long = [{"role": "user", "content": "q"}], {"role": "user", "content": "x" * 9}
    say = [{"role": "assistant", "content": text} for text in ("good", "b" * 20, "c")]
    rows = [{"prompt": asked, "chosen": [say[0]], "rejected": [say[1]]} for _ in range(18)]
    rows.append({"prompt": asked, "chosen": [say[2]], "rejected": [say[0], long, say[2]]})
    rows.append({"prompt": [long], "chosen": [say[0]], "rejected": [say[1]]})
    found = build(renderer, write("x.jsonl", rows), cutoff_len=10)
    assert pairs_of(found.train)[0] == ("q.[good.]", "q.[bbbbbbbb]")
    assert pairs_of(found.train)[18] == ("q.[c.]", "q.[good.]")
    assert found.train is not None
    assert len(found.train) == 19
    (report,) = found.report.datasets
    assert (report.rows, report.kept, report.samples) == (20, 19, 38)
    assert report.dropped == {"the prompt alone is longer than cutoff_len": 1}
    assert report.answers_cut.samples == 18, "the lost pair's answers are not counted as cut"
    assert (report.turns_dropped.samples, report.turns_dropped.turns) == (1, 1)
    lengths = found.report.to_dict()["lengths"][0]
    assert (lengths["lost"], lengths["rows_lost"], lengths["samples_left"]) == (2, 1, 38)


def test_a_pair_is_dropped_as_a_whole(write: Any, renderer: Any) -> None:
    rows = [pair("q", "good", "b" * 20), pair("q", "good", "bad"), pair("q", "c" * 20, "b" * 20)]
    found = build(renderer, write("x.jsonl", rows), cutoff_len=10, on_too_long="drop")
    assert pairs_of(found.train) == [("q.[good.]", "q.[bad.]")]
    (report,) = found.report.datasets
    assert report.dropped == {"longer than cutoff_len": 2}
    assert found.report.to_dict()["lengths"][0]["dropped"] == 4
    with pytest.raises(DataError, match="E-DATA-090") as caught:
        build(renderer, "x.jsonl", cutoff_len=10, on_too_long="error")
    assert "split" not in str(caught.value)


def test_a_prompt_is_never_cut(write: Any, renderer: Any) -> None:
    name = write("x.jsonl", [{"instruction": "x" * 10}, *[{"instruction": "q"}] * 19])
    found = build(renderer, name, "ppo", cutoff_len=10)
    assert found.train is not None
    assert found.train.lengths.tolist() == [3] * 19
    assert found.report.datasets[0].dropped == {"the prompt alone is longer than cutoff_len": 1}
    assert len(build(renderer, name, "ppo", cutoff_len=10, on_too_long="drop").train or ()) == 19
    write("y.jsonl", [{"instruction": "x" * 10}, *[{"instruction": "q"}] * 18])
    with pytest.raises(DataError, match="E-DATA-091") as caught:
        build(renderer, "y.jsonl", "ppo", cutoff_len=10)
    assert "1 of 19 rows" in str(caught.value)
    assert "split" not in str(caught.value)


@pytest.mark.parametrize("stage", ["rm", "dpo", "kto", "ppo"])
def test_what_compares_or_answers_is_not_split(stage: str, write: Any, renderer: Any) -> None:
    name = write("x.jsonl", [pair("q", "good", "bad")])
    with pytest.raises(UsageError, match="on_too_long: truncate, drop or error"):
        build(renderer, name, stage, on_too_long="split")


def test_prompts_are_not_packed(write: Any, renderer: Any) -> None:
    with pytest.raises(UsageError, match="packing: false"):
        build(renderer, write("x.jsonl", [{"instruction": "q"}]), "ppo", packing=True)


# --- labels ---


def test_feedback_needs_both_kinds_of_labels(write: Any, renderer: Any) -> None:
    for name, liked in (("x.jsonl", True), ("y.jsonl", False)):
        write(name, [{"instruction": "q", "output": "a", "kto_tag": liked}] * 2)
    for _ in range(2):  # made, and from the cache
        with pytest.raises(DataError, match="all 2 labels are true"):
            build_datasets(DataConfig(dataset=("x.jsonl",), eval_dataset=("y.jsonl",)), renderer, stage="kto", seed=1)
    both = build_datasets(DataConfig(dataset=("x.jsonl", "y.jsonl")), renderer, stage="kto", seed=1).train
    assert isinstance(both, TokenDataset)
    assert both.kinds.tolist() == [LIKED, LIKED, DISLIKED, DISLIKED]


# --- a pair is a unit ---


def many(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Pairs that name their row in all texts."""
    random = Random(seed)
    return [
        pair(f"{number} {'q' * random.randint(1, 9)}", *(f"{number}{side * random.randint(1, 20)}" for side in "ab"))
        for number in range(count)
    ]


def rows_of(dataset: Any) -> list[str]:
    """The row that each pair names, after a look at both of its texts."""
    rows = []
    for chosen, rejected in pairs_of(dataset):
        row = chosen.split()[0]
        assert row == rejected.split()[0]
        assert f"[{row}a" in chosen
        assert f"[{row}b" in rejected
        rows.append(row)
    return rows


def test_pairs_are_mixed_held_out_and_taken_whole(write: Any, renderer: Any) -> None:
    write("x.jsonl", many(30))
    write("y.jsonl", many(10, seed=2))
    write("data/dataset_info.json", {"few": {"file_name": "../x.jsonl", "ranking": True, "num_samples": 40}})
    config = DataConfig(
        dataset=("x.jsonl", "y.jsonl"), mix_strategy="interleave_over", val_size=7, max_samples=20, packing=True
    )
    found = build_datasets(config, renderer, stage="dpo", seed=3)
    assert len(rows_of(found.train)) + 7 <= 40
    (held,) = found.eval.values()
    assert len(held) == len(rows_of(held)) == 7, "evaluation is not packed"
    sampled = build_datasets(DataConfig(dataset=("few",), dataset_dir="data"), renderer, stage="dpo", seed=3).train
    assert len(rows_of(sampled)) == 40


def test_packs_hold_whole_pairs_of_twice_cutoff_len(write: Any, renderer: Any) -> None:
    name = write("x.jsonl", many(60))
    found = build(renderer, name, packing=True, cutoff_len=40)
    assert isinstance(found.train, PackedDataset)
    assert sorted(rows_of(found.train), key=int) == [str(number) for number in range(60)]
    assert found.train.lengths.max() <= 80
    assert found.train.lengths.max() > 40
    (split,) = found.report.splits
    assert (split.pairs, split.samples) == (60, len(found.train))
    assert f"train: 60 pairs in {len(found.train)} packs, " in "\n".join(found.report.lines())


def test_the_report_counts_rows_pairs_and_sequences(write: Any, renderer: Any) -> None:
    name = write("x.jsonl", [pair("q", "good", "bad"), pair("q", "", "bad"), pair("r", "yes", "no")])
    report = build(renderer, name, on_bad_row="skip").report
    saved = json.loads(json.dumps(report.to_dict()))
    # q.good. q.bad. r.yes. r.no.: 7 + 6 + 6 + 5 tokens, of which 2 each are the prompt
    assert saved["total"] == {"rows": 3, "dropped": 1, "kept": 2, "samples": 4, "tokens": 24, "trained": 16}
    assert saved["splits"] == [{"name": "train", "samples": 2, "tokens": 24, "trained": 16, "longest": 7, "pairs": 2}]
    assert report.lines()[-1] == "train: 2 pairs, 24 tokens, 16 trained, longest 7"


def test_copies_are_pairs_of_which_both_are_the_same(write: Any, renderer: Any) -> None:
    rows = [pair("q", "good", "bad"), pair("q", "good", "worse")]
    assert not any("copies" in line for line in build(renderer, write("x.jsonl", rows)).report.notices)
    rows.append(rows[1])
    notices = build(renderer, write("x.jsonl", rows)).report.notices
    assert any(line.startswith("1 of 3 training samples are copies of others (first: x.jsonl:3)") for line in notices)
    found = build_datasets(DataConfig(dataset=("x.jsonl",), val_size=1), renderer, stage="dpo", seed=2)
    leaked = [line for line in found.report.notices if "training samples too" in line]
    held = pairs_of(found.eval["validation"])
    assert bool(leaked) == (held == [("q.[good.]", "q.[worse.]")])


# --- processes and the cache ---


def big(folder: Path) -> Path:
    random = Random(1)
    words = ["red", "blue", "3 + 4", "\n", "é", "what", "is", "<think>", "<|im_end|>", "  ", "?"]
    rows = []
    for number in range(200):
        prompt, *answers = (" ".join(random.choices(words, k=random.randint(1, 12))).strip() or "x" for _ in range(3))
        rows.append(json.dumps(pair(prompt, *(f"{side} {text}" for side, text in zip("ab", answers, strict=True)))))
        if number % 50 == 13:
            rows[-1] = "{broken"
    path = folder / "rows.jsonl"
    path.write_text("\n".join(rows))
    return path


@forks
@pytest.mark.parametrize("stage", ["dpo", "ppo"])
def test_processes_give_what_one_gives(
    stage: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_module, "MANY_BYTES", 1)  # the ways of large files
    settings: dict[str, Any] = {"on_bad_row": "skip", "overwrite_cache": True}
    path = str(big(tmp_path))
    found = [
        build(real(tiny_model), path, stage, preprocessing_num_workers=workers, preprocessing_batch_size=17, **settings)
        for workers in (0, 1, 4)
    ]
    first = found[0].train
    assert first is not None
    assert len(first) == 196
    for other in found[1:]:
        assert other.train is not None
        for mine, yours in zip(first, other.train, strict=True):
            assert {key: value.tolist() for key, value in mine.items()} == {
                key: value.tolist() for key, value in yours.items()
            }
        ours, theirs = found[0].report.to_dict(), other.report.to_dict()
        assert ours == theirs


def test_a_second_run_finds_it_prepared(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_DATA_CACHE", str(tmp_path / "cache"))
    path = str(big(tmp_path))
    made: list[str] = []
    prepare = prepared_module.prepare

    def counted(opened: Any, *rest: Any, **settings: Any) -> None:
        made.append(opened.stage)
        prepare(opened, *rest, **settings)

    monkeypatch.setattr(prepared_module, "prepare", counted)
    found = [build(real(tiny_model), path, stage, on_bad_row="skip").train for stage in ("dpo", "dpo", "rm", "ppo")]
    assert made == ["dpo", "rm", "ppo"], "pairs for a reward model have margins"
    assert len(list(entries())) == 3
    ids = [[sample["input_ids"].tolist() for sample in one or ()] for one in found]
    assert ids[0] == ids[1] == ids[2] != ids[3]


def test_the_quick_ways_give_what_one_row_at_a_time_gives(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts and answers that are rendered span by span, and encoded by tokenizers."""
    monkeypatch.setattr(prepare_module, "MANY_BYTES", 1)
    path, renderer = str(big(tmp_path)), real(tiny_model)
    config = DataConfig(dataset=(path,), on_bad_row="skip")
    prompts = [renderer.encode_prompt(one.messages) for one in read_examples(config, stage="ppo")]  # type: ignore[union-attr]
    found = build(real(tiny_model), path, "ppo", on_bad_row="skip").train
    assert [sample["input_ids"].tolist() for sample in found or ()] == prompts
    # The part before the answer is what generation would be given, so nothing is learned that it does not see.
    pairs = build(real(tiny_model), path, on_bad_row="skip").train
    for sample, prompt in zip(pairs or (), prompts, strict=True):
        assert sample["shared"].tolist() == [len(prompt)]
        assert sample["input_ids"][: len(prompt)].tolist() == prompt
