"""load_config as a whole: everything wrong at once, hints, and the way back to a flat mapping."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tunesmith.config import RunConfig, RunPlan, dump_yaml, load_config
from tunesmith.config.run_config import REDACTED
from tunesmith.core.errors import ConfigError

GOOD = {"model_name_or_path": "m", "dataset": "d", "output_dir": "o"}


def test_all_problems_come_at_once_with_exit_code_2() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(
            {"lorarank": 8, "lora_rank": "x", "use_swanlab": True, "use_kt": True, "model": "m", "val_size": 0.1},
            ["optim=adam", "num_train_epochs=0"],
        )
    codes = [problem.code.removeprefix("E-CONFIG-") for problem in caught.value.problems]
    assert codes == ["001", "002", "008", "009", "010", "003", "004", "020", "020", "020", "022"]
    assert caught.value.exit_code == 2


def test_a_key_that_is_wrong_is_not_missed_as_well() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({**GOOD, "model_name_or_path": ["a", "b"]})
    assert [problem.code for problem in caught.value.problems] == ["E-CONFIG-002"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("learning_rat", 'did you mean "learning_rate"'),
        ("LORA_RANK", 'did you mean "lora_rank"'),
        ("per_device_batch_size", "per_device_train_batch_size"),
        ("lr", 'the key for this is "learning_rate"'),
        ("train_dataset", "write dataset"),
        ("micro_batch_size", "write per_device_train_batch_size"),
        ("compute_dtype", "it follows from bf16"),
        ("zzzzzz", "lists all keys"),
    ],
)
def test_an_unknown_key_gets_a_hint(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({**GOOD, name: 1})
    assert hint in str(caught.value.problems[0].fix)


def test_extra_keys_cannot_be_allowed_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOW_EXTRA_ARGS", "1")
    with pytest.raises(ConfigError):
        load_config({**GOOD, "anything": 1})


def test_sections_hold_what_the_user_wrote_and_defaults() -> None:
    config = load_config({**GOOD, "learning_rate": "1e-4", "adapter_name_or_path": "a,b"})
    assert config.model.adapter_name_or_path == ("a", "b")
    assert config.train.value("learning_rate") == 1e-4
    assert config.train.value("seed") == 42
    assert config.train.output_dir == "o"
    assert config.user_keys == {*GOOD, "learning_rate", "adapter_name_or_path"}
    assert (config.source, config.verb) == (None, "train")


@pytest.mark.parametrize(
    ("keys", "does"),
    [
        ({}, (True, False, False)),
        ({"do_train": True}, (True, False, False)),
        ({"do_eval": True}, (False, True, False)),
        ({"do_predict": True}, (False, False, True)),
        ({"do_train": True, "do_predict": True}, (True, False, True)),
        ({"eval_strategy": "epoch"}, (True, True, False)),
        ({"do_eval": False}, (True, False, False)),
    ],
)
def test_a_run_trains_unless_it_only_evaluates_or_predicts(
    keys: dict[str, object], does: tuple[bool, bool, bool]
) -> None:
    train = load_config({**GOOD, "val_size": 0.1, **keys}).train
    assert (train.do_train, train.do_eval, train.do_predict) == does


def test_a_flat_mapping_loads_again(tmp_path: Path) -> None:
    config = load_config({**GOOD, "dataset": ["a", "b"], "lora_target": "q,v", "warmup_ratio": "1e-1"})
    flat = config.to_flat()
    assert flat["dataset"] == "a,b"
    assert load_config(flat) == config
    (tmp_path / "run.yaml").write_text(dump_yaml(config))
    again = load_config(tmp_path / "run.yaml")
    assert again == config
    assert again.place("dataset").startswith(str(tmp_path / "run.yaml:"))


def test_names_with_commas_stay_a_list() -> None:
    config = load_config({**GOOD, "dataset": ["a,b.json", "c"]})
    assert config.to_flat()["dataset"] == ["a,b.json", "c"]


def test_a_flat_mapping_with_defaults_holds_every_key_and_loads_again() -> None:
    config = load_config(GOOD)
    flat = config.to_flat(defaults=True)
    assert flat["lora_rank"] == 8
    assert flat["learning_rate"] == 5e-5
    again = load_config(flat, verb="show")
    for section in ("model", "data", "template", "method", "objective", "generate", "export"):
        assert getattr(again, section) == getattr(config, section)


def test_secrets_are_neither_saved_nor_printed() -> None:
    config = load_config({**GOOD, "hf_hub_token": "hf_secret"})
    assert config.model.hf_hub_token == "hf_secret"
    assert "hf_secret" not in dump_yaml(config) + repr(config) + dump_yaml(config, secrets="redact")
    assert "hf_hub_token" not in config.to_flat()
    assert config.to_flat(secrets="redact")["hf_hub_token"] == REDACTED
    assert load_config(config.to_flat(secrets="keep")) == config


def test_the_yaml_is_plain_yaml_in_the_order_of_sections() -> None:
    text = dump_yaml(load_config({"output_dir": "o", "dataset": "d", "model_name_or_path": "m", "eval_strategy": "no"}))
    assert list(yaml.safe_load(text)) == ["model_name_or_path", "dataset", "output_dir", "eval_strategy"]
    assert dump_yaml(load_config({}, verb="show")) == ""


def test_a_config_travels_to_other_processes() -> None:
    config = load_config({**GOOD, "hf_hub_token": "hf_secret"})
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 - our own bytes, as multiprocessing makes them


def test_a_config_is_frozen() -> None:
    config = load_config(GOOD)
    with pytest.raises(AttributeError):
        config.verb = "chat"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        config.data.cutoff_len = 1


def test_check_finds_out_what_a_config_is_for() -> None:
    def verb(keys: dict[str, object]) -> str:
        return load_config({"model_name_or_path": "m", **keys}, verb="check").verb

    assert verb(GOOD) == "train"
    assert verb({}) == "chat"
    assert verb({"infer_backend": "huggingface", "stage": "sft", "finetuning_type": "lora"}) == "chat"
    judged = {"stage": "rm", "eval_dataset": "d", "output_dir": "o"}
    assert verb(judged) == "score"
    assert verb({**judged, "dataset": "d"}) == verb({**judged, "do_train": False, "do_eval": True}) == "train"
    assert verb({"export_dir": "x", "adapter_name_or_path": "a"}) == "export"
    with pytest.raises(ConfigError, match="dataset"):
        verb({"learning_rate": 1e-4, "output_dir": "o"})


def test_loading_a_config_imports_nothing_heavy() -> None:
    code = (
        "import sys; from tunesmith.config import load_config; load_config({'lora_rank': '1e1'}, verb='show');"
        "print([name for name in ('torch', 'transformers', 'datasets', 'peft', 'numpy', 'pydantic', 'tokenizers')"
        " if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_plan_is_printable_and_adds_up() -> None:
    facts = {
        "stage": "sft",
        "finetuning_type": "lora",
        "device": "cpu",
        "dtype": "float32",
        "autocast": None,
        "attention": "sdpa",
        "packing": False,
        "world_size": 2,
        "per_device_batch_size": 3,
        "gradient_accumulation_steps": 4,
        "order": "random",
        "seed": 42,
        "cutoff_len": 2048,
        "gradient_checkpointing": True,
        "resume": None,
        "output_dir": "o",
        "batches": "flat",
        "loss": "chunked",
        "quantization": None,
        "shares": False,
    }
    plan = RunPlan(**facts, global_batch_size=24)  # type: ignore[arg-type]  # 2 processes x 3 rows x 4 steps
    assert plan.to_dict() == {**facts, "global_batch_size": 24}
    assert "resume                       -" in plan.lines()
    with pytest.raises(AssertionError, match="24 rows"):
        RunPlan(**facts, global_batch_size=8)  # type: ignore[arg-type]


def test_run_config_equality_ignores_where_keys_were_written() -> None:
    assert load_config(GOOD) == load_config(None, [f"{key}={value}" for key, value in GOOD.items()])
    assert isinstance(load_config(GOOD), RunConfig)


MAPPING = {"path": "x.csv", "columns": {"prompt": "q", "response": "a"}, "weight": "1e-1", "num_samples": 3}


@pytest.mark.parametrize("value", [[MAPPING], MAPPING, ["a", MAPPING, "b,c"]])
def test_datasets_may_be_mappings(tmp_path, value):
    config = load_config({**GOOD, "dataset": value})
    expected = [{**MAPPING, "weight": 0.1}]
    if isinstance(value, list) and len(value) > 1:
        expected = ["a", *expected, "b,c"]
    assert list(config.data.dataset) == expected
    (tmp_path / "run.yaml").write_text(dump_yaml(config))
    assert load_config(tmp_path / "run.yaml") == config


def test_a_mapping_may_be_typed_on_the_command_line():
    config = load_config(GOOD, ["dataset=[a, {path: b.jsonl, field: data}]"])
    assert config.data.dataset == ("a", {"path": "b.jsonl", "field": "data"})


def test_the_table_of_datasets_may_be_a_mapping():
    config = load_config({**GOOD, "dataset_dir": {"d": {"file_name": "x.jsonl"}}})
    assert config.data.dataset_dir == {"d": {"file_name": "x.jsonl"}}
