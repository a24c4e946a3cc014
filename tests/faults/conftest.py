"""The bench of a session: a fork server and the runs that others are compared with."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import shim
from tests.faults.trial import Bench

LONGEST = 1800
"""Seconds of a test that tries many faults, on a busy machine."""
_ROOM = 4 * 2**30  # bytes


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers, what shares runs goes to one: the quick tests, and of the others those of a kind."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            large = any(item.get_closest_marker(name) for name in ("slow", "faults"))
            kind = item.callspec.params.get("kind", "") if hasattr(item, "callspec") else ""
            item.add_marker(pytest.mark.xdist_group(f"faults-{kind}" if large else "faults"))
            item.add_marker(pytest.mark.timeout(LONGEST))


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    if sys.platform != "linux":
        pytest.skip("faults are injected on Linux")
    if shim.compiler() is None:
        pytest.skip("there is no C compiler (cc) to build the shim with")
    folder = _in_memory() or tmp_path_factory.mktemp("faults")
    found = Bench(folder)
    yield found
    found.close()
    shutil.rmtree(folder, ignore_errors=True)


def _in_memory() -> Path | None:
    """A folder in main memory, where there is room: a disk that has to sync takes half of a run's time."""
    place = Path("/dev/shm")
    if not os.access(place, os.W_OK) or shutil.disk_usage(place).free < _ROOM:
        return None
    return Path(tempfile.mkdtemp(prefix="tunesmith-faults-", dir=place))


@pytest.fixture
def cases(record_property: Callable[[str, Any], None]) -> Callable[[int], None]:
    """`cases(n)`: the test tries n faults."""
    return lambda number: record_property("cases", number)
