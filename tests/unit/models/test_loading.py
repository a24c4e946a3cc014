"""What the keys of the model section do: which files, which access, which attention, which code, which precision."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tunesmith.config.model import ModelConfig
from tunesmith.core.errors import MachineError, MissingInputError, UsageError
from tunesmith.methods.base import Adapters
from tunesmith.methods.merge import attach_adapter
from tunesmith.models.load import ATTENTION, infer_dtype, load
from tunesmith.models.prepare import print_parameters, upcast_norms

pytestmark = pytest.mark.usefixtures("torch_one_thread")

HUB = {"cache_dir": "/somewhere", "model_revision": "abc123", "hf_hub_token": "hf_secret"}
ASKED = {"cache_dir": "/somewhere", "revision": "abc123", "token": "hf_secret"}


def start(folder: Path, **keys: Any) -> Any:
    """The model, as training and chat load it."""
    config = ModelConfig(model_name_or_path=str(folder), **keys)
    return load(config, dtype="float32", attention=ATTENTION[config.flash_attn]).model


# ---- the hub ----


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """(class, name, arguments) of every from_pretrained; the tiny model answers in place of the hub."""
    import transformers

    calls: list[tuple[str, str, dict[str, Any]]] = []
    for cls in (transformers.AutoTokenizer, transformers.AutoConfig, transformers.AutoModelForCausalLM):

        def answer(name: str, *, cls: Any = cls, real: Any = cls.from_pretrained, **arguments: Any) -> Any:
            if name == "owner/name":
                calls.append((cls.__name__, name, arguments))
            return real(tiny_model if name == "owner/name" else name, **arguments)

        monkeypatch.setattr(cls, "from_pretrained", answer)
    return calls


def test_folder_revision_and_token_reach_every_download(asked: list[Any]) -> None:
    config = ModelConfig(model_name_or_path="owner/name", **HUB)
    load(config, dtype="float32")
    infer_dtype(config, "cpu")
    load(ModelConfig(model_name_or_path="owner/name", train_from_scratch=True, **HUB), dtype="float32")
    assert {cls for cls, _, _ in asked} == {"AutoTokenizer", "AutoConfig", "AutoModelForCausalLM"}
    for cls, _, arguments in asked:
        assert {key: arguments.get(key) for key in ASKED} == ASKED, cls


def test_adapters_of_the_hub_are_asked_for_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import PeftConfig, PeftModel

    calls = []

    def config(name: str, **arguments: Any) -> Any:
        calls.append(arguments)
        return type("Config", (), {"base_model_name_or_path": None, "task_type": None, "peft_type": "LORA"})

    def model(base: Any, name: str, *, is_trainable: bool, autocast_adapter_dtype: bool, **arguments: Any) -> str:
        calls.append(arguments)
        return "attached"

    monkeypatch.setattr(PeftConfig, "from_pretrained", config)
    monkeypatch.setattr(PeftModel, "from_pretrained", model)
    adapters = Adapters.of(ModelConfig(adapter_name_or_path=("owner/adapter",), adapter_folder="best", **HUB))
    base = type("Base", (), {"config": type("Config", (), {"name_or_path": "x"})})
    assert attach_adapter(base, "owner/adapter", adapters) == "attached"
    assert calls == [{**ASKED, "subfolder": "best"}] * 2


def test_an_adapter_that_cannot_be_downloaded_is_explained(tiny_model: Path) -> None:
    model = start(tiny_model)
    with pytest.raises(MissingInputError) as caught:
        attach_adapter(model, "owner/no-such-adapter")
    assert caught.value.code == "E-METHOD-007"


# ---- adapters in a folder ----


def test_an_adapter_may_lie_in_a_folder_below(tiny_model: Path, tmp_path: Path) -> None:
    """Training goes on with it, chat answers with it, export merges it; without the key it is not found."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from tunesmith.engines import make_engine

    tuned = get_peft_model(start(tiny_model), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    tuned.save_pretrained(tmp_path / "repository" / "best")
    ids = torch.arange(40)[None]
    expected = tuned(ids).logits
    keys = {"model_name_or_path": str(tiny_model), "adapter_name_or_path": str(tmp_path / "repository")}
    inside = {**keys, "adapter_folder": "best", "use_cpu": True}

    with pytest.raises(MissingInputError) as caught:
        tunesmith.export_model({**keys, "export_dir": str(tmp_path / "none")})
    assert "best" in str(caught.value), "the message names the folder"
    with make_engine(tunesmith.load_config(inside, verb="chat")) as engine:
        torch.testing.assert_close(engine.model(ids).logits, expected)
    merged = tunesmith.export_model({**keys, "adapter_folder": "best", "export_dir": str(tmp_path / "merged")})
    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    torch.testing.assert_close(model(ids).logits, expected, rtol=1e-4, atol=1e-4)
    adapters = Adapters.of(tunesmith.load_config(inside, verb="chat").model)
    again = attach_adapter(start(tiny_model), adapters.names[0], adapters, trainable=True)
    torch.testing.assert_close(again(ids).logits, expected)


# ---- attention ----


@pytest.mark.parametrize(("value", "chosen"), [("auto", "sdpa"), ("sdpa", "sdpa"), ("disabled", "eager")])
def test_the_attention_is_the_one_that_was_asked_for(tiny_model: Path, value: str, chosen: str) -> None:
    assert start(tiny_model, flash_attn=value).config._attn_implementation == chosen


@pytest.mark.skipif(find_spec("flash_attn") is not None, reason="flash-attn is installed")
def test_flash_attention_that_is_not_installed_is_an_error(tiny_model: Path) -> None:
    with pytest.raises(MachineError) as caught:
        start(tiny_model, flash_attn="fa2")
    assert caught.value.code == "E-MODEL-005"
    assert "flash_attn: fa2" in str(caught.value)


def test_auto_takes_what_a_model_without_sdpa_knows(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, GptOssConfig, GptOssForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    small = GptOssConfig(
        num_hidden_layers=1,
        hidden_size=32,
        intermediate_size=32,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        num_local_experts=2,
        num_experts_per_tok=1,
        vocab_size=len(tokenizer),
        layer_types=["full_attention"],
        pad_token_id=0,
    )
    GptOssForCausalLM(small).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert start(tmp_path).config._attn_implementation == "eager"
    with pytest.raises(MissingInputError):
        start(tmp_path, flash_attn="sdpa")


# ---- code that comes with a model ----


@pytest.fixture
def own_code(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model under a class of its own, which its folder brings along."""
    folder = tmp_path / "own_code"
    shutil.copytree(tiny_model, folder)
    (folder / "modeling_own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n\n\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n\n\n"
        "class OwnForCausalLM(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    settings = json.loads((folder / "config.json").read_text())
    settings |= {
        "model_type": "own",
        "architectures": ["OwnForCausalLM"],
        "auto_map": {
            "AutoConfig": "modeling_own.OwnConfig",
            "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
        },
    }
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """transformers copies such code to a folder of its own: here one of the test's."""
    import sys

    import transformers.dynamic_module_utils as dynamic

    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.usefixtures("modules")
def test_code_of_a_model_runs_only_if_it_is_trusted(own_code: Path, tiny_model: Path) -> None:
    model = start(own_code, trust_remote_code=True)
    assert type(model).__name__ == "OwnForCausalLM"
    ids = torch.arange(20)[None]
    torch.testing.assert_close(model(ids).logits, start(tiny_model)(ids).logits)
    config = ModelConfig(model_name_or_path=str(own_code))
    for refused in (lambda: infer_dtype(config, "cpu"), lambda: start(own_code)):
        with pytest.raises(UsageError) as caught:
            refused()
        assert caught.value.code == "E-MODEL-010"
        assert "trust_remote_code: true" in str(caught.value)


@pytest.mark.usefixtures("modules")
def test_a_model_with_code_of_its_own_is_trained_and_saved_with_it(
    own_code: Path, tiny_data: Path, tmp_path: Path
) -> None:
    keys = {
        "model_name_or_path": str(own_code),
        "trust_remote_code": True,
        "finetuning_type": "full",
        "dataset": str(tiny_data / "new_openai.jsonl"),
        "output_dir": str(tmp_path / "out"),
        "max_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
    }
    result = tunesmith.train(keys)
    assert type(start(result.output_dir, trust_remote_code=True)).__name__ == "OwnForCausalLM"


# ---- precision and what is printed ----


def test_norms_are_held_in_float32_on_request(tiny_model: Path) -> None:
    model = load(ModelConfig(model_name_or_path=str(tiny_model)), dtype="bfloat16").model
    upcast_norms(model, ModelConfig())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    upcast_norms(model, ModelConfig(upcast_layernorm=True))
    upcast = {name for name, parameter in model.named_parameters() if parameter.dtype == torch.float32}
    layers = range(model.config.num_hidden_layers)
    norms = {f"model.layers.{n}.{kind}_layernorm.weight" for n in layers for kind in ("input", "post_attention")}
    assert upcast == norms | {"model.norm.weight"}


def test_norms_by_another_name_are_found() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    small = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=20, n_positions=16))
    model = small.to(torch.bfloat16)
    upcast_norms(model, ModelConfig(upcast_layernorm=True))
    assert {module.weight.dtype for module in model.modules() if isinstance(module, torch.nn.LayerNorm)} == {
        torch.float32
    }
    assert model.transformer.h[0].attn.c_attn.bias.dtype == torch.bfloat16


def test_every_weight_is_listed_on_request(
    tiny_model: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging

    monkeypatch.setattr(logging.getLogger("tunesmith"), "propagate", True)
    model = start(tiny_model)
    model.lm_head.weight.requires_grad_(False)
    with caplog.at_level("INFO", logger="tunesmith"):
        print_parameters(model, ModelConfig())
        assert caplog.messages == []
        print_parameters(model, ModelConfig(print_param_status=True))
    assert len(caplog.messages) == len(list(model.named_parameters()))
    assert "model.norm.weight (64,) float32 cpu trained" in caplog.messages
    assert sum(message.endswith(" frozen") for message in caplog.messages) == 1
