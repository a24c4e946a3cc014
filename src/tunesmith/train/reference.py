"""What a policy is compared with: the model before training, or another one.

An adapter's reference is the model without it, which takes no memory. A model that trains its own weights has a frozen
copy of them, and `ref_model` is read beside the policy. All answer to the same batches, by the same quick ways. Where
rows bring what it says (`precompute_ref_log_probs`), there is none while the policy trains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tunesmith.core.errors import MachineError, MissingInputError, Problem
from tunesmith.core.log import get_logger
from tunesmith.losses.token import LogitRows, LogProbs
from tunesmith.models.flops import TokenFlops, measure_flops
from tunesmith.models.loss_forward import LossForward

if TYPE_CHECKING:
    from tunesmith.config import RunConfig, RunPlan
    from tunesmith.config.model import ModelConfig
    from tunesmith.objectives.answers import Answers

__all__ = ["Beside", "Told", "WithoutAdapter", "loaded_by", "reference_of", "without_adapter"]


class WithoutAdapter:
    """The policy with its adapter switched off."""

    def __init__(self, model: Any) -> None:
        self.model, self._forward = model, LossForward.within(model)

    def __call__(self, model: Any, inputs: Mapping[str, Any], answers: Answers) -> Tensor:
        found: Tensor = self._asked(**inputs, **answers.asked, loss_kind=LogProbs())["log_probs"]
        return found

    def logits(self, inputs: Mapping[str, Any], asked: Mapping[str, Any]) -> Callable[[slice], Tensor]:
        found: Callable[[slice], Tensor] = self._asked(**inputs, **asked, loss_kind=LogitRows())["logits"]
        return found

    def _asked(self, **inputs: Any) -> Any:
        training = self.model.training
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(self.model.disable_adapter())
            if training:  # no dropout
                self.model.eval()
                stack.callback(self.model.train)
            stack.callback(setattr, self._forward, "shift", self._forward.shift)
            self._forward.shift = 0  # a learnt prompt is switched off too
            return self.model(**inputs)

    def flops(self) -> TokenFlops:
        with self.model.disable_adapter():
            return measure_flops(self.model, backward=False)


class Beside:
    """A model of its own, whose weights stay what they are."""

    def __init__(self, model: Any) -> None:
        self.model = model.requires_grad_(False).eval()

    @torch.no_grad()
    def __call__(self, model: Any, inputs: Mapping[str, Any], answers: Answers) -> Tensor:
        found: Tensor = self.model(**inputs, **answers.asked, loss_kind=LogProbs())["log_probs"]
        return found

    @torch.no_grad()
    def logits(self, inputs: Mapping[str, Any], asked: Mapping[str, Any]) -> Callable[[slice], Tensor]:
        found: Callable[[slice], Tensor] = self.model(**inputs, **asked, loss_kind=LogitRows())["logits"]
        return found

    def flops(self) -> TokenFlops:
        return measure_flops(self.model, backward=False)


class Told:
    """No model any more: every row with an answer brings what the reference says."""

    def __call__(self, model: Any, inputs: Mapping[str, Any], answers: Answers) -> Tensor:
        """Of the blank row of a rank without answers."""
        assert not len(answers.targets), "rows with answers bring what the reference says"
        return torch.zeros(0, device=answers.targets.device)


def without_adapter(config: RunConfig, model: Any) -> bool:
    """Whether the reference is the policy with its adapter switched off."""
    kept = hasattr(model, "disable_adapter") and not hasattr(model, "base_was_changed")
    return config.objective.ref_model is None and kept


def reference_of(config: RunConfig, plan: RunPlan, model: Any, tokenizer: Any) -> WithoutAdapter | Beside:
    """The reference of a run, by the ways that the plan tells. Raises what loading a model raises, MissingInputError
    where the reference reads other tokens than the policy, and MachineError where it does not read the same batches."""
    if without_adapter(config, model):
        get_logger().info("reference: the model without its adapter")
        return WithoutAdapter(model)
    named = config.objective.ref_model
    get_logger().info("reference: %s", named or "a frozen copy of the model")
    return Beside(_loaded(config, plan, model, tokenizer))


def loaded_by(config: RunConfig) -> RunConfig:
    """The config by which a reference is loaded that is a model of its own."""
    keys = config.objective
    if keys.ref_model is None:
        return replace(config, verb="predict")
    settings = replace(config.model, model_name_or_path=keys.ref_model, adapter_name_or_path=keys.ref_model_adapters)
    quantization = replace(config.quantization, quantization_bit=keys.ref_model_quantization_bit, qat=None)
    return replace(config, model=settings, quantization=quantization, verb="predict")


def _loaded(config: RunConfig, plan: RunPlan, policy: Any, tokenizer: Any) -> Any:
    """The reference as a model of its own, with the forward that ends in log probabilities."""
    from tunesmith.methods.base import Adapters
    from tunesmith.methods.merge import merge_adapters
    from tunesmith.models.fast_path import FastPath, prove
    from tunesmith.models.load import load
    from tunesmith.models.quantization.plan import base_of
    from tunesmith.models.seeing import has_encoders

    frozen = loaded_by(config)
    settings, base = frozen.model, base_of(frozen, plan.device)
    fast = FastPath(plan.batches == "flat", plan.loss, plan.attention, shares=plan.shares)
    how: dict[str, Any] = {"dtype": plan.dtype, "attention": fast.at_load, "device": plan.device, "seed": plan.seed}
    how["media"] = has_encoders(policy)
    try:
        loaded = load(settings, tokenizer, **how, quantization=base, longest=plan.cutoff_len)
    except MissingInputError as error:
        if error.code == "E-MODEL-007":  # fewer embeddings than the tokenizer has tokens
            raise _another_vocabulary(settings, error.problems[0].got) from error
        raise
    sizes = [model.get_input_embeddings().weight.shape[0] for model in (loaded.model, policy)]
    if sizes[0] != sizes[1]:
        raise _another_vocabulary(settings, f"{sizes[0]:,} tokens, and the model has {sizes[1]:,}")
    if settings.adapter_name_or_path:
        merge_adapters(loaded.model, Adapters.of(settings))
    found = prove(loaded.model, loaded.family, fast, settings)
    if (found.flat, found.shares) != (fast.flat, fast.shares):
        what, where = (
            "the reference model does not read the batches of the run",
            f"ref_model: {config.objective.ref_model}",
        )
        raise MachineError(Problem("E-TRAIN-068", what, where, found.why[-1], "prefix_sharing: off, or fast_path: off"))
    return loaded.model


def _another_vocabulary(settings: ModelConfig, got: str | None) -> MissingInputError:
    what = "the reference model has another vocabulary than the model, so the same ids are other tokens"
    fix = "a ref_model of the same family, like the model before it was trained"
    return MissingInputError(Problem("E-TRAIN-069", what, f"ref_model: {settings.model_name_or_path}", got, fix))
