"""`full_determinism`: only algorithms that give the same bits each time, from before the first computation on.

transformers switches them on when its Trainer is made. Libraries underneath read some of the settings once, at the
first product of matrices, and the proofs of a run compute before there is a Trainer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from tunesmith.core.errors import MachineError, Problem

__all__ = ["explained", "seed_all"]

_REFUSED = re.compile(r"(\S+) does not have a deterministic implementation")


def seed_all(seed: int, *, full_determinism: bool) -> None:
    """Seed Python, numpy and torch, as transformers does."""
    from transformers import enable_full_determinism, set_seed

    if full_determinism:
        enable_full_determinism(seed)
    else:
        set_seed(seed)


@contextmanager
def explained() -> Iterator[None]:
    """What torch refuses to compute is a MachineError (E-TRAIN-092) that names it."""
    try:
        yield
    except RuntimeError as error:
        found = _REFUSED.search(str(error))
        if found is None:
            raise
        what = (
            "full_determinism: the model computes with an operation that has no form which always gives the same bits"
        )
        fix = "full_determinism: false; what then differs from run to run is in the last bits"
        raise MachineError(Problem("E-TRAIN-092", what, got=found[1], fix=fix)) from error
