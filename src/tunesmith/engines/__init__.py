"""Who generates. Chat, predict and everything that asks a model for text use only the `Engine` contract.

One file and one line here per engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.core.registry import Registry
from tunesmith.engines.base import Engine, Sampling
from tunesmith.engines.chat import ChatEngine, Reply

if TYPE_CHECKING:
    from tunesmith.config import RunConfig

__all__ = ["ENGINES", "ChatEngine", "Engine", "Reply", "Sampling", "make_engine"]

ENGINES: Registry[type[Engine]] = Registry("infer_backend", code="E-ENGINE-001")
ENGINES.add("huggingface", "tunesmith.engines.hf:HFEngine")


def make_engine(config: RunConfig) -> Engine:
    """The engine that the config names, with the model loaded and adapters attached."""
    return ENGINES.get(config.engine.infer_backend).from_config(config)
