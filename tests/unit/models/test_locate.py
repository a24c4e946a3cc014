"""From `model_name_or_path` to what is loaded: folders, repositories, names of the catalog, and other hubs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tunesmith.config.model import ModelConfig
from tunesmith.core.errors import MachineError, MissingInputError, UnavailableError
from tunesmith.hubs import chosen_hub
from tunesmith.models import locate
from tunesmith.models.load import load
from tunesmith.models.locate import located, resolve
from tunesmith.models.tokenizer import load_tokenizer


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing resolved yet, an empty working folder, and the Hugging Face hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    for variable in ("USE_MODELSCOPE_HUB", "USE_OPENMIND_HUB"):
        monkeypatch.delenv(variable, raising=False)
    locate._on_hub.cache_clear()
    yield
    locate._on_hub.cache_clear()


# ---- the order ----


def test_a_catalog_name_becomes_its_repository_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "tunesmith"):
        assert resolve("Qwen3-4B-Instruct") == "Qwen/Qwen3-4B-Instruct-2507"
        assert resolve("Qwen3-4B-Instruct") == "Qwen/Qwen3-4B-Instruct-2507"
    line = "model: Qwen3-4B-Instruct is Qwen/Qwen3-4B-Instruct-2507 of the Hugging Face hub"
    assert [record.getMessage() for record in caplog.records] == [line]


def test_a_folder_of_that_name_wins(tmp_path: Path) -> None:
    (tmp_path / "Qwen3-4B-Instruct").mkdir()
    assert resolve("Qwen3-4B-Instruct") == "Qwen3-4B-Instruct"


def test_a_repository_is_taken_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "tunesmith"):
        assert resolve("somebody/Qwen3-4B-Instruct") == "somebody/Qwen3-4B-Instruct"
        assert resolve("distilgpt2") == "distilgpt2", "the hub knows some names without an owner"
        assert resolve("./Qwen3-4B-Instruct") == "./Qwen3-4B-Instruct"
    assert not caplog.records


def test_the_rest_of_the_config_stays() -> None:
    config = ModelConfig(model_name_or_path="gpt2", model_revision="v1", trust_remote_code=True)
    found = located(config)
    assert (found.model_name_or_path, found.model_revision) == ("openai-community/gpt2", "v1")
    assert found.trust_remote_code
    assert config.model_name_or_path == "gpt2", "what is saved with the run is what the user wrote"


def test_tokenizer_and_weights_ask_for_the_same_repository(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    import transformers

    asked: dict[str, str] = {}
    for cls in (transformers.AutoConfig, transformers.AutoTokenizer, transformers.AutoModelForCausalLM):

        def answer(name: str, *, of: str = cls.__name__, real: Any = cls.from_pretrained, **arguments: Any) -> Any:
            if name != tiny_model:  # which is what transformers reads for all of them
                asked.setdefault(of, name)
            return real(tiny_model, **{**arguments, "revision": "main"})

        monkeypatch.setattr(cls, "from_pretrained", answer)
    load(ModelConfig(model_name_or_path="Qwen3-4B-Instruct"), dtype="float32")
    assert asked == dict.fromkeys(
        ("AutoTokenizer", "AutoConfig", "AutoModelForCausalLM"), "Qwen/Qwen3-4B-Instruct-2507"
    )


def test_a_mistyped_name_is_answered_with_names_of_the_catalog() -> None:
    with pytest.raises(UnavailableError) as caught:
        load_tokenizer(ModelConfig(model_name_or_path="Qwen2.5-7B-Instuct"))
    assert 'did you mean "Qwen2.5-7B-Instruct"' in str(caught.value)


# ---- other hubs ----


def hub_module(monkeypatch: pytest.MonkeyPatch, name: str, answer: Any) -> list[tuple[Any, ...]]:
    """A stand-in for the package of a hub. Returns what its `snapshot_download` is asked for."""
    asked: list[tuple[Any, ...]] = []

    def snapshot_download(repository: str, *, revision: str, cache_dir: str | None) -> Any:
        asked.append((repository, revision, cache_dir))
        if isinstance(answer, Exception):
            raise answer
        return answer

    parts = name.split(".")
    for index in range(len(parts)):
        monkeypatch.setitem(sys.modules, ".".join(parts[: index + 1]), ModuleType(parts[index]))
    monkeypatch.setattr(sys.modules[name], "snapshot_download", snapshot_download, raising=False)
    return asked


def test_a_hub_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen_hub() == "hf"
    monkeypatch.setenv("USE_OPENMIND_HUB", "true")
    assert chosen_hub() == "openmind"
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "1")
    assert chosen_hub() == "modelscope"
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "0")
    assert chosen_hub() == "openmind"


def test_modelscope_downloads_its_own_repository(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    folder = shutil.copytree(tiny_model, "downloaded")
    asked = hub_module(monkeypatch, "modelscope", folder)
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "1")
    config = ModelConfig(model_name_or_path="Llama-3.2-1B-Instruct", cache_dir="/somewhere")
    model = load(config, dtype="float32").model
    assert asked == [("LLM-Research/Llama-3.2-1B-Instruct", "master", "/somewhere")], "once for tokenizer and weights"
    assert model.config.name_or_path == folder


def test_tokens_reach_their_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(model_name_or_path="owner/name", ms_hub_token="ms_secret", om_hub_token="om_secret")
    asked: list[Any] = []
    hub_module(monkeypatch, "openmind.utils.hub", "folder")
    hub = sys.modules["openmind.utils.hub"]
    monkeypatch.setattr(hub, "snapshot_download", lambda name, **words: asked.append(words) or "folder")
    monkeypatch.setenv("USE_OPENMIND_HUB", "1")
    located(config)
    assert asked == [{"revision": "main", "cache_dir": None, "token": "om_secret"}]

    hub_module(monkeypatch, "modelscope", "folder")
    monkeypatch.setitem(sys.modules, "modelscope.hub", ModuleType("hub"))
    api = ModuleType("api")
    api.HubApi = lambda: type("HubApi", (), {"login": lambda self, token: asked.append(token)})()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modelscope.hub.api", api)
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "1")
    assert located(config).model_name_or_path == "folder"
    assert asked[1:] == ["ms_secret"]


def test_a_repository_and_its_revision_go_to_the_hub_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub_module(monkeypatch, "openmind.utils.hub", "folder")
    monkeypatch.setenv("USE_OPENMIND_HUB", "1")
    assert resolve("owner/name", "v2") == "folder"
    assert resolve("Yi-1.5-6B-Chat") == "folder"
    assert asked == [("owner/name", "v2", None), ("LlamaFactory/Yi-1.5-6B-Chat", "main", None)]


def test_local_folders_need_no_hub(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    asked = hub_module(monkeypatch, "modelscope", "folder")
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "1")
    assert resolve(str(tiny_model)) == str(tiny_model)
    assert not asked


@pytest.mark.parametrize(
    ("variable", "package"), [("USE_MODELSCOPE_HUB", "modelscope"), ("USE_OPENMIND_HUB", "openmind")]
)
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # the import of None fails
    monkeypatch.setenv(variable, "1")
    with pytest.raises(MachineError) as caught:
        resolve("owner/name")
    assert caught.value.code == "E-MODEL-020"
    assert f"pip install {package}" in str(caught.value)
    assert variable in str(caught.value)


def test_a_download_that_fails_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_module(monkeypatch, "modelscope", ValueError("no such repository"))
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "1")
    with pytest.raises(UnavailableError) as caught:
        resolve("owner/name")
    assert caught.value.code == "E-MODEL-021"
    assert "no such repository" in str(caught.value)


def test_a_model_that_is_not_on_the_hub_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub_module(monkeypatch, "openmind.utils.hub", "folder")
    monkeypatch.setenv("USE_OPENMIND_HUB", "1")
    with pytest.raises(MissingInputError) as caught:
        resolve("Falcon-7B")
    assert caught.value.code == "E-MODEL-022"
    assert "openMind" in str(caught.value)
    assert not asked
