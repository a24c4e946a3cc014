"""Load a causal language model for training or for generation, with everything that must be true about it checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import MachineError, MissingInputError, Problem, UsageError
from tunesmith.core.log import get_logger
from tunesmith.models.depth_plan import Depths, plan_depths
from tunesmith.models.family import Family, family_of
from tunesmith.models.keep import take_logits_to_keep
from tunesmith.models.locate import gguf_file, located, model_folder
from tunesmith.models.machine import cpu_has_bf16
from tunesmith.models.quiet import quiet_libraries
from tunesmith.models.reward import HEAD, begin_head, check_kind, check_rewards, prepare_rewards
from tunesmith.models.rope import check_positions, may_scale, scale_positions
from tunesmith.models.seeing import part_attention
from tunesmith.models.tokenizer import (
    first_line,
    hub_arguments,
    load_tokenizer,
    refuse_foreign_code,
    refuse_unreachable_hub,
    with_suggestion,
)
from tunesmith.models.vocabulary import grow

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from tunesmith.config.model import ModelConfig
    from tunesmith.models.quantization.plan import Base
    from tunesmith.models.reward import Head

__all__ = ["ATTENTION", "Loaded", "auto_class", "infer_dtype", "language_type", "load", "settings_of", "torch_dtype"]

# `flash_attn` of the config -> `attn_implementation` of transformers, for padded batches and for generation (flat ones:
# `models.kernels`). `auto` is SDPA where the model knows it, and what transformers takes instead where it does not.
_FLASH = {"fa2": "flash_attention_2", "fa3": "flash_attention_3"}
ATTENTION = {"auto": "sdpa", "disabled": "eager", "sdpa": "sdpa", "flex": "sdpa", **_FLASH}


@dataclass(slots=True)
class Loaded:
    """A model with what belongs to it."""

    model: PreTrainedModel
    tokenizer: Any
    family: Family


def torch_dtype(name: str) -> torch.dtype:
    """`float32`, `bfloat16` or `float16` as torch's object."""
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def infer_dtype(config: ModelConfig, device: str) -> str:
    """The dtype to generate and export in: `infer_dtype`, or the saved one, or float32 where the device lacks it."""
    if config.infer_dtype != "auto":
        return config.infer_dtype
    saved = str(getattr(settings_of(config), "dtype", None) or "float32").removeprefix("torch.")
    slow = device == "cpu" and (saved == "float16" or not cpu_has_bf16())
    return "float32" if slow or saved not in {"float32", "bfloat16", "float16"} else saved


def settings_of(config: ModelConfig) -> Any:
    """The model's config.json as transformers' object; no weights are read. Raises what `load` raises."""
    from transformers import AutoConfig

    config = located(config)
    model_folder(str(config.model_name_or_path))
    with _explaining(config):
        return AutoConfig.from_pretrained(config.model_name_or_path, **_sources(config))


def _sources(config: ModelConfig) -> dict[str, Any]:
    """What `from_pretrained` gets to find the files."""
    gguf = gguf_file(str(config.model_name_or_path))
    return hub_arguments(config) | ({"gguf_file": gguf} if gguf else {})


def language_type(config: ModelConfig) -> str:
    """`model_type` of the language model that `load` gives; of a composite that is its text part, where transformers
    loads that alone. Raises what `settings_of` raises."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    settings = settings_of(config)
    if not settings.sub_configs or type(settings) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return str(settings.model_type)
    return str(MODEL_FOR_CAUSAL_LM_MAPPING[type(settings)].config_class.model_type)


def load(
    config: ModelConfig,
    tokenizer: Any = None,
    *,
    dtype: str,
    attention: str = "sdpa",
    device: str = "cpu",
    quantization: Base | None = None,
    seed: int = 42,
    longest: int | None = None,
    head: Head = "tokens",
    media: bool = False,
) -> Loaded:
    """Tokenizer (unless it is given) and model in `dtype` on `device`. quantization: what of the base is quantized, as
    `models.quantization.plan.base_of` tells it; None for ordinary weights. `seed`: of the rows of new tokens.
    `longest`: tokens of the longest row of a training, which scaled positions follow. `head`: what the model ends in.
    `media`: it is to see or hear, so its text part alone is not enough.

    Raises MissingInputError where the model is not there or is none of the kind, MachineError where a package that
    the config asks for is missing.
    """
    quiet_libraries()
    config = located(config)
    tokenizer = tokenizer or load_tokenizer(config)
    placed = {} if quantization is None else quantization.arguments(dtype, device)
    model = _build(config, dtype, attention, placed, longest, head, seed, media)
    if quantization is not None:
        quantization.finish(model, dtype, device)
    grow(model, tokenizer, config, seed)
    if head == "tokens":
        take_logits_to_keep(model)
    else:
        prepare_rewards(model, tokenizer)
    return Loaded(model if "device_map" in placed else model.to(device), tokenizer, family_of(model.config.model_type))


def _build(
    config: ModelConfig,
    dtype: str,
    attention: str,
    placed: Mapping[str, Any],
    longest: int | None,
    head: Head,
    seed: int,
    media: bool,
) -> PreTrainedModel:
    from transformers import AutoConfig

    name = config.model_name_or_path
    assert name, "checked by the config"
    model_folder(name)
    arguments: dict[str, Any] = {"dtype": torch_dtype(dtype)}
    with _explaining(config):
        settings, scaled = AutoConfig.from_pretrained(name, **_sources(config)), False
        auto = auto_class(type(settings), head, media)
        if config.flash_attn != "auto" or attention != ATTENTION["auto"]:
            arguments["attn_implementation"] = part_attention(settings, attention, ATTENTION[config.flash_attn])
        check_kind(config, settings, head)
        depths = plan_depths(config, settings, trains=longest is not None)
        if depths is not None and placed:
            _refuse_quantized(name)
        if head != "tokens":
            check_rewards(config, settings)
            settings.num_labels = 1
        if config.train_from_scratch or may_scale(config):
            scaled = scale_positions(settings, config, longest)
        if config.train_from_scratch:
            get_logger().info("train_from_scratch: random weights, nothing is read from %s but its shape", name)
            model = auto.from_config(settings, trust_remote_code=config.trust_remote_code, **arguments)
        else:
            arguments |= {"output_loading_info": True, **_sources(config), **placed}
            if scaled or head != "tokens":
                arguments["config"] = settings
            auto = auto if depths is None or config.mixture_of_depths == "convert" else _with_routers(settings, depths)
            model, found = auto.from_pretrained(name, **arguments)
            new = head != "tokens" and HEAD in found["missing_keys"]
            _check_complete(found, name, new_head=head == "new reward" or (new and bool(config.adapter_name_or_path)))
            if new:
                begin_head(model, seed)
    if depths is not None:
        _route(model, depths, seed)
    if scaled:
        check_positions(model, config)
        model.scaled_positions = True
    if (chosen := getattr(model.config, "_attn_implementation", attention)) != attention:
        get_logger().info("attention: %s (this model has no %s)", chosen, attention)
    return model


def _refuse_quantized(name: str) -> None:
    what = "layers that choose their tokens do not go with quantized weights: a choice turns with their rounding"
    fix = "leave quantization_bit out, or use a model that is no mixture of depths"
    raise UsageError(Problem("E-MODEL-031", what, f"model_name_or_path: {name}", fix=fix))


def _with_routers(settings: Any, depths: Depths) -> Any:
    """The class that reads the weights of a mixture of depths, with those of its routers."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    from tunesmith.models.depths import routed_class

    return routed_class(MODEL_FOR_CAUSAL_LM_MAPPING[type(settings)], depths)


def _route(model: Any, depths: Depths, seed: int) -> None:
    """Have layers choose their tokens; routers that no file brought begin by `seed`."""
    from tunesmith.models.depths import add_routers, begin_routers, has_routers, route

    if not has_routers(model):
        add_routers(model, depths)
        begin_routers(model, seed)
    route(model, depths)
    routed = depths.layers(model.config.num_hidden_layers)
    text = "mixture of depths: layers %s compute %g of the tokens"
    get_logger().info(text, ", ".join(map(str, routed)), depths.capacity)


def auto_class(kind: type, head: Head, media: bool) -> Any:
    """transformers' class that loads a model with this class of config: a language model, or one that sees or hears
    where `media` are read or there is no other."""
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_MULTIMODAL_LM_MAPPING,
        AutoModelForCausalLM,
        AutoModelForMultimodalLM,
        AutoModelForSequenceClassification,
    )

    if head != "tokens":
        return AutoModelForSequenceClassification
    sees = kind in MODEL_FOR_MULTIMODAL_LM_MAPPING and (media or kind not in MODEL_FOR_CAUSAL_LM_MAPPING)
    return AutoModelForMultimodalLM if sees else AutoModelForCausalLM


@contextmanager
def _explaining(config: ModelConfig) -> Iterator[None]:
    """Turn transformers' refusals into errors of ours."""
    name = str(config.model_name_or_path)
    try:
        yield
    except ImportError as error:
        refuse_foreign_code(error, name)
        fix = "install it" + ("" if config.flash_attn == "auto" else ", or write flash_attn: auto")
        what = "a package that this model or attention needs is missing"
        where = f"model_name_or_path: {name}, flash_attn: {config.flash_attn}"
        raise MachineError(Problem("E-MODEL-005", what, where, first_line(error), fix)) from error
    except (OSError, ValueError) as error:
        refuse_foreign_code(error, name)
        refuse_unreachable_hub(error, name)
        what, where = "the model cannot be loaded", f"model_name_or_path: {name}"
        raise MissingInputError(Problem("E-MODEL-006", what, where, first_line(error), _advice(name))) from error
    except Exception as error:
        problem = _damage(error, name)
        if problem is None:
            raise
        raise MissingInputError(problem) from error


def _advice(name: str) -> str:
    fix = "check the name, the network and your access; a local folder needs config.json and safetensors"
    return with_suggestion(name, fix)


def _damage(error: Exception, name: str) -> Problem | None:
    """What is wrong with the files, if that is what `error` says; it is told by the kinds of the libraries' errors."""
    kind, text, where = type(error).__name__, str(error), f"model_name_or_path: {name}"
    if kind == "SafetensorError":
        fix = "get the model again; a file that was cut off is smaller than its source"
        return Problem("E-MODEL-012", "a file of weights is damaged", where, first_line(error), fix)
    if "ignore_mismatched_sizes" in text or "size mismatch" in text:
        what = "the weights have other shapes than config.json says"
        return Problem("E-MODEL-012", what, where, fix="use config.json and weights of one and the same model")
    if kind == "UnpicklingError":
        what = "the weights are in a pickle file that holds more than numbers; it was not read"
        fix = "use a model with safetensors: reading such a file can run any program"
        return Problem("E-MODEL-013", what, where, fix=fix)
    if kind.startswith("StrictDataclass"):  # the config's values are checked by huggingface_hub
        got = " ".join(text.split())
        return Problem(
            "E-MODEL-006", "config.json holds a value that cannot be", where, got, "mend it, or get it again"
        )
    return None


def _check_complete(found: Mapping[str, Any], name: str, *, new_head: bool) -> None:
    """Weights that no file holds would be random, and the run would look like any other."""
    new = {HEAD} if new_head else set()
    if missing := sorted(set(found.get("missing_keys", ())) - new):
        raise MissingInputError(
            Problem(
                "E-MODEL-011",
                f"the files lack {len(missing):,} of the weights that config.json asks for",
                where=f"model_name_or_path: {name}",
                got=", ".join(missing[:3]),
                fix="get the whole model again, or the config.json that belongs to it",
            )
        )
    if unused := sorted(one for one in found.get("unexpected_keys", ()) if not (new and one.startswith("lm_head."))):
        get_logger().warning("%s: %d weights of the files are not used: %s", name, len(unused), ", ".join(unused[:3]))
