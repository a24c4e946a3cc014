"""The rows of a config as the figures need them, and what they need of its plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.log import get_logger
from tunesmith.train.counting import Counting

if TYPE_CHECKING:
    from tunesmith.config import RunConfig
    from tunesmith.data.dataset import TokenDataset
    from tunesmith.data.pack import PackedDataset
    from tunesmith.render import Renderer

__all__ = ["build", "make_renderer_of", "refuse_streams", "seed_of", "steps_of"]


def refuse_streams(config: RunConfig) -> None:
    """Raises UsageError for a dataset that is read while training: a figure of all of it has no end."""
    if config.data.streaming:
        what = "a stream has no figures of all its rows"
        fix = "streaming=false, with max_samples=10000 for a part of it"
        raise UsageError(Problem("E-STATS-001", what, config.place("streaming"), "streaming: true", fix))


def make_renderer_of(config: RunConfig) -> tuple[Renderer, Any]:
    """(renderer, tokenizer) of the config's model."""
    from tunesmith.models.renderer import renderer_of
    from tunesmith.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(config.model)
    return renderer_of(config, tokenizer), tokenizer


def build(config: RunConfig, renderer: Renderer) -> TokenDataset | PackedDataset:
    """What a run trains on: cut, mixed, packed."""
    from tunesmith.data import build_datasets
    from tunesmith.data.streaming.samples import SampleStream

    refuse_streams(config)
    with Counting("preparing", "rows") as count:
        datasets = build_datasets(
            config.data, renderer, stage=config.objective.stage, seed=seed_of(config), on_progress=count
        )
    for line in [*renderer.notices, *datasets.report.lines()]:
        get_logger().info(line)
    train = datasets.train
    if train is None or isinstance(train, SampleStream):
        what, fix = "there is nothing to train on, which this figure is of", "name a dataset"
        raise UsageError(Problem("E-STATS-002", what, config.place("dataset"), fix=fix))
    return train


def seed_of(config: RunConfig) -> int:
    return int(config.train.hf.get("seed", 42))


def steps_of(config: RunConfig, rows: int, rows_of_a_step: int) -> int:
    """Steps of the whole run, as transformers counts them: the last step of an epoch may have fewer rows."""
    most = int(config.train.hf.get("max_steps", -1))
    if most > 0:
        return most
    each = rows // rows_of_a_step if config.train.hf.get("dataloader_drop_last") else -(-rows // rows_of_a_step)
    return int(-(-each * float(config.train.hf.get("num_train_epochs", 3.0)) // 1))
