"""The files that say how media are made ready for a model: they go along with its weights, as they are."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.models.locate import located
from tunesmith.models.tokenizer import hub_arguments

if TYPE_CHECKING:
    from tunesmith.config.model import ModelConfig

__all__ = ["copy_processor"]

_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json", "audio_config.json")


def copy_processor(config: ModelConfig, folder: str | Path) -> None:
    """Those of the model that the config names into `folder`. A model that takes text only has none."""
    from transformers.utils import cached_file

    config = located(config)
    for name in _FILES:
        found = None
        with suppress(OSError):  # the model has no such file
            found = cached_file(str(config.model_name_or_path), name, **hub_arguments(config))
        if found is not None and Path(found).resolve().parent != Path(folder).resolve():
            shutil.copyfile(found, Path(folder) / name)
