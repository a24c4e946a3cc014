"""Folders of torch.distributed.checkpoint (DCP), as FSDP runs save them, from and to ordinary model folders.

The names of weights in such a folder are those of the model in memory, sometimes behind a prefix. So the model is built
without numbers to know them: files of some types name weights otherwise. The whole model is in memory once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunesmith.config.model import ModelConfig
from tunesmith.convert.source import refuse_quantized, settings_in
from tunesmith.convert.target import copy_small_files, new_folder
from tunesmith.convert.weights import open_weights
from tunesmith.core.errors import DataError, MissingInputError, Problem

__all__ = ["PREFIXES", "dcp_to_hf", "hf_to_dcp"]

Progress = Callable[[int, int | None], None]

PREFIXES = ("", "model.", "module.", "model.module.", "app.model.", "state_dict.model.")
"""What stands before the names of weights: of the model alone, of a state with a part "model", of a wrapper."""


def dcp_to_hf(
    source: Path, target: Path, config: Path | None, *, prefix: str | None, max_shard_size: int, progress: Progress
) -> dict[str, Any]:
    """Write the model of a DCP folder as safetensors. `config`: the folder with its config.json and tokenizer (None:
    the source itself); `prefix`: what stands before the names of its weights (None: one of PREFIXES is found).

    Tensors that are not the model's, such as the optimizer's, are left out; so is everything that is no tensor. Raises
    MissingInputError, and DataError where the metadata asks for more than metadata or does not fit the model.
    """
    metadata = _metadata(source)
    settings_folder = config or source
    refuse_quantized(settings_folder, settings_in(settings_folder))
    model = _empty_model(settings_folder)
    wanted = {name: one for name, one in model.state_dict().items() if isinstance(one, Tensor)}
    stored = _tensors(metadata)
    ties = _ties(model, wanted)
    prefix = _prefix(stored, wanted, ties, source) if prefix is None else prefix
    names = {name: prefix + name for name in wanted if prefix + name in stored or name not in ties}
    _check_fit(names, wanted, stored, source)
    needed = sum(stored[name].size.numel() * stored[name].properties.dtype.itemsize for name in names.values())
    with new_folder(target, needed) as folder:
        state = _read(source, metadata, names, stored, progress)
        _check_ties(state, ties, source)
        for name, first in ties.items():
            state.setdefault(name, state[first])
        model.load_state_dict(state, assign=True)
        model.tie_weights()
        model.config.dtype = next(iter(state.values())).dtype
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        copied = copy_small_files(settings_folder, folder)
    return {"weights": len(names), "left_out": len(stored) - len(names), "prefix": prefix, "copied": copied}


def hf_to_dcp(source: Path, target: Path, *, progress: Progress) -> dict[str, Any]:
    """Write a model folder as a DCP folder, with the names that the model has in memory, config.json and tokenizer.

    Weights that are tied are written under both names, as a run that loads into its own state expects.
    """
    import torch.distributed.checkpoint as dcp

    from tunesmith.models.load import load

    refuse_quantized(source, settings_in(source))
    weights = open_weights(source)
    dtypes = {entry.dtype for entry in weights.entries.values()}
    if len(dtypes) > 1 or dtypes.isdisjoint({torch.float32, torch.bfloat16, torch.float16}):
        names = ", ".join(sorted(str(one).removeprefix("torch.") for one in dtypes))
        what, fix = "the weights have types that a model is not loaded with as they are", "save it in one type first"
        raise DataError(Problem("E-CONVERT-008", what, str(source), names, fix))
    name = str(dtypes.pop()).removeprefix("torch.")
    # No tokenizer is needed, and the folder may have none: anything of length one stands for it.
    model = load(ModelConfig(model_name_or_path=str(source)), tokenizer=range(1), dtype=name).model
    state = {key: one for key, one in model.state_dict().items() if isinstance(one, Tensor)}
    size = sum(one.numel() * one.element_size() for one in state.values())
    with new_folder(target, size) as folder:
        planner = _counting_planner(len(state), progress)
        try:
            with _alone():
                dcp.save(state, storage_writer=dcp.FileSystemWriter(folder), planner=planner, no_dist=True)
        except dcp.CheckpointException as error:  # what each process met, here one; it is no Exception
            raise _met(error) from error
        model.config.save_pretrained(folder)
        copied = copy_small_files(source, folder)
    return {"weights": len(state), "bytes": size, "copied": copied}


@contextmanager
def _alone() -> Iterator[None]:
    """torch says it where there is one process only, which is meant here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        yield


def _met(error: Any) -> BaseException:
    """The error that the one process met, out of torch's own around it."""
    found: BaseException = next(iter(error.failures.values()))[0]
    return found


def _counting_planner(total: int, progress: Progress) -> Any:
    """torch's planner, which tells of each tensor that is written."""
    from torch.distributed.checkpoint import DefaultSavePlanner

    class Planner(DefaultSavePlanner):
        done = 0

        def resolve_data(self, write_item: Any) -> Any:
            self.done += 1
            progress(self.done, total)
            return super().resolve_data(write_item)

    return Planner()


def _metadata(source: Path) -> Any:
    from tunesmith.models.quirks.dcp import MetadataRefused, read_metadata

    if not (source / ".metadata").is_file():
        below = [item.parent.name for item in sorted(source.glob("*/.metadata"))] if source.is_dir() else []
        fix = f"did you mean {source / below[0]}?" if below else "name the folder that holds .metadata and *.distcp"
        what = "this is no folder of torch.distributed.checkpoint"
        raise MissingInputError(Problem("E-CONVERT-001", what, str(source), "it holds no .metadata", fix))
    try:
        return read_metadata(source)
    except MetadataRefused as error:
        what = "the metadata is a pickle that holds more than metadata; it was not read"
        fix = "have the checkpoint saved again by a program that you trust"
        raise DataError(Problem("E-CONVERT-013", what, str(source / ".metadata"), str(error), fix)) from error


def _empty_model(folder: Path) -> Any:
    """The model without numbers."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))


def _tensors(metadata: Any) -> dict[str, Any]:
    found = metadata.state_dict_metadata.items()
    return {name: one for name, one in found if type(one).__name__ == "TensorStorageMetadata"}


def _ties(model: Any, wanted: Mapping[str, Tensor]) -> dict[str, str]:
    """Weights that are others under a second name."""
    if not model.config.get_text_config().tie_word_embeddings:
        return {}
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    names = {id(module): name for name, module in model.named_modules()}
    pair = f"{names[id(head)]}.weight", f"{names[id(embeddings)]}.weight"
    return dict([pair]) if set(pair) <= set(wanted) else {}


def _prefix(stored: Mapping[str, Any], wanted: Mapping[str, Tensor], ties: Mapping[str, str], source: Path) -> str:
    needed = set(wanted) - set(ties)
    fitting = {prefix: sum(prefix + name in stored for name in needed) for prefix in PREFIXES}
    best = max(fitting, key=lambda prefix: fitting[prefix])
    if not fitting[best]:
        what = "the checkpoint holds none of the weights that config.json asks for"
        got = "it holds " + (", ".join(list(stored)[:2]) or "no tensors")
        fix = "use the config.json that belongs to it, or say what stands before the names: --prefix model."
        raise DataError(Problem("E-CONVERT-014", what, str(source), got, fix))
    return best


def _check_fit(names: Mapping[str, str], wanted: Mapping[str, Tensor], stored: Mapping[str, Any], source: Path) -> None:
    problems = [(stored_name, "the checkpoint lacks it") for stored_name in names.values() if stored_name not in stored]
    for name, stored_name in names.items():
        if stored_name in stored and tuple(stored[stored_name].size) != tuple(wanted[name].shape):
            got, asked = tuple(stored[stored_name].size), tuple(wanted[name].shape)
            problems.append((stored_name, f"shape {got}, config.json asks for {asked}"))
    if problems:
        what, fix = "the weights do not fit config.json", "use the config.json that belongs to the checkpoint"
        raise DataError([Problem("E-CONVERT-014", what, str(source), f"{name}: {why}", fix) for name, why in problems])


def _read(
    source: Path, metadata: Any, names: Mapping[str, str], stored: Mapping[str, Any], progress: Progress
) -> dict[str, Tensor]:
    import torch.distributed.checkpoint as dcp

    from tunesmith.models.quirks.dcp import SafeReader

    found = {}
    for number, (name, stored_name) in enumerate(names.items(), 1):
        tensor = torch.empty(stored[stored_name].size, dtype=stored[stored_name].properties.dtype)
        try:
            with _alone():
                dcp.load({stored_name: tensor}, storage_reader=SafeReader(source, metadata), no_dist=True)
        except dcp.CheckpointException as error:
            what, fix = "a tensor of the checkpoint cannot be read", "get the checkpoint again"
            problem = Problem("E-CONVERT-006", what, f"{source}: {stored_name}", str(_met(error)), fix)
            raise DataError(problem) from error
        found[name] = tensor
        progress(number, len(names))
    return found


def _check_ties(state: Mapping[str, Tensor], ties: Mapping[str, str], source: Path) -> None:
    for name, first in ties.items():
        if name in state and not torch.equal(state[name], state[first]):
            what = "config.json ties two weights, and the checkpoint holds different ones"
            fix = "write tie_word_embeddings: false in its config.json if both are meant"
            raise DataError(Problem("E-CONVERT-014", what, str(source), f"{name}, {first}", fix))
