"""Train every weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith.methods.base import Given, Method, set_trainable
from tunesmith.methods.towers import Towers

if TYPE_CHECKING:
    pass

__all__ = ["Full"]


class Full(Method):
    def apply(self, model: Any, given: Given) -> Any:
        names = (name for name, _ in model.named_parameters())
        set_trainable(
            model.named_parameters(), set(Towers(model).trained(names, self.config)), keep_dtype=given.keep_dtype
        )
        return model
