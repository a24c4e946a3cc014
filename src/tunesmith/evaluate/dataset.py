"""`tunesmith predict`: a model's answers to the rows of any dataset, in a run of its own without a Trainer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core import env
from tunesmith.core.errors import MachineError, Problem
from tunesmith.core.files import write_json
from tunesmith.core.log import get_logger
from tunesmith.engines import Engine, make_engine
from tunesmith.evaluate.predict import PREDICTIONS, predict
from tunesmith.runs.facts import model_facts
from tunesmith.train.checkpoint import check_writable
from tunesmith.train.counting import Counting
from tunesmith.train.lock import hold
from tunesmith.train.saving import naming_the_disk

if TYPE_CHECKING:
    from tunesmith.config import RunConfig

__all__ = ["RESULTS", "predict_dataset"]

RESULTS = "predict_results.json"


def predict_dataset(config: RunConfig) -> dict[str, Any]:
    """Answer every row of `eval_dataset`, or of `dataset` where there is none. Returns what predict_results.json holds.

    The same call goes on where one was interrupted. Raises what the data and the model raise, UsageError where another
    process works in the folder, MachineError in one of several processes.
    """
    if env.get_int("WORLD_SIZE") > 1:
        what, fix = "predict runs in one process", "train with do_predict: true, and do_train: false, uses several"
        raise MachineError(Problem("E-EVAL-010", what, got=f"{env.get_int('WORLD_SIZE')} processes", fix=fix))
    folder, seed = Path(str(config.train.output_dir)).expanduser(), int(config.train.value("seed"))
    check_writable(folder)
    with naming_the_disk(folder), hold(folder):
        datasets = _rows(config, seed)
        with make_engine(config) as engine:
            found = predict(engine, _weights(engine, config), datasets, folder, seed)
        write_json(folder / RESULTS, dict(sorted(found.items())))
    get_logger().info("written: %s", folder / PREDICTIONS)
    return found


def _rows(config: RunConfig, seed: int) -> dict[str, Any]:
    """Prepared before the weights are read, as most mistakes are in the data."""
    from tunesmith.data import build_datasets
    from tunesmith.models.renderer import renderer_of
    from tunesmith.models.tokenizer import load_tokenizer

    data = config.data
    wanted = data.eval_dataset or data.dataset
    data = replace(data, dataset=(), eval_dataset=wanted, val_size=0.0, streaming=False)
    # What precedes the last reply is the prompt, whatever a training masks.
    template = replace(config.template, train_on_prompt=False, mask_history=False, train_turns="all")
    renderer = renderer_of(config, load_tokenizer(config.model), template)
    with Counting("preparing", "rows") as count:
        datasets = build_datasets(data, renderer, stage=config.objective.stage, seed=seed, on_progress=count)
    for line in [*renderer.notices, *datasets.report.lines()]:
        get_logger().info(line)
    return datasets.eval


def _weights(engine: Engine, config: RunConfig) -> Any:
    """What tells the model from others: a digest of its weights where this process holds them."""
    from tunesmith.engines.hf import HFEngine
    from tunesmith.models.digest import weights_digest

    if isinstance(engine, HFEngine):
        return weights_digest(engine.model)
    return {"engine": config.engine.infer_backend, **model_facts(config)}
