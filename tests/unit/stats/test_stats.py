"""Figures of a config, against arithmetic that is written out and loops of transformers' own."""

from __future__ import annotations

import json
import shutil
import sys
from math import exp, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny_models import tiny_config
from tunesmith.config import RunConfig, load_config
from tunesmith.core.errors import ConfigError, DataError, MachineError, MissingInputError, OutputError, UsageError
from tunesmith.stats.flops import count_flops
from tunesmith.stats.learning_rate import rate_for, suggest
from tunesmith.stats.lengths import lengths, plot_lengths, share_up_to
from tunesmith.stats.mfu import mfu_of_run, mfu_of_step, peak_of
from tunesmith.stats.perplexity import perplexity
from tunesmith.stats.rows import make_renderer_of, steps_of


@pytest.fixture
def config(tiny_model: Path, tiny_data: Path) -> Any:
    keys = {
        "model_name_or_path": str(tiny_model),
        "dataset": "new",
        "dataset_dir": str(tiny_data),
        "per_device_train_batch_size": 4,
        "use_cpu": True,
    }

    def make(**changes: Any) -> RunConfig:
        return load_config(None, {**keys, **changes}, verb="stats")

    return make


def rows_of(config: RunConfig) -> list[dict[str, np.ndarray]]:
    from tunesmith.data import build_datasets

    renderer, _ = make_renderer_of(config)
    train = build_datasets(config.data, renderer, stage=config.objective.stage, seed=42).train
    assert train is not None
    return [dict(train[number]) for number in range(len(train))]


# --- lengths ---


def test_shares_of_a_few_lengths_by_hand() -> None:
    values = np.array([3, 10, 10, 11, 25])
    assert share_up_to(values, 10) == [(10, 3, 0.6), (20, 4, 0.8), (30, 5, 1.0)]


def test_lengths_are_those_of_the_rows(config: Any) -> None:
    found = lengths(config(cutoff_len=34, on_too_long="drop"))
    sizes = np.array([len(row["input_ids"]) for row in rows_of(config(cutoff_len=2048))])
    assert (found.samples, found.tokens, found.longest) == (len(sizes), sizes.sum(), sizes.max())
    assert found.mean == pytest.approx(sizes.mean(), abs=0.01)
    assert found.percentiles[50] == sorted(sizes)[len(sizes) // 2]
    assert (found.too_long, found.cut_samples) == ((sizes > 34).sum(), (sizes > 34).mean())
    assert found.cut_tokens == pytest.approx(sizes[sizes > 34].sum() / sizes.sum(), abs=1e-6)
    assert found.up_to[-1][1:] == (len(sizes), 1.0)


def test_packing_and_padding_are_those_of_training(config: Any) -> None:
    found = lengths(config(cutoff_len=80))
    assert found.packs == len(rows_of(config(cutoff_len=80, packing=True)))
    assert found.filled == pytest.approx(found.tokens / found.packs / 80, abs=1e-6)
    one = lengths(config(cutoff_len=80, per_device_train_batch_size=1))
    assert one.padding == 0.0
    assert 0 < found.padding < 0.5


@pytest.mark.slow
def test_a_picture_is_drawn(config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = lengths(config())
    plot_lengths(found, tmp_path / "lengths.png")
    assert (tmp_path / "lengths.png").read_bytes().startswith(b"\x89PNG")
    for name in ("nowhere/lengths.png", "lengths.nothing"):
        with pytest.raises(OutputError) as caught:
            plot_lengths(found, tmp_path / name)
        assert caught.value.code == "E-STATS-005"
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(MachineError) as missing:
        plot_lengths(found, tmp_path / "lengths.png")
    assert missing.value.code == "E-STATS-004"


# --- learning rate ---


def test_the_rule_by_hand(config: Any) -> None:
    assert rate_for(4_000_000) == 3e-4
    assert rate_for(1_000_000) == pytest.approx(1.5e-4)
    found = suggest(config(gradient_accumulation_steps=2, num_train_epochs=2))
    rows = rows_of(config())
    trained = sum(int(row["trained"][1:].sum()) for row in rows) / len(rows) * 8
    assert found.trained == pytest.approx(trained, abs=0.1)
    assert found.learning_rate == pytest.approx(3e-4 * sqrt(trained / 4e6), rel=0.01)
    assert (found.rows, found.steps) == (8, -(-len(rows) // 8) * 2)


def test_steps_are_those_that_a_run_makes(config: Any) -> None:
    assert steps_of(config(num_train_epochs=3), rows=10, rows_of_a_step=4) == 9
    assert steps_of(config(num_train_epochs=3, dataloader_drop_last=True), rows=10, rows_of_a_step=4) == 6
    assert steps_of(config(num_train_epochs=0.5), rows=10, rows_of_a_step=4) == 2
    assert steps_of(config(max_steps=7), rows=10, rows_of_a_step=4) == 7


# --- FLOPs and MFU ---


def test_flops_of_full_training_by_hand(config: Any) -> None:
    """A layer with N weights takes 2 N forward and 4 N backward a token, attention 2 (K + V) a pair and twice that."""
    found = count_flops(config(finetuning_type="full", num_train_epochs=2))
    from transformers import AutoConfig

    shape = AutoConfig.from_pretrained(config().model.model_name_or_path)
    size, wide, head = shape.hidden_size, shape.intermediate_size, shape.hidden_size // shape.num_attention_heads
    keys = head * shape.num_key_value_heads
    weights = shape.num_hidden_layers * (2 * size * size + 2 * size * keys + 3 * size * wide)
    assert found.layers == 6 * weights
    rows = rows_of(config())
    sizes = [len(row["input_ids"]) for row in rows]
    trained = sum(int(row["trained"][1:].sum()) for row in rows)
    pairs = sum(length * (length + 1) // 2 for length in sizes)
    attention = shape.num_hidden_layers * shape.num_attention_heads * 2 * (2 * head + 4 * head) * pairs
    total = 6 * weights * sum(sizes) + 6 * size * shape.vocab_size * trained + attention
    assert found.total == pytest.approx(2 * total)
    assert found.per_token == pytest.approx(total / sum(sizes))
    assert found.per_step == pytest.approx(total * 4 / len(rows))
    assert found.trained_parameters == found.parameters


def test_flops_of_a_reward_model_by_hand(config: Any, tmp_path: Path) -> None:
    """The same layers, and one product with H weights where a sequence ends; no table of words at the end."""
    from tests.pairs import write_stories

    keys = {"finetuning_type": "full", "dataset": str(write_stories(tmp_path, 4)), "num_train_epochs": 1}
    found = count_flops(config(stage="rm", **keys))
    other = count_flops(config(stage="dpo", pref_loss="simpo", **keys))
    from transformers import AutoConfig

    shape = AutoConfig.from_pretrained(config().model.model_name_or_path)
    assert (found.layers, found.attention) == (other.layers, pytest.approx(other.attention))
    head = 6 * shape.hidden_size  # forward, gradient of the weights, gradient of the input
    pairs = 4
    tokens = found.tokens_per_step / min(4, pairs) * pairs
    assert found.head == pytest.approx(head * 2 * pairs / tokens, rel=1e-3)
    assert found.parameters == other.parameters + (1 - shape.vocab_size * (not shape.tie_word_embeddings)) * (
        shape.hidden_size
    )


@pytest.mark.slow
def test_an_adapter_needs_less_and_a_limit_of_steps_counts(config: Any) -> None:
    full, lora = count_flops(config(finetuning_type="full", max_steps=5)), count_flops(config(max_steps=5))
    assert lora.per_token < full.per_token
    for begins in ({"pissa_init": True}, {"init_lora_weights": "eva"}):
        assert count_flops(config(max_steps=5, **begins)) == lora
    assert 0 < lora.trained_parameters < full.trained_parameters
    assert full.total == pytest.approx(5 * full.per_step)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["gemma2", "mixtral", "qwen3_moe", "gpt_oss", "dbrx", "longcat_flash"])
def test_shapes_alone_give_what_a_model_gives(model_type: str, config: Any, tmp_path: Path) -> None:
    from tunesmith.models.quiet import quiet_libraries
    from tunesmith.stats import flops
    from tunesmith.train.plan import resolve_plan

    quiet_libraries()
    tiny_config(model_type).save_pretrained(tmp_path)
    asked = config(model_name_or_path=str(tmp_path), finetuning_type="full")
    plan = resolve_plan(asked)
    with torch.device("meta"):
        found = flops._measured(asked, plan, shapes_only=True, media=False)
    assert found == flops._measured(asked, plan, shapes_only=False, media=False)


def test_a_mixture_of_experts_tells_what_a_token_meets(config: Any, tiny_model: Path, tmp_path: Path) -> None:
    """Two layers of width 32, of which the first is dense: 4 experts of 3 x 32 x 16, a token meets 2."""
    from tunesmith.cli.stats import _experts

    for path in (*tiny_model.glob("tokenizer*"), tiny_model / "chat_template.jinja"):
        shutil.copy(path, tmp_path)
    tiny_config("deepseek_v2").save_pretrained(tmp_path)
    found = count_flops(config(model_name_or_path=str(tmp_path), finetuning_type="full"))
    assert found.experts == {"layers": 2, "dense_layers": [0], "experts": 4, "experts_per_token": 2.0}
    assert found.parameters - found.active_parameters == 2 * 3 * 32 * 16
    assert _experts(found.experts, 12345) == (
        "4, of which a token meets 2, in 1 of 2 layers (dense: 0); 12,345 parameters a token"
    )


def write_run(folder: Path, **hardware: Any) -> Path:
    (folder / "train_results.json").write_text(json.dumps({"train_tflops_per_device": 100.0}))
    (folder / "plan.json").write_text(json.dumps({"autocast": "bfloat16", "dtype": "float32"}))
    (folder / "run.json").write_text(json.dumps({"hardware": hardware}))
    return folder


def test_mfu_of_a_run_is_its_rate_over_the_peak(tmp_path: Path) -> None:
    run = write_run(tmp_path, device="cuda", device_name="NVIDIA A100-SXM4-80GB")
    found = mfu_of_run(run, peak=None, device=None)
    assert (found.mfu, found.peak_tflops, found.arithmetic) == (pytest.approx(100 / 312, abs=1e-6), 312, "bfloat16")
    assert mfu_of_run(run, peak=400.0, device=None).mfu == 0.25
    assert mfu_of_run(run, peak=None, device="H100 SXM").mfu == pytest.approx(100 / 989.5, abs=1e-6)


def test_mfu_of_a_step_is_its_flops_over_its_time(config: Any) -> None:
    asked = config(finetuning_type="full")
    found = mfu_of_step(asked, 0.5, peak=2.0, device=None, devices=2)
    assert found.tflops == pytest.approx(count_flops(asked).per_step / 0.5 / 2 / 1e12, abs=1e-6)


def test_what_has_no_peak_is_an_error(tmp_path: Path) -> None:
    assert peak_of("A800", "float16") == 312
    for name, arithmetic in (("RTX 9999", "float16"), ("T4", "bfloat16")):
        with pytest.raises(UsageError) as caught:
            peak_of(name, arithmetic)
        assert caught.value.code == "E-STATS-006"
    with pytest.raises(UsageError):
        mfu_of_run(write_run(tmp_path, device="cpu"), peak=None, device=None)
    (tmp_path / "train_results.json").unlink()
    with pytest.raises(MissingInputError):
        mfu_of_run(tmp_path, peak=1.0, device=None)


# --- perplexity ---


def by_transformers(config: RunConfig, rows: list[dict[str, np.ndarray]]) -> tuple[list[float], list[int]]:
    """Sum of -log p and number of trained tokens of each row, one row at a time."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(config.model.model_name_or_path), dtype=torch.float32).eval()
    sums, counts = [], []
    for row in rows:
        ids = torch.tensor(row["input_ids"]).long()[None]
        labels = torch.where(torch.tensor(row["trained"])[None], ids, -100)[:, 1:]
        with torch.no_grad():
            logits = model(input_ids=ids).logits[:, :-1]
        each = torch.nn.functional.cross_entropy(logits[0], labels[0], reduction="none", ignore_index=-100)
        sums.append(float(each.double().sum()))
        counts.append(int((labels != -100).sum()))
    return sums, counts


@pytest.mark.parametrize(
    "changes", [{}, {"fast_path": "off"}, {"train_on_prompt": True}, {"stage": "pt", "dataset": "plain"}]
)
def test_perplexity_is_that_of_a_loop_of_transformers(changes: dict[str, Any], config: Any, tmp_path: Path) -> None:
    if changes.get("stage") == "pt":
        (tmp_path / "plain.jsonl").write_text(
            "".join(f'{{"text": "the cat sat {"on a mat " * n}"}}\n' for n in (1, 4, 2))
        )
        changes = {**changes, "dataset": str(tmp_path / "plain.jsonl")}
    asked = config(per_device_eval_batch_size=3, **changes)
    found = perplexity(asked, tmp_path / "rows.jsonl")
    rows = rows_of(config(**changes, **({"packing": False} if "stage" in changes else {})))
    sums, counts = by_transformers(asked, rows)
    assert (found.rows, found.tokens) == (len(rows), sum(counts))
    assert found.perplexity == pytest.approx(exp(sum(sums) / sum(counts)), rel=1e-5)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.perplexity < found.high
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [line["tokens"] for line in lines] == counts
    assert [line["loss"] for line in lines] == pytest.approx(
        [one / n for one, n in zip(sums, counts, strict=True)], rel=1e-4
    )
    assert lines[0]["perplexity"] == pytest.approx(exp(lines[0]["loss"]))


@pytest.mark.slow
def test_perplexity_with_an_adapter_is_another(config: Any, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(config().model.model_name_or_path)
    torch.manual_seed(0)
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    tuned.save_pretrained(tmp_path / "adapter")
    tuned.merge_and_unload().save_pretrained(tmp_path / "merged")
    for file in Path(str(config().model.model_name_or_path)).glob("*token*"):
        (tmp_path / "merged" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "merged" / "chat_template.jinja").write_text(
        (Path(str(config().model.model_name_or_path)) / "chat_template.jinja").read_text()
    )
    with_adapter = perplexity(config(adapter_name_or_path=str(tmp_path / "adapter")))
    merged = perplexity(config(model_name_or_path=str(tmp_path / "merged")))
    assert with_adapter.perplexity == pytest.approx(merged.perplexity, rel=1e-4)
    assert with_adapter.perplexity != pytest.approx(perplexity(config()).perplexity, rel=1e-3)


def test_what_has_no_figure_is_refused(config: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        lengths(config(streaming=True, max_steps=3))
    assert caught.value.code == "E-STATS-001"
    with pytest.raises(UsageError) as nothing:
        suggest(config(dataset=None, eval_dataset="new"))
    assert nothing.value.code == "E-STATS-002"
    with pytest.raises((UsageError, DataError)) as stage:
        perplexity(config(stage="dpo"))
    assert stage.value.code == "E-STATS-008"
    with pytest.raises(ConfigError):
        config(learning_rat=1)
