"""Reading rows one by one gives what reading them all gives; the preview does it, in memory that does not grow with the
file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.config.data import DataConfig
from tunesmith.config.template import TemplateConfig
from tunesmith.core.errors import TunesmithError
from tunesmith.data import build_datasets
from tunesmith.data.preview import decoder, preview, preview_rows
from tunesmith.data.reading import load_datasets, open_walks
from tunesmith.data.walk import Walk, fetch
from tunesmith.render import make_renderer


def _said(number: int, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"q {number}"}, {"role": "assistant", "content": f"{answer} {number}"}]


ROWS = {
    "pt": lambda n: {"text": f"Once upon {n}."},
    "sft": lambda n: {"instruction": f"q {n}", "output": f"an oven {n}"},
    "rm": lambda n: {"prompt": f"q {n}", "chosen": f"a {n}", "rejected": f"b {n}"},
    "dpo": lambda n: {"chosen": _said(n, "a"), "rejected": _said(n, "b")},
    "kto": lambda n: {"messages": _said(n, "a"), "label": n % 2 == 0},
    "ppo": lambda n: {"prompt": f"q {n}"},
}
BAD = {"text": 7, "instruction": 7, "prompt": 7, "chosen": 7, "messages": 7}

SETTINGS = {
    "as it is": {},
    "some rows": {"max_samples": 9},
    "drawn": {"num_samples": 7},
    "drawn with repeats": {"num_samples": 31},
    "drawn, some of it": {"num_samples": 31, "max_samples": 17},
}


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def real(tokenizer):
    return make_renderer(TemplateConfig(), tokenizer)


def _rows(stage: str, begin: int, count: int) -> list[dict]:
    """Every seventh cannot be used."""
    good = [ROWS[stage](number) for number in range(begin, begin + count)]
    return [
        {name: BAD.get(name, value) for name, value in row.items()} if n % 7 == 5 else row for n, row in enumerate(good)
    ]


def _config(write, stage: str, num_samples: int | None = None, **settings) -> DataConfig:
    items = []
    for name, begin, count in (("a", 0, 23), ("b", 100, 12)):
        item = {"path": write(f"{name}.jsonl", _rows(stage, begin, count)), "weight": 0.5 if name == "b" else 1.0}
        items.append(item | ({"num_samples": num_samples} if num_samples else {}))
    held = write("c.jsonl", _rows(stage, 200, 8))
    return DataConfig(dataset=tuple(items), eval_dataset=(held,), on_bad_row="skip", **settings)


@pytest.mark.parametrize("case", SETTINGS)
@pytest.mark.parametrize("stage", ROWS)
def test_the_preview_shows_what_reading_all_rows_gives(write, real, tokenizer, stage, case):
    config = _config(write, stage, **SETTINGS[case])
    loaded = load_datasets(config, stage=stage, seed=3)
    train = [example for one in loaded[:2] for example in one.examples]
    weights = [one.spec.weight for one in loaded[:2] for _ in one.examples]
    cut = None if config.packs(stage) else config.cutoff_len
    every = list(preview_rows(real, decoder(tokenizer), train, cut, weights=weights))
    for start, rows in ((0, 100), (3, 5), (len(loaded[0].examples) - 2, 4), (len(train), 1)):
        found = preview(config, real, tokenizer, stage=stage, rows=rows, start=start, seed=3)
        assert found.rows == [row for row in every if start <= row.number < start + rows]
        assert found.total == len(train)
        assert found.datasets == [one.report for one in loaded]
        notices = [notice for one in loaded for notice in one.notices]
        assert found.notices[: len(notices)] == notices
    assert len(every) >= len(train) > 5
    assert all(one.report.dropped.total() for one in loaded[::2])


@pytest.mark.parametrize("case", SETTINGS)
def test_the_preview_shows_what_a_run_trains_on(write, real, tokenizer, case):
    config = _config(write, "sft", **SETTINGS[case])
    found = preview(config, real, tokenizer, stage="sft", rows=100, seed=3)
    datasets = build_datasets(config, real, stage="sft", seed=3)
    shown = [[token for piece in row.pieces for token in piece.ids] for row in found.rows]
    assert shown == [sample["input_ids"].tolist() for sample in datasets.train]
    told = [(one.rows, one.dropped, one.dropped_places) for one in found.datasets]
    assert told == [(one.rows, one.dropped, one.dropped_places) for one in datasets.report.datasets]


def test_bad_rows_stop_the_preview_as_they_stop_a_run(write, real, tokenizer):
    """Those of all datasets, and a file that is cut off, in one error."""
    config = _config(write, "sft", num_samples=31)
    cut = write("cut.json", '[{"instruction": "a", "output": "b"}, {"instr')
    for broken in (
        DataConfig(dataset=config.dataset, eval_dataset=config.eval_dataset),
        DataConfig(dataset=(*config.dataset, cut)),
        DataConfig(dataset=config.dataset, on_bad_row="skip", max_bad_rows=2),
    ):
        errors = []
        for run in (
            lambda config: preview(config, real, tokenizer, stage="sft", rows=1, seed=3),
            lambda config: build_datasets(config, real, stage="sft", seed=3),
        ):
            with pytest.raises(TunesmithError) as caught:
                run(broken)
            errors.append(caught.value)
        assert str(errors[0]) == str(errors[1])
        assert errors[0].exit_code == errors[1].exit_code == 65


def test_evaluation_data_is_shown_where_there_is_no_other(write, real, tokenizer):
    config = DataConfig(eval_dataset=_config(write, "sft").dataset, on_bad_row="skip")
    found = preview(config, real, tokenizer, stage="sft", rows=3, start=18)
    assert [str(row.origin) for row in found.rows] == ["a.jsonl:22", "a.jsonl:23", "b.jsonl:1"]
    assert [one.use for one in found.datasets] == ["eval", "eval"]


def test_progress_goes_on_over_datasets_and_ends_with_all_rows(write, real, tokenizer):
    names = [write(f"{name}.jsonl", [ROWS["sft"](n) for n in range(count)]) for name, count in (("a", 600), ("b", 300))]
    calls = []
    config = DataConfig(dataset=tuple(names))
    preview(config, real, tokenizer, stage="sft", rows=1, notify=lambda *now: calls.append(now))
    assert [done for done, _total in calls] == [256, 512, 600, 856, 900]
    assert [total is None for _done, total in calls] == [True, True, True, False, False]
    assert calls[-1] == (900, 900)


def test_a_walk_counts_once_and_can_be_gone_again(write):
    config = _config(write, "kto")
    first, *_others = open_walks(config, stage="kto", seed=1)
    assert isinstance(first, Walk)
    examples = list(first)
    counts = first.report.rows, first.examples, first.bad.count, first.tallies.copy()
    assert counts[:3] == (23, 20, 3)
    assert list(first) == examples
    assert (first.report.rows, first.examples, first.bad.count, first.tallies) == counts


def test_fetching_reads_no_further_than_it_must(write):
    (walk,) = open_walks(DataConfig(dataset=_config(write, "sft").dataset[:1]), stage="sft", seed=1)
    read = []

    def watched():
        for example in walk:
            read.append(example)
            yield example

    class Watched(list):
        def __iter__(self):
            return watched()

    found = fetch([Watched()], {1, 2})
    assert [example.origin.row for example in found.values()] == [1, 2]
    assert len(read) <= 4


def test_faults_that_differ_in_every_row_are_counted_together_from_some_number_on(write, real, tokenizer):
    odd = [
        {"messages": [{"role": f"person {n}", "content": "a"}, {"role": "assistant", "content": "b"}]}
        for n in range(300)
    ]
    name = write("x.jsonl", [{"messages": _said(1, "a")}, *odd])
    found = preview(DataConfig(dataset=(name,), on_bad_row="skip"), real, tokenizer, stage="sft", rows=1)
    (report,) = found.datasets
    assert (report.dropped.total(), len(report.dropped), report.dropped["other faults"]) == (300, 101, 200)
    with pytest.raises(TunesmithError) as caught:
        preview(DataConfig(dataset=(name,)), real, tokenizer, stage="sft", rows=1)
    first, *_others, last = caught.value.problems
    assert first.what.startswith("unknown role 'person 0'")
    assert (last.code, last.what) == ("E-DATA-015", "other faults: 200 of 301 rows")
    assert str(last.where).startswith("x.jsonl:102, :103")
    assert len(caught.value.problems) == 101


GROWTH = """
import sys
from pathlib import Path
from tunesmith.config.data import DataConfig
from tunesmith.config.template import TemplateConfig
from tunesmith.data.preview import preview
from tunesmith.render import make_renderer
from transformers import AutoTokenizer

def peak():  # kB
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
renderer = make_renderer(TemplateConfig(), tokenizer)
for name in sys.argv[2:]:
    before = peak()
    found = preview(DataConfig(dataset=(name,)), renderer, tokenizer, stage="sft", rows=3)
    print(found.total, len(found.rows), peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
def test_memory_does_not_grow_with_the_file(tmp_path, tiny_model):
    """100,000 rows of 600 characters are 60 MB, and twice that as examples in memory."""
    names = [str(tmp_path / f"{count}.jsonl") for count in (1_000, 100_000)]
    for name, count in zip(names, (1_000, 100_000), strict=True):
        with open(name, "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"instruction": f"q {n}", "output": f"{n} " * 90}) + "\n" for n in range(count))
    command = [sys.executable, "-c", GROWTH, str(tiny_model), *names]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (small, _), (large, grown) = [(line.split()[:2], int(line.split()[2])) for line in told.splitlines()]
    assert (small, large) == (["1000", "3"], ["100000", "3"])
    assert grown < 30_000, told
