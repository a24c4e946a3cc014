"""Adapters that ask with each row which task it is of: all rows are of task 0."""

from __future__ import annotations

from functools import wraps
from types import MethodType
from typing import Any

from tunesmith.config.tuners import TUNERS

__all__ = ["number_tasks"]


def number_tasks(model: Any) -> Any:
    """`model` (PEFT) with 0 where its forward, or a layer that is computed again, asks for the number of a task."""
    kinds = {settings.peft_type.value.lower() for settings in getattr(model, "peft_config", {}).values()}
    if not any(TUNERS[kind].tasks for kind in kinds if kind in TUNERS) or hasattr(model, "numbers_tasks"):
        return model
    from peft.tuners.tuners_utils import BaseTunerLayer

    def with_task(_: Any, arguments: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        rows = arguments[0] if arguments else inputs["x"]
        return arguments, {"task_ids": rows.new_zeros(rows.shape[0]).long(), **inputs}

    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.register_forward_pre_hook(with_task, with_kwargs=True)
    plain = model.forward

    @wraps(plain)
    def forward(self: Any, input_ids: Any = None, *arguments: Any, **inputs: Any) -> Any:
        rows = input_ids if input_ids is not None else inputs["inputs_embeds"]
        inputs.setdefault("task_ids", rows.new_zeros(rows.shape[0]).long())
        return plain(input_ids, *arguments, **inputs)

    model.forward, model.numbers_tasks = MethodType(forward, model), True
    return model
