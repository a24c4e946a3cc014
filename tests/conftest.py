"""Fixtures that all tests share, and the rule that nothing skips silently in continuous integration."""

from __future__ import annotations

import gc
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

# Before any test imports a library that reads them. A Makefile sets the same; this serves `pytest` by hand.
for _name, _value in {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "MPLBACKEND": "Agg",
}.items():
    os.environ.setdefault(_name, _value)

# What tests prepare and run is not kept among what the user has prepared and run.
_data_cache = tempfile.TemporaryDirectory(prefix="tunesmith-data-")
os.environ["TUNESMITH_DATA_CACHE"] = _data_cache.name
_home = tempfile.TemporaryDirectory(prefix="tunesmith-home-")
os.environ["TUNESMITH_HOME"] = _home.name

ROOT = Path(__file__).resolve().parents[1]
IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}


@pytest.fixture(autouse=True)
def _logger_as_it_was() -> Iterator[None]:
    """A command line in this process gives the logger a handler, whose stream ends with the test."""
    logger = logging.getLogger("tunesmith")
    before = list(logger.handlers), logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


_imported = 0


@pytest.fixture(autouse=True)
def _what_is_imported_is_no_garbage() -> Iterator[None]:
    """A run collects garbage before it begins, and would search all that tests have imported, for half a second."""
    yield
    global _imported
    if len(sys.modules) > _imported + 100:
        _imported = len(sys.modules)
        gc.collect()
        gc.freeze()


def _skip_or_fail(reason: str) -> None:
    """On a user's machine a missing input is a skip with a reason; in CI it is a failure."""
    if IN_CI:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder of foreign files (models, tokenizers, data) that are too large or not ours to commit."""
    folder = Path(os.environ.get("TUNESMITH_ASSETS") or ROOT / ".." / "shared" / "assets").resolve()
    if not folder.is_dir():
        _skip_or_fail(f"no test assets at {folder}: set TUNESMITH_ASSETS to their folder")
    return folder


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """The project's own tiny Llama with its tokenizer and ChatML template (tests/assets/README.md)."""
    return ROOT / "tests" / "assets" / "tiny-llama"


@pytest.fixture(scope="session")
def tiny_data() -> Path:
    """Small chat datasets in every format, made from the tiny model's own grammar, with dataset_info.json."""
    return ROOT / "tests" / "assets" / "data"


@pytest.fixture(scope="session")
def stories(assets: Path) -> Path:
    """stories260K: a real Llama of 260,032 parameters, with a SentencePiece tokenizer and no chat template."""
    return assets / "models" / "stories260K"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct, converted once into the user cache by the function that the demo uses.

    Two workers may ask at once: the function itself lets one convert and the others wait.
    """
    from tunesmith.core.errors import UnavailableError
    from tunesmith.models.demo import demo_model

    try:
        return demo_model(lambda message: None)
    except UnavailableError as problem:
        _skip_or_fail(f"no SmolLM2: {problem}")
        raise


@pytest.fixture
def torch_one_thread() -> Iterator[None]:
    """One torch thread: the same sums in the same order on every machine, and no fight for two cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of packages with an environment of their own stay away elsewhere. GPU tests skip where there is none; torch
    is imported only if there is such a test."""
    away = [
        item for item in items if any(find_spec(mark.args[0]) is None for mark in item.iter_markers("needs_package"))
    ]
    if away:
        items[:] = [item for item in items if item not in away]
        config.hook.pytest_deselected(items=away)
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if not wanting:
        return
    import torch

    if not torch.cuda.is_available():
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason="no GPU"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Under CI a skip of anything but a GPU test is a failure: a suite that runs nothing must not look green."""
    outcome = yield
    report = outcome.get_result()
    if IN_CI and report.skipped and not hasattr(report, "wasxfail") and not item.get_closest_marker("gpu"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped under CI: {reason}"


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """The same for a module that skips as a whole."""
    outcome = yield
    report = outcome.get_result()
    if IN_CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped under CI: {report.longrepr}"
