"""The catalog of models: every name of `catalog/models/*.yaml` with its ids on the hubs, template, size and tags.

find("qwen3-4b-instruct-2507").hf      # "Qwen/Qwen3-4B-Instruct-2507"
default_template("Qwen/Qwen3-4B")      # "qwen3"

The files are read once, at the first question.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from tunesmith.core.suggest import did_you_mean

__all__ = [
    "HUBS",
    "TAGS",
    "CatalogModel",
    "all_models",
    "default_template",
    "fallback_template",
    "find",
    "find_id",
    "suggestion",
]

HUBS = ("hf", "modelscope", "openmind")
TAGS = ("base", "instruct", "reasoning", "moe", "vision", "video", "audio", "quantized")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """One name of the catalog. `size` and `active` (parameters used per token) are as the name has them, `template`
    is None where none is known: base models, and models that bring their own."""

    name: str
    family: str
    maker: str
    hf: str
    modelscope: str | None = None
    openmind: str | None = None
    aliases: tuple[str, ...] = ()
    template: str | None = None
    size: str | None = None
    active: str | None = None
    tags: tuple[str, ...] = ()
    source: str = ""

    def id_on(self, hub: str) -> str | None:
        """The repository on a hub of HUBS, None where the catalog knows none."""
        assert hub in HUBS, hub
        found: str | None = getattr(self, hub)
        return found

    def as_dict(self) -> dict[str, Any]:
        """For JSON: everything that is known."""
        return {key: value for key, value in asdict(self).items() if value not in (None, ())}


@cache
def all_models() -> tuple[CatalogModel, ...]:
    """Every model, in the order of makers and, within one, of the file."""
    folder = files("tunesmith").joinpath("catalog", "models")
    paths = sorted((path for path in folder.iterdir() if path.name.endswith(".yaml")), key=lambda path: path.name)
    return tuple(model for path in paths for model in _read(path.read_text(encoding="utf-8")))


def _read(text: str) -> Iterator[CatalogModel]:
    found = _parse(text)
    sources: dict[str, str] = found["source"]
    first = next(iter(sources.values()))
    for family, models in found["families"].items():
        for name, entry in models.items():
            source = sources[entry["source"]] if "source" in entry else first
            tags, aliases = tuple(entry["tags"]), tuple(entry.get("aliases", ()))
            known = {"name": name, "family": family, "maker": found["maker"]}
            yield CatalogModel(**(known | entry | {"tags": tags, "aliases": aliases, "source": source}))


def _parse(text: str) -> dict[str, Any]:
    loader = _Loader(text)
    try:
        found: dict[str, Any] = loader.get_single_data()
    finally:
        loader.dispose()
    return found


@cache
def _by_name() -> dict[str, CatalogModel]:
    """Lower-case name -> model. Names of the catalog win over aliases, these over the last part of the hub's id
    (`gpt2` is GPT-2-Small, openai-community/gpt2)."""
    index: dict[str, CatalogModel] = {model.name.lower(): model for model in all_models()}
    for model in all_models():
        for alias in model.aliases:
            index.setdefault(alias.lower(), model)
    for model in all_models():
        index.setdefault(model.hf.rpartition("/")[2].lower(), model)
    return index


@cache
def _by_id() -> dict[str, CatalogModel]:
    """Lower-case id -> model. An id may stand for different models on two hubs: Hugging Face's wins."""
    index: dict[str, CatalogModel] = {}
    for hub in HUBS:
        for model in all_models():
            if repository := model.id_on(hub):
                index.setdefault(repository.lower(), model)
    return index


def find(name: str) -> CatalogModel | None:
    """The model of a catalog name, an alias or the last part of an id; upper and lower case are the same."""
    return _by_name().get(name.lower())


def find_id(repository: str) -> CatalogModel | None:
    """The model of an id of any hub; upper and lower case are the same."""
    return _by_id().get(repository.lower())


def suggestion(name: str) -> str | None:
    """`did you mean ...?` for a name or id that the catalog lacks; None where it has it or nothing looks alike."""
    if find(name) or find_id(name):
        return None
    ids = [model.hf for model in all_models()]
    names = [word for model in all_models() for word in (model.name, *model.aliases)]
    return did_you_mean(name, ids if "/" in name else names)


def default_template(model: str) -> str | None:
    """The template that the catalog gives to a name, an id of a hub or a model folder; None where it gives none.

    A folder is known by the `_name_or_path` that its config.json records (older releases of transformers wrote it),
    else by its own name, as downloads have it. Of an id that is not in the catalog, the last part counts: copies
    keep it.
    """
    folder = Path(model).expanduser()
    config = folder / "config.json"
    names = [_recorded_name(config), folder.resolve().name] if config.is_file() else [model]
    for name in names:
        if found := find_id(name) or find(name.rpartition("/")[2]):
            return found.template
    return None


def _recorded_name(config: Path) -> str:
    """What config.json records as the model's origin, or "". Files that cannot be read are the loader's to refuse."""
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    name = settings.get("_name_or_path") if isinstance(settings, dict) else None
    return name if isinstance(name, str) else ""


def fallback_template(model: str | None) -> str | None:
    """`default_template`, if the catalog of templates has its text: what `make_renderer` takes for a model that brings
    no template of its own."""
    from tunesmith.render.slot_files import raw_template, template_names

    template = default_template(model) if model else None
    if template is None or template not in template_names() or raw_template(template).get("source") == "missing":
        return None
    return template
