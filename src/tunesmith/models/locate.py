"""Where is a model? Answered before anything heavy is imported, with the nearest names where it is not there.

model_name_or_path: out                         a folder that exists wins
model_name_or_path: Qwen/Qwen3-4B               a repository of the hub, taken as it is
model_name_or_path: Qwen3-4B-Instruct           a name of the catalog -> its repository on the hub
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.core.errors import MissingInputError, Problem
from tunesmith.core.log import get_logger
from tunesmith.core.suggest import did_you_mean
from tunesmith.hubs import HUB_NAMES, chosen_hub, download

if TYPE_CHECKING:
    from tunesmith.config.model import ModelConfig

__all__ = ["check_folder", "gguf_file", "located", "looks_local", "model_folder", "resolve"]


def located(config: ModelConfig) -> ModelConfig:
    """The config with `model_name_or_path` resolved: a folder, or a repository of the Hugging Face hub."""
    assert config.model_name_or_path, "checked by the config"
    token = {"modelscope": config.ms_hub_token, "openmind": config.om_hub_token}.get(chosen_hub())
    name = resolve(config.model_name_or_path, config.model_revision, config.cache_dir, token)
    return replace(config, model_name_or_path=name)


def resolve(name: str, revision: str = "main", cache_dir: str | None = None, token: str | None = None) -> str:
    """What `from_pretrained` takes for a folder, a repository or a name of the catalog.

    Where the environment asks for another hub than Hugging Face's, the model is downloaded from there and the result
    is its folder. Raises MissingInputError if the catalog knows no repository on that hub, and what `download` raises.
    """
    return name if looks_local(name) else _on_hub(chosen_hub(), name, revision, cache_dir, token)


@cache  # once per process: it says what it found, and may download
def _on_hub(hub: str, name: str, revision: str, cache_dir: str | None, token: str | None) -> str:
    repository = name if "/" in name else _by_catalog(hub, name)
    return repository if hub == "hf" else download(hub, repository, revision, cache_dir, token)


def _by_catalog(hub: str, name: str) -> str:
    """The repository of a catalog name. Other words are left as they are: the hub knows some without an owner."""
    from tunesmith.models.catalog import find

    model = find(name)
    if model is None:
        return name
    repository = model.id_on(hub)
    if repository is None:
        what = f"the catalog knows no repository of {model.name} on {HUB_NAMES[hub]}"
        fix = "write the repository as owner/name, or use another hub"
        raise MissingInputError(Problem("E-MODEL-022", what, f"model_name_or_path: {name}", fix=fix))
    get_logger().info("model: %s is %s of %s", name, repository, HUB_NAMES[hub])
    return repository


def looks_local(name: str) -> bool:
    """True for a path (`./x`, `/x`, `~/x`, more than one slash, or something that exists), False for a hub id."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name or Path(name).exists()


def gguf_file(name: str) -> str | None:
    """Name of the GGUF file that holds the weights of a folder; None where others do. Raises MissingInputError where
    several could be meant."""
    folder = Path(name).expanduser()
    files = sorted(file.name for file in folder.glob("*.gguf")) if folder.is_dir() else []
    if not files or any(folder.glob("*.safetensors")) or any(folder.glob("*.bin")):
        return None
    if len(files) > 1:
        what, fix = "the folder holds several GGUF files", "a folder of its own for one of them, with the tokenizer"
        raise MissingInputError(Problem("E-MODEL-027", what, f"model_name_or_path: {name}", ", ".join(files[:3]), fix))
    return files[0]


def model_folder(name: str) -> Path | None:
    """`check_folder` of a model: it holds a config.json, or a GGUF file that says what one would."""
    held = gguf_file(name) or "config.json"
    return check_folder(name, "model_name_or_path", must_hold=held)


def check_folder(name: str, key: str, must_hold: str) -> Path | None:
    """The folder that `name` stands for, or None if it is a hub id. `must_hold` is a file that makes it valid.

    Raises MissingInputError, which names the folders nearby that look alike.
    """
    if not looks_local(name):
        return None
    folder = Path(name).expanduser()
    if folder.is_file():
        what, fix = "a model is a folder, and this is a file", f"name the folder that holds {must_hold}"
        raise MissingInputError(Problem("E-MODEL-001", what, where=key, got=name, fix=fix))
    if not folder.is_dir():
        parent = folder.parent
        siblings = [str(parent / item.name) for item in parent.iterdir() if item.is_dir()] if parent.is_dir() else []
        fix = did_you_mean(str(folder), siblings) or "write the path of a folder, or a hub id of the form owner/name"
        raise MissingInputError(Problem("E-MODEL-001", "no such model folder", where=key, got=name, fix=fix))
    if not (folder / must_hold).is_file():
        found = ", ".join(sorted(item.name for item in folder.iterdir())[:6]) or "nothing"
        raise MissingInputError(
            Problem(
                "E-MODEL-002",
                f"the folder holds no {must_hold}",
                where=f"{key}: {name}",
                got=f"it holds {found}",
                fix=_advice(folder, must_hold),
            )
        )
    return folder


def _advice(folder: Path, must_hold: str) -> str:
    if must_hold == "config.json" and (folder / "adapter_config.json").is_file():
        return "this is an adapter: name it in adapter_name_or_path, and its base in model_name_or_path"
    if must_hold == "adapter_config.json" and (folder / "config.json").is_file():
        return "this is a whole model: name it in model_name_or_path"
    below = sorted(item.parent.name for item in folder.glob(f"*/{must_hold}"))
    if below:
        return f"did you mean {folder / below[-1]}?"
    return "name the folder that the model was saved to"
