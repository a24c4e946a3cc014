"""YAML files in the style of the field's reference run unchanged: the names in them are met by local folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import tunesmith
from tunesmith import load_config

STYLE = Path(__file__).parents[1] / "assets" / "llamafactory_style"
LLAMA3 = "meta-llama/Meta-Llama-3-8B-Instruct"


@pytest.fixture(scope="module")
def workplace(assets, tmp_path_factory):
    """A folder in which the names of those files mean something: small models with real tokenizers, and `data/`."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("workplace")
    models = {LLAMA3: "llama3", "meta-llama/Meta-Llama-3-8B": "llama3", "Qwen/Qwen2.5-0.5B-Instruct": "qwen3"}
    for name, kind in models.items():
        tokenizer = AutoTokenizer.from_pretrained(assets / "tokenizers" / kind)
        shape = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=4,
            num_attention_heads=2,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
        )
        torch.manual_seed(0)
        LlamaForCausalLM(shape).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    data = folder / "data"
    data.mkdir()
    for source in ("sft/identity.json", "sft/alpaca_en_demo.json", "pretrain/c4_demo.jsonl"):
        shutil.copy(assets / "data" / source, data)
    shutil.copy(data / "alpaca_en_demo.json", data / "heldout.json")
    registered = {
        "identity": {"file_name": "identity.json"},
        "alpaca_en_demo": {"file_name": "alpaca_en_demo.json"},
        "alpaca_en_demo_heldout": {"file_name": "heldout.json", "num_samples": 4},
        "c4_demo": {"file_name": "c4_demo.jsonl", "columns": {"prompt": "text"}},
    }
    (data / "dataset_info.json").write_text(json.dumps(registered))
    for split in ("dev", "test"):
        (folder / "evaluation" / "mmlu" / split).mkdir(parents=True)
        source = assets / "data" / "eval" / "mmlu_dev" / "anatomy_dev.csv"
        shutil.copy(source, folder / "evaluation" / "mmlu" / split / f"anatomy_{split}.csv")
    return folder


# What keeps a run of such a file short; nothing else is changed.
SHORT = {"max_steps": 1, "max_samples": 12, "cutoff_len": 128, "use_cpu": True, "dataloader_num_workers": 0}


@pytest.mark.parametrize(
    "name",
    ["sft_lora", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sft_full", "sft_freeze", "pt_lora"))],
)
def test_training_runs(workplace, monkeypatch, name):
    monkeypatch.chdir(workplace)
    result = tunesmith.train(STYLE / f"{name}.yaml", **SHORT)
    assert 0 < result.metrics["train_loss"] < 13  # ln(128256) = 11.8 nats is guessing
    assert list(result.output_dir.glob("*.safetensors"))


@pytest.mark.slow
def test_predict_chat_and_export_run_on_what_was_trained(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    adapter = load_config(STYLE / "chat.yaml", verb="chat").model.adapter_name_or_path
    tunesmith.train(STYLE / "sft_lora.yaml", **SHORT, output_dir=adapter[0], overwrite_output_dir=True)
    predicted = tunesmith.train(STYLE / "predict.yaml", max_samples=2, max_new_tokens=4, use_cpu=True)
    assert len((predicted.output_dir / "generated_predictions.jsonl").read_text().splitlines()) == 4
    with tunesmith.chat(STYLE / "chat.yaml", use_cpu=True) as conversation:
        assert isinstance(conversation.ask("hi", max_new_tokens=3), str)
    evaluation = tunesmith.evaluate_model(STYLE / "eval.yaml", use_cpu=True)
    assert evaluation.metrics["average"]["questions"] == 5
    assert {line["shots"] for line in evaluation.questions} == {5}
    exported = tunesmith.export_model(STYLE / "export.yaml")
    assert (exported / "model.safetensors").is_file()
