"""How the model computes the next scores of many requests.

`Together` has one forward for all of them. `Alone` has one for each, with the model's own cache: for models with a
state that runs along the sequence, with an attention of their own, or with positions that depend on the longest.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from tunesmith.engines.batching.job import Job
from tunesmith.engines.batching.prefix import SHORTEST, Prefixes, common
from tunesmith.engines.batching.slots import LayerShape, Memory, Place, Row
from tunesmith.engines.batching.step import Part, RowBatch
from tunesmith.models.rope import switch_of

__all__ = ["Alone", "Call", "Runner", "Scored", "Together"]


class Call(Protocol):
    """The model, with the adapters of the sequences in a row: a name for each token of it (`flat`), or for all."""

    def __call__(self, adapters: Sequence[str | None], inputs: dict[str, Any], *, flat: bool) -> Any: ...


class Scored(NamedTuple):
    """A sequence, of which the last `wanted` tokens are to have logits."""

    ids: Sequence[int]
    wanted: int


class Runner(Protocol):
    """Everything is called from one thread. What does not fit into memory is False, and nothing has changed."""

    def begin(self, job: Job) -> bool:
        """Make room for all that the job has by now."""

    def ready(self, job: Job, running: Sequence[Job]) -> bool:
        """Make room for what the next step computes of a job, one of those that run."""

    def step(self, jobs: Sequence[Job]) -> tuple[list[Job], Tensor]:
        """One step of all jobs that run: those that have been read, and their scores [n, V] in float32. Where it
        raises, it can be made again."""

    def drop(self, job: Job, *, keep: bool) -> None:
        """Forget what is held of a job. `keep`: others may begin like it."""

    def logits(self, sequences: Sequence[Scored], adapter: str | None) -> Iterator[Tensor]:
        """[wanted, V] of each sequence, in the model's precision. Nothing of them is kept."""

    def forget(self, adapter: str | None) -> None:
        """What was kept of an adapter is not true any more."""

    def stats(self) -> dict[str, float]: ...


class Together:
    """`chunk`: most tokens of prompts that are read in one step. What stands from the first medium of a prompt to its
    last is read in one piece."""

    def __init__(
        self, call: Call, model: Any, device: torch.device, shapes: tuple[LayerShape, ...], budget: int, chunk: int
    ) -> None:
        self._call, self._model, self._device, self._chunk = call, model, device, chunk
        self.prefixes = Prefixes()
        self.memory = Memory(shapes, budget, lambda: self.prefixes.give_back(self.memory))

    def begin(self, job: Job) -> bool:
        job.held = self.memory.row(len(job.ids))
        return job.held is not None

    def ready(self, job: Job, running: Sequence[Job]) -> bool:
        held = job.held
        if isinstance(held, Row):
            self._take_prefix(job, held, running)
            if held.length < max(len(job.ids) - 1, 1):
                return True  # there is more of it to read
        place = self.memory.join(held) if isinstance(held, Row) else self.memory.grow(held)
        if place is None:
            return False
        job.held = place
        return True

    def step(self, jobs: Sequence[Job]) -> tuple[list[Job], Tensor]:
        left, parts, of, read = self._chunk, list[Part](), dict[int, Job](), list[Job]()
        for job in jobs:
            if isinstance(job.held, Place):
                part = self._part(job, len(job.ids) - 1, len(job.ids))
            elif left > 0 and not any(_same_ahead(job, other) for other in read):
                part = self._part(job, job.held.length, _end_of_piece(job, left))
                left -= len(part.ids)
                read.append(job)
            else:
                continue
            parts.append(part)
            of[id(part.held)] = job
        batch = RowBatch(parts, self._device)
        adapters = [part.adapter for part in batch.parts for _ in part.ids]
        logits = self._call(adapters, batch.inputs(self._model, self._device), flat=True).logits[0].float()
        batch.advance()
        return [of[id(part.held)] for part in batch.parts if part.wanted], logits

    def _part(self, job: Job, first: int, end: int) -> Part:
        """The tokens [first, end) of a job."""
        ids, own = job.ids[first:end], (job.held, end == len(job.ids), job.request.adapter)
        if job.sight is None:
            return Part(ids, *own)
        positions = job.sight.positions(self._model, job.ids, first)
        if positions is not None:
            positions = positions[..., : end - first]
        if not first <= job.span[0] < end:
            return Part(ids, *own, positions)
        told = job.sight.tokens(job.ids, self._device)
        return Part(ids, *own, positions, job.sight, {name: one[:, first:end] for name, one in told.items()})

    def drop(self, job: Job, *, keep: bool) -> None:
        held, job.held = job.held, None
        if isinstance(held, Row):
            if keep and SHORTEST <= held.length == held.capacity:
                self.prefixes.keep(self.memory, job.request.adapter, job.array()[: held.length], held)
            else:
                self.memory.drop(held)
        elif isinstance(held, Place):
            if keep and held.length >= SHORTEST and (row := self.memory.save(held)) is not None:
                self.prefixes.keep(self.memory, job.request.adapter, job.array()[: held.length], row)
            self.memory.leave(held, wipe=not keep)

    def logits(self, sequences: Sequence[Scored], adapter: str | None) -> Iterator[Tensor]:
        """All in one row."""
        ids = [token for sequence in sequences for token in sequence.ids]
        ends = list(accumulate(len(sequence.ids) for sequence in sequences))
        wanted = [at for one, end in zip(sequences, ends, strict=True) for at in range(end - one.wanted, end)]
        inputs: dict[str, Any] = {
            "input_ids": torch.tensor([ids], device=self._device),
            "position_ids": torch.tensor(
                [[at for one in sequences for at in range(len(one.ids))]], device=self._device
            ),
            "logits_to_keep": torch.tensor(wanted, device=self._device),
            "bounds": (0, *ends),
            "use_cache": False,
        }
        logits: Tensor = self._call([adapter] * len(ids), inputs, flat=True).logits[0]
        yield from logits.split([one.wanted for one in sequences])

    def forget(self, adapter: str | None) -> None:
        self.prefixes.forget(self.memory, adapter)

    def stats(self) -> dict[str, float]:
        return {
            "cache_tokens_used": self.memory.used,
            "cache_tokens_total": self.memory.budget,
            "cached_prefixes": len(self.prefixes),
        }

    def _take_prefix(self, job: Job, row: Row, running: Sequence[Job]) -> None:
        """Copy what finished or running requests have computed of the same beginning, where that is worth it."""
        last = len(job.ids) - 1  # is computed, for its scores
        kept, most = self.prefixes.find(job.request.adapter, job.prompt) if row.length == 0 else (None, 0)
        layers = kept.layers if kept is not None else None
        for other in running:
            if other is not job and other.held is not None and other.held.length > most:
                length = min(_same(job, other), other.held.length)
                if length > most:
                    most = length
                    layers = other.held.layers() if isinstance(other.held, Place) else other.held.layers
        most = min(most, last)
        if job.span[0] < most < job.span[1]:  # all media of a prompt are computed together
            most = job.span[0]
        if layers is not None and most - row.length >= SHORTEST:
            if not job.count:
                job.cached += most - row.length
            row.take(layers, most)


def _end_of_piece(job: Job, most: int) -> int:
    """Where the next piece of a prompt ends: after `most` tokens, but not among its media."""
    at, (first, last) = job.held.length, job.span
    end = min(at + most, len(job.ids))
    if not at <= first < end or end >= last:
        return end
    return first if at < first else last


def _same(job: Job, other: Job) -> int:
    """How many tokens the prompts of two requests begin with in common, under the same adapter."""
    return common(job.prompt, other.prompt) if job.request.adapter == other.request.adapter else 0


def _same_ahead(job: Job, other: Job) -> bool:
    """Whether `other`, which is read in this step, computes what this one can copy after it."""
    mine, its = job.held, other.held
    return bool(its.length >= mine.length and _same(job, other) - mine.length >= SHORTEST)


# Names under which models take and give what they keep of a sequence.
_STATES = ("past_key_values", "cache_params", "state")


class Alone:
    """`use_cache` False: everything is computed again for each token. A prompt is read at once, because a state that
    runs along the sequence takes one token, or begins. Where positions have other frequencies in sequences longer than
    `switch_of` says, one that grows beyond is read again: the keys of before would be turned by the old ones.

    `sees`: the model takes media; its own code then says what it gets in each step, as it does for `generate`."""

    def __init__(self, call: Call, model: Any, device: torch.device, *, use_cache: bool, sees: bool = False) -> None:
        self._call, self._device, self._model, self._sees = call, device, model, sees
        self._switch = switch_of(model.config)
        takes = inspect.signature(model.forward).parameters
        self._name = next((name for name in _STATES if name in takes), None) if use_cache else None
        self._told = [name for name in ("position_ids", "attention_mask") if name in takes]

    def begin(self, job: Job) -> bool:
        job.held = _Own()
        return True

    def ready(self, job: Job, running: Sequence[Job]) -> bool:
        return True

    def step(self, jobs: Sequence[Job]) -> tuple[list[Job], Tensor]:
        try:
            return list(jobs), torch.stack([self._scores(job) for job in jobs])
        except Exception:
            for job in jobs:  # some have taken their token, one perhaps in some of its layers
                job.held = _Own()
            raise

    def _scores(self, job: Job) -> Tensor:
        own: _Own = job.held
        if self._switch is not None and len(job.ids) == self._switch + 1:
            own.state = None
        first = len(job.ids) - 1 if own.state is not None else 0
        inputs = self._inputs(job.ids, first) | {"logits_to_keep": 1, "use_cache": self._name is not None}
        if self._name is not None:
            inputs[self._name] = own.state
        if self._sees:
            inputs = self._prepared(job, inputs, first)
        output = self._call([job.request.adapter], inputs, flat=False)
        if self._name is not None:
            own.state = getattr(output, self._name, None)
            if own.state is None:  # it is kept within the modules, for one sequence
                self._name = None
        scores: Tensor = output.logits[0, -1].float()
        return scores

    def _prepared(self, job: Job, inputs: dict[str, Any], first: int) -> dict[str, Any]:
        """The inputs from the token `first` on, as the model's own code makes them for `generate`."""
        sight, new = job.sight, inputs.pop("input_ids")
        if sight is not None:
            inputs |= sight.for_model(self._model) if first == 0 else {}
            inputs |= sight.tokens(job.ids, self._device)
            positions = sight.positions(self._model, job.ids, first)
            if positions is not None:
                inputs["position_ids"] = positions
        ids = torch.tensor([job.ids], device=self._device)
        how: dict[str, Any] = {"next_sequence_length": new.shape[1], "is_first_iteration": first == 0}
        found: dict[str, Any] = self._model.prepare_inputs_for_generation(ids, **how, **inputs)
        return found

    def _inputs(self, tokens: Sequence[int], first: int) -> dict[str, Any]:
        """From the token `first` on."""
        ids = torch.tensor([list(tokens)], device=self._device)
        where = {"position_ids": torch.arange(len(tokens), device=self._device)[None, first:]}
        where["attention_mask"] = torch.ones_like(ids)
        told = {name: where[name] for name in self._told}  # not every model counts by itself
        return told | {"input_ids": ids[:, first:]}

    def drop(self, job: Job, *, keep: bool) -> None:
        job.held = None

    def logits(self, sequences: Sequence[Scored], adapter: str | None) -> Iterator[Tensor]:
        """Each by itself."""
        for ids, wanted in sequences:
            inputs = self._inputs(ids, 0) | {"logits_to_keep": wanted, "use_cache": False}
            yield self._call([adapter], inputs, flat=False).logits[0, -wanted:]

    def forget(self, adapter: str | None) -> None:
        pass

    def stats(self) -> dict[str, float]:
        return {}


class _Own:
    """What a model keeps of a sequence, in its own form."""

    state: Any = None
