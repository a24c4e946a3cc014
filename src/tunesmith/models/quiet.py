"""Keep the libraries underneath from talking over our own output."""

from __future__ import annotations

import logging as standard
import warnings

from tunesmith.core import env

__all__ = ["quiet_libraries"]


def quiet_libraries() -> None:
    """No progress bars of transformers' own, and no warning that a user can do nothing about. Safe to call twice."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    if env.get("TUNESMITH_LOG") != "debug":
        logging.set_verbosity_error()
        standard.getLogger("torchao").setLevel(standard.ERROR)  # kernels of other devices than this one
    # PEFT <= 0.21 asks transformers >= 5.23 for a property under its old name.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    # The config of a checkpoint is what is meant: it is asked to come out as ordinary weights.
    warnings.filterwarnings("ignore", message="You passed `quantization_config` or equivalent", category=UserWarning)
    # PEFT looks for config.json beside a GGUF file.
    warnings.filterwarnings("ignore", message="Could not find a config file in", category=UserWarning)
