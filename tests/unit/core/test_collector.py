"""The garbage collector is as it was before, whatever happens inside."""

from __future__ import annotations

import gc

import pytest

from tunesmith.core.collector import no_collection


def test_the_collector_rests_inside_and_goes_on_behind() -> None:
    with no_collection():
        assert not gc.isenabled()
        with no_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_error_inside_changes_nothing() -> None:
    with pytest.raises(KeyError), no_collection():
        raise KeyError
    assert gc.isenabled()
