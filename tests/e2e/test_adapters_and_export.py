"""What is saved loads elsewhere: adapters in plain PEFT, merged models in plain transformers."""

from __future__ import annotations

import pytest
import torch

import tunesmith
from tunesmith.core.errors import MissingInputError, OutputError


@pytest.fixture(scope="module", params=["plain", "rslora", "dora", "additional_target"])
def tuned(request, tiny_model, tiny_data, tmp_path_factory):
    """A LoRA run of the tiny model that changes its answers, saved to disk; one for each kind of adapter."""
    kinds = {
        "plain": {},
        "rslora": {"use_rslora": True},
        "dora": {"use_dora": True},
        "additional_target": {"additional_target": "norm", "lora_target": "q_proj,v_proj"},
    }
    torch.set_num_threads(1)
    return tunesmith.train(
        {
            "model_name_or_path": str(tiny_model),
            "dataset": str(tiny_data / "new_openai.jsonl"),
            "output_dir": str(tmp_path_factory.mktemp(request.param) / "out"),
            "lora_rank": 4,
            "learning_rate": 5e-3,
            "max_steps": 6,
            "logging_steps": 2,
            "save_strategy": "no",
            "use_cpu": True,
            **kinds[request.param],
        }
    ).output_dir


def base(tiny_model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


IDS = torch.arange(60)[None]


@pytest.mark.usefixtures("torch_one_thread")
def test_the_adapter_loads_in_plain_peft_and_the_merged_model_equals_it(tuned, tiny_model, tmp_path):
    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    before = base(tiny_model)(IDS).logits
    peft = PeftModel.from_pretrained(base(tiny_model), tuned).eval()
    expected = peft(IDS).logits
    assert (expected - before).abs().max() > 0.1, "the adapter does something"

    config = tunesmith.load_config(
        {"model_name_or_path": str(tiny_model), "adapter_name_or_path": str(tuned), "use_cpu": True}, verb="chat"
    )
    from tunesmith.engines import make_engine

    with make_engine(config) as engine:
        torch.testing.assert_close(engine.model(IDS).logits, expected, rtol=0, atol=0)
    torch.testing.assert_close(AutoPeftModelForCausalLM.from_pretrained(tuned)(IDS).logits, expected)

    folder = tunesmith.export_model(
        {
            "model_name_or_path": str(tiny_model),
            "adapter_name_or_path": str(tuned),
            "export_dir": str(tmp_path / "merged"),
        }
    )
    merged = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.testing.assert_close(merged(IDS).logits, expected, rtol=1e-4, atol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(tiny_model).chat_template
    assert not list(folder.glob("*.bin"))


def test_shards_have_the_size_that_was_asked_for(tiny_model, tmp_path):
    """The tiny model has about 1.1 MB of weights."""
    import json

    folder = tunesmith.export_model(
        {"model_name_or_path": str(tiny_model), "export_dir": str(tmp_path / "out"), "export_size": 0.0005}
    )
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shards = set(index["weight_map"].values())
    assert len(shards) >= 3
    assert all((folder / shard).stat().st_size < 0.6e6 for shard in shards)


def test_the_dtype_of_an_export_can_be_chosen(tiny_model, tmp_path):
    from safetensors.torch import load_file

    folder = tunesmith.export_model(
        {"model_name_or_path": str(tiny_model), "export_dir": str(tmp_path / "out"), "infer_dtype": "bfloat16"}
    )
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}


def test_a_bf16_export_is_the_float32_merge_rounded_once(tuned, tiny_model, tmp_path):
    from safetensors.torch import load_file

    keys = {"model_name_or_path": str(tiny_model), "adapter_name_or_path": str(tuned)}
    full = tunesmith.export_model({**keys, "export_dir": str(tmp_path / "full"), "infer_dtype": "float32"})
    half = tunesmith.export_model({**keys, "export_dir": str(tmp_path / "half"), "infer_dtype": "bfloat16"})
    expected = load_file(full / "model.safetensors")
    for name, tensor in load_file(half / "model.safetensors").items():
        assert torch.equal(tensor, expected[name].bfloat16())


def test_an_export_never_overwrites_a_model(tiny_model, tmp_path):
    keys = {"model_name_or_path": str(tiny_model), "export_dir": str(tmp_path / "out")}
    tunesmith.export_model(keys)
    with pytest.raises(OutputError) as caught:
        tunesmith.export_model(keys)
    assert caught.value.code == "E-EXPORT-001"


def test_an_adapter_of_another_model_is_refused(tuned, tiny_model, tmp_path):
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    narrow = LlamaConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=5, num_attention_heads=2)
    LlamaForCausalLM(narrow).save_pretrained(tmp_path / "narrow")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "narrow")
    keys = {
        "model_name_or_path": str(tmp_path / "narrow"),
        "adapter_name_or_path": str(tuned),
        "export_dir": str(tmp_path / "out"),
    }
    with pytest.raises(MissingInputError) as caught:
        tunesmith.export_model(keys)
    assert caught.value.code == "E-METHOD-005"


def test_a_merge_that_answers_differently_is_refused(tuned, tiny_model, tmp_path, monkeypatch):
    from tunesmith.export import merge

    monkeypatch.setattr(merge, "_TOLERANCE", -1.0)
    keys = {
        "model_name_or_path": str(tiny_model),
        "adapter_name_or_path": str(tuned),
        "export_dir": str(tmp_path / "out"),
    }
    with pytest.raises(OutputError) as caught:
        tunesmith.export_model(keys)
    assert caught.value.code == "E-EXPORT-003"
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_a_base_that_is_not_the_adapters_own_is_said(tuned, stories, tmp_path, caplog):
    """stories260K has the very shapes of the tiny model: only the adapter's own record tells them apart."""
    import logging

    keys = {"model_name_or_path": str(stories), "adapter_name_or_path": str(tuned), "infer_dtype": "float32"}
    logging.getLogger("tunesmith").propagate = True
    with caplog.at_level("WARNING", logger="tunesmith"):
        tunesmith.export_model({**keys, "export_dir": str(tmp_path / "out")})
    assert "was trained on" in caplog.text
