"""Every method in every precision that is declared for it: it learns, only what is to train has changed, plain
transformers and PEFT load what is saved, and what can be merged is the same merged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tests.method_cases import CASES, PRECISIONS, declared
from tests.quantized_bases import plain_base
from tunesmith.config.tuners import TUNERS
from tunesmith.models.loss_forward import language_model_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("torch_one_thread"),
    # What PEFT says of adapters that cannot be merged, of kernels for other devices, of layers that are no linear ones.
    pytest.mark.filterwarnings("ignore:Detected that the base layer has no bias term:UserWarning"),
    pytest.mark.filterwarnings("ignore:Failed to load the CUDA extension:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled:UserWarning"),
    pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting boft_n_butterfly_factor:UserWarning"),
]

IDS = torch.arange(60)[None]
CELLS = [(name, precision) for name in CASES for precision in PRECISIONS if declared(name, precision)]


@pytest.fixture(scope="session")
def base(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights whose sizes all kinds of adapters and quantizers can divide."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    folder = tmp_path_factory.mktemp("base")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 896}
    config = LlamaConfig(
        **sizes, num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=False, initializer_range=0.1
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def experts(base: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two adapters for X-LoRA: one that has learnt the rows, and one of random numbers."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("experts")
    torch.manual_seed(1)
    settings = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(plain(base, "fp32"), settings).save_pretrained(folder / "random")
    run(base, tiny_data, folder / "learnt", {**CASES["lora"].settings, "learning_rate": CASES["lora"].lr})
    return folder


def run(base: Path, data: Path, target: Path, settings: dict[str, Any]) -> Any:
    rows = str(data / "new_openai.jsonl")
    return tunesmith.train(
        {
            "model_name_or_path": str(base),
            "dataset": rows,
            "eval_dataset": rows,
            "max_samples": 16,
            "output_dir": str(target),
            "per_device_train_batch_size": 16,
            "lr_scheduler_type": "constant",
            "max_steps": 10,
            "eval_on_start": True,
            "do_train": True,
            "do_eval": True,
            "save_strategy": "no",
            "logging_steps": 1,
            "use_cpu": True,
            **settings,
        }
    )


def plain(folder: Path, precision: str) -> Any:
    """The model as plain transformers load it."""
    from transformers import AutoModelForCausalLM

    if precision not in ("fp32", "bf16"):
        return plain_base(folder, precision)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The trainer of the next run, and its weights as they were before the first step."""
    from tunesmith.train import run

    seen: dict[str, Any] = {}
    build = run.build_trainer

    def watching(*arguments: Any, **more: Any) -> Any:
        trainer = seen["trainer"] = build(*arguments, **more)
        model = trainer.model
        seen["trained"] = {name for name, weight in model.named_parameters() if weight.requires_grad}
        seen["before"] = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        return trainer

    monkeypatch.setattr(run, "build_trainer", watching)
    yield seen


def logits(model: Any, precision: str, tasks: bool) -> torch.Tensor:
    more = {"task_ids": torch.zeros(1, dtype=torch.long)} if tasks else {}
    half = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
    with torch.inference_mode(), half:
        found: torch.Tensor = model.eval()(input_ids=IDS, **more).logits.float()
    return found


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference, relative to the largest logit."""
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize(("name", "precision"), CELLS, ids=lambda value: str(value).replace(" ", ""))
def test_a_method_trains_and_what_it_saves_is_what_it_learnt(
    name: str,
    precision: str,
    base: Path,
    tiny_data: Path,
    experts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Any,
) -> None:
    case = CASES[name]
    cell: dict[str, Any] = {"method": name, "precision": precision}
    record_property("cell", cell)
    monkeypatch.chdir(experts)
    with watched(monkeypatch) as seen:
        settings = {"learning_rate": case.lr, **PRECISIONS[precision], **case.settings}
        result = run(base, tiny_data, tmp_path / "out", settings)
    trainer, trained = seen["trainer"], seen["trained"]
    first = next(entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry)
    cell |= {"loss": [round(first, 4), round(result.metrics["eval_loss"], 4)], "trained": len(trained)}
    assert result.metrics["eval_loss"] < first

    now = dict(trainer.model.named_parameters())
    changed = {key for key, weight in now.items() if not torch.equal(weight, seen["before"][key])}
    assert changed
    assert changed <= trained, "the rest is the same to the bit"

    kind = case.settings.get("peft_type", "")
    tasks = kind in TUNERS and TUNERS[kind].tasks
    language_model_of(trainer.model).set_attn_implementation("sdpa")
    if not hasattr(trainer.model, "peft_config"):
        trainer.model.float()  # as plain transformers load it: in one type
    learnt = logits(trainer.model, precision, tasks)
    loaded = load(base, result.output_dir, precision)
    cell["reload"] = apart(logits(loaded, precision, tasks), learnt)
    assert cell["reload"] <= case.bound.get(precision, 1e-4)

    if precision in ("fp32", "bf16") and hasattr(loaded, "peft_config") and merges(kind):
        folder = tunesmith.export_model(
            {
                "model_name_or_path": str(base),
                "adapter_name_or_path": str(result.output_dir),
                "export_dir": str(tmp_path / "merged"),
                "infer_dtype": "float32",
            }
        )
        whole = load(base, result.output_dir, "fp32")
        cell["merge"] = apart(logits(plain(folder, "fp32"), "fp32", False), logits(whole, "fp32", tasks))
        assert cell["merge"] <= 1e-4


def merges(kind: str) -> bool:
    return kind not in TUNERS or TUNERS[kind].merges


def load(base: Path, folder: Path, precision: str) -> Any:
    from peft import PeftModel

    if not (folder / "adapter_config.json").exists():
        return plain(folder, "fp32")
    model = plain(base, precision)
    model.config.use_cache = False  # X-LoRA wants that said
    return PeftModel.from_pretrained(model, folder)


def test_the_table_has_every_kind_of_adapter_that_peft_has() -> None:
    from peft import PeftType

    assert set(TUNERS) == {kind.value.lower() for kind in PeftType}
    assert {kind for kind, tuner in TUNERS.items() if tuner.refused is None} <= set(CASES)
