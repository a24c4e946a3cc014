"""Reward models: every kind of batch against transformers' own class, one sequence after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.pairs import PAD, classifier_of, gradient_of, rewards_alone, token_pairs
from tunesmith.config.objective import ObjectiveConfig
from tunesmith.data.collate import FlatCollator, PaddingCollator
from tunesmith.models.reward_forward import install_rewards, rewards_match
from tunesmith.objectives import OBJECTIVES, Objective
from tunesmith.train.micro import split

COLLATORS = {"padded": PaddingCollator(PAD), "flat": FlatCollator(PAD), "shared": FlatCollator(PAD, shares=True)}


def objective_of(**keys: Any) -> Objective:
    return OBJECTIVES.get("rm")(ObjectiveConfig(stage="rm", **keys))


def pairs(ends_with_pad: bool = False) -> list[dict[str, Any]]:
    """Four pairs. `ends_with_pad`: the padding token ends sequences too, and one of them is nothing but such tokens."""
    found = token_pairs()
    if ends_with_pad:
        for pair in found:
            pair["input_ids"] = pair["input_ids"].copy()
            pair["input_ids"][np.cumsum(pair["lengths"]) - 1] = PAD
        found[3]["input_ids"][-3:] = PAD
    return found


@pytest.mark.parametrize("ends_with_pad", [False, True], ids=["plain", "ends_with_pad"])
@pytest.mark.parametrize("kind", COLLATORS)
def test_every_kind_of_batch_is_two_sequences_a_pair(kind: str, ends_with_pad: bool) -> None:
    plain, quick, rows = classifier_of(None), classifier_of("chunked"), pairs(ends_with_pad)
    chosen, rejected = rewards_alone(plain, rows).unbind(1)
    wanted = -torch.nn.functional.logsigmoid(chosen - rejected).sum()
    objective = objective_of()
    found = objective.compute(quick, COLLATORS[kind](rows))
    assert float(found.units) == objective.count_units(COLLATORS[kind](rows)) == 4
    torch.testing.assert_close(found.loss_sum, wanted, rtol=1e-5, atol=1e-5)
    one, other = gradient_of(found.loss_sum, quick), gradient_of(wanted, plain)
    assert float((one - other).norm()) < 1e-5 * float(other.norm())
    torch.testing.assert_close(found.metrics["rewards/chosen"], chosen.double().sum(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.metrics["accuracy"], (chosen > rejected).double().sum())


def test_packs_in_padded_rows_have_a_reward_for_each_sequence() -> None:
    from tunesmith.objectives.rm import reward_ends

    batch = FlatCollator(PAD, one_row=False)(pairs())
    found = reward_ends(batch)
    assert found.tolist()[:3] == [[0, 0, 20, 0, 0], [0, 20, 42, 20, 20], [1, 0, 14, 0, 0]]
    assert len(found) == 8


@pytest.mark.parametrize("kind", COLLATORS)
def test_pairs_whose_media_could_not_be_read_teach_nothing(kind: str) -> None:
    model, rows = classifier_of("chunked"), pairs()
    batch = {**COLLATORS[kind](rows), "bad_media": torch.tensor([0, 0, 1, 1, 0, 0, 0, 1])}
    objective = objective_of()
    found = objective.compute(model, batch)
    assert float(found.units) == objective.count_units(batch) == 2
    wanted = [objective.compute(model, COLLATORS[kind]([rows[number]])).loss_sum for number in (0, 2)]
    torch.testing.assert_close(found.loss_sum, wanted[0] + wanted[1], rtol=1e-5, atol=1e-5)
    assert float(found.metrics["accuracy"]) <= 2


def test_center_is_a_square_of_the_sum() -> None:
    plain, quick = classifier_of(None), classifier_of("chunked")
    chosen, rejected = rewards_alone(plain, pairs()).unbind(1)
    wanted = (-torch.nn.functional.logsigmoid(chosen - rejected) + 0.3 * (chosen + rejected) ** 2).sum()
    found = objective_of(center_rewards_coefficient=0.3).compute(quick, COLLATORS["shared"](pairs()))
    torch.testing.assert_close(found.loss_sum, wanted, rtol=1e-5, atol=1e-5)


def test_the_split_of_a_batch_changes_nothing() -> None:
    objective, model = objective_of(), classifier_of("chunked")
    batch = COLLATORS["shared"](pairs())
    whole, parts = objective.compute(model, batch), [objective.compute(model, part) for part in split(batch, 0)]
    assert len(parts) == 4
    loss = torch.stack([one.loss_sum for one in parts]).sum()
    torch.testing.assert_close(loss, whole.loss_sum, rtol=1e-6, atol=1e-6)
    one, other = gradient_of(whole.loss_sum, model), gradient_of(loss, model)
    assert float((one - other).norm()) <= 1e-5 * float(other.norm())
    for name, value in whole.metrics.items():
        torch.testing.assert_close(
            torch.stack([part.metrics[name] for part in parts]).sum(), value, rtol=1e-5, atol=1e-5
        )


def test_a_rank_without_pairs_gives_nothing() -> None:
    model, row = classifier_of("chunked"), token_pairs()[0]
    blank = {"input_ids": row["input_ids"][:2], "trained": row["trained"][:2] & False}
    for collate in COLLATORS.values():
        found = objective_of().compute(model, collate([blank]))
        assert (found.loss_sum.item(), float(found.units)) == (0, 0)
        assert found.loss_sum.requires_grad, "several devices wait for a gradient of each"


def test_the_head_computes_in_single_precision() -> None:
    model = classifier_of(None).to(torch.bfloat16)
    install_rewards(model, "chunked")
    seen: list[Tensor] = []
    model.score.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    with torch.autocast("cpu", torch.bfloat16):
        objective_of().compute(model, COLLATORS["padded"](pairs()))
    assert seen[0].dtype == model.score.weight.dtype == torch.float32
    assert model(input_ids=torch.ones(1, 3, dtype=torch.long)).logits.shape == (1, 1), "transformers' own way works too"


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "gemma2", "gpt2", "phi3", "qwen3_moe"])
def test_rewards_of_common_types_are_those_of_transformers(kind: str) -> None:
    assert rewards_match(classifier_of("chunked", kind=kind))


def test_a_model_that_makes_rewards_in_another_way_is_told() -> None:
    model = classifier_of("chunked")
    model.score.register_forward_hook(lambda layer, inputs, output: output * (1 + inputs[0].mean()))
    assert not rewards_match(model)
