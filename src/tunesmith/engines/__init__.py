"""Who generates. Chat, predict and everything that asks a model for text use only the contracts: `Engine`, which takes
token ids, or `ChatEngine`, which takes messages.

One file and one line here per engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.registry import Registry
from tunesmith.engines.base import Engine, Sampling
from tunesmith.engines.chat import ChatEngine, Reply

if TYPE_CHECKING:
    from tunesmith.config import RunConfig

__all__ = ["ENGINES", "ChatEngine", "Engine", "Reply", "Sampling", "make_chat_engine", "make_engine"]

ENGINES: Registry[type[ChatEngine]] = Registry("infer_backend", code="E-ENGINE-001")
ENGINES.add("huggingface", "tunesmith.engines.hf:HFEngine")
ENGINES.add("vllm", "tunesmith.engines.vllm:VLLMEngine")
ENGINES.add("sglang", "tunesmith.engines.sglang:SGLangEngine")
ENGINES.add("remote", "tunesmith.engines.remote.chat:Remote")


def make_chat_engine(config: RunConfig) -> ChatEngine:
    """The engine that the config names, with the model loaded and adapters attached: for chats."""
    return ENGINES.get(config.engine.infer_backend).from_config(config)


def make_engine(config: RunConfig) -> Engine:
    """The same, for what needs token ids. Raises UsageError (E-ENGINE-029) where the engine takes messages only."""
    made = make_chat_engine(config)
    if isinstance(made, Engine):
        return made
    made.close()
    what = "this needs an engine that takes token ids, and infer_backend: remote sends messages"
    fix = "remote_prompts: ids, with the model's tokenizer as model_name_or_path, where the server takes ids"
    raise UsageError(Problem("E-ENGINE-029", what, config.place("infer_backend"), fix=fix))
