"""Valid files, damaged in every way that a computer or a person damages files: they are read, or refused with a code
and their name. No traceback, no hang, and every row that goes in comes out, is counted as dropped, or stops the run.

200 mutations in the quick suite, 2,000 in the slow one.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.damaged_files import KINDS, ROWS, count_rows, damaged, write_file
from tunesmith.config.data import DataConfig
from tunesmith.config.template import TemplateConfig
from tunesmith.core.errors import Problem, TunesmithError
from tunesmith.data.reading import LoadedDataset, load_datasets
from tunesmith.data.sequences import encode_examples
from tunesmith.render import Renderer, make_renderer


@pytest.fixture(scope="module")
def renderer(tiny_model: Path) -> Renderer:
    from transformers import AutoTokenizer

    return make_renderer(TemplateConfig(template="qwen"), AutoTokenizer.from_pretrained(tiny_model))


def hold(tmp_path: Path, renderer: Renderer, file: tuple[str, str, bytes, int | None]) -> None:
    stage, kind, data, rows = file
    path = tmp_path / f"x.{kind}"
    path.write_bytes(data)
    config = DataConfig(dataset=(str(path),), on_bad_row="skip")
    try:
        (loaded,) = load_datasets(config, stage=stage, seed=1)
    except TunesmithError as error:
        refused = error
    else:
        _hold_read(loaded, rows, renderer)
        return
    assert refused.code.startswith("E-DATA-")
    assert str(path) in str(refused)


def _hold_read(loaded: LoadedDataset, rows: int | None, renderer: Renderer) -> None:
    report = loaded.report
    assert rows is not None, "a file that nobody else can read was read"
    assert report.rows == rows
    assert len(loaded.examples) + sum(report.dropped.values()) == rows
    assert loaded.bad.count == sum(report.dropped.values())
    for outcome in encode_examples(renderer, loaded.examples):
        assert isinstance(outcome, Problem) or outcome


relaxed = settings(
    deadline=timedelta(seconds=10),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much, HealthCheck.too_slow],
)


@settings(relaxed, max_examples=200)
@given(damaged())
def test_a_damaged_file_is_read_or_refused(tmp_path, renderer, file):
    hold(tmp_path, renderer, file)


@pytest.mark.slow
@settings(relaxed, max_examples=2000)
@given(damaged())
def test_two_thousand_damaged_files_are_read_or_refused(tmp_path, renderer, file):
    hold(tmp_path, renderer, file)


@pytest.mark.parametrize("name", sorted(KINDS))
@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_the_files_themselves_are_sound(tmp_path, renderer, name, kind):
    stage, make = KINDS[name]
    data = write_file(kind, [make(number) for number in range(ROWS)])
    assert count_rows(kind, data) == ROWS
    path = tmp_path / f"x.{kind}"
    path.write_bytes(data)
    (loaded,) = load_datasets(DataConfig(dataset=(str(path),)), stage=stage, seed=1)
    outcomes = encode_examples(renderer, loaded.examples)
    assert len(outcomes) == ROWS
    assert not any(isinstance(outcome, Problem) for outcome in outcomes)
