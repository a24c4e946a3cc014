"""Is a model there? Answered before anything heavy is imported, with the nearest names where it is not."""

from __future__ import annotations

from pathlib import Path

from tunesmith.core.errors import MissingInputError, Problem
from tunesmith.core.suggest import did_you_mean

__all__ = ["check_folder", "looks_local"]


def looks_local(name: str) -> bool:
    """True for a path (`./x`, `/x`, `~/x`, more than one slash, or something that exists), False for a hub id."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name or Path(name).exists()


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
