"""One logger for the package. Messages go to standard error, so that standard output stays data."""

from __future__ import annotations

import logging
import sys

from tunesmith.core import env
from tunesmith.core.secrets import hide_in_addresses

__all__ = ["get_logger", "is_main_process", "setup"]


def get_logger(name: str = "tunesmith") -> logging.Logger:
    return logging.getLogger(name)


def is_main_process() -> bool:
    """True in a single process, and in rank 0 of several."""
    return env.get_int("RANK") == 0


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = hide_in_addresses(record.getMessage())
        return text if record.levelno == logging.INFO else f"{record.levelname.lower()}: {text}"


# Libraries that tell, while they are imported, which kernels for other machines they do not find here.
_TALKATIVE = ("bitsandbytes", "torchao", "torch.utils._pytree")


def setup(level: str | None = None) -> None:
    """Attach one handler to the package's logger; other ranks only report errors. Safe to call twice."""
    logger = get_logger()
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Plain())
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel((level or env.get("TUNESMITH_LOG")).upper() if is_main_process() else logging.ERROR)
    if logger.level > logging.DEBUG:
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.ERROR)
