"""Values in every spelling: numbers as text, words for true and false, comma lists; and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.config import load_config
from tunesmith.core.errors import ConfigError


def value_of(key: str, value: Any) -> Any:
    return load_config({key: value}, verb="show").values[key]


def refusal(key: str, value: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config({key: value}, verb="show")
    assert len(caught.value.problems) == 1
    return caught.value


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("learning_rate", "1e-4", 1e-4),
        ("learning_rate", " 0.5 ", 0.5),
        ("learning_rate", 1, 1),
        ("lora_rank", "16", 16),
        ("lora_rank", 16.0, 16),
        ("lora_rank", "1e2", 100),
        ("max_samples", "1_000", 1000),
        ("bf16", "true", True),
        ("bf16", "Yes", True),
        ("bf16", 0, False),
        ("bf16", "off", False),
        ("dataset", "a, b ,c", ("a", "b", "c")),
        ("dataset", ["a", "b,c"], ("a", "b,c")),
        ("dataset", "a,", ("a",)),
        ("interleave_probs", "0.5,1e-1", (0.5, 0.1)),
        ("interleave_probs", [1, "2"], (1, 2)),
        ("interleave_probs", 1, (1,)),
        ("run_name", 2024, "2024"),
        ("report_to", "wandb,tensorboard", ["wandb", "tensorboard"]),
        ("report_to", ["wandb"], ["wandb"]),
        ("lr_scheduler_kwargs", '{"min_lr": 1e-6}', {"min_lr": 1e-6}),
        ("lr_scheduler_kwargs", {"min_lr": "1e-6"}, {"min_lr": 1e-6}),
        ("resume_from_checkpoint", True, True),
        ("resume_from_checkpoint", "true", True),
        ("resume_from_checkpoint", "out/checkpoint-5", "out/checkpoint-5"),
        ("eval_strategy", False, "no"),
        ("include_num_input_tokens_seen", True, True),
        ("include_num_input_tokens_seen", "all", "all"),
        ("enable_thinking", None, None),
        ("default_system", "", ""),
    ],
)
def test_a_value_may_be_written_in_several_ways(key: str, value: Any, wanted: Any) -> None:
    assert value_of(key, value) == wanted
    assert type(value_of(key, value)) is type(wanted)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("learning_rate", "fast", "a number"),
        ("learning_rate", True, "a number"),
        ("learning_rate", "nan", "a number"),
        ("learning_rate", float("inf"), "a number"),
        ("learning_rate", [1e-4], "a number"),
        ("lora_rank", 8.5, "a whole number"),
        ("lora_rank", "8.5", "a whole number"),
        ("lora_rank", False, "a whole number"),
        ("lora_rank", None, "a whole number"),
        ("bf16", "maybe", "true or false"),
        ("bf16", 2, "true or false"),
        ("model_name_or_path", ["a", "b"], "text"),
        ("adapter_name_or_path", {"a": 1}, "names separated by commas, or a list"),
        ("dataset", [{"a": 1}, None], "names separated by commas, or a list"),
        ("dataset", [["a"]], "names separated by commas, or a list"),
        ("interleave_probs", "a,b", "numbers separated by commas, or a list"),
        ("lr_scheduler_kwargs", '{"min_lr": ', "a mapping"),
        ("enable_thinking", 3, "true or false or null"),
        ("lora_target", None, "names separated by commas, or a list"),
    ],
)
def test_a_value_of_the_wrong_kind_is_told_in_plain_words(key: str, value: Any, words: str) -> None:
    error = refusal(key, value)
    assert error.code == "E-CONFIG-002"
    assert error.problems[0].what == f'"{key}" must be {words}'


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("lr_scheduler_type", "cosin", "cosine"),
        ("optim", "adamw_torch_fussed", "adamw_torch_fused"),
        ("eval_strategy", "step", "steps"),
        ("save_strategy", "epochs", "epoch"),
        ("finetuning_type", "Lora", "lora"),
        ("report_to", "tensorbord", "tensorboard"),
        ("report_to", ["wandb", "tensorbord"], "tensorboard"),
        ("mix_strategy", "interleave-under", "interleave_under"),
    ],
)
def test_a_value_that_is_no_choice_gets_a_hint(key: str, value: Any, hint: str) -> None:
    error = refusal(key, value)
    assert error.code == "E-CONFIG-003"
    assert f'did you mean "{hint}"' in str(error.problems[0].fix)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("lora_rank", 0, "a whole number, at least 1"),
        ("num_train_epochs", 0, "a number, above 0"),
        ("num_train_epochs", -1, "a number, above 0"),
        ("max_samples", 0, "a whole number, at least 1"),
        ("val_size", -0.1, "a number, at least 0"),
        ("lora_dropout", 1, "a number, at least 0 and below 1"),
        ("top_p", 1.5, "a number, above 0 and at most 1"),
        ("adam_beta1", 1, "a number, at least 0 and below 1"),
        ("per_device_train_batch_size", 0, "a whole number, at least 1"),
        ("learning_rate", "-1e-4", "a number, at least 0"),
    ],
)
def test_a_number_out_of_range_is_refused_with_its_limits(key: str, value: Any, words: str) -> None:
    error = refusal(key, value)
    assert error.code == "E-CONFIG-004"
    assert error.problems[0].what == f'"{key}" must be {words}'


@pytest.mark.parametrize("key", ["resume_from_checkpoint", "packing", "max_samples", "eval_dataset", "hub_token"])
@pytest.mark.parametrize("blank", [None, "", "  "])
def test_a_blank_value_equals_leaving_the_key_out(key: str, blank: str | None) -> None:
    assert load_config({key: blank}, verb="show") == load_config({}, verb="show") or key == "eval_dataset"


def test_a_secret_is_not_shown_in_an_error() -> None:
    error = refusal("hf_hub_token", ["hf_secret"])
    assert "hf_secret" not in str(error)
    assert "hf_secret" not in str(refusal("hub_token", ["hf_secret"]))
