"""Tunesmith: fine-tune open language models.

    import tunesmith
    result = tunesmith.train("run.yaml", learning_rate=1e-4)
    print(result.metrics)

Importing this package imports nothing heavy: each name below is looked up when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tunesmith._version import __version__

if TYPE_CHECKING:
    from tunesmith.api import chat, compare, evaluate_model, export_model, predict, score, train
    from tunesmith.config import RunConfig, load_config
    from tunesmith.core.errors import Problem, TunesmithError
    from tunesmith.core.types import Message
    from tunesmith.engines.conversation import Conversation

__all__ = [
    "Conversation",
    "Message",
    "Problem",
    "RunConfig",
    "TunesmithError",
    "__version__",
    "chat",
    "compare",
    "evaluate_model",
    "export_model",
    "load_config",
    "predict",
    "score",
    "train",
]

_HOMES = {
    "Conversation": "tunesmith.engines.conversation",
    "Message": "tunesmith.core.types",
    "Problem": "tunesmith.core.errors",
    "RunConfig": "tunesmith.config",
    "TunesmithError": "tunesmith.core.errors",
    "chat": "tunesmith.api",
    "compare": "tunesmith.api",
    "evaluate_model": "tunesmith.api",
    "export_model": "tunesmith.api",
    "load_config": "tunesmith.config",
    "predict": "tunesmith.api",
    "score": "tunesmith.api",
}


def __getattr__(name: str) -> Any:
    if name == "train":  # a folder and a function: the folder's module can be called (see its __init__.py)
        return import_module("tunesmith.train")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
