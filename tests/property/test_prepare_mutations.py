"""Valid files, damaged, on their whole way to the samples of a run: rendered, encoded, cut to length, packed, kept in
the cache and found there again. Every row of the file gave a sample, or was told as dropped, or an error tells the
place and stops the run. No traceback, no hang.

150 mutations in the quick suite, 2,000 in the slow one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.damaged_files import KINDS, ROWS, damaged, write_file
from tunesmith.config.data import DataConfig
from tunesmith.config.template import TemplateConfig
from tunesmith.core.errors import TunesmithError
from tunesmith.data import Datasets, build_datasets, length
from tunesmith.data.pack import PackedDataset
from tunesmith.render import Renderer, make_renderer

STAGES = ("sft", "pt", "rm", "kto", "ppo")
"""Stages whose rows become samples."""
TEMPLATES = ("the model's own", "qwen", "quick qwen")
AMPLE = 100_000  # tokens; no row is as long


@st.composite
def choices(draw: Callable[..., Any]) -> dict[str, Any]:
    """What a config says about preparing."""
    return {
        "cutoff_len": draw(st.sampled_from([2, 6, 12, 24, 60, AMPLE, AMPLE])),
        "on_too_long": draw(st.sampled_from(["truncate", "drop", "split", "error"])),
        "packing": draw(st.sampled_from([None, None, True])),
        "preprocessing_batch_size": draw(st.sampled_from([1, 2, 1000])),
        "on_bad_row": draw(st.sampled_from(["skip", "skip", "skip", "error"])),
    }


@pytest.fixture(scope="module")
def renderers(tiny_model: Path) -> dict[str, Renderer]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    made = {name: make_renderer(TemplateConfig(template="qwen"), tokenizer) for name in TEMPLATES[1:]}
    made[TEMPLATES[2]].speed_up()
    return {TEMPLATES[0]: make_renderer(TemplateConfig(), tokenizer), **made}


@pytest.fixture(autouse=True)
def any_share_may_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of six rows is more than the share that stops a run; here it is to be counted."""
    monkeypatch.setattr(length, "LOST_AT_MOST", 1.0)


def hold(path: Path, renderer: Renderer, stage: str, rows: int | None, chosen: dict[str, Any]) -> None:
    if stage not in ("sft", "pt") and chosen["on_too_long"] == "split":  # an error of the config
        chosen = {**chosen, "on_too_long": "drop"}
    if stage == "ppo":
        chosen = {**chosen, "packing": None}
    config = DataConfig(dataset=(str(path),), **chosen)
    try:
        datasets = build_datasets(config, renderer, stage=stage, seed=1)
    except TunesmithError as error:
        refused = error
    else:
        _hold_built(datasets, rows, config, stage)
        again = build_datasets(config, renderer, stage=stage, seed=1)
        assert again.report.to_dict() == datasets.report.to_dict()
        return
    assert all(problem.code.startswith(("E-DATA-", "E-RENDER-")) for problem in refused.problems)
    assert str(path) in str(refused)


def _hold_built(datasets: Datasets, rows: int | None, config: DataConfig, stage: str) -> None:
    assert rows is not None, "a file that nobody else can read was read"
    (report,) = datasets.report.datasets
    train = datasets.train
    assert report.rows == rows
    assert report.kept + report.dropped.total() == rows
    pieces = train.pieces if isinstance(train, PackedDataset) else train
    blocks, trains = stage == "pt" and config.packs(stage), stage != "ppo"
    if not blocks:  # a block begins and ends anywhere in its documents
        assert len(pieces) == report.samples
        assert not trains or int(pieces.trained_counts.min()) > 0
    origins = [pieces.origin(number).row for number in range(len(pieces))]
    assert 0 <= min(origins) <= max(origins) < rows
    assert len(set(origins)) == report.kept
    assert train.num_tokens == report.tokens
    assert train.num_trained == report.trained
    assert blocks or int(pieces.lengths.max()) <= config.cutoff_len
    for number in range(len(train)):
        assert len(train[number]["input_ids"]) == int(train.lengths[number])
        assert not trains or np.count_nonzero(train[number]["trained"]) > 0


relaxed = settings(
    deadline=timedelta(seconds=10),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much, HealthCheck.too_slow],
)
files = damaged(STAGES)


def _write(tmp_path: Path, file: tuple[str, str, bytes, int | None]) -> tuple[Path, str, int | None]:
    stage, kind, data, rows = file
    path = tmp_path / f"x.{kind}"
    path.write_bytes(data)
    return path, stage, rows


@settings(relaxed, max_examples=150)
@given(files, st.sampled_from(TEMPLATES), choices())
def test_a_damaged_file_is_prepared_or_refused(tmp_path, renderers, file, template, chosen):
    path, stage, rows = _write(tmp_path, file)
    hold(path, renderers[template], stage, rows, chosen)


@pytest.mark.slow
@settings(relaxed, max_examples=2000)
@given(files, st.sampled_from(TEMPLATES), choices())
def test_two_thousand_damaged_files_are_prepared_or_refused(tmp_path, renderers, file, template, chosen):
    path, stage, rows = _write(tmp_path, file)
    hold(path, renderers[template], stage, rows, chosen)


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("name", [name for name, (stage, _make) in sorted(KINDS.items()) if stage in STAGES])
def test_all_rows_of_a_sound_file_are_kept(tmp_path, renderers, name, kind):
    stage, make = KINDS[name]
    path = tmp_path / f"x.{kind}"
    path.write_bytes(write_file(kind, [make(number) for number in range(ROWS)]))
    datasets = build_datasets(DataConfig(dataset=(str(path),)), renderers["qwen"], stage=stage, seed=1)
    assert [(one.rows, one.kept) for one in datasets.report.datasets] == [(ROWS, ROWS)]
