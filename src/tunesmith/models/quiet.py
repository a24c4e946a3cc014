"""Keep the libraries underneath from talking over our own output."""

from __future__ import annotations

import warnings

from tunesmith.core import env

__all__ = ["quiet_libraries"]


def quiet_libraries() -> None:
    """No progress bars of transformers' own, and no warning that a user can do nothing about. Safe to call twice."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    if env.get("TUNESMITH_LOG") != "debug":
        logging.set_verbosity_error()
    # PEFT <= 0.21 asks transformers >= 5.23 for a property under its old name.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
