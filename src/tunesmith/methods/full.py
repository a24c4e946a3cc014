"""Train every weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith.methods.base import NO_ADAPTERS, Adapters, Calibration, Method, set_trainable
from tunesmith.methods.towers import Towers

if TYPE_CHECKING:
    from tunesmith.models.family import Family

__all__ = ["Full"]


class Full(Method):
    def apply(
        self,
        model: Any,
        family: Family,
        *,
        keep_dtype: bool,
        adapters: Adapters = NO_ADAPTERS,
        calibration: Calibration | None = None,
    ) -> Any:
        names = (name for name, _ in model.named_parameters())
        set_trainable(model.named_parameters(), set(Towers(model).trained(names, self.config)), keep_dtype=keep_dtype)
        return model
