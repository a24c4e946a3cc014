"""A training run as straight code: plan, data, model, train, save.

Everything that can be found out without the weights is found out before they are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core import control
from tunesmith.core.errors import MachineError, Problem
from tunesmith.core.log import get_logger, is_main_process
from tunesmith.core.signals import StopSignals, current_signals
from tunesmith.runs.facts import model_facts
from tunesmith.runs.record import Record, recording
from tunesmith.train.arguments import training_arguments
from tunesmith.train.assemble import build_trainer
from tunesmith.train.checkpoint import check_writable, find_resume, in_main_process, read_position
from tunesmith.train.counting import Counting
from tunesmith.train.determinism import explained, seed_all
from tunesmith.train.drift import Change, as_recorded, check_config, check_fact, facts_of, recorded
from tunesmith.train.lock import hold
from tunesmith.train.plan import check_depths, resolve_plan, what_rules_out, with_fast_path
from tunesmith.train.ranks import naming_lost_ranks
from tunesmith.train.results import Result, record_data, record_metrics, record_plan, record_proof, record_start
from tunesmith.train.saving import naming_the_disk
from tunesmith.train.template_check import check_template
from tunesmith.train.uploads import Uploads, uploading

if TYPE_CHECKING:
    from transformers import Seq2SeqTrainingArguments

    from tunesmith.config import RunConfig, RunPlan
    from tunesmith.data import Datasets
    from tunesmith.data.streaming.samples import SampleStream
    from tunesmith.methods.base import Calibration
    from tunesmith.models.fast_path import FastPath
    from tunesmith.models.quantization.plan import Base
    from tunesmith.objectives import Objective
    from tunesmith.render import Renderer
    from tunesmith.train.trainer import Trainer

__all__ = ["train"]


def train(config: RunConfig) -> Result:
    """Do what the config asks for (`do_train`, `do_eval`, `do_predict`) and return where it is and how it went.

    Raises PreemptedError where a signal or a request stops it (docs/stopping.md).
    """
    with StopSignals(config.train.stop_grace):
        for warning in config.warnings:
            get_logger().warning(warning)
        plan = resolve_plan(config)
        check_writable(Path(plan.output_dir))
        arguments = training_arguments(config, plan)
        with naming_the_disk(Path(plan.output_dir)), hold(Path(plan.output_dir)):
            plan = replace(plan, resume=in_main_process(lambda: find_resume(config)))
            changes = check_config(config, plan)
            if is_main_process():
                control.clear(plan.output_dir)  # what an earlier run was asked
            with recording(config, plan) as record, explained(), uploading(config) as uploads:
                return _through_rollbacks(config, plan, arguments, changes, record, uploads)


def _through_rollbacks(
    config: RunConfig,
    plan: RunPlan,
    arguments: Seq2SeqTrainingArguments,
    changes: Sequence[Change],
    record: Record,
    uploads: Uploads | None,
) -> Result:
    """The run; where it comes to a step that is not finite, and is to go back, again from there, with all made anew."""
    from tunesmith.models.out_of_memory import free_memory
    from tunesmith.train.nonfinite import GoBack

    left_out: frozenset[int] = frozenset()
    while True:
        try:
            return _run(config, plan, arguments, changes, record, uploads, left_out)
        except GoBack as back:
            plan, left_out, device = replace(plan, resume=back.checkpoint), back.left_out, back.device
        free_memory(device)  # the frames of the exception held the model
        current_signals().at_once = True
        record.event("rollback", to=plan.resume, without=max(left_out))
        get_logger().warning("going back to %s, without step %d", plan.resume or "the beginning", max(left_out))


def _run(
    config: RunConfig,
    plan: RunPlan,
    arguments: Seq2SeqTrainingArguments,
    changes: Sequence[Change],
    record: Record,
    uploads: Uploads | None,
    left_out: frozenset[int] = frozenset(),
) -> Result:
    """`left_out`: steps that are not made."""
    from tunesmith.models.chat_template import carry_template
    from tunesmith.models.fast_path import plan_fast_path
    from tunesmith.models.packing import check_packing
    from tunesmith.models.prepare import warn_if_longer
    from tunesmith.models.quantization.plan import base_of
    from tunesmith.models.renderer import renderer_of
    from tunesmith.models.tokenizer import load_tokenizer
    from tunesmith.models.vocabulary import warn_if_unseen
    from tunesmith.train.calibration import calibration_of
    from tunesmith.train.generations import check_metric
    from tunesmith.train.precompute import give_reference

    log = get_logger()
    before = None if any(one.key == "fast_path" for one in changes) else recorded(plan)
    fast = plan_fast_path(config.model, **what_rules_out(plan, config, before))
    check_depths(config)
    base = base_of(config, plan.device)
    _check_needs(config, plan)
    check_metric(config)
    plan = replace(plan, quantization=None if base is None else str(base))
    plan = as_recorded(with_fast_path(plan, config, fast), config, changes)
    for line in plan.lines():
        log.info(line)
    objective = _objective(config, plan)
    for reason in fast.why:
        log.info(reason)
    if plan.packing and not fast.flat:
        check_packing(config.model)
    tokenizer = load_tokenizer(config.model)
    renderer = renderer_of(config, tokenizer)
    position = read_position(plan.resume, streaming=config.data.streaming)
    datasets = _build_data(config, plan, renderer, position)
    facts = facts_of(config, plan) | _data_facts(config, plan, datasets)
    check_template(config, tokenizer, renderer)
    if config.train.do_train:
        warn_if_unseen(tokenizer, datasets.stored_ids)
    record_start(config, plan, datasets.report, record.prefix, fresh=plan.resume is None and not left_out)
    read = {"data": [file.to_dict() for file in datasets.files], "rows": datasets.report.total}
    record.prepared(**read, template_digest=renderer.template_digest)
    seed_all(plan.seed, full_determinism=bool(config.train.value("full_determinism")))
    calibration = calibration_of(config, plan, objective, tokenizer, datasets)
    how: dict[str, bool] = {"rewards": objective.rewards, "media": datasets.read_media is not None}
    model, proven, plan = _build_model(config, plan, fast, tokenizer, calibration, base, **how)
    plan = _as_proven(config, plan, fast, proven, changes)
    if config.train.do_train and config.model.fast_path != "off":
        proved = _prove(config, plan, proven, objective, model, tokenizer, datasets, record)
        plan = proved if proved == plan else as_recorded(proved, config, changes)
    if objective.compares:
        give_reference(config, plan, objective, model, tokenizer, datasets)
    warn_if_longer(model, datasets.longest)
    if not objective.needs.is_text:
        carry_template(renderer, config.template, tokenizer, model)
    facts |= _model_facts(config, plan, model) | {"order": plan.order, "batches": plan.batches}
    record_plan(plan, record.prefix)
    record.keep(status="running", plan=plan.to_dict(), model=model_facts(config))
    parts = objective, model, tokenizer, renderer, datasets, position, facts
    told: dict[str, Any] = {"on_steps": record.on_steps, "on_event": record.event}
    trainer = build_trainer(config, plan, arguments, *parts, uploads, left_out, **told)
    try:
        with naming_lost_ranks(plan.world_size):
            result = _finish(config, plan, trainer, renderer, datasets, uploads)
    finally:
        trainer.trackers.finish()
    if config.train.do_train:
        record.saved()
    record.keep(metrics=result.metrics)
    if uploads is not None:
        uploads.finish()
    return result


def _objective(config: RunConfig, plan: RunPlan) -> Objective:
    """Raises UsageError where the model is of a type that cannot be trained so."""
    from tunesmith.models.load import settings_of
    from tunesmith.models.reward import check_rewards
    from tunesmith.objectives import OBJECTIVES

    smoothing = config.train.value("label_smoothing_factor")
    objective = OBJECTIVES.get(plan.stage)(config.objective, label_smoothing=smoothing)
    if objective.rewards:
        check_rewards(config.model, settings_of(config.model))
    return objective


def _build_data(config: RunConfig, plan: RunPlan, renderer: Renderer, position: Mapping[str, Any] | None) -> Datasets:
    from tunesmith.data import build_datasets
    from tunesmith.data.streaming.build import build_stream

    with Counting("preparing", "rows") as count:
        how: dict[str, Any] = {"stage": plan.stage, "seed": plan.seed, "on_progress": count}
        if config.data.streaming and config.data.dataset:
            datasets = build_stream(config.data, renderer, position=position, **how)
        else:
            datasets = build_datasets(config.data, renderer, resumes=plan.resume is not None, **how)
    for line in [*renderer.notices, *datasets.report.lines()]:
        get_logger().info(line)
    return datasets


def _data_facts(config: RunConfig, plan: RunPlan, datasets: Datasets) -> dict[str, Any]:
    """The digest of what is trained on, compared with that of the checkpoint. A stream compares its place itself."""
    from tunesmith.data.fingerprint import fingerprint
    from tunesmith.data.streaming.samples import SampleStream

    train = datasets.train
    if train is None or isinstance(train, SampleStream):
        return {}
    found, counts = fingerprint(train), {"samples": len(train), "tokens": train.num_tokens}
    check_fact("data", found, plan, config.train.resume_allow, counts)
    return {"data": found, "counts": counts}


def _model_facts(config: RunConfig, plan: RunPlan, model: Any) -> dict[str, Any]:
    from tunesmith.train.states import frozen_digest

    found = frozen_digest(model)
    check_fact("model", found, plan, config.train.resume_allow, {})
    return {"model": found}


def _build_model(
    config: RunConfig,
    plan: RunPlan,
    fast: FastPath,
    tokenizer: Any,
    calibration: Calibration | None,
    base: Base | None,
    *,
    rewards: bool = False,
    media: bool = False,
) -> tuple[Any, FastPath, RunPlan]:
    """The model to train, which of the planned quick ways it takes, and the plan with its kind of checkpointing."""
    from tunesmith.methods import METHODS
    from tunesmith.methods.base import Adapters, Given, count_parameters
    from tunesmith.models.balance import Balance
    from tunesmith.models.checkpointing import enable_checkpointing
    from tunesmith.models.fast_path import prove
    from tunesmith.models.load import load
    from tunesmith.models.loss_forward import LossForward
    from tunesmith.models.prepare import print_parameters, upcast_norms
    from tunesmith.models.quirks.liger import use_liger_kernels
    from tunesmith.models.vocabulary import check_trained

    loading: dict[str, Any] = {"dtype": plan.dtype, "attention": fast.at_load, "device": plan.device, "seed": plan.seed}
    loading |= {"media": media, "quantization": base, "longest": plan.cutoff_len if config.train.do_train else None}
    if rewards:
        loading["head"] = "new reward" if config.train.do_train else "saved reward"
    loaded = load(config.model, tokenizer, **loading)
    if config.model.enable_liger_kernel:
        use_liger_kernels(loaded.model, plan.device)
    fast = prove(loaded.model, loaded.family, fast, config.model)
    if (coefficient := config.model.moe_aux_loss_coef) is not None:
        LossForward.within(loaded.model).balance = Balance(loaded.model, coefficient)
    if plan.gradient_checkpointing != "off":  # a hook does not bring what routers say through the re-entrant kind
        # and DDP counts what it goes over twice, once beside it (`idle_parts`)
        alone = coefficient is None and not (media and plan.world_size > 1)
        reentrant = config.model.use_reentrant_gc and alone
        mode = enable_checkpointing(loaded.model, plan.gradient_checkpointing, reentrant=reentrant)
        plan = replace(plan, gradient_checkpointing=mode)
    given = Given(loaded.family, config.method.pure_bf16, Adapters.of(config.model), calibration)
    model = METHODS.get(plan.finetuning_type)(config.method).apply(loaded.model, given)
    check_trained(model, config.model)
    upcast_norms(model, config.model)
    _change_arithmetic(config, model)
    print_parameters(model, config.model)
    get_logger().info(str(count_parameters(model)))
    return model, fast, plan


def _as_proven(
    config: RunConfig, plan: RunPlan, fast: FastPath, proven: FastPath, changes: Sequence[Change]
) -> RunPlan:
    """The plan with the quick ways that the loaded model takes; what it does not is told."""
    from tunesmith.models.packing import check_packing

    if proven == fast:
        return plan
    plan = as_recorded(with_fast_path(plan, config, proven), config, changes)
    if plan.packing and not proven.flat:
        check_packing(config.model)
    for reason in proven.why[len(fast.why) :]:
        get_logger().warning(reason)
    return plan


def _check_needs(config: RunConfig, plan: RunPlan) -> None:
    """Raises MachineError where `fp8` or `qat` cannot be had here, and what `Method.check` raises."""
    from tunesmith.config.quantizer_facts import QAT
    from tunesmith.methods import METHODS
    from tunesmith.models.quantization.available import check_available
    from tunesmith.models.quantization.float8 import check_float8

    if config.launch.fp8:
        check_float8(plan.device)
    if config.quantization.qat:
        check_available(QAT, plan.device, f"qat: {config.quantization.qat}")
    METHODS.get(plan.finetuning_type)(config.method).check()


def _change_arithmetic(config: RunConfig, model: Any) -> None:
    from tunesmith.models.quantization.float8 import to_float8
    from tunesmith.models.quantization.qat import fake_quantize

    if config.launch.fp8:
        sharded = bool(config.train.value("fsdp"))
        to_float8(model, all_gather=sharded and config.launch.fp8_enable_fsdp_float8_all_gather)
    if config.quantization.qat:
        fake_quantize(model, config.quantization.qat)


def _prove(
    config: RunConfig,
    plan: RunPlan,
    fast: FastPath,
    objective: Objective,
    model: Any,
    tokenizer: Any,
    datasets: Datasets,
    record: Record,
) -> RunPlan:
    """Compare the quick ways with transformers' own on rows of this run. Where they differ they are given up: the plan
    without them; with `fast_path: require` that is a MachineError."""
    from tunesmith.data.streaming.samples import SampleStream
    from tunesmith.models.packing import check_packing
    from tunesmith.models.tokenizer import pad_id_of
    from tunesmith.train.self_proof import give_up, prove_itself

    train = datasets.train
    assert train is not None, "checked by the config"
    samples = train.first().samples if isinstance(train, SampleStream) else train
    proof = prove_itself(model, objective, samples, plan, pad_id_of(tokenizer), datasets.read_media)
    if proof is None:
        what = "the quick ways could not be compared with transformers' own, on rows of this run"
        got = "the first rows train nothing, or memory does not hold the comparison"
        if config.model.fast_path == "require":
            where = f"model_name_or_path: {config.model.model_name_or_path}"
            raise MachineError(
                Problem("E-TRAIN-018", what, where, got, "fast_path: auto trains without the comparison")
            )
        get_logger().warning("%s: %s", what, got)
        return plan
    if proof.holds:
        get_logger().info("as transformers computes it: %s", proof)
    else:
        plan = with_fast_path(plan, config, give_up(model, fast, proof, config.model))
        if plan.packing:
            check_packing(config.model)
    record_proof(plan, proof)
    record.keep(checks={"self_proof": proof.to_dict()})
    return plan


def _finish(
    config: RunConfig, plan: RunPlan, trainer: Trainer, renderer: Renderer, datasets: Datasets, uploads: Uploads | None
) -> Result:
    from tunesmith.data.streaming.samples import SampleStream

    metrics: dict[str, float] = {}
    stream = datasets.train if isinstance(datasets.train, SampleStream) else None
    if stream is not None and not config.train.do_train:
        stream.close()
    if config.train.do_train:
        from tunesmith.methods.lora import adapter_inputs
        from tunesmith.train.saving import publish_model

        assert datasets.train is not None, "checked by the config"
        current_signals().at_once = False  # from here on work would be lost
        with adapter_inputs(trainer.model, config.method, plan.autocast), trainer.memory.told(), trainer.saver:
            outcome = trainer.train(resume_from_checkpoint=plan.resume)
        files = publish_model(trainer)
        if config.quantization.qat and is_main_process():
            from tunesmith.models.quantization.qat import save_quantized

            folder = Path(plan.output_dir)
            save_quantized(folder, folder / "quantized", config.quantization.qat, trainer.processing_class)
        if uploads is not None:
            uploads.model(files)
        trainer.save_state()
        if stream is not None:
            _tell_stream(datasets, stream, Path(plan.output_dir))
        told = (Path(plan.output_dir) / "train_results.json").exists()
        if plan.resume and not trainer.tokens_in_this_session and told:
            get_logger().warning(
                "nothing was left to train: %s is at step %d; write more num_train_epochs (or max_steps), or "
                "overwrite_output_dir: true to start afresh",
                *(plan.resume, trainer.state.global_step),
            )
        else:
            metrics |= record_metrics(trainer, "train", outcome.metrics, config)
    more = config.train.do_predict or (config.train.do_eval and datasets.eval)
    with trainer.stopping.afterwards() if config.train.do_train and more else nullcontext():
        metrics |= _judge(config, plan, trainer, renderer, datasets)
    if config.track.plot_loss and trainer.is_world_process_zero():
        _plot(Path(plan.output_dir))
    return Result(Path(plan.output_dir), metrics, plan)


def _judge(
    config: RunConfig, plan: RunPlan, trainer: Trainer, renderer: Renderer, datasets: Datasets
) -> dict[str, float]:
    """Evaluate and predict, as the config says."""
    metrics: dict[str, float] = {}
    if config.train.do_eval and datasets.eval:
        metrics |= record_metrics(trainer, "eval", trainer.last_evaluation() or trainer.evaluate(), config)
    if config.train.do_predict:
        from tunesmith.engines.hf import HFEngine
        from tunesmith.evaluate.predict import predict
        from tunesmith.models.digest import weights_digest

        trainer.prepare_evaluation()
        model, folder = trainer.accelerator.unwrap_model(trainer.model), Path(plan.output_dir)
        tokenizer, accelerator = trainer.processing_class, trainer.accelerator
        exact = bool(config.train.value("full_determinism"))
        with HFEngine(model, tokenizer, renderer, config.generate, config.engine, one_by_one=exact) as engine:
            found = predict(engine, weights_digest(model), datasets.eval, folder, plan.seed, accelerator)
        metrics |= record_metrics(trainer, "predict", found, config)
    return metrics


def _tell_stream(datasets: Datasets, stream: SampleStream, folder: Path) -> None:
    """The report of the data counts the first window until the stream has been read."""
    read, before = stream.tally.report(), datasets.report
    evaluated = [one for one in before.datasets if one.use != "train"]
    datasets.report = replace(before, datasets=[*read.datasets, *evaluated], notices=read.notices)
    record_data(folder, datasets.report)
    get_logger().info(stream.tally.summary())


def _plot(folder: Path) -> None:
    """Draw the curve. Everything else is saved by now, so what is in the way of a picture is a warning."""
    from tunesmith.core.errors import TunesmithError
    from tunesmith.train.callbacks.plot import plot_loss

    try:
        plot_loss(folder)
    except TunesmithError as error:
        problem = error.problems[0]
        get_logger().warning(
            "plot_loss is without effect: %s%s", problem.what, f" ({problem.fix})" if problem.fix else ""
        )
