"""Files and overrides: values as they were written, each with its line; mistakes of form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunesmith.config import RunConfig, load_config
from tunesmith.core.errors import ConfigError, MissingInputError


def load(folder: Path, name: str, text: str, overrides: Any = ()) -> RunConfig:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides, verb="show")


def problems(folder: Path, name: str, text: str) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        load(folder, name, text)
    return [(problem.code, str(problem.where).removeprefix(f"{folder}/")) for problem in caught.value.problems]


YAML = "# a comment\nlora_rank: 4\n\nlearning_rate: 1e-4\ndataset: [a, b]\nlr_scheduler_kwargs:\n  min_lr: 1e-6\n"
JSON = (
    '{\n  "lora_rank": 4,\n\n\t"learning_rate": "1e-4",\n  "dataset": ["a", "b"],\n'
    '  "lr_scheduler_kwargs": {"min_lr": 1e-6}\n}'
)
TOML = (
    '# a comment\nlora_rank = 4\n\nlearning_rate = 1e-4\ndataset = ["a", "b"]\n[lr_scheduler_kwargs]\nmin_lr = 1e-6\n'
)


@pytest.mark.parametrize(("name", "text"), [("r.yaml", YAML), ("r.yml", YAML), ("r.json", JSON), ("r.toml", TOML)])
def test_every_format_says_the_same_with_places(tmp_path: Path, name: str, text: str) -> None:
    config = load(tmp_path, name, text)
    assert config.method.lora_rank == 4
    assert config.train.hf == {"learning_rate": 1e-4, "lr_scheduler_kwargs": {"min_lr": 1e-6}}
    assert config.data.dataset == ("a", "b")
    assert config.source == str(tmp_path / name)
    lines = {"lora_rank": 2, "learning_rate": 4, "dataset": 5, "lr_scheduler_kwargs": 6}
    assert {key: config.place(key) for key in lines} == {key: f"{config.source}:{n}" for key, n in lines.items()}
    assert config.place("seed") == 'key "seed" (not given)'


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("lorarank: 4\nlora_rank: x\n", [("E-CONFIG-001", "r.yaml:1"), ("E-CONFIG-002", "r.yaml:2")]),
        ("lora_rank: 4\nbf16: true\nlora_rank: 8\n", [("E-CONFIG-005", "r.yaml:3")]),
        ("lora_rank: [4\n", [("E-CONFIG-007", "r.yaml:2")]),
        ("lora_rank: 4\n\tbf16: true\n", [("E-CONFIG-007", "r.yaml:2")]),
        ("- lora_rank\n", [("E-CONFIG-007", "r.yaml")]),
        ("just text\n", [("E-CONFIG-007", "r.yaml")]),
        ("a: 1\n---\nb: 2\n", [("E-CONFIG-007", "r.yaml:2")]),
        ("lr_scheduler_kwargs:\n  min_lr: 1\n  min_lr: 2\n", [("E-CONFIG-007", "r.yaml:3")]),
        ("lr_scheduler_kwargs: &a {x: *a}\n", [("E-CONFIG-007", "r.yaml:1")]),
        ("run_name: !!python/object/apply:os.system [true]\n", [("E-CONFIG-007", "r.yaml:1")]),
    ],
)
def test_mistakes_in_yaml_have_a_line(tmp_path: Path, text: str, places: list[tuple[str, str]]) -> None:
    assert problems(tmp_path, "r.yaml", text) == places


def test_mistakes_in_json_and_toml_have_a_line(tmp_path: Path) -> None:
    assert problems(tmp_path, "r.json", '{\n"bf16": true,\n"bf16": false\n}') == [("E-CONFIG-005", "r.json:3")]
    assert problems(tmp_path, "r.json", '{\n"bf16": tru\n}') == [("E-CONFIG-007", "r.json:2")]
    assert problems(tmp_path, "r.json", "[1]") == [("E-CONFIG-007", "r.json")]
    assert problems(tmp_path, "r.json", '{"a": 1}') == [("E-CONFIG-001", "r.json:1")]
    assert problems(tmp_path, "r.toml", "bf16 = yes") == [("E-CONFIG-007", "r.toml")]


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_an_empty_file_has_no_keys(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, "r.yaml", text).user_keys == frozenset()


def test_yaml_does_not_turn_text_into_something_else(tmp_path: Path) -> None:
    config = load(tmp_path, "r.yaml", "run_name: 2024_01\nsave_strategy: no\noutput_dir: 1.10\ntemplate: on\n")
    assert config.train.hf == {"run_name": "2024_01", "save_strategy": "no", "output_dir": "1.10"}
    assert config.template.template == "on"
    assert load(tmp_path, "r.yaml", "run_name: 2024-13-45").train.hf == {"run_name": "2024-13-45"}
    assert load(tmp_path, "r.yaml", "dataset: [no, 2024_01]").data.dataset == ("no", "2024_01")


def test_merged_mappings_of_yaml_lose_to_keys_of_their_own(tmp_path: Path) -> None:
    config = load(tmp_path, "r.yaml", "lr_scheduler_kwargs: &x {lora_rank: 4, bf16: true}\n<<: *x\nlora_rank: 8\n")
    assert config.method.lora_rank == 8
    assert config.train.hf["bf16"] is True


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes("default_system: Grüße".encode("latin-1"))
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(path)
    path.write_bytes("\ufeffdefault_system: Grüße".encode())
    assert load_config(path, verb="show").template.default_system == "Grüße"


def test_a_file_that_is_not_there_ends_with_66(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(MissingInputError) as caught:
            load_config(path)
        assert caught.value.code == "E-CONFIG-006"
        assert caught.value.exit_code == 66


def test_overrides_win_and_are_read_as_yaml(tmp_path: Path) -> None:
    overrides = ["lora_rank=8", "dataset=[x, y]", "resume_from_checkpoint=", "eval_strategy=no", "default_system=a = b"]
    config = load(tmp_path, "r.yaml", YAML + "resume_from_checkpoint: here\n", overrides)
    assert config.method.lora_rank == 8
    assert config.data.dataset == ("x", "y")
    assert "resume_from_checkpoint" not in config.user_keys
    assert config.train.hf["eval_strategy"] == "no"
    assert config.template.default_system == "a = b"
    assert config.place("lora_rank") == "command line"
    assert load_config(tmp_path / "r.yaml", {"lora_rank": 2}, verb="show").method.lora_rank == 2


def test_a_dotted_override_changes_one_value_of_a_mapping(tmp_path: Path) -> None:
    overrides = ["lr_scheduler_kwargs.min_lr=1e-7", "lr_scheduler_kwargs.num_cycles=2"]
    config = load(tmp_path, "r.yaml", YAML, overrides)
    assert config.train.hf["lr_scheduler_kwargs"] == {"min_lr": 1e-7, "num_cycles": 2}


def test_text_that_is_no_yaml_is_plain_text_in_an_override() -> None:
    assert load_config(None, ["default_system=You: {are"], verb="show").template.default_system == "You: {are"


def test_an_override_without_a_key_or_value_is_an_error() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["lora_rank", "=3", "bf16=true"], verb="show")
    assert [problem.code for problem in caught.value.problems] == ["E-CONFIG-012", "E-CONFIG-012"]
