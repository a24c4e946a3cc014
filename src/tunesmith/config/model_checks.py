"""Rules about what is changed of a model when it is loaded: its vocabulary, its positions, its attention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tunesmith.config.check_table import Check, contradiction, rules_into
from tunesmith.config.new_tokens import new_tokens
from tunesmith.config.rope_factors import rope_factors
from tunesmith.config.run_config import RunConfig
from tunesmith.core.errors import Problem, UsageError

__all__ = ["MODEL_CHECKS"]

MODEL_CHECKS: list[Check] = []
_rule = rules_into(MODEL_CHECKS)
_TRAIN = ("train",)
_LOADS = ("train", "predict", "score", "eval", "preview", "inspect", "chat", "api", "export")
_TOKENS = ("add_tokens", "add_special_tokens", "new_special_tokens_config")
_ELSEWHERE = ("vllm", "sglang")


@_rule(_LOADS, *_TOKENS, "init_special_tokens")
def _new_tokens_can_begin(config: RunConfig) -> Iterator[Problem]:
    model = config.model
    if model.init_special_tokens != "noise_init" and not model.new_special_tokens_config:
        # LlamaFactory takes noise and says so in a warning.
        what = f'"init_special_tokens: {model.init_special_tokens}" begins from descriptions, and there are none'
        fix = "new_special_tokens_config: a YAML file of tokens and descriptions, or init_special_tokens: noise_init"
        yield Problem("E-CONFIG-022", what, config.place("init_special_tokens"), fix=fix)
    try:
        counts = Counter(token.text for token in new_tokens(model))
    except UsageError as error:
        yield from error.problems
        return
    for text in (text for text, count in counts.items() if count > 1):
        key = next((key for key in _TOKENS if key in config.values), _TOKENS[0])
        what = "a token is to be added twice"
        yield Problem("E-CONFIG-004", what, config.place(key), text, "keep one of the two")


@_rule(("chat", "api", "predict", "eval"), *_TOKENS, "infer_backend")
def _new_tokens_are_of_this_package(config: RunConfig) -> Iterator[Problem]:
    backend = config.engine.infer_backend
    for key in (key for key in _TOKENS if config.values.get(key)):
        if backend in _ELSEWHERE:
            what = f'"{key}" changes a model while it is loaded, and with infer_backend: {backend} another loads it'
            yield contradiction(config, key, what, "export the model first, and serve what was exported")


@_rule(("train", "predict", "score", "eval", "stats", "chat", "api", "export"), "rope_scaling", "rope_factors")
def _factors_of_longrope_are_there(config: RunConfig) -> Iterator[Problem]:
    if config.model.rope_scaling != "longrope":
        return
    try:
        rope_factors(config.model)
    except UsageError as error:
        yield from error.problems


@_rule(_TRAIN, "shift_attn", "fast_path", "neftune_noise_alpha")
def _shifted_attention_reads_flat_batches(config: RunConfig) -> Iterator[Problem]:
    if not config.model.shift_attn:
        return
    if config.model.fast_path == "off":
        what = '"shift_attn" attends within parts of sequences in flat batches, and "fast_path: off" pads them'
        yield contradiction(config, "shift_attn", what, "fast_path: auto, or leave shift_attn out")
    if config.train.hf.get("neftune_noise_alpha"):
        what = '"shift_attn" needs flat batches, and "neftune_noise_alpha" padded ones'
        yield contradiction(config, "shift_attn", what, "keep one of them")
