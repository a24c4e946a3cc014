"""The hubs beside Hugging Face's: a repository of ModelScope or openMind is downloaded whole, and its folder is used.

Each hub has a Python package of its own, imported only when a run asks for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tunesmith.core import env
from tunesmith.core.errors import MachineError, Problem, UnavailableError
from tunesmith.core.files import locked

__all__ = ["HUB_NAMES", "chosen_hub", "download"]

HUB_NAMES = {"hf": "the Hugging Face hub", "modelscope": "ModelScope", "openmind": "openMind"}
_VARIABLES = {"modelscope": "USE_MODELSCOPE_HUB", "openmind": "USE_OPENMIND_HUB"}
# Hub -> (package, module that downloads, its name for the revision "main").
_PACKAGES = {
    "modelscope": ("modelscope", "modelscope", "master"),
    "openmind": ("openmind", "openmind.utils.hub", "main"),
}
# What is fetched -> (code of a missing package, code of a failed download, key that names it).
_KINDS = {
    "model": ("E-MODEL-020", "E-MODEL-021", "model_name_or_path"),
    "dataset": ("E-DATA-042", "E-DATA-040", "dataset"),
}


def chosen_hub() -> str:
    """The hub that the environment asks for: `modelscope`, `openmind` or, without a word, `hf`."""
    return next((hub for hub, variable in _VARIABLES.items() if env.get_bool(variable)), "hf")


def download(
    hub: str, repository: str, revision: str, cache_dir: str | None, token: str | None = None, *, kind: str = "model"
) -> str:
    """Fetch a repository of ModelScope or openMind, unless the hub's cache has it; returns its folder. `kind` is
    `model` or `dataset`.

    Raises MachineError if the hub's package is not installed, UnavailableError if the hub does not give the files.
    """
    package, module, main = _PACKAGES[hub]
    _missing, failed, key = _KINDS[kind]
    # ModelScope has a function for each kind, openMind an argument.
    name = "dataset_snapshot_download" if (hub, kind) == ("modelscope", "dataset") else "snapshot_download"
    fetch = _member(hub, package, module, name, kind)
    options: dict[str, str] = {"repo_type": "dataset"} if (hub, kind) == ("openmind", "dataset") else {}
    locks = env.cache_dir() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    try:
        with locked(locks / f"{hub}.lock", f"fetching from {HUB_NAMES[hub]}"):
            access = _sign_in(hub, package, token, kind) if token else {}
            revision = main if revision == "main" else revision
            return str(fetch(repository, revision=revision, cache_dir=cache_dir, **access, **options))
    except Exception as error:  # the packages raise errors of many kinds, their own and those of requests
        what = f"{HUB_NAMES[hub]} does not give this {kind}"
        got = str(error).strip() or type(error).__name__
        fix = f"check the name, the network and your access, or unset {_VARIABLES[hub]}"
        raise UnavailableError(Problem(failed, what, f"{key}: {repository}", got, fix)) from error


def _sign_in(hub: str, package: str, token: str, kind: str) -> dict[str, str]:
    """Use an access token; returns what the download has to be told of it. ModelScope signs the user in instead."""
    if hub == "modelscope":
        _member(hub, package, "modelscope.hub.api", "HubApi", kind)().login(token)
        return {}
    return {"token": token}


def _member(hub: str, package: str, module: str, name: str, kind: str) -> Any:
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        what = f"downloads from {HUB_NAMES[hub]} need the package {package}"
        fix = f"pip install {package}, or unset {_VARIABLES[hub]}"
        raise MachineError(Problem(_KINDS[kind][0], what, _VARIABLES[hub], str(error), fix)) from error
