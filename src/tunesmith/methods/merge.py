"""Attach adapters to a base model, and fold them into its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith.config.tuners import TUNERS
from tunesmith.core.errors import MissingInputError, Problem, UsageError
from tunesmith.core.log import get_logger
from tunesmith.methods import xlora
from tunesmith.methods.base import NO_ADAPTERS, Adapters
from tunesmith.methods.tasks import number_tasks
from tunesmith.methods.towers import is_of_text_alone
from tunesmith.models.heads import task_of
from tunesmith.models.locate import check_folder

__all__ = ["attach_adapter", "fold", "is_reward_adapter", "merge_adapters"]


def attach_adapter(
    model: Any,
    name: str,
    source: Adapters = NO_ADAPTERS,
    *,
    trainable: bool = False,
    keep_dtype: bool = True,
    known_as: str | None = None,
) -> Any:
    """`model` with the adapter `name` of `source` on top. To a model that has adapters it is added, and which one is
    active does not change; they are told apart by what each is `known_as`.

    Raises MissingInputError if the adapter is not there or does not fit.
    """
    inside, local, arguments = _place(name, source)

    from peft import PeftModel

    kind = _compare_bases(model, name, inside, arguments)
    _compare_parts(model, name, source)
    if known_as is not None and kind in TUNERS and TUNERS[kind].replies != "together":
        what, fix = "this adapter cannot be mixed with others in one batch", "give it as adapter_name_or_path"
        raise UsageError(Problem("E-ENGINE-010", what, name, kind, fix))
    if kind == "xlora":
        arguments["config"] = xlora.settings_beside(model, Path(inside) if local else None, name)
    arguments |= {"is_trainable": trainable, "autocast_adapter_dtype": not keep_dtype}
    if known_as is not None:
        arguments["adapter_name"] = known_as
    try:
        if isinstance(model, PeftModel):
            model.load_adapter(inside, **arguments)
            return model
        return number_tasks(PeftModel.from_pretrained(model, inside, **arguments))
    except (OSError, ValueError, RuntimeError) as error:
        raise MissingInputError(
            Problem(
                "E-METHOD-005",
                "the adapter does not fit this model",
                where=f"adapter_name_or_path: {name}",
                got=str(error).strip().splitlines()[0],
                fix="name the base model that the adapter was trained on in model_name_or_path",
            )
        ) from error


def _place(name: str, source: Adapters) -> tuple[str, bool, dict[str, Any]]:
    """Where PEFT finds an adapter, whether that is a folder here, and what it has to be told."""
    folder = source.folder
    inside = str(Path(name) / folder) if folder and Path(name).is_dir() else name
    local = check_folder(inside, "adapter_name_or_path", must_hold="adapter_config.json")
    return inside, local, {} if local else {**source.hub, **({"subfolder": folder} if folder else {})}


def is_reward_adapter(name: str, source: Adapters = NO_ADAPTERS) -> bool:
    """Whether an adapter brings an output layer for rewards; no weights are read. Raises what `attach_adapter` does."""
    inside, _, arguments = _place(name, source)
    return str(_settings(name, inside, arguments).task_type) == "SEQ_CLS"


def merge_adapters(model: Any, adapters: Adapters) -> Any:
    """The plain model with every adapter folded into its weights, in order. A non-finite weight is an error."""
    for name in adapters.names:
        model = fold(attach_adapter(model, name, adapters), name)
        get_logger().info("merged the adapter %s", name)
    return model


def fold(attached: Any, name: str) -> Any:
    """The plain model with the adapter of `attached`, called `name`, folded into its weights.

    Raises MissingInputError for a weight that is not finite, UsageError where the weights are quantized or an adapter
    of this kind is no change of weights.
    """
    where, kind = f"adapter_name_or_path: {name}", attached.active_peft_config.peft_type.value.lower()
    if getattr(attached.get_base_model(), "is_quantized", False):
        what = "an adapter cannot be merged into quantized weights: rounding again would take from what it learnt"
        fix = "leave quantization_bit out, or name the model before it was quantized: the adapter fits that too"
        raise UsageError(Problem("E-METHOD-018", what, where, fix=fix))
    if kind in TUNERS and not TUNERS[kind].merges:
        what = f"an adapter of the kind {kind} cannot be merged: it is no change of the weights"
        raise UsageError(
            Problem("E-METHOD-019", what, where, fix="keep it beside the base (tunesmith chat and api do)")
        )
    try:
        return attached.merge_and_unload(safe_merge=True)
    except ValueError as error:  # PEFT's own check of the merged weights
        raise MissingInputError(
            Problem(
                "E-METHOD-006",
                "the adapter holds values that are not finite",
                where=where,
                got=str(error).strip().splitlines()[0],
                fix="use an earlier checkpoint of that run",
            )
        ) from error


def _compare_tasks(model: Any, name: str, recorded: str) -> None:
    """Raises UsageError where one of the two gives rewards and the other writes."""
    own = task_of(model)
    if {own, recorded} == {"SEQ_CLS", "CAUSAL_LM"}:
        what = "an adapter of a reward model is for rewards alone, and one of a chat model has no layer for them"
        fix = "for chats an adapter of another stage; tunesmith score and api use one of stage rm; or merge it first"
        raise UsageError(Problem("E-METHOD-023", what, f"adapter_name_or_path: {name}", f"task_type {recorded}", fix))


def _compare_parts(model: Any, name: str, source: Adapters) -> None:
    """Raises UsageError where an adapter of a text part is put on the whole model: none of its weights would find its
    place, and the base would answer."""
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not hasattr(getattr(bare, "model", None), "layers") and is_of_text_alone(name, source):
        what = "the adapter was trained on the text part of this model alone, and here the whole model is loaded"
        fix = "name it as adapter_name_or_path: then the text part is loaded, without what sees"
        raise UsageError(Problem("E-METHOD-024", what, f"adapter_name_or_path: {name}", fix=fix))


def _compare_bases(model: Any, name: str, inside: str, arguments: dict[str, Any]) -> str:
    """Say it where the adapter records another base: shapes may fit and the answers still be wrong. Returns the kind of
    the adapter."""
    settings = _settings(name, inside, arguments)
    _compare_tasks(model, name, str(settings.task_type))
    recorded, loaded = settings.base_model_name_or_path, model.config.name_or_path
    if recorded and loaded and Path(recorded).name != Path(loaded).name:
        get_logger().warning("the adapter %s was trained on %s, not on %s", name, recorded, loaded)
    return str(getattr(settings.peft_type, "value", settings.peft_type)).lower()


def _settings(name: str, inside: str, arguments: dict[str, Any]) -> Any:
    """adapter_config.json as PEFT's object."""
    from peft import PeftConfig

    try:
        return PeftConfig.from_pretrained(inside, **arguments)
    except (OSError, ValueError, TypeError) as error:
        raise MissingInputError(
            Problem(
                "E-METHOD-007",
                "the adapter cannot be read",
                where=f"adapter_name_or_path: {name}",
                got=str(error).strip().splitlines()[0],
                fix="check the name, adapter_folder, the network and your access; a folder needs adapter_config.json",
            )
        ) from error
