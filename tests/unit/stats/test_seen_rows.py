"""Figures of rows with pictures."""

from __future__ import annotations

import json
from math import exp
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.seeing import colour_rows, seeing_model
from tunesmith.config import load_config
from tunesmith.stats.flops import count_flops
from tunesmith.stats.learning_rate import suggest
from tunesmith.stats.lengths import lengths
from tunesmith.stats.perplexity import perplexity

ROWS, PATCHES = 8, 16


@pytest.fixture(scope="module")
def config(tmp_path_factory, stories) -> Any:
    folder = tmp_path_factory.mktemp("seen")
    model, rows = seeing_model(folder / "model", stories), colour_rows(folder / "data", ROWS)
    keys = {"model_name_or_path": str(model), "dataset": str(rows), "use_cpu": True, "finetuning_type": "full"}

    def make(**changes: Any) -> Any:
        return load_config(None, {**keys, **changes}, verb="stats")

    return make


def by_transformers(folder: str, file: Path) -> tuple[float, int]:
    """Sum of -log p over the answers, and their tokens, by transformers' own processor and model, row by row."""
    from transformers import AutoModelForMultimodalLM, AutoProcessor

    model, processor = AutoModelForMultimodalLM.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    total, count = 0.0, 0
    for row in json.loads(file.read_text()):
        question, answer = (message["content"] for message in row["messages"])
        with Image.open(file.parent / row["images"][0]) as opened:
            picture = opened.convert("RGB")
        text = question + answer + processor.tokenizer.eos_token
        inputs = processor(images=picture, text=text, return_tensors="pt", add_special_tokens=False)
        own = len(processor.tokenizer(question + answer)["input_ids"]) - len(processor.tokenizer(question)["input_ids"])
        with torch.no_grad():
            scores = model(**inputs).logits[0, :-1].log_softmax(-1)
        ids = inputs["input_ids"][0, 1:]
        total -= float(scores[range(len(ids)), ids][-own - 1 :].double().sum())
        count += own + 1
    return total, count


@pytest.mark.parametrize("changes", [{}, {"fast_path": "off"}], ids=["flat", "padded"])
def test_perplexity_looks_at_the_pictures(config, changes):
    asked = config(**changes)
    found = perplexity(asked)
    total, count = by_transformers(str(asked.model.model_name_or_path), Path(str(asked.data.dataset[0])))
    assert (found.rows, found.tokens) == (ROWS, count)
    assert found.perplexity == pytest.approx(exp(total / count), rel=1e-4)


def test_tokens_of_pictures_are_tokens_of_rows(config):
    found = lengths(config())
    assert found.shortest > PATCHES
    assert suggest(config()).tokens == pytest.approx(found.tokens)


def test_flops_are_those_of_the_part_that_reads(config):
    found = count_flops(config())
    assert found.tokens_per_step == lengths(config()).tokens
    assert found.trained_parameters < found.parameters, "the tower is there, and frozen"
