"""What a mixture of depths does not go with. The rules hold for the key `mixture_of_depths`, and, once config.json has
been read, for a model that is one without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tunesmith.config.check_table import Check, contradiction, rules_into
from tunesmith.config.run_config import RunConfig
from tunesmith.core.errors import Problem, UsageError

__all__ = ["DEPTH_CHECKS", "refuse_pairs"]

DEPTH_CHECKS: list[Check] = []
_rule = rules_into(DEPTH_CHECKS)

_METHODS = ("full", "freeze", "lora")
_TALKS = ("predict", "eval", "chat", "api")


def _packs_padded(config: RunConfig) -> bool:
    return config.model.fast_path == "off" and config.data.packs(config.objective.stage)


# key -> whether it is asked for, and why it does not go with layers that compute a part of the tokens
_TRAINING: dict[str, tuple[Callable[[RunConfig], bool], str]] = {
    "stage": (
        lambda c: c.objective.stage not in ("pt", "sft"),
        "what is chosen depends on the whole sequence, so rewards and preferences would change with the tokens behind",
    ),
    "finetuning_type": (
        lambda c: c.method.finetuning_type not in _METHODS,
        "it is not known to train layers that choose their tokens: full, freeze and lora are",
    ),
    "use_llama_pro": (lambda c: c.method.use_llama_pro, "added blocks would change which layers choose"),
    "quantization_bit": (
        lambda c: c.quantization.quantization_bit is not None,
        "a choice among tokens that are alike turns with the rounding of quantized weights",
    ),
    "qat": (lambda c: bool(c.quantization.qat), "the quantized model would be loaded without routers"),
    "fp8": (
        lambda c: c.launch.fp8,
        "products in eight bits need a multiple of 16 tokens, and layers choose any number",
    ),
    "shift_attn": (lambda c: c.model.shift_attn, "the groups are those of all tokens, and layers have some of them"),
    "moe_aux_loss_coef": (
        lambda c: c.model.moe_aux_loss_coef is not None,
        "the load of experts is counted over all tokens, and layers have some of them",
    ),
    "enable_liger_kernel": (lambda c: c.model.enable_liger_kernel, "it is not compared with Liger's kernels"),
    "torch_compile": (
        lambda c: any(c.train.value(f"torch_compile{kind}") for kind in ("", "_backend", "_mode")),
        "the layers that choose are no graphs, so there is little to compile",
    ),
    "fast_path": (_packs_padded, "sequences that share a padded row are not told apart by what chooses"),
}
_ANYWHERE: dict[str, tuple[Callable[[RunConfig], bool], str]] = {
    "quantization_bit": _TRAINING["quantization_bit"],
    "infer_backend": (
        lambda c: c.engine.infer_backend in ("vllm", "sglang"),
        "the other engine would compute all tokens in all layers",
    ),
}
_LEAVE = {
    "stage": "stage: pt or sft",
    "finetuning_type": "finetuning_type: full, freeze or lora",
    "infer_backend": "infer_backend: huggingface",
    "fast_path": "fast_path: auto, or packing: false (and no neat_packing)",
}


def _pairs(config: RunConfig) -> Iterator[tuple[str, str]]:
    """(key, reason) of what is asked for beside a mixture of depths and cannot be."""
    table = _TRAINING if config.verb == "train" else _ANYWHERE
    yield from ((key, why) for key, (asked, why) in table.items() if asked(config))


@_rule(("train", *_TALKS, "export"), "mixture_of_depths", *_TRAINING, "infer_backend", "packing", "neat_packing")
def _it_goes_alone(config: RunConfig) -> Iterator[Problem]:
    if config.model.mixture_of_depths is None:
        return
    for key, why in _pairs(config):
        what = f'"{key}" does not go with mixture_of_depths: {why}'
        yield contradiction(config, key, what, _fix(key))


@_rule(("train",), "mixture_of_depths", "finetuning_type")
def _new_routers_train_with_everything(config: RunConfig) -> Iterator[Problem]:
    if config.model.mixture_of_depths == "convert" and config.method.finetuning_type in ("freeze", "lora"):
        what = '"mixture_of_depths: convert" makes new routers, and layers that were trained for all tokens learn anew'
        yield contradiction(config, "finetuning_type", what, "finetuning_type: full; then lora on what it saved")


def refuse_pairs(config: RunConfig) -> None:
    """Raises UsageError for a model that is a mixture of depths, as its config.json says, where the config asks for
    something that it does not go with."""
    where = f"model_name_or_path: {config.model.model_name_or_path}"
    what = '"{}" does not go with a mixture of depths, which this model is: {}'
    found = [Problem("E-CONFIG-021", what.format(key, why), where, fix=_fix(key)) for key, why in _pairs(config)]
    if found:
        raise UsageError(found)


def _fix(key: str) -> str:
    return _LEAVE.get(key, f"leave {key} out")
