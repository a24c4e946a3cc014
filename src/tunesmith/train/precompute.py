"""What the reference says of the rows, asked once: before training, kept in the data cache, and brought by the rows.

Rows go through in shards of whole sequences and pairs. A shard is an entry of the cache, under a digest of what the
reference is loaded from, of the shard's tokens and of the settings that its numbers depend on. What was interrupted
goes on behind the shards that are there, several processes make different ones, and where all are there no reference is
loaded. Batches follow from a shard's rows alone, so its numbers are the same bits whoever makes it.

N sequences, K of a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from tunesmith.config.keys import all_keys
from tunesmith.config.resume import policy_of, resume_values
from tunesmith.core import env
from tunesmith.core.errors import DivergedError, Problem
from tunesmith.core.log import get_logger
from tunesmith.core.machine import package_version
from tunesmith.data.cache import cached, code_digest
from tunesmith.data.collate import FlatCollator, PaddingCollator
from tunesmith.data.dataset import TokenDataset
from tunesmith.data.pack import PackedDataset, units
from tunesmith.data.sources.digests import digest_of_file
from tunesmith.models.locate import located
from tunesmith.models.out_of_memory import free_memory, is_out_of_memory
from tunesmith.models.quantization.weights import parts_of
from tunesmith.models.tokenizer import pad_id_of
from tunesmith.objectives.inputs import on_device
from tunesmith.train.advice import facts_of, no_room
from tunesmith.train.counting import Counting
from tunesmith.train.micro import Batch, cost, is_whole, split
from tunesmith.train.reference import Beside, Told, WithoutAdapter, loaded_by, reference_of, without_adapter

if TYPE_CHECKING:
    from tunesmith.config import RunConfig, RunPlan
    from tunesmith.config.model import ModelConfig
    from tunesmith.data import Datasets
    from tunesmith.data.seen import MediaOfSequences
    from tunesmith.objectives import Objective

__all__ = ["give_reference"]

Samples: TypeAlias = TokenDataset | PackedDataset
Columns: TypeAlias = Mapping[str, np.ndarray]

_SHARD = 2**18
"""Tokens of a shard, about: what an interruption costs at most, in each process. A GPU reads them in seconds."""
_BATCH = 4096
"""Tokens of a batch, padding included, or one pair or sequence that has more."""
_CODE = (
    "core/types.py",
    "data",
    "losses",
    "methods",
    "models",
    "objectives",
    "train/precompute.py",
    "train/reference.py",
)
_PACKAGES = ("torch", "transformers", "peft")
_KEYS = ("ld_alpha", "kto_loss", "tf32", "fp8", "qat", "enable_liger_kernel", "trust_remote_code")
"""Beside those of the model and of its quantization, keys on which the numbers depend."""
_READ = ("*config.json", "*.index.json", "*.safetensors", "*.bin", "*.gguf", "*.py")
"""Files of a folder that decide about the model in it."""


def give_reference(
    config: RunConfig, plan: RunPlan, objective: Objective, model: Any, tokenizer: Any, datasets: Datasets
) -> None:
    """Before the first batch: the objective gets its reference; with `precompute_ref_log_probs` the rows get what it
    says. Raises what `reference_of` raises, and DivergedError where the reference gives no number."""
    if not config.objective.precompute_ref_log_probs:
        objective.reference = reference_of(config, plan, model, tokenizer)
        return
    asked = _Asked(config, plan, objective, model, tokenizer, datasets.read_media)
    train: Any = datasets.train  # a stream is refused by the config
    rows: dict[str, Samples] = {"train": train} if config.train.do_train else {}
    rows |= datasets.eval if config.train.do_eval else {}
    with Counting("reference", "sequences") as count:
        found = asked.all_rows(rows, count)
    told = "was asked once about" if asked.was_loaded else "is not asked: the data cache has what it says of"
    get_logger().info("reference: it %s %s sequences", told, f"{sum(map(_number, rows.values())):,}")
    datasets.train = found.pop("train", datasets.train)
    datasets.eval |= found
    objective.reference = Told()
    del asked
    free_memory(torch.device(plan.device))


@dataclass
class _Asked:
    """A reference that is loaded when something is to be computed."""

    config: RunConfig
    plan: RunPlan
    objective: Objective
    model: Any
    tokenizer: Any
    read_media: MediaOfSequences | None

    @cached_property
    def reference(self) -> WithoutAdapter | Beside:
        return reference_of(self.config, self.plan, self.model, self.tokenizer)

    @property
    def was_loaded(self) -> bool:
        return "reference" in self.__dict__

    def all_rows(self, rows: Mapping[str, Samples], count: Callable[[int, int | None], None]) -> dict[str, Samples]:
        """The rows of each name, with what the reference says."""
        known, done, total = self._known(), 0, sum(map(_number, rows.values()))
        found: dict[str, Samples] = {}
        for name, samples in rows.items():
            pieces = samples.pieces if isinstance(samples, PackedDataset) else samples
            each = units(pieces)
            parts: dict[int, Columns] = {}
            shards = _shards(each)
            for number in _own_first(len(shards)):
                first, last = shards[number]
                parts[number] = self._shard(known, each, first, last, lambda more, done=done: count(done + more, total))
                done += int(each.bounds[last] - each.bounds[first])
                count(done, total)
            names = parts[0] if parts else {}
            columns = {one: np.concatenate([parts[number][one] for number in range(len(shards))]) for one in names}
            found[name] = samples.with_columns(columns)
        return found

    def _shard(
        self, known: Mapping[str, Any], rows: PackedDataset, first: int, last: int, count: Callable[[int], None]
    ) -> Columns:
        parts = {**known, "rows": _digest_of(rows, first, last)}

        def make(folder: Path) -> None:
            for name, values in self._compute(rows, first, last, count).items():
                np.save(folder / f"{name}.npy", values)

        folder = cached(parts, "what a reference says", make)
        return {file.stem: np.load(file, allow_pickle=False) for file in sorted(folder.glob("*.npy"))}

    @torch.no_grad()
    def _compute(self, rows: PackedDataset, first: int, last: int, count: Callable[[int], None]) -> Columns:
        """[K] of the sequences of `rows` from `first` to `last`."""
        plan, device = self.plan, torch.device(self.plan.device)
        flat = plan.batches == "flat"
        pad_id = pad_id_of(self.tokenizer)
        reads = {"read_media": self.read_media}
        collate: Any = FlatCollator(pad_id, shares=plan.shares, **reads) if flat else PaddingCollator(pad_id, **reads)
        arithmetic: AbstractContextManager[Any] = nullcontext()
        if plan.autocast:
            arithmetic = torch.autocast(device.type, getattr(torch, plan.autocast))
        self.objective.reference, before = self.reference, self.objective.reference
        found: dict[str, list[np.ndarray]] = {}
        try:
            for begin, end in _batches(rows, first, last, flat=flat):
                batch = collate([rows[number] for number in range(begin, end)])
                with arithmetic:
                    sums = self._sums(batch, device)
                for name, values in sums.items():
                    if not bool(values.isfinite().all()):
                        raise _no_number(rows.origin(begin))
                    found.setdefault(name, []).append(values.cpu().numpy())
                count(int(rows.bounds[end] - rows.bounds[first]))
        finally:
            self.objective.reference = before
        return {name: np.concatenate(values) for name, values in found.items()}

    def _sums(self, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        """What is asked of a batch; in halves where memory has no room for it."""
        try:
            return self.objective.reference_sums(self.model, on_device(batch, device))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if is_whole(batch):
            half = self.plan.autocast is not None or self.plan.dtype != "float32"
            raise no_room(batch, facts_of(self.model, "", half=half), "the reference", alone=True, training=False)
        free_memory(device)
        parts = [self._sums(part, device) for part in split(batch, cost(batch) // 2)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _known(self) -> dict[str, Any]:
        """What all shards have in common, as plain values."""
        config, plan = self.config, self.plan
        frozen = loaded_by(config)
        given, values = resume_values(frozen), resume_values(config)
        sections = ("model", "quantization")
        model = {
            name: value
            for name, value in given.items()
            if policy_of(name) == "frozen" and all_keys()[name].section in sections and name not in _NAMES
        }
        drawn = frozen.model.train_from_scratch or frozen.model.adds_tokens or frozen.model.mixture_of_depths
        return {
            "reference": _sources(frozen.model) or self._by_weights(),
            "without_adapter": without_adapter(config, self.model),
            "model": model,
            "seed": plan.seed if drawn else None,
            "stage": plan.stage,
            "keys": {name: values[name] for name in _KEYS},
            "arithmetic": [torch.device(plan.device).type, plan.dtype, plan.autocast, plan.attention, plan.loss],
            "media": None if self.read_media is None else self.read_media.media.fingerprint(),
            "batches": [plan.batches, plan.shares, _BATCH],
            "versions": [package_version(name) for name in _PACKAGES],
            "code": code_digest(_CODE),
        }

    def _by_weights(self) -> str:
        """Where no file and no commit tells what the reference is: a digest of what was loaded."""
        from tunesmith.models.digest import digest_of

        trained = {name for name, weight in self.reference.model.named_parameters() if weight.requires_grad}
        return digest_of((name, weight) for name, weight in parts_of(self.reference.model) if name not in trained)


_NAMES = ("model_name_or_path", "adapter_name_or_path", "model_revision")
"""Keys that tell where weights lie; `_sources` tells which these are."""


def _sources(model: ModelConfig) -> list[str] | None:
    """What tells the weights that are loaded from all others; None where the hub's cache has not all of them."""
    model = located(model)
    inner = model.adapter_folder or ""
    found = [_source(str(model.model_name_or_path), model.model_revision, model.cache_dir)]
    found += [_source(str(Path(name) / inner), None, model.cache_dir) for name in model.adapter_name_or_path]
    return None if None in found else [str(one) for one in found]


def _source(name: str, revision: str | None, cache_dir: str | None) -> str | None:
    """The digest of a folder's files, which are read again only where they changed; of a repository its commit."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        files = sorted({file for pattern in _READ for file in folder.glob(pattern)})
        return "; ".join(f"{file.name} {digest_of_file(file)}" for file in files)

    from huggingface_hub import try_to_load_from_cache

    for file in ("config.json", "adapter_config.json"):
        found = try_to_load_from_cache(name, file, cache_dir=cache_dir, revision=revision)
        if isinstance(found, str):
            return f"{name} {Path(found).parent.name}"  # models--owner--name/snapshots/COMMIT/config.json
    return None


def _number(samples: Samples) -> int:
    return len(samples.pieces if isinstance(samples, PackedDataset) else samples)


def _shards(rows: PackedDataset) -> list[tuple[int, int]]:
    """First and last + 1 of the rows of each shard. Rows that come behind these change no shard but the last."""
    number = (np.cumsum(rows.lengths) - rows.lengths) // _SHARD
    edges = np.flatnonzero(np.diff(number, prepend=-1, append=-2))
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def _own_first(count: int) -> list[int]:
    """The shards in the order of this process: those of its own, then those of the others, which are done by then."""
    rank, ranks = env.get_int("RANK"), env.get_int("WORLD_SIZE")
    return sorted(range(count), key=lambda number: ((number - rank) % ranks, number))


def _batches(rows: PackedDataset, first: int, last: int, *, flat: bool) -> Iterator[tuple[int, int]]:
    """First and last + 1 of neighbours together that have at most _BATCH tokens."""
    sizes = [rows.pieces.lengths[rows.bounds[number] : rows.bounds[number + 1]] for number in range(first, last)]
    begin, held = first, sizes[0][:0]
    for number, size in enumerate(sizes, first):
        joined = np.concatenate([held, size])
        if number > begin and int(joined.sum() if flat else len(joined) * joined.max()) > _BATCH:
            yield begin, number
            begin, joined = number, size
        held = joined
    yield begin, last


def _digest_of(rows: PackedDataset, first: int, last: int) -> str:
    """Of all that the samples hold."""
    digest = hashlib.blake2b(digest_size=20)
    for number in range(first, last):
        row = dict(rows[number])
        for placed in (one for own in row.pop("media", ()) for one in own):
            told = placed.medium.facts.digest if placed.medium.facts is not None else ""
            digest.update(f"{placed.medium.kind} {placed.start} {placed.end} {told} ".encode())
        for name, values in sorted(row.items()):
            digest.update(f"{name} {values.dtype} {len(values)} ".encode())
            digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _no_number(place: Any) -> DivergedError:
    what = "the reference model gives an answer a probability that is no number"
    fix = "bf16 in place of fp16, or another ref_model; look at the row too"
    return DivergedError(Problem("E-TRAIN-070", what, str(place), fix=fix))
