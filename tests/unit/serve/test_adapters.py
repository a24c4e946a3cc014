"""Adapters by name: of the config, and of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.serving import say
from tunesmith.serve.auth import read_keys

KEY = "a-key-of-the-tests-1"
GOOD = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two adapters, one that does not fit, a folder that is none, and links to one outside."""
    inside = tmp_path / "inside"
    for name in ("poet", "clerk", "broken", "safe_evil"):
        (inside / name).mkdir(parents=True)
        (inside / name / "adapter_config.json").write_text("{}", encoding="utf-8")
    (inside / "broken" / "broken").touch()
    (inside / "empty").mkdir()
    outside = tmp_path / "inside_evil"
    outside.mkdir()
    (outside / "adapter_config.json").write_text("{}", encoding="utf-8")
    (inside / "link").symlink_to(outside)
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    return inside


@pytest.fixture
def made(site, folder: Path) -> Any:
    return site(say("a"), keys=read_keys(KEY, "API_KEY")[0], adapter_dir=folder)


def load(made: Any, name: Any) -> Any:
    return made.ask("POST", "/v1/adapters", {"name": name}, GOOD)


def test_an_adapter_is_loaded_and_unloaded_by_its_name(made, folder: Path) -> None:
    listed = made.ask("GET", "/v1/adapters", headers=GOOD).json["data"]
    assert [one["id"] for one in listed if one["loadable"]] == ["broken", "clerk", "poet", "safe_evil"]
    assert not any(one["loaded"] for one in listed)
    for _ in range(2):  # the second time it is there already
        assert load(made, "poet").json == {"id": "poet", "object": "adapter", "loaded": True}
    assert made.engine.known == {"poet": str(folder / "poet")}
    assert [one["id"] for one in made.ask("GET", "/v1/models", headers=GOOD).json["data"]] == ["tiny", "poet"]
    assert made.chat(headers=GOOD, model="poet").json["model"] == "poet"
    assert made.chat(headers=GOOD).status == 200
    assert [request.adapter for request in made.engine.requests] == ["poet", None]
    assert made.ask("DELETE", "/v1/adapters/poet", headers=GOOD).json["loaded"] is False
    assert made.chat(headers=GOOD, model="poet").status == 404
    assert made.ask("DELETE", "/v1/adapters/poet", headers=GOOD).error["code"] == "adapter_not_found"


@pytest.mark.parametrize(
    "name",
    [
        "..", ".", "../inside_evil", "poet/..", "poet/../poet", "/etc", "link", "empty", "nobody", "Poet", "poet ",
        "\u2025/poet", "po\u0065\u0301t", "poet\x00", "po\net", "x" * 65, "", ".hidden", "~", "~root", "..\\poet",
        "$HOME", "inside_evil", "%2e%2e", "poet;ls", "-poet", 5, None, ["poet"], {"path": "poet"},
    ],
)  # fmt: skip
def test_nothing_but_a_name_in_the_folder_is_loaded(made, name: Any) -> None:
    answer = load(made, name)
    assert answer.status in (400, 404), answer.text
    assert made.engine.known == {}
    assert "adapter_config" not in answer.text
    assert str(made.service.adapter_dir) not in answer.text


def test_a_path_and_other_fields_are_refused(made) -> None:
    answer = made.ask("POST", "/v1/adapters", {"name": "poet", "path": "/etc"}, GOOD)
    assert answer.error["param"] == "path"
    assert made.engine.known == {}


def test_one_that_does_not_fit_and_one_named_like_the_model(made, folder: Path) -> None:
    assert load(made, "broken").error["code"] == "E-MODEL-001"
    (folder / "tiny").mkdir()
    (folder / "tiny" / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert load(made, "tiny").status == 409


def test_without_a_key_nothing_is_loaded_or_unloaded(site, folder: Path) -> None:
    made = site(say("a"), adapter_dir=folder)
    for answer in (
        made.ask("POST", "/v1/adapters", {"name": "poet"}),
        made.ask("DELETE", "/v1/adapters/poet"),
    ):
        assert (answer.status, answer.error["code"]) == (403, "key_needed")
    assert made.ask("GET", "/v1/adapters").status == 200
    assert made.engine.known == {}


def test_without_a_folder_there_is_nothing_to_load(site) -> None:
    made = site(say("a"), keys=read_keys(KEY, "API_KEY")[0])
    assert load(made, "poet").status == 404
    assert made.ask("GET", "/v1/adapters", headers=GOOD).json["data"] == []


def test_adapters_of_the_config_can_be_named(tiny_model: Path) -> None:
    from tests.serving import ScriptedEngine
    from tunesmith.config import load_config
    from tunesmith.serve.server import load_adapters

    keys = {"model_name_or_path": str(tiny_model), "adapters": {"poet": "saves/poet"}}
    engine = ScriptedEngine(tiny_model)
    load_adapters(engine, load_config(keys, verb="api").serve, "tiny")
    assert engine.known == {"poet": "saves/poet"}
