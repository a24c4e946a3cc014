"""The pass over the data of a config: bad rows, lengths, statistics, what is skipped, the text and the plain form."""

from __future__ import annotations

import json

import pytest

from tunesmith.config.data import DataConfig
from tunesmith.core.errors import MissingInputError
from tunesmith.data.lint.run import lint
from tunesmith.data.lint.statistics import histogram

ROWS = [{"instruction": f"question {i}" + "!" * i, "output": f"The answer is {i * 7919}."} for i in range(8)]


def codes(report) -> list[str]:
    return [one.code for one in report.findings]


def test_rows_that_cannot_be_used_are_findings_with_their_own_codes(write) -> None:
    name = write(
        "x.jsonl",
        [
            *ROWS,
            {"instruction": "u", "output": 7},
            {"instruction": "u", "output": 8},
            {"instruction": "u", "output": ""},
        ],
    )
    report = lint(DataConfig(dataset=(name,)), stage="sft").report
    number, empty = report.findings[:2]
    assert (number.code, number.severity, number.count, number.total) == ("E-DATA-014", "error", 2, 11)
    assert [str(place.origin) for place in number.places] == ["x.jsonl:9", "x.jsonl:10"]
    assert empty.code == "E-DATA-012"
    assert report.fails()


@pytest.mark.parametrize(("most", "fails"), [(None, False), (1, False), (0, True)])
def test_bad_rows_that_the_config_lets_pass_are_warnings(write, most, fails) -> None:
    name = write("x.jsonl", [*ROWS, {"instruction": "u", "output": 7}])
    report = lint(DataConfig(dataset=(name,), on_bad_row="skip", max_bad_rows=most), stage="sft").report
    assert report.findings[0].severity == ("error" if fails else "warning")
    assert report.fails() is fails
    assert report.fails(strict=True)


def test_a_missing_file_is_an_error_as_in_a_run(write) -> None:
    with pytest.raises(MissingInputError):
        lint(DataConfig(dataset=("nothing.jsonl",)), stage="sft")


def test_without_a_renderer_what_needs_tokens_is_left_out_and_said(write, renderer) -> None:
    config = DataConfig(dataset=(write("x.jsonl", ROWS),), cutoff_len=20)
    report = lint(config, stage="sft").report
    assert "E-LINT-012" not in codes(report)
    (told,) = report.skipped
    assert "rows longer than cutoff_len" in told
    assert report.datasets[0].lengths.unit == "characters"
    report = lint(config, stage="sft", renderer=renderer).report
    assert report.skipped == []
    assert "E-LINT-012" in codes(report)


def test_lengths_against_cutoff_len(write, renderer) -> None:
    """One byte is a token, each message has a stop."""
    sizes = [(1, 1), (2, 9), (20, 3)]
    name = write("x.jsonl", [{"instruction": "u" * u, "output": "a" * a} for u, a in sizes])
    report = lint(DataConfig(dataset=(name,), cutoff_len=10), stage="sft", renderer=renderer).report
    lost, cut = [one for one in report.findings if one.code == "E-LINT-012"]
    assert (lost.severity, lost.count, str(lost.places[0].origin), lost.places[0].note) == (
        "error",
        1,
        "x.jsonl:3",
        "25 tokens",
    )
    assert (cut.severity, cut.count, str(cut.places[0].origin)) == ("note", 1, "x.jsonl:2")
    numbers = report.datasets[0]
    assert (numbers.lengths.least, numbers.lengths.median, numbers.lengths.most) == (4, 13, 25)
    assert (numbers.tokens, numbers.trained, numbers.longer_than_cutoff) == (42, 16, 2)
    assert sum(numbers.lengths.counts) == 3


def test_packed_text_is_never_too_long(write, renderer) -> None:
    name = write("x.txt", "a long text about nothing at all\n")
    report = lint(DataConfig(dataset=(name,), cutoff_len=4), stage="pt", renderer=renderer).report
    assert report.cutoff_len is None
    assert report.findings == []


def test_statistics_of_scripts_and_endings(write) -> None:
    pairs = [("What?", "Это."), ("Why?", "because"), ("How?", "So!"), ("你好", "`code`")]
    name = write("x.jsonl", [{"instruction": question, "output": answer} for question, answer in pairs])
    numbers = lint(DataConfig(dataset=(name,)), stage="sft").report.datasets[0]
    assert numbers.scripts == {"Latin": 23 / 28, "Cyrillic": 3 / 28, "Han": 2 / 28}
    assert numbers.unfinished == 0.25


def test_histograms_hold_every_value_once() -> None:
    import numpy as np

    edges, counts = histogram(np.array([0, 1, 2, 47, 48, 95]), bins=24)
    assert edges[:3] == (0, 4, 8)
    assert (counts[0], counts[11], counts[12], counts[23]) == (3, 1, 1, 1)
    assert len(edges) == len(counts) + 1
    assert histogram(np.zeros(0, np.int64)) == ((), ())


def test_progress_and_batches(write, renderer, monkeypatch) -> None:
    monkeypatch.setattr("tunesmith.data.lint.run.BATCH", 3)
    told = []
    data = DataConfig(dataset=tuple(write(f"{name}.jsonl", ROWS * 3) for name in "ab"))
    found = lint(data, stage="sft", renderer=renderer, notify=lambda *progress: told.append(progress))
    assert [one.usable for one in found.report.datasets] == [24, 24]
    assert told == [(16, None), (24, None), (40, 48), (48, 48)], "how many there are is known in the last dataset"


def test_the_text_fits_80_columns_and_a_screen(write, renderer) -> None:
    bad = [
        {"instruction": f"Tell {i} me all " + "of it " * 40, "output": f"\0 mail jane{i}@university.edu hf_" + "a" * 34}
        for i in range(9)
    ]
    name = write("a_long_name_of_a_dataset_file.jsonl", [*ROWS, *bad, {"instruction": "u", "output": None}])
    report = lint(DataConfig(dataset=(name,), cutoff_len=64), stage="sft", renderer=renderer).report
    lines = report.lines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 60
    assert lines[0].split() == ["dataset", "rows", "unfit", "tokens", "trained", "median", "p95", "max"]
    assert lines[1].split()[:3] == ["...dataset_file.jsonl", "18", "1"]
    assert any(line.startswith("error   E-DATA-013  ") for line in lines)
    assert lines[-2].startswith("2 errors, ")


def test_a_report_of_nothing(write) -> None:
    name = write("x.jsonl", ROWS)
    lines = lint(DataConfig(dataset=(name,)), stage="sft").report.lines()
    assert lines[-1] == "nothing was found"


def test_the_plain_form_is_json(write, renderer) -> None:
    name = write("x.jsonl", [*ROWS, ROWS[0]])
    report = lint(DataConfig(dataset=(name,)), stage="sft", renderer=renderer).report
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["counts"] == {"error": 0, "warning": 1, "note": 0}
    (finding,) = plain["findings"]
    assert finding["code"] == "E-LINT-007"
    assert finding["share"] == 1 / 9
    assert finding["places"] == [
        {"place": "x.jsonl:1", "row": 0, "excerpt": "question 0 → The answer is 0.", "note": "2 times"}
    ]
    assert plain["datasets"][0]["lengths"]["unit"] == "tokens"


def test_feedback_of_one_kind_would_stop_a_run(write) -> None:
    rows = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": f"b{i}"}], "label": True}
        for i in range(3)
    ]
    report = lint(DataConfig(dataset=(write("x.jsonl", rows),)), stage="kto").report
    assert [(one.code, one.severity) for one in report.findings] == [("E-DATA-061", "error")]
    assert report.fails()


def test_a_dataset_without_a_usable_row_is_a_finding_and_would_stop_a_run(write) -> None:
    name = write("x.jsonl", [{"instruction": "u", "output": 7}] * 3)
    report = lint(DataConfig(dataset=(name,), on_bad_row="skip", max_bad_rows=9), stage="sft").report
    assert [(one.code, one.severity, one.count) for one in report.findings] == [("E-DATA-014", "error", 3)]
    assert report.fails()


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("truncate", [("warning", 1), ("note", 1)]),
        ("split", [("warning", 1), ("note", 1)]),
        ("drop", [("warning", 2)]),
        ("error", [("error", 2)]),
    ],
)
def test_what_is_too_long_is_told_by_what_becomes_of_it(write, renderer, policy, told) -> None:
    sizes = [(1, 1), (2, 9), (20, 3), *[(1, 2)] * 30]
    name = write("x.jsonl", [{"instruction": "u" * u, "output": "a" * a} for u, a in sizes])
    config = DataConfig(dataset=(name,), cutoff_len=10, on_too_long=policy)
    report = lint(config, stage="sft", renderer=renderer).report
    assert [(one.severity, one.count) for one in report.findings if one.code == "E-LINT-012"] == told
    assert report.fails() is (policy == "error")


def test_the_rows_are_not_kept(write, monkeypatch) -> None:
    """Examples live no longer than their block, but for those that findings name."""
    import gc

    from tunesmith.core.types import Chat

    alive = []
    rows = [{"instruction": f"question {i}", "output": f"answer {i * 7919}"} for i in range(1200)]
    name = write("x.jsonl", rows)

    def count(*_progress: object) -> None:
        alive.append(sum(type(one) is Chat for one in gc.get_objects()))

    before = sum(type(one) is Chat for one in gc.get_objects())
    lint(DataConfig(dataset=(name,)), stage="sft", notify=count)
    assert len(alive) == 75
    assert max(alive) - before <= 2 * 256 + 256
