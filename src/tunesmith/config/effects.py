"""Keys without effect under the chosen verb, stage or method."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tunesmith.config.keys import all_keys
from tunesmith.config.run_config import RunConfig

__all__ = ["RULES", "without_effect"]


@dataclass(frozen=True, slots=True)
class Rule:
    """`keys` have an effect only where `holds`; `otherwise` says what they belong to."""

    keys: frozenset[str]
    holds: Callable[[RunConfig], bool]
    otherwise: str


def _section(*names: str) -> frozenset[str]:
    return frozenset(key.name for key in all_keys().values() if key.section in names)


def _starting(prefix: str) -> frozenset[str]:
    return frozenset(name for name in all_keys() if name.startswith(prefix))


def _predicts(config: RunConfig) -> bool:
    return config.verb == "chat" or config.train.do_predict or bool(config.train.value("predict_with_generate"))


_LORA = frozenset({"additional_target", "use_rslora", "use_dora", "create_new_adapter"})


def _rules() -> Iterable[Rule]:
    """In order of importance: a key is named with the first rule that fails."""
    trains = frozenset({"train"})
    yield Rule(
        _section("train", "track", "objective") - {"stage", "strict_keys", "seed", "output_dir"},
        lambda config: config.verb in trains | {"preview", "show"},
        "only in training",
    )
    yield Rule(
        _section("data") - {"cutoff_len", "dataset_dir"},
        lambda config: config.verb not in ("chat", "export"),
        "only in training",
    )
    yield Rule(
        frozenset({"train_on_prompt", "mask_history"}),
        lambda config: config.verb not in ("chat", "export"),
        "only in training",
    )
    yield Rule(_starting("export_"), lambda config: config.verb in ("export", "show"), "only in export")
    yield Rule(
        _section("generate"), lambda config: config.verb == "show" or _predicts(config), "only in chat and prediction"
    )
    yield Rule(
        _starting("lora_") | _LORA,
        lambda config: config.method.finetuning_type == "lora",
        "only with finetuning_type: lora",
    )
    yield Rule(
        _starting("freeze_")
        & frozenset({"freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules"}),
        lambda config: config.method.finetuning_type == "freeze",
        "only with finetuning_type: freeze",
    )
    yield Rule(
        frozenset({"max_bad_rows"}), lambda config: config.data.on_bad_row == "skip", "only with on_bad_row: skip"
    )
    yield Rule(
        frozenset({"use_reentrant_gc"}),
        lambda config: not config.model.disable_gradient_checkpointing,
        "disable_gradient_checkpointing is on",
    )
    yield Rule(
        _section("template"),
        lambda config: config.objective.stage != "pt" or config.verb == "chat",
        "plain text has no template",
    )


def without_effect(config: RunConfig) -> dict[str, str]:
    """The keys that the user wrote and that change nothing here, each with the reason."""
    found: dict[str, str] = {}
    for rule in _rules():
        if (named := rule.keys & config.user_keys) and not rule.holds(config):
            for name in config.values:
                if name in named:
                    found.setdefault(name, rule.otherwise)
    return found


RULES = _rules
