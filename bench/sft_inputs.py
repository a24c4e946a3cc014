"""What every run of a case in bench/sft.py starts from, on disk: weights, an adapter, rows as text and as tokens.

Models have random weights in the shape of Qwen2, or are SmolLM2-135M as `tunesmith demo` fetches it; rows are those of
Alpaca where the test assets are at hand (TUNESMITH_ASSETS), else made of words.
"""

from __future__ import annotations

import json
import os
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ASSETS = Path(os.environ.get("TUNESMITH_ASSETS") or ROOT / ".." / "shared" / "assets")
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
SMALL = {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 2}
HALF = {"hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2}
SHAPES = {
    "tiny": {**TINY, "intermediate_size": 176, "vocab_size": 151_936},
    "small": {**SMALL, "intermediate_size": 1408, "vocab_size": 151_936},
    "half": {**HALF, "intermediate_size": 4864, "vocab_size": 151_936},
}
RANK = 8
SHORT = range(20, 61)  # tokens of a short row
PACKS = 4  # that hold the short rows of a batch


class Case(NamedTuple):
    """`shape`: one of SHAPES, or "smollm". `batch` rows a step. Where they are `short`, every step has the same ones,
    so that packs can hold them too."""

    shape: str
    lora: bool = True
    bf16: bool = False
    batch: int = 4
    short: bool = False


CASES = {
    "tiny": Case("tiny", batch=12, short=True),
    "small-lora": Case("small"),
    "small-lora-bf16": Case("small", bf16=True),
    "small-full": Case("small", lora=False),
    "half-lora": Case("half"),
    "smollm-lora": Case("smollm"),
    "smollm-lora-bf16": Case("smollm", bf16=True),
    "short-rows": Case("small", batch=48, short=True),
}


class Inputs(NamedTuple):
    """`tokens` holds one JSON object a line, in the order of training: `input_ids` and `labels`, -100 where nothing is
    trained. `lengths` are those of each step's rows."""

    model: Path
    adapter: Path | None
    rows: Path
    tokens: Path
    lengths: list[list[int]]
    template: str


def make_inputs(folder: Path, case: Case, steps: int) -> Inputs:
    model = make_model(folder, case.shape)
    adapter = make_adapter(model) if case.lora else None
    template = "chatml" if case.short else "qwen"
    written = _texts()
    if case.short:
        found = encode(folder, written[:1000], model, template)
        written = [row for row, one in zip(written, found, strict=False) if len(one["input_ids"]) in SHORT]
    written = written[: case.batch if case.short else case.batch * steps]
    rows, tokens = folder / "rows.json", folder / "tokens.jsonl"
    encoded = encode(folder, written, model, template)
    assert len(encoded) == len(written) >= case.batch, "as many rows as are asked for"
    rows.write_text(json.dumps(written))
    every = encoded * steps if case.short else encoded
    tokens.write_text("".join(json.dumps(one) + "\n" for one in every))
    counts = iter(len(one["input_ids"]) for one in every)
    return Inputs(model, adapter, rows, tokens, [list(islice(counts, case.batch)) for _ in range(steps)], template)


def packing_keys(lengths: list[int]) -> dict[str, Any]:
    """The keys with which PACKS packs hold exactly these rows, in the shortest packs that do."""
    import numpy as np

    from tunesmith.data.pack import fit

    capacity = max(max(lengths), -(-sum(lengths) // PACKS))
    while len(fit(np.array(lengths), capacity)[1]) - 1 > PACKS:
        capacity += 1
    return {"packing": True, "cutoff_len": capacity, "per_device_train_batch_size": PACKS}


def make_model(folder: Path, shape: str) -> Path:
    """A model of this shape with random weights and a tokenizer, once."""
    target = folder / shape
    if target.exists():
        return target
    if shape == "smollm":
        from tunesmith.models.demo import demo_model

        target.symlink_to(demo_model(print))
        return target
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    source = ASSETS / "tokenizers" / "qwen3" if ASSETS.is_dir() else ROOT / "tests" / "assets" / "tiny-llama"
    Qwen2ForCausalLM(Qwen2Config(**SHAPES[shape], tie_word_embeddings=True)).save_pretrained(target)
    AutoTokenizer.from_pretrained(source).save_pretrained(target)
    return target


def make_adapter(model: Path) -> Path:
    """An adapter of all linear layers of the blocks as PEFT makes it, once: A is random, B is zero."""
    target = model.with_name(f"{model.name}-adapter")
    if target.exists():
        return target
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    config = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), config).save_pretrained(target)
    return target


def _texts() -> list[dict[str, str]]:
    file = ASSETS / "data" / "sft" / "alpaca_5000.json"
    if file.is_file():
        return [row for row in json.loads(file.read_text()) if row["output"]]
    return [{"instruction": f"Say {n}", "input": "", "output": "word " * (1 + 7 * n % 150)} for n in range(1000)]


def encode(
    folder: Path, texts: list[dict[str, str]], model: Path, template: str, cutoff: int = 1024
) -> list[dict[str, Any]]:
    """`input_ids` and `labels` of each text, as a run of ours has them."""
    from tunesmith.config import load_config
    from tunesmith.data import build_datasets
    from tunesmith.models.tokenizer import load_tokenizer
    from tunesmith.render import make_renderer

    file = folder / "texts.json"
    file.write_text(json.dumps(texts))
    keys = {"model_name_or_path": str(model), "dataset": str(file), "template": template, "output_dir": str(folder)}
    config = load_config({**keys, "stage": "sft", "cutoff_len": cutoff}, {}, verb="train")
    renderer = make_renderer(config.template, load_tokenizer(config.model))
    found = build_datasets(config.data, renderer, stage="sft", seed=1).train
    assert found is not None, "there are rows"
    assert len(found) == len(texts), "no row is lost"
    return [_labelled(found[number]) for number in range(len(found))]


def _labelled(row: Any) -> dict[str, list[int]]:
    ids = row["input_ids"].tolist()
    trained = row["trained"].tolist()
    return {"input_ids": ids, "labels": [one if yes else -100 for one, yes in zip(ids, trained, strict=True)]}
