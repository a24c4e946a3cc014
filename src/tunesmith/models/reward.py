"""Load a model that gives rewards: transformers' class for sequences with one label on the model's own trunk.

What is trained so and saved is loaded by plain transformers, with `num_labels` 1, and by what trains on rewards.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tunesmith.core.errors import MissingInputError, Problem, UsageError
from tunesmith.models.heads import reward_head
from tunesmith.models.tokenizer import pad_id_of

if TYPE_CHECKING:
    from tunesmith.config.model import ModelConfig

__all__ = ["HEAD", "Head", "begin_head", "check_kind", "check_rewards", "is_reward_model", "prepare_rewards"]

Head: TypeAlias = Literal["tokens", "saved reward", "new reward"]
"""What a model ends in: logits of tokens; a reward, by an output layer that is in its files, or that may be new."""

HEAD = "score.weight"


def is_reward_model(settings: Any) -> bool:
    """Whether files with this config.json hold a model that gives one number for a sequence."""
    return any(name.endswith("ForSequenceClassification") for name in settings.architectures or ())


def check_rewards(config: ModelConfig, settings: Any) -> None:
    """Before weights are read. Raises UsageError for a type without such a class, or whose class reads text alone where
    the model sees or hears too."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    kind = type(settings)
    reason = None
    if kind not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        reason = f"transformers has no class of the type {settings.model_type} that gives one number for a sequence"
    elif kind not in MODEL_FOR_CAUSAL_LM_MAPPING or (settings.sub_configs and not _sees(kind)):
        reason = f"a model of the type {settings.model_type} is more than a language model, or another kind"
    if reason is not None:
        what, where = "this model cannot become a reward model", f"model_name_or_path: {config.model_name_or_path}"
        fix = "a language model with a class for sequences, such as those of Qwen, Llama, Mistral, Gemma or Phi"
        if settings.sub_configs:
            fix = "of models that see, gemma3 and qwen3_5 have such a class; others train with stage: dpo"
        raise UsageError(Problem("E-MODEL-036", what, where, reason, fix))


def _sees(kind: type) -> bool:
    """Whether the class for sequences of a type takes images."""
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    return "pixel_values" in inspect.signature(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[kind].forward).parameters


def check_kind(config: ModelConfig, settings: Any, head: Head) -> None:
    """Raises MissingInputError for a reward model that is to write, a language model that is to score, and one that
    tells classes apart."""
    where, rewards = f"model_name_or_path: {config.model_name_or_path}", is_reward_model(settings)
    got = ", ".join(settings.architectures or ())
    if head == "tokens" and rewards:
        what = "this model gives rewards, and writes nothing"
        fix = "the model before it was trained; tunesmith score and tunesmith api give the rewards of this one"
        raise MissingInputError(Problem("E-MODEL-035", what, where, got, fix))
    if head != "tokens" and rewards and settings.num_labels != 1:
        what, fix = "this model tells classes apart; a reward is one number", "a model with num_labels: 1"
        raise MissingInputError(Problem("E-MODEL-035", what, where, f"{settings.num_labels} labels", fix))
    if head == "saved reward" and not rewards and not config.adapter_name_or_path:
        what, fix = "this model has no output layer for rewards", "a model, or an adapter, of a run of stage rm"
        raise MissingInputError(Problem("E-MODEL-035", what, where, got or None, fix))


def begin_head(model: Any, seed: int) -> None:
    """A new output layer: normal, with the spread that config.json gives to new weights; the seed decides."""
    import torch

    weight = reward_head(model).weight
    spread = float(getattr(model.config.get_text_config(), "initializer_range", None) or 0.02)
    generator = torch.Generator().manual_seed(seed)
    weight.data.copy_(spread * torch.randn(weight.shape, generator=generator))


def prepare_rewards(model: Any, tokenizer: Any) -> None:
    """Model and tokenizer agree on the padding token: transformers finds the end of a sequence by it."""
    pad = pad_id_of(tokenizer)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    model.config.get_text_config().pad_token_id = pad
