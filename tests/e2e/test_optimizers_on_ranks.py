"""Every optimizer that trains on several processes: two of them come to the bits that one comes to.

The one adds up the gradients of two micro-batches, the two have one each. A sum of two has one order, and the loss is
scaled by a power of two, so nothing is rounded differently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_optimizers import keys_of, quiet_optimizers
from tests.run_logs import curve, same_weights
from tests.two_ranks import TwoRanks
from tunesmith.config.optimizer_facts import OPTIMIZERS

pytestmark = pytest.mark.slow
RUN = [name for name, facts in OPTIMIZERS.items() if facts.ranks and not facts.gpu_only]


def trained(keys: dict[str, Any]) -> tuple[str, Any]:
    """A run in this process -> (digest of all weights that its model holds at the end, the result). torchao's steps are
    not compiled, which takes a minute."""
    import torch

    import tunesmith
    from tunesmith.train.trainer import Trainer

    models, original = [], Trainer.train

    def train(self: Any, *arguments: Any, **others: Any) -> Any:
        models.append(self.model)
        return original(self, *arguments, **others)

    eager = torch.compiler.set_stance("force_eager")
    with pytest.MonkeyPatch.context() as patch, quiet_optimizers(), eager:
        patch.setattr(Trainer, "train", train)
        result = tunesmith.train(keys)
    return digest_of(models[0]), result


def digest_of(model: Any) -> str:
    digest = hashlib.blake2b()
    for weight in model.parameters():
        digest.update(weight.detach().numpy().tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def ranks() -> Iterator[TwoRanks]:
    with TwoRanks(["tests.e2e.test_optimizers_on_ranks", "tunesmith.train.trainer", "transformers"]) as found:
        yield found


@pytest.mark.parametrize("name", RUN)
def test_two_processes_train_as_one(
    ranks: TwoRanks, tiny_model: Path, tiny_data: Path, tmp_path: Path, torch_one_thread: None, name: str
) -> None:
    keys = {
        "model_name_or_path": str(tiny_model),
        "dataset": "new",
        "dataset_dir": str(tiny_data),
        "per_device_train_batch_size": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        **keys_of(name),
        "max_steps": 7 if name == "schedule_free_radam" else 4,  # its first five steps move nothing
    }
    digest, one = trained({**keys, "output_dir": str(tmp_path / "one"), "gradient_accumulation_steps": 2})
    (first, two), (second, _) = ranks.call(trained, {**keys, "output_dir": str(tmp_path / "two")})
    assert first == second == digest
    assert same_weights(one, two)
    assert [norm for _, norm in curve(one)] == [norm for _, norm in curve(two)]
    assert digest != untrained(tiny_model)


@cache
def untrained(folder: Path) -> str:
    from transformers import AutoModelForCausalLM

    return digest_of(AutoModelForCausalLM.from_pretrained(folder, dtype="float32"))
