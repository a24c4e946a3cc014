"""Is a run still what its record says? What can be derived again is, from the files as they are today."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import chdir, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.checkpoints.store import MANIFEST, committed, files_of, manifest_of, step_of
from tunesmith.config.run_config import REDACTED
from tunesmith.core.errors import Problem, TunesmithError
from tunesmith.core.files import read_json
from tunesmith.runs import manifest
from tunesmith.runs.facts import config_digest, model_facts, versions
from tunesmith.runs.row import Row
from tunesmith.runs.saved import difference

if TYPE_CHECKING:
    from tunesmith.config import RunConfig

__all__ = ["BAD", "OUTCOMES", "Check", "verify"]

OUTCOMES = ("same", "differs", "missing", "unknown", "told")
"""`unknown`: there is nothing to compare with. `told`: it differs, which need not matter."""

BAD = ("differs", "missing")
_NAMED = 3  # keys that are named where many differ
_WIDTH = 24  # characters of a value: enough to tell digests apart


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was derived again; `detail` says how it differs, or why it is not known."""

    part: str
    what: str
    outcome: str
    detail: str = ""

    @classmethod
    def of(cls, part: str, what: str, was: Any, now: Any, *, otherwise: str = "differs") -> Check:
        if was == now:
            return cls(part, what, "same")
        return cls(part, what, otherwise, f"was {_short(was)}, is {_short(now)}")


def verify(row: Row) -> Iterator[Check]:
    """All checks of a run, each as soon as it is made. Large files are read whole."""
    found = manifest.read(row.folder)
    if found is None:
        yield Check("record", manifest.RUN_FILE, "missing", "the folder is gone, or holds another run")
        return
    yield from _written(row, found)
    yield from _checkpoints(row.folder)
    yield from _final(row.folder, found)
    yield from _finite(row.folder)
    config = _config(row.folder, found)
    if isinstance(config, Check):
        yield config
    else:
        with chdir(found["cwd"]) if os.path.isdir(found["cwd"]) else nullcontext():
            yield from _data(config, found)
            yield _template(config, found)
            yield from _model(config, found)
    now = versions()
    for name, version in found["versions"].items():
        yield Check.of("versions", name, version, now.get(name), otherwise="told")


# ---- files of the run ----


def _written(row: Row, found: Mapping[str, Any]) -> Iterator[Check]:
    """run.yaml, plan.json, what the run proved of itself, and the metrics: twice on the disk, so they must agree."""
    import yaml

    folder = row.folder
    try:
        flat = yaml.safe_load((folder / "run.yaml").read_text("utf-8")) or {}
        yield _same_config(found, flat)
    except FileNotFoundError:
        yield Check("config", "run.yaml", "missing")
    except (yaml.YAMLError, TypeError, ValueError, AttributeError) as error:
        yield Check("config", "run.yaml", "differs", f"cannot be read: {error}")
    yield _json_is(folder / "plan.json", "plan", found["plan"])
    for name, result in found["checks"].items():
        yield _json_is(folder / f"{name}.json", "checks", result)
        if not result.get("holds", True):
            yield Check("checks", name, "told", "it did not hold, and the run went the other way")
    if found["status"] == "finished" and found["kind"] == "train" and found["metrics"]:
        written = read_json(folder / "all_results.json") or {}
        differing = [key for key, value in found["metrics"].items() if written.get(key) != value]
        detail = f"other values of {', '.join(differing[:3])}" if differing else ""
        yield Check("metrics", "all_results.json", "differs" if differing else "same", detail)


def _same_config(found: Mapping[str, Any], flat: dict[str, Any]) -> Check:
    if config_digest(flat) == found["config_digest"]:
        return Check("config", "run.yaml", "same")
    open_ = {key: value for key, value in found["config"].items() if value != REDACTED}
    return Check("config", "run.yaml", "differs", _differing(open_, flat))


def _json_is(file: Path, part: str, was: dict[str, Any]) -> Check:
    now = read_json(file)
    if not isinstance(now, dict):
        return Check(part, file.name, "missing" if now is None else "differs")
    told = _differing(was, now)
    return Check(part, file.name, "differs" if told else "same", told)


def _differing(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first keys with other values, in words; empty where there are none."""
    keys = [key for key in {**was, **now} if was.get(key) != now.get(key)]
    return "; ".join(f"{key} was {_short(was.get(key))}, is {_short(now.get(key))}" for key in keys[:_NAMED])


def _checkpoints(folder: Path) -> Iterator[Check]:
    """Every file against the checkpoint's own manifest."""
    for place in committed(folder):
        name, written = place.name, manifest_of(place)
        if written is None:
            torn = "its manifest cannot be read" if (place / MANIFEST).exists() else "it has no manifest"
            yield Check("checkpoint", name, "unknown", f"{torn}: nothing says what its files were")
            continue
        if written.get("step") != step_of(place):
            yield Check.of("checkpoint", f"{name}/{MANIFEST}", step_of(place), written.get("step"))
        entries = written.get("files") or {}
        yield from _files(place, "checkpoint", f"{name}/", entries)
        there = {file.relative_to(place).as_posix() for file in files_of(place)}
        for more in sorted(there - {*entries, MANIFEST}):
            yield Check("checkpoint", f"{name}/{more}", "differs", "is not of this checkpoint")


def _final(folder: Path, found: Mapping[str, Any]) -> Iterator[Check]:
    yield from _files(folder, "result", "", found.get("saved") or {})


def _files(folder: Path, part: str, prefix: str, entries: Mapping[str, Any]) -> Iterator[Check]:
    for name, entry in entries.items():
        how = difference(folder / name, entry)
        outcome = "same" if how is None else "missing" if how == "is missing" else "differs"
        yield Check(part, prefix + name, outcome, how or "")


def _finite(folder: Path) -> Iterator[Check]:
    """Weights that were saved, of the result and of every checkpoint."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("checkpoint-*/*model*.safetensors")])
    for file in files:
        name = file.relative_to(folder).as_posix()
        try:
            broken = _not_finite(file)
        except Exception as error:  # a damaged file ends in errors of every kind
            yield Check("finite", name, "differs", f"cannot be read: {error}")
            continue
        detail = f"{len(broken)} tensors are not finite: {broken[0]}" if broken else ""
        yield Check("finite", name, "differs" if broken else "same", detail)


def _not_finite(file: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        return [name for name in tensors.keys() if not _is_finite(tensors.get_tensor(name))]  # noqa: SIM118


def _is_finite(tensor: Any) -> bool:
    if not tensor.is_floating_point():
        return True
    if tensor.element_size() == 1:  # float8 has no isfinite
        tensor = tensor.float()
    return bool(tensor.isfinite().all())


# ---- what the run began with ----


def _config(folder: Path, found: Mapping[str, Any]) -> RunConfig | Check:
    from tunesmith.config import load_config

    try:
        return load_config(folder.absolute() / "run.yaml", verb="train")
    except TunesmithError as error:
        return Check("config", "run.yaml", "differs", f"is no config any more: {error.problems[0].what}")


def _data(config: RunConfig, found: Mapping[str, Any]) -> Iterator[Check]:
    """The files of every dataset, as the run opened them."""
    was = {(one["use"], one["dataset"], one["name"]): one["digest"] for one in found["data"]}
    now: dict[tuple[str, str, str], str] = {}
    failed = set()
    for use, items in (("train", config.data.dataset), ("eval", config.data.eval_dataset)):
        for item in items:
            found_now, problem = _digests(config, use, item)
            now |= found_now
            if problem is not None:
                failed.add(use)
                yield Check("data", f"{item} ({use})", "missing", problem.what)
    for place in {**was, **now}:
        use, dataset, name = place
        if place not in was:
            yield Check("data", name, "differs", "was not there")
        elif place in now:
            yield Check.of("data", name, was[place], now[place])
        elif use not in failed or any(other[:2] == (use, dataset) for other in now):
            yield Check("data", name, "missing")


def _digests(config: RunConfig, use: str, item: Any) -> tuple[dict[tuple[str, str, str], str], Problem | None]:
    from tunesmith.data.dataset_info import resolve
    from tunesmith.data.sources.digests import mark_of
    from tunesmith.data.sources.opening import open_source

    data = config.data
    streams = data.streaming and use == "train"
    try:
        (spec,) = resolve([item], data.dataset_dir, offline=data.offline)
        files = open_source(spec, offline=data.offline, streaming=streams)
        return {(use, spec.name, file.name): mark_of(file.blob) if streams else file.digest() for file in files}, None
    except TunesmithError as error:
        return {}, error.problems[0]


def _template(config: RunConfig, found: Mapping[str, Any]) -> Check:
    from tunesmith.models.renderer import renderer_of
    from tunesmith.models.tokenizer import load_tokenizer

    name = config.template.template or "auto"
    try:
        renderer = renderer_of(config, load_tokenizer(config.model))
    except TunesmithError as error:
        return Check("template", name, "missing", error.problems[0].what)
    return Check.of("template", name, found["template_digest"], renderer.template_digest)


def _model(config: RunConfig, found: Mapping[str, Any]) -> Iterator[Check]:
    was, now = found["model"], model_facts(config)
    for before, after in zip([was, *was.get("adapters", ())], [now, *now.get("adapters", ())], strict=False):
        if before["revision"] is None or after["revision"] is None:
            yield Check("model", before["name"], "unknown", "its revision is not known here")
        else:
            yield Check.of("model", before["name"], before["revision"], after["revision"])


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."
