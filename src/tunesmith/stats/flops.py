"""FLOPs that a config's training takes: a token, a step, the run, counted as `models/flops.py` says."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from tunesmith.core.log import get_logger
from tunesmith.stats.rows import build, make_renderer_of, steps_of

if TYPE_CHECKING:
    from tunesmith.config import RunConfig, RunPlan
    from tunesmith.models.flops import TokenFlops
    from tunesmith.models.mixture import Mixture

__all__ = ["RunFlops", "count_flops", "flops_of_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFlops:
    """FLOPs, forward and backward: a token (all of a step by its tokens), a step and the run on all devices; of a
    token the parts that layers, attention and the output layer have. parameters: all, those that a token meets, and
    those that train. experts: of a mixture of experts, how many a layer has, how many of them work for a token, and
    which layers are dense."""

    per_token: float
    per_step: float
    total: float
    layers: float
    attention: float
    head: float
    tokens_per_step: float
    steps: int
    parameters: int
    active_parameters: int
    trained_parameters: int
    experts: dict[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def count_flops(config: RunConfig) -> RunFlops:
    """From the rows of the config and the shapes of its model with what trains in it; no weights are read."""
    from tunesmith.data.pack import PackedDataset
    from tunesmith.train.plan import resolve_plan

    plan = resolve_plan(config)
    renderer, _ = make_renderer_of(config)
    train = build(config, renderer)
    pieces = train.pieces if isinstance(train, PackedDataset) else train
    shapes = flops_of_model(config, plan, media=pieces.has_media)
    each, mixture = shapes.each, shapes.mixture
    tokens, rows = train.num_tokens, len(train)
    total = each.of(pieces.lengths, train.num_trained)
    head = each.of_head(pieces.lengths, train.num_trained)
    attention = total - each.layers * tokens - head
    in_step = min(plan.global_batch_size, rows) / rows
    steps = steps_of(config, rows, plan.global_batch_size)
    limited = int(config.train.hf.get("max_steps", -1)) > 0
    epochs = steps * in_step if limited else float(config.train.hf.get("num_train_epochs", 3.0))
    return RunFlops(
        per_token=total / tokens,
        per_step=total * in_step,
        total=total * epochs,
        layers=each.layers,
        attention=attention / tokens,
        head=head / tokens,
        tokens_per_step=round(tokens * in_step, 1),
        steps=steps,
        parameters=shapes.parameters,
        active_parameters=shapes.active,
        trained_parameters=shapes.trained,
        experts=mixture
        and {
            "layers": len(mixture.sparse),
            "dense_layers": list(mixture.dense_layers),
            "experts": mixture.experts,
            "experts_per_token": mixture.chosen,
        },
    )


@dataclass(frozen=True, slots=True)
class Shapes:
    """FLOPs and parameters of a model: all, those that a token meets, those that train."""

    each: TokenFlops
    parameters: int
    active: int
    trained: int
    mixture: Mixture | None


def flops_of_model(config: RunConfig, plan: RunPlan, *, media: bool) -> Shapes:
    """What there is to tell of the config's model, with what sees and hears in it if there are `media`, built without
    numbers. Where a model chooses its way by numbers in
    code that has to run, it is built with random ones."""
    import torch

    try:
        with torch.device("meta"):
            return _measured(config, plan, media, shapes_only=True)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        get_logger().info("the model is built with random weights, as shapes alone do not tell its way (%s)", said)
        return _measured(config, plan, media, shapes_only=False)


def _measured(config: RunConfig, plan: RunPlan, media: bool, *, shapes_only: bool) -> Shapes:
    from tunesmith.methods import METHODS
    from tunesmith.methods.base import Given, count_parameters
    from tunesmith.models.depth_plan import plan_depths
    from tunesmith.models.depths import add_routers, route
    from tunesmith.models.family import family_of
    from tunesmith.models.fast_path import plan_fast_path
    from tunesmith.models.flops import measure_flops
    from tunesmith.models.load import auto_class, settings_of, torch_dtype
    from tunesmith.models.loss_forward import HeadFacts, install
    from tunesmith.models.mixture import active_parameters, mixture_of
    from tunesmith.models.reward import check_rewards
    from tunesmith.models.reward_forward import install_rewards
    from tunesmith.objectives import OBJECTIVES

    fast = plan_fast_path(config.model)
    settings = settings_of(config.model)
    trust = config.model.trust_remote_code
    # Types of numbers change no FLOPs; products of experts have no shapes in float32.
    dtype = torch_dtype("bfloat16" if shapes_only else plan.dtype)
    rewards = plan.stage in OBJECTIVES and OBJECTIVES.get(plan.stage).rewards
    if rewards:
        check_rewards(config.model, settings)
        settings.num_labels = 1
    auto = auto_class(type(settings), "new reward" if rewards else "tokens", media)
    model = auto.from_config(settings, trust_remote_code=trust, dtype=dtype)
    if depths := plan_depths(config.model, settings):
        add_routers(model, depths)
        route(model, depths)
    family = family_of(model.config.model_type)
    if rewards:
        install_rewards(model, fast.loss)
    else:
        install(model, fast.loss, HeadFacts.of(model, family))
    # How an adapter begins changes no shape, and some ways look at numbers or at rows.
    method = replace(config.method, init_lora_weights="default", pissa_init=False)
    given = Given(family, keep_dtype=config.method.pure_bf16 or shapes_only)
    model = METHODS.get(plan.finetuning_type)(method).apply(model, given)
    counted, mixture = count_parameters(model), mixture_of(settings)
    active = counted.total if mixture is None else active_parameters(model, mixture)
    return Shapes(measure_flops(model, shapes_only=shapes_only), counted.total, active, counted.trained, mixture)
