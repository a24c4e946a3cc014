"""Where an export merges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tunesmith


class Loaded(Exception):
    """Raised in place of loading, with the device."""


@pytest.mark.parametrize(("keys", "device"), [({}, "cpu"), ({"export_device": "auto"}, "cuda:0")])
def test_weights_are_merged_where_it_was_asked_for(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any], device: str
) -> None:
    def load(*arguments: Any, device: str, **settings: Any) -> Any:
        raise Loaded(device)

    monkeypatch.setattr("tunesmith.models.load.load", load)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(Loaded, match=device):
        tunesmith.export_model({"model_name_or_path": str(tiny_model), "export_dir": str(tmp_path / "out"), **keys})
