"""A run: what is derived before it (plan), the one Trainer, what is written after it. Nothing heavy at import.

The module can be called: `tunesmith.train` is this folder and also the function that users call,
`tunesmith.train("run.yaml", learning_rate=1e-4)`, whichever of the two was imported first.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _CallableFolder(ModuleType):
    def __call__(self, source: Any = None, **overrides: Any) -> Any:
        """Train as a config says; see `tunesmith.api.train`."""
        from tunesmith.api import train

        return train(source, **overrides)


sys.modules[__name__].__class__ = _CallableFolder
