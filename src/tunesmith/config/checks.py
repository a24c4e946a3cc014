"""Rules across sections: one small function each, in a table with the keys it reads and the verbs it is for."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from tunesmith.config.check_table import Check, rules_into
from tunesmith.config.check_table import contradiction as _contradiction
from tunesmith.config.depth_checks import DEPTH_CHECKS
from tunesmith.config.engine_checks import ENGINE_CHECKS, sends_messages
from tunesmith.config.generation_checks import GENERATION_CHECKS
from tunesmith.config.memory_checks import MEMORY_CHECKS
from tunesmith.config.method_checks import METHOD_CHECKS
from tunesmith.config.model_checks import MODEL_CHECKS
from tunesmith.config.optimizer_checks import OPTIMIZER_CHECKS
from tunesmith.config.preference_checks import PREFERENCE_CHECKS
from tunesmith.config.quantization_checks import QUANTIZATION_CHECKS
from tunesmith.config.run_config import RunConfig
from tunesmith.config.score_checks import SCORE_CHECKS
from tunesmith.config.verbs import LOOKING
from tunesmith.core.errors import Problem

__all__ = ["CHECKS", "Check", "check"]

_TRAIN = ("train",)
_DATA = ("train", *LOOKING)
_ALL = ("train", "predict", "score", "eval", "preview", "stats", "chat", "api", "export")
_ANSWERS = ("rm", "dpo", "kto", "ppo")
_EVALUATES = ("do_eval", "do_predict", "eval_strategy", "evaluation_strategy", "eval_on_start")


CHECKS: list[Check] = [
    *ENGINE_CHECKS,
    *MEMORY_CHECKS,
    *METHOD_CHECKS,
    *QUANTIZATION_CHECKS,
    *OPTIMIZER_CHECKS,
    *MODEL_CHECKS,
    *PREFERENCE_CHECKS,
    *DEPTH_CHECKS,
    *GENERATION_CHECKS,
    *SCORE_CHECKS,
]
_rule = rules_into(CHECKS)


def check(config: RunConfig, bad: Collection[str] = ()) -> list[Problem]:
    """Every rule that is broken for the config's verb. `bad`: keys that are already known to be wrong."""
    problems: list[Problem] = []
    for item in CHECKS:
        if config.verb in item.verbs and item.keys.isdisjoint(bad):
            problems += item.find(config)
    return problems


def _missing(what: str, fix: str) -> Problem:
    return Problem("E-CONFIG-020", what, fix=fix)


# --- what a verb cannot do without ---


@_rule(_ALL, "model_name_or_path", "infer_backend", "remote_prompts")
def _model_is_named(config: RunConfig) -> Iterator[Problem]:
    if not config.model.model_name_or_path and not sends_messages(config):
        yield _missing('"model_name_or_path" is missing', "model_name_or_path: a folder, or a repository of the hub")


@_rule(("train", "predict", "score"), "output_dir")
def _output_is_named(config: RunConfig) -> Iterator[Problem]:
    if not config.train.output_dir:
        yield _missing('"output_dir" is missing', "output_dir: a folder for the run, like saves/my-first-run")


@_rule(("eval",), "task")
def _task_is_named(config: RunConfig) -> Iterator[Problem]:
    if not config.evaluate.task:
        yield _missing('"task" is missing', "task: mmlu_test, ceval_validation, cmmlu_test, or lm_eval:NAME")


@_rule(("export",), "export_dir")
def _export_is_named(config: RunConfig) -> Iterator[Problem]:
    if not config.export.export_dir:
        yield _missing('"export_dir" is missing', "export_dir: a folder for the merged model")


@_rule(_TRAIN, "do_train", "do_eval", "do_predict", "dataset")
def _training_has_data(config: RunConfig) -> Iterator[Problem]:
    if config.train.do_train and not config.data.dataset:
        yield _missing('"dataset" is missing', "dataset: path/to/rows.jsonl, or a name of dataset_info.json")


@_rule((*LOOKING, "predict", "score"), "dataset", "eval_dataset")
def _preview_has_data(config: RunConfig) -> Iterator[Problem]:
    if not config.data.dataset and not config.data.eval_dataset:
        yield _missing('"dataset" is missing', "dataset: path/to/rows.jsonl, or a name of dataset_info.json")


@_rule(_TRAIN, "do_train", *_EVALUATES)
def _there_is_something_to_do(config: RunConfig) -> Iterator[Problem]:
    if not (config.train.do_train or config.train.do_eval or config.train.do_predict):
        fix = "write do_train: true, or leave it out"
        yield Problem("E-CONFIG-024", "there is nothing to do", config.place("do_train"), "do_train: false", fix)


# --- evaluation data ---


@_rule(_TRAIN, "dataset", "eval_dataset", "val_size", *_EVALUATES)
def _evaluation_has_data(config: RunConfig) -> Iterator[Problem]:
    train, data = config.train, config.data
    if data.eval_dataset or data.val_size:
        return
    wants = {
        "do_predict": train.do_predict,
        "eval_on_start": bool(train.value("eval_on_start")),
        "do_eval": bool(train.value("do_eval")),
        "eval_strategy": train.value("eval_strategy") != "no",
    }
    if key := next((name for name, wanted in wants.items() if wanted), None):
        key = "evaluation_strategy" if key == "eval_strategy" and key not in config.values else key
        fix = "name an eval_dataset, or hold out a part with val_size: 0.05"
        yield Problem("E-CONFIG-022", f'"{key}" needs evaluation data', config.place(key), fix=fix)


@_rule(_DATA, "eval_dataset", "val_size")
def _evaluation_data_comes_from_one_place(config: RunConfig) -> Iterator[Problem]:
    if config.data.eval_dataset and config.data.val_size:
        what = '"val_size" and "eval_dataset" both say what to evaluate on'
        yield _contradiction(config, "val_size", what, "keep one of them")


@_rule(_DATA, "dataset", "val_size")
def _validation_has_a_source(config: RunConfig) -> Iterator[Problem]:
    if config.data.val_size and not config.data.dataset:
        what = '"val_size" holds out a part of "dataset", which is missing'
        yield Problem("E-CONFIG-022", what, config.place("val_size"), fix="use eval_dataset, or name a dataset")


@_rule(_DATA, "val_size")
def _validation_is_a_share_or_a_number(config: RunConfig) -> Iterator[Problem]:
    size = config.data.val_size
    if size > 1 and size != int(size):
        what = '"val_size" is a share below 1 or a whole number of rows'
        yield Problem("E-CONFIG-004", what, config.place("val_size"), str(size), f"val_size: {int(size)}")


# --- data and masks ---


@_rule(_DATA, "mix_strategy", "interleave_probs")
def _shares_need_interleaving(config: RunConfig) -> Iterator[Problem]:
    if config.data.interleave_probs and config.data.mix_strategy == "concat":
        what = '"interleave_probs" needs a "mix_strategy" that interleaves'
        yield _contradiction(config, "interleave_probs", what, "mix_strategy: interleave_under, or remove the key")


@_rule(_DATA, "dataset", "interleave_probs")
def _every_dataset_has_a_share(config: RunConfig) -> Iterator[Problem]:
    shares, names = config.data.interleave_probs, config.data.dataset
    if not shares:
        return
    where, got = config.place("interleave_probs"), ", ".join(f"{share:g}" for share in shares)
    if len(shares) != len(names):
        what = f'"interleave_probs" has {len(shares)} numbers for {len(names)} datasets'
        yield Problem("E-CONFIG-023", what, where, got, "one number for each name in dataset")
    if any(share <= 0 for share in shares):
        yield Problem("E-CONFIG-004", '"interleave_probs" must be numbers above 0', where, got)


@_rule(_DATA, "train_on_prompt", "mask_history", "train_turns")
def _masks_agree(config: RunConfig) -> Iterator[Problem]:
    template = config.template
    for key, narrow in (("mask_history", template.mask_history), ("train_turns", template.train_turns == "last")):
        if template.train_on_prompt and narrow:
            what = f'"{key}" trains on the last reply only, "train_on_prompt" on everything'
            yield _contradiction(config, key, what, "keep one of them")
    if template.mask_history and "train_turns" in config.user_keys and template.train_turns == "all":
        what = '"mask_history" trains on the last reply only, "train_turns" on all'
        yield _contradiction(config, "train_turns", what, "keep one of them")


@_rule(_ALL, "template", "tool_format")
def _tool_format_is_for_named_templates(config: RunConfig) -> Iterator[Problem]:
    # An error, not a key without effect: the calls would be learnt in another form than was asked for.
    if config.template.tool_format and config.template.template in (None, "auto"):
        what = '"tool_format" goes with a named template: a model\'s own writes calls in the one form that it knows'
        yield _contradiction(config, "tool_format", what, "name a template, like template: qwen, or leave it out")


@_rule(_DATA, "on_bad_row", "on_bad_media", "max_bad_rows")
def _skipping_has_a_limit(config: RunConfig) -> Iterator[Problem]:
    for key in ("on_bad_row", "on_bad_media"):
        if getattr(config.data, key) == "skip" and config.data.max_bad_rows is None:
            what = f'"{key}: skip" may lose any part of the data; say how many rows at most'
            yield _contradiction(config, key, what, "max_bad_rows: 10, or as many as you accept to lose")


@_rule(_DATA, "stage", "on_too_long")
def _answers_stay_whole(config: RunConfig) -> Iterator[Problem]:
    stage = config.objective.stage
    if stage in _ANSWERS and config.data.on_too_long == "split":
        what = f'"on_too_long: split" makes several samples of one, and in stage {stage} a part of an answer is none'
        yield _contradiction(config, "on_too_long", what, "on_too_long: truncate, drop or error")


@_rule(_DATA, "stage", "packing", "neat_packing")
def _prompts_are_not_packed(config: RunConfig) -> Iterator[Problem]:
    if config.objective.stage == "ppo" and config.data.packs("ppo"):
        key = "packing" if config.data.packing else "neat_packing"
        what = f'"{key}" is for what is trained on, and stage ppo answers prompts'
        yield _contradiction(config, key, what, "packing: false")


@_rule(_DATA, "packing", "neat_packing")
def _packing_is_one_thing(config: RunConfig) -> Iterator[Problem]:
    if config.data.neat_packing and config.data.packing is False:
        what = '"neat_packing" asks for packed rows, "packing: false" for none'
        yield _contradiction(
            config, "neat_packing", what, "keep one of them: neat_packing is the same as packing: true"
        )


@_rule(_TRAIN, "streaming", "max_steps")
def _a_stream_has_a_length(config: RunConfig) -> Iterator[Problem]:
    if config.data.streaming and config.train.do_train and (config.train.value("max_steps") or -1) < 1:
        what = '"streaming" needs "max_steps": how many rows there are is not known'
        yield Problem("E-CONFIG-022", what, config.place("streaming"), fix="max_steps: 1000, or as many as you want")


@_rule(_DATA, "streaming", "val_size")
def _a_stream_holds_out_a_number(config: RunConfig) -> Iterator[Problem]:
    if config.data.streaming and 0 < config.data.val_size < 1:
        what = '"val_size" of a stream is a number of rows: a share of an unknown number is none'
        yield _contradiction(config, "val_size", what, "val_size: 500, or an eval_dataset")


@_rule(_DATA, "streaming", "tokenized_path")
def _a_stream_is_not_kept(config: RunConfig) -> Iterator[Problem]:
    if config.data.streaming and config.data.tokenized_path:
        what = '"tokenized_path" keeps what was prepared, "streaming" prepares nothing beforehand'
        yield _contradiction(config, "tokenized_path", what, "keep one of them")


# --- media ---


@_rule(_ALL, "image_max_pixels", "image_min_pixels", "video_max_pixels", "video_min_pixels")
def _areas_leave_room(config: RunConfig) -> Iterator[Problem]:
    for kind in ("image", "video"):
        least, most = (getattr(config.media, f"{kind}_{end}_pixels") for end in ("min", "max"))
        if least > most:
            what = f'"{kind}_min_pixels" ({least:,}) is more than "{kind}_max_pixels" ({most:,})'
            yield _contradiction(config, f"{kind}_min_pixels", what, f"{kind}_min_pixels: {most}, or less")


# --- method ---


@_rule(_ALL, "adapter_name_or_path", "train_from_scratch")
def _adapters_need_their_base(config: RunConfig) -> Iterator[Problem]:
    if config.model.adapter_name_or_path and config.model.train_from_scratch:
        what = '"train_from_scratch" gives random weights, which an adapter cannot sit on'
        yield _contradiction(config, "train_from_scratch", what, "remove one of the two")


# --- the training loop ---


@_rule(_TRAIN, "bf16", "fp16", "pure_bf16", "bf16_full_eval", "fp16_full_eval")
def _one_number_type(config: RunConfig) -> Iterator[Problem]:
    value = config.train.value
    for other, on in (("bf16", value("bf16")), ("pure_bf16", config.method.pure_bf16)):
        if value("fp16") and on:
            yield _contradiction(config, "fp16", f'"fp16" and "{other}" cannot both be on', "keep one of them")
    if value("fp16_full_eval") and value("bf16_full_eval"):
        what = '"fp16_full_eval" and "bf16_full_eval" cannot both be on'
        yield _contradiction(config, "fp16_full_eval", what, "keep one of them")


@_rule(_TRAIN, "pure_bf16", "upcast_layernorm")
def _norms_in_float32_need_autocast(config: RunConfig) -> Iterator[Problem]:
    if config.method.pure_bf16 and config.model.upcast_layernorm:
        what = '"upcast_layernorm" gives float32 to layers that "pure_bf16" holds in bfloat16'
        yield _contradiction(config, "upcast_layernorm", what, "bf16: true in place of pure_bf16, or remove the key")


@_rule(_TRAIN, "logging_steps", "eval_steps", "save_steps")
def _steps_are_whole(config: RunConfig) -> Iterator[Problem]:
    for name, strategy in (("logging", "logging"), ("eval", "eval"), ("save", "save")):
        steps, key = config.train.value(f"{name}_steps"), f"{name}_steps"
        if steps is not None and steps > 1 and steps != int(steps):
            what = f'"{key}" is a whole number of steps, or a share of all steps below 1'
            yield Problem("E-CONFIG-004", what, config.place(key), str(steps))
        if steps == 0 and config.train.value(f"{strategy}_strategy") == "steps":
            fix = f"{strategy}_strategy: no" if strategy != "logging" else "logging_strategy: no"
            yield Problem("E-CONFIG-004", f'"{key}" must be above 0', config.place(key), "0", fix)


@_rule(_TRAIN, "max_steps")
def _some_steps_are_made(config: RunConfig) -> Iterator[Problem]:
    steps = config.train.value("max_steps")
    if steps is not None and (steps == 0 or steps < -1):  # transformers would silently count epochs instead
        fix = "leave the key out to train num_train_epochs"
        yield Problem("E-CONFIG-004", '"max_steps" must be at least 1', config.place("max_steps"), str(steps), fix)


@_rule(_TRAIN, "load_best_model_at_end", "save_strategy", "save_steps", "eval_steps", *_EVALUATES)
def _the_best_model_can_be_found(config: RunConfig) -> Iterator[Problem]:
    value = config.train.value
    if not value("load_best_model_at_end"):
        return
    where, evaluated, saved = config.place("load_best_model_at_end"), value("eval_strategy"), value("save_strategy")
    if evaluated == "no":
        what = '"load_best_model_at_end" needs evaluation during training'
        yield Problem("E-CONFIG-022", what, where, fix="eval_strategy: steps (or epoch), and the same save_strategy")
    elif saved not in (evaluated, "best"):
        what = '"load_best_model_at_end" needs a checkpoint at every evaluation'
        yield Problem("E-CONFIG-022", what, where, f"save_strategy: {saved}", f"save_strategy: {evaluated}")
    elif saved == "steps" and (every := value("eval_steps") or value("logging_steps")) >= 1:
        steps = value("save_steps")
        if steps < 1 or steps % every:
            what = '"load_best_model_at_end" needs "save_steps" to be a multiple of "eval_steps"'
            yield Problem(
                "E-CONFIG-022", what, where, f"save_steps {steps}, eval_steps {every}", f"save_steps: {every}"
            )


@_rule(_TRAIN, "early_stopping_steps", "save_strategy", "lr_scheduler_type", *_EVALUATES)
def _what_watches_needs_evaluation(config: RunConfig) -> Iterator[Problem]:
    value = config.train.value
    if value("eval_strategy") != "no":
        return
    watchers = {
        "early_stopping_steps": config.objective.early_stopping_steps is not None,
        "save_strategy": value("save_strategy") == "best",
        "lr_scheduler_type": value("lr_scheduler_type") in ("reduce_lr_on_plateau", "greedy"),
    }
    for key in (name for name, wanted in watchers.items() if wanted):
        what = f'"{key}: {config.values.get(key)}" needs evaluation during training'
        yield Problem("E-CONFIG-022", what, config.place(key), fix="eval_strategy: steps, with eval_steps")


@_rule(_TRAIN, "disable_shuffling", "train_sampling_strategy", "group_by_length")
def _one_order_of_rows(config: RunConfig) -> Iterator[Problem]:
    strategy = config.train.hf.get("train_sampling_strategy", "sequential")
    if config.train.disable_shuffling and strategy != "sequential":
        what = f'"disable_shuffling" keeps the order of rows, "{strategy}" does not'
        yield _contradiction(config, "disable_shuffling", what, "keep one of them")


@_rule(_TRAIN, "dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_persistent_workers")
def _settings_of_loader_processes_need_some(config: RunConfig) -> Iterator[Problem]:
    for key in ("dataloader_prefetch_factor", "dataloader_persistent_workers"):
        if config.train.value(key) and not config.train.value("dataloader_num_workers"):
            what = f'"{key}" needs processes that load data'
            yield Problem("E-CONFIG-022", what, config.place(key), fix="dataloader_num_workers: 4")


@_rule(_TRAIN, "use_dft_loss", "use_asft_loss", "use_eaft_loss", "label_smoothing_factor", "stage")
def _one_loss_of_tokens(config: RunConfig) -> Iterator[Problem]:
    # LlamaFactory takes the first of these and says nothing of the others.
    factors = ("use_dft_loss", "use_asft_loss", "use_eaft_loss") if config.objective.stage == "sft" else ()
    asked = [key for key in factors if getattr(config.objective, key)]
    asked += ["label_smoothing_factor"] * bool(config.train.value("label_smoothing_factor"))
    for key in asked[1:]:
        what = f'"{key}" and "{asked[0]}" both say what the loss of a token is'
        yield _contradiction(config, key, what, "keep one of them")


# --- folders ---


def _same(one: str | None, other: str | None) -> bool:
    return bool(one and other) and Path(str(one)).expanduser().absolute() == Path(str(other)).expanduser().absolute()


@_rule(_TRAIN, "model_name_or_path", "output_dir")
def _run_does_not_overwrite_its_model(config: RunConfig) -> Iterator[Problem]:
    if _same(config.model.model_name_or_path, config.train.output_dir):
        what = '"output_dir" is the folder of the model itself'
        yield _contradiction(config, "output_dir", what, "write to a folder of its own")


@_rule(("export",), "model_name_or_path", "adapter_name_or_path", "export_dir")
def _export_does_not_overwrite_its_input(config: RunConfig) -> Iterator[Problem]:
    for source in (config.model.model_name_or_path, *config.model.adapter_name_or_path):
        if _same(source, config.export.export_dir):
            what = '"export_dir" is the folder of the model or of an adapter'
            yield _contradiction(config, "export_dir", what, "write to a folder of its own")
