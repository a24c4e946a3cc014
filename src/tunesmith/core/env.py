"""The one place that reads environment variables, and the table of those that mean something here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "TABLE",
    "Variable",
    "cache_dir",
    "data_cache_dir",
    "get",
    "get_bool",
    "get_int",
    "home_dir",
    "override",
    "set_default",
    "snapshot",
]

_TRUE = {"1", "true", "yes", "y", "on"}


@dataclass(frozen=True, slots=True)
class Variable:
    name: str
    default: str
    meaning: str


TABLE: dict[str, Variable] = {
    variable.name: variable
    for variable in (
        Variable("TUNESMITH_CACHE", "", "folder for converted models and caches (default: the user cache folder)"),
        Variable("TUNESMITH_DATA_CACHE", "", "folder for prepared data (default: data in the folder for caches)"),
        Variable("TUNESMITH_HOME", "", "folder of the list of runs and of the queue (default: the user data folder)"),
        Variable("TUNESMITH_LOG", "info", "log level: debug, info, warning or error"),
        Variable("TUNESMITH_DEBUG", "0", "show the traceback of an error that a user can mend"),
        Variable("XDG_CACHE_HOME", "", "base of the user cache folder"),
        Variable("XDG_DATA_HOME", "", "base of the user data folder"),
        Variable("HF_HUB_OFFLINE", "0", "never ask the Hugging Face hub"),
        Variable("HF_ENDPOINT", "", "address of the Hugging Face hub, or of a mirror"),
        Variable("HF_TOKEN", "", "access token of the Hugging Face hub"),
        Variable("USE_MODELSCOPE_HUB", "0", "get models from ModelScope (needs the package modelscope)"),
        Variable("USE_OPENMIND_HUB", "0", "get models from openMind (needs the package openmind)"),
        Variable("API_HOST", "127.0.0.1", "address that the API listens on; one that others can reach needs a key"),
        Variable("API_PORT", "8000", "port of the API; 0 takes any free one"),
        Variable("API_KEY", "", "keys of the API, between commas: 16 to 256 visible ASCII characters each"),
        Variable("API_KEY_FILE", "", "file with keys of the API, one on each line"),
        Variable("API_MODEL_NAME", "", "name of the model in the API (default: the last part of its path)"),
        Variable("API_REMOTE_MEDIA", "0", "the API fetches media from https addresses that clients name"),
        Variable("FASTAPI_ROOT_PATH", "", "path under which a proxy has the API"),
        Variable("MAX_CONCURRENT", "", "most requests that the API runs at once (default: what the engine takes)"),
        Variable("REMOTE_API_KEY", "", "key of the server that infer_backend: remote asks"),
        Variable("TENSORBOARD_LOGGING_DIR", "", "folder of TensorBoard's log (wins over logging_dir)"),
        Variable("WORLD_SIZE", "1", "number of processes, set by the launcher"),
        Variable("RANK", "0", "number of this process, set by the launcher"),
        Variable("LOCAL_RANK", "0", "number of this process on its machine, set by the launcher"),
        Variable("NO_COLOR", "", "no colour in terminal output"),
        Variable("CI", "", "set by continuous integration"),
    )
}


def get(name: str) -> str:
    """Value of a variable of the table, or its default."""
    return os.environ.get(name) or TABLE[name].default


def get_bool(name: str) -> bool:
    return get(name).strip().lower() in _TRUE


def get_int(name: str) -> int:
    return int(get(name))


def set_default(name: str, value: str) -> None:
    """Set a variable that a library underneath reads, unless the user has set it."""
    os.environ.setdefault(name, value)


def override(name: str, value: str) -> None:
    """Set a variable that a library underneath reads, whatever the user has set; where anything else would hang."""
    os.environ[name] = value


def snapshot() -> dict[str, str]:
    """All variables as they are: what a process that is started later is to see."""
    return dict(os.environ)


def cache_dir() -> Path:
    """The folder for what can be made again; not created here."""
    if explicit := get("TUNESMITH_CACHE"):
        return Path(explicit).expanduser()
    base = Path(get("XDG_CACHE_HOME")).expanduser() if get("XDG_CACHE_HOME") else Path.home() / ".cache"
    return base / "tunesmith"


def data_cache_dir() -> Path:
    """The folder for prepared data; not created here."""
    explicit = get("TUNESMITH_DATA_CACHE")
    return Path(explicit).expanduser() if explicit else cache_dir() / "data"


def home_dir() -> Path:
    """The folder for what is kept of runs beside their own folders; not created here."""
    if explicit := get("TUNESMITH_HOME"):
        return Path(explicit).expanduser()
    base = Path(get("XDG_DATA_HOME")).expanduser() if get("XDG_DATA_HOME") else Path.home() / ".local" / "share"
    return base / "tunesmith"
