"""TRL's own code of the losses of preferences, run on log probabilities that a test chooses.

Its trainers compute a loss inside of methods that call a model. Those methods run here unchanged, with a stand-in for
the trainer (what they read of it) and one for the model (what it returns). TRL is imported when a loss is asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tunesmith.losses.preference import PairScores, PairSettings

PROMPT = 1  # tokens; with one, ORPO's fine-tuning term, which TRL takes over prompt and answer, is that of the answer


@dataclass(frozen=True)
class Batch:
    """P pairs: rows of the chosen answers, then of the rejected. `ids`, `mask` [2P, T]: tokens, and which of them are
    the answer's; `log_probs` [2P, T - 1] of the next token, with gradient; `ref_log_probs`; `logits` [2P, T, V] that
    give `log_probs`; `collision` [2P, T - 1] log of the sum of the squares of the probabilities."""

    ids: Tensor
    mask: Tensor
    logits: Tensor
    ref_logits: Tensor

    @property
    def labels(self) -> Tensor:
        return self.ids.masked_fill(~self.mask, -100)

    def log_probs(self, logits: Tensor) -> Tensor:
        """[2P, T - 1], zero outside the answer."""
        each = logits[:, :-1].log_softmax(-1).gather(-1, self.ids[:, 1:, None])[..., 0]
        return each * self.mask[:, 1:]

    def scores(self) -> PairScores:
        """As an objective makes them; `logits` get the gradient."""
        lengths = self.mask.sum(1).to(self.logits.dtype)
        each = self.log_probs(self.logits)
        chosen, rejected = each.sum(1).chunk(2)
        ref_chosen, ref_rejected = self.log_probs(self.ref_logits).sum(1).chunk(2)
        near = ((each - self.collision()) * self.mask[:, 1:]).detach().sum(1) / lengths
        return PairScores(chosen, rejected, *lengths.chunk(2), ref_chosen, ref_rejected, *near.chunk(2))

    def collision(self) -> Tensor:
        return self.logits[:, :-1].detach().softmax(-1).square().sum(-1).log()

    def pair(self, number: int) -> Batch:
        """The batch of one pair alone."""
        count = len(self.ids) // 2
        rows = [number, number + count]
        length = int(self.mask[rows].sum(1).max()) + PROMPT
        parts = (self.ids, self.mask, self.logits.detach(), self.ref_logits)
        ids, mask, logits, ref_logits = (part[rows, :length] for part in parts)
        return Batch(ids, mask, logits.clone().requires_grad_(), ref_logits)


def random_batch(
    lengths: list[int], *, scale: float = 1.0, dtype: torch.dtype = torch.float64, seed: int = 0, vocabulary: int = 11
) -> Batch:
    """lengths [2P]: tokens of the answers. `scale`: of the logits."""
    draw = torch.Generator().manual_seed(seed)
    rows, width = len(lengths), max(lengths) + PROMPT
    place = torch.arange(width)[None]
    mask = (place >= PROMPT) & (place < PROMPT + torch.tensor(lengths)[:, None])
    ids = torch.randint(vocabulary, (rows, width), generator=draw)
    shape = (rows, width, vocabulary)
    logits, ref_logits = (scale * torch.randn(shape, dtype=torch.float64, generator=draw) for _ in range(2))
    return Batch(ids, mask, logits.to(dtype).requires_grad_(), ref_logits.to(dtype))


class _Model(torch.nn.Module):
    """What is asked whether it trains, and whether it has adapters."""

    is_gradient_checkpointing = False


class _Accelerator:
    """One process."""

    device = torch.device("cpu")

    def gather(self, value: Tensor) -> Tensor:
        return value

    gather_for_metrics = gather


def _trainer(**attributes: Any) -> SimpleNamespace:
    shared: dict[str, Any] = {
        "accelerator": _Accelerator(),
        "model": _Model(),
        "aux_loss_enabled": False,
        "is_encoder_decoder": False,
        "_metrics": {"train": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
        "precompute_ref_logps": False,
        "pad_token_id": 0,
        "padding_value": 0,
    }
    return SimpleNamespace(**(shared | attributes))


def _per_token(batch: Batch, logits: Tensor) -> SimpleNamespace:
    """What a model says whose output layer TRL has fused with the loss."""
    each = batch.log_probs(logits)
    return SimpleNamespace(
        log_probs=each,
        entropy=torch.zeros_like(each),
        log_sum_sq_probs=batch.collision(),
        mean_logits=torch.zeros_like(each),
        is_top1=batch.mask[:, 1:],
    )


def dpo(
    batch: Batch, losses: Mapping[str, float], to: PairSettings, *, wpo: bool = False, ld_alpha: float | None = None
) -> tuple[Tensor, dict[str, float]]:
    """(mean loss, metrics) of DPOTrainer."""
    from trl.trainer.dpo_trainer import DPOTrainer

    trainer = _trainer(
        args=SimpleNamespace(gradient_checkpointing_kwargs=None, discopop_tau=to.discopop_tau),
        ref_model=lambda **inputs: _per_token(batch, batch.ref_logits),
        loss_types=list(losses),
        loss_weights=list(losses.values()),
        beta=to.beta,
        label_smoothing=to.label_smoothing,
        f_divergence_type=to.divergence,
        f_alpha_divergence_coef=to.divergence_alpha,
        use_weighting=wpo,
        ld_alpha=ld_alpha,
    )
    inputs = {"input_ids": batch.ids, "attention_mask": torch.ones_like(batch.ids), "completion_mask": batch.mask}
    loss = DPOTrainer._compute_loss(trainer, lambda **_: _per_token(batch, batch.logits), inputs, False)
    return loss, {name: value[-1] for name, value in trainer._metrics["train"].items() if isinstance(value, list)}


def _paired(batch: Batch) -> dict[str, Tensor]:
    count = len(batch.ids) // 2
    inputs: dict[str, Tensor] = {}
    for side, rows in (("chosen", slice(count)), ("rejected", slice(count, None))):
        inputs[f"{side}_input_ids"] = batch.ids[rows]
        inputs[f"{side}_labels"] = batch.labels[rows]
        inputs[f"{side}_attention_mask"] = (torch.arange(batch.ids.shape[1])[None] < PROMPT) | batch.mask[rows]
    return inputs


def _reference_free(kind: type, batch: Batch, trainer: SimpleNamespace) -> tuple[Tensor, dict[str, float]]:
    """The three methods of a trainer that read the stand-in for it; `get_batch_loss_metrics` calls the others."""
    for name in ("concatenated_inputs", "get_batch_logps"):
        setattr(trainer, name, getattr(kind, name))
    for name in ("concatenated_forward", "cpo_loss", "odds_ratio_loss"):
        if method := getattr(kind, name, None):
            setattr(trainer, name, method.__get__(trainer))
    model = lambda *inputs, **more: SimpleNamespace(logits=batch.logits)  # noqa: E731
    return kind.get_batch_loss_metrics(trainer, model, _paired(batch))  # type: ignore[attr-defined, no-any-return]


def _cpo_settings(loss: str, to: PairSettings, alpha: float) -> dict[str, Any]:
    return {
        "loss_type": loss,
        "beta": to.beta,
        "label_smoothing": to.label_smoothing,
        "simpo_gamma": to.simpo_gamma,
        "alpha": alpha,
        "cpo_alpha": 0.0 if loss == "simpo" else to.cpo_alpha,
    }


def cpo(batch: Batch, loss: str, to: PairSettings, *, alpha: float = 0.0) -> tuple[Tensor, dict[str, float]]:
    """(mean loss, metrics) of CPOTrainer. alpha: AlphaPO's."""
    from trl.experimental.cpo.cpo_trainer import CPOTrainer

    return _reference_free(CPOTrainer, batch, _trainer(**_cpo_settings(loss, to, alpha)))


def cpo_of_numbers(chosen: Tensor, rejected: Tensor, loss: str, to: PairSettings) -> Tensor:
    """Losses [P] of CPOTrainer, of two numbers for each pair."""
    from trl.experimental.cpo.cpo_trainer import CPOTrainer

    losses, *_ = CPOTrainer.cpo_loss(_trainer(**_cpo_settings(loss, to, 0.0)), chosen, rejected)
    return losses  # type: ignore[no-any-return]


def orpo(batch: Batch, to: PairSettings) -> tuple[Tensor, dict[str, float]]:
    """(mean loss, metrics) of ORPOTrainer."""
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    return _reference_free(ORPOTrainer, batch, _trainer(beta=to.beta))


def tpo(batch: Batch, loss: str, to: PairSettings) -> tuple[Tensor, dict[str, float]]:
    """(mean loss, metrics) of TPOTrainer without its third answer."""
    from trl.experimental.tpo.tpo_trainer import TPOTrainer

    trainer = _trainer(
        tpo_alpha=0.0,
        loss_type=loss,
        beta=to.beta,
        label_smoothing=to.label_smoothing,
        tpo_l_gamma=to.simpo_gamma,
    )
    inputs = {"input_ids": batch.ids, "attention_mask": torch.ones_like(batch.ids), "completion_mask": batch.mask}
    loss_ = TPOTrainer._compute_loss(trainer, lambda **_: SimpleNamespace(logits=batch.logits), inputs, False)
    return loss_, {name: value[-1] for name, value in trainer._metrics["train"].items() if isinstance(value, list)}


def kto(
    batch: Batch, liked: Tensor, mismatched: Batch | None, loss: str, weights: tuple[float, float], beta: float
) -> tuple[Tensor, dict[str, float]]:
    """(mean loss, metrics) of KTOTrainer. The rows of `batch` are E answers, `liked` [E] says which were; `mismatched`
    are answers that belong to other prompts, for the divergence."""
    from trl.trainer.kto_trainer import KTOTrainer

    def model(of: str) -> Any:
        def forward(**inputs: Any) -> SimpleNamespace:
            asked = batch if inputs["input_ids"] is batch.ids else mismatched
            assert asked is not None
            return _per_token(asked, getattr(asked, of))

        return forward

    trainer = _trainer(
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        ref_model=model("ref_logits"),
        loss_type=loss,
        beta=beta,
        desirable_weight=weights[0],
        undesirable_weight=weights[1],
        calculate_KL=mismatched is not None,
    )
    trainer._compute_kl_logps = KTOTrainer._compute_kl_logps.__get__(trainer)
    inputs = {
        "input_ids": batch.ids,
        "attention_mask": torch.ones_like(batch.ids),
        "completion_mask": batch.mask,
        "label": liked,
    }
    if mismatched is not None:
        inputs |= {
            "KL_input_ids": mismatched.ids,
            "KL_attention_mask": torch.ones_like(mismatched.ids),
            "KL_completion_mask": mismatched.mask,
        }
    loss_ = KTOTrainer._compute_loss(trainer, model("logits"), inputs, False)
    return loss_, {name: value[-1] for name, value in trainer._metrics["train"].items() if isinstance(value, list)}


def reward(
    chosen: Tensor, rejected: Tensor, margin: Tensor | None, center: float | None
) -> tuple[Tensor, dict[str, float]]:
    """(mean loss, metrics) of RewardTrainer."""
    from trl.trainer.reward_trainer import RewardTrainer

    trainer = _trainer(args=SimpleNamespace(center_rewards_coefficient=center))
    inputs = {"attention_mask": torch.ones(2 * len(chosen), 1)} | ({} if margin is None else {"margin": margin})
    model = lambda **_: SimpleNamespace(logits=torch.cat((chosen, rejected))[:, None])  # noqa: E731
    loss = RewardTrainer.compute_loss(trainer, model, inputs)
    return loss, {name: value[-1] for name, value in trainer._metrics["train"].items() if isinstance(value, list)}
