"""Which of the quick ways a model takes in training: flat batches, and a loss without the logits of all tokens.

Planned from config.json, proven on the loaded weights; what does not prove itself is left, and it is said why.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from tunesmith.core.errors import MachineError, Problem, UsageError
from tunesmith.core.log import get_logger
from tunesmith.models.attention import OURS, SHIFTED, VARLEN, SharedBounds, attention_of, calls, register
from tunesmith.models.balance import check_balance
from tunesmith.models.depths import same_choices
from tunesmith.models.families import PADDED
from tunesmith.models.family import Family, family_of
from tunesmith.models.heads import reward_head
from tunesmith.models.kernels import FLAT_ATTENTION, check_dropout, dropped
from tunesmith.models.load import ATTENTION, language_type, settings_of
from tunesmith.models.loss_forward import HeadFacts, LossWay, head_matches, install, trunk_inputs, trunk_of
from tunesmith.models.quirks.flash_attention import allows_kernel
from tunesmith.models.reward_forward import install_rewards, rewards_match
from tunesmith.models.seeing import set_attention
from tunesmith.models.segments import fit
from tunesmith.models.shared import Segment

if TYPE_CHECKING:
    from tunesmith.config.model import ModelConfig

__all__ = ["FastPath", "flat_inputs", "plan_fast_path", "prove"]

_LENGTHS = (5, 9, 3)


@dataclass(frozen=True, slots=True)
class FastPath:
    """`flat`: sequences stand one behind the other, nothing is padded. `attention`: an `attn_implementation`; `picked`:
    by us, as the machine has it, not by the config. `why`: a sentence for each quick way that is not taken."""

    flat: bool
    loss: LossWay
    attention: str
    why: tuple[str, ...] = ()
    picked: bool = False
    shares: bool = False
    """Answers to one prompt stand behind it, once (`models.shared`)."""

    @property
    def at_load(self) -> str:
        """The attention to load a model with. A kernel that was picked has to agree with `varlen` first."""
        return VARLEN if self.picked else self.attention

    def without_flat(self, reason: str) -> FastPath:
        attention = ATTENTION["auto"] if self.picked or self.attention in OURS else self.attention
        why = (*self.why, f"padded batches: {reason}")
        return replace(self, flat=False, attention=attention, picked=False, shares=False, why=why)

    def without_sharing(self, reason: str) -> FastPath:
        return replace(self, shares=False, why=(*self.why, f"each answer with its prompt: {reason}"))

    def without_chunks(self, reason: str) -> FastPath:
        return replace(self, loss="kept", why=(*self.why, f"logits of all trained tokens at once: {reason}"))


def plan_fast_path(
    config: ModelConfig,
    *,
    no_flat: str | None = None,
    no_chunks: str | None = None,
    kernel: str | None = None,
    shares: bool = False,
) -> FastPath:
    """What the config and config.json allow; `no_flat` and `no_chunks` say why the rest of a run rules a quick way out.
    `kernel`: a flash-attention that the machine has, for `flash_attn: auto`. `shares`: answers come with their prompts,
    which may stand in the row once; no kernel is picked then, as none of them reads such a row.

    Raises what `language_type` raises, UsageError where the attention has no dropout and config.json asks for some, and
    MachineError where the config requires the quick ways and one is not to be had. With `shift_attn` flat batches are
    required, and UsageError tells why the model does not read them."""
    if config.moe_aux_loss_coef is not None:
        check_balance(config.moe_aux_loss_coef, language_type(config), settings_of(config))
    if config.shift_attn:
        found = _plan_shifted(config, no_flat, no_chunks)
        return found.without_sharing("shift_attn attends in groups of a sequence") if shares else found
    attention = ATTENTION[config.flash_attn]
    check_dropout(config)
    if config.fast_path == "off":
        return FastPath(False, "full", attention, ("fast_path: off",))
    kind = language_type(config)
    family = family_of(kind)
    found = FastPath(True, "chunked", _flat_attention(config, family) or attention)
    if config.flash_attn == "disabled":
        found = found.without_flat("flash_attn: disabled attends over whole rows")
    elif not family.flat:
        found = found.without_flat(f"a model of the type {kind} {PADDED.get(kind, 'is not known to read flat ones')}")
    elif _flat_attention(config, family) is None:
        found = found.without_flat(f"a model of the type {kind} reads flat ones with flash_attn: auto only")
    elif no_flat:
        found = found.without_flat(no_flat)
    elif shares and (reason := _not_shared(config, family, found.attention)):
        found = found.without_sharing(reason)
    elif shares:
        found = replace(found, shares=True)
    elif kernel and config.flash_attn == "auto" and found.attention == VARLEN and family.mask_only is None:
        found = replace(found, attention=kernel, picked=True)
    if no_chunks:
        found = found.without_chunks(no_chunks)
    _raise_if_required(config, found)
    register()
    return found


def _not_shared(config: ModelConfig, family: Family, attention: str) -> str | None:
    """Why a prompt has to stand before each of its answers; None if it need not."""
    if not family.shares:
        return f"a model of the type {family.model_type} reads each sequence by itself"
    if attention != VARLEN:
        return f"flash_attn: {config.flash_attn} reads sequences that are whole (auto does not need them to be)"
    if config.moe_aux_loss_coef is not None:
        return "moe_aux_loss_coef counts the tokens that experts get, those of a prompt for each answer"
    return None


def _plan_shifted(config: ModelConfig, no_flat: str | None, no_chunks: str | None) -> FastPath:
    """With `shift_attn`: flat batches, by SDPA in groups, whatever `flash_attn` says, or a UsageError."""
    kind = language_type(config)
    family = family_of(kind)
    found = plan_fast_path(replace(config, shift_attn=False, flash_attn="auto"), no_flat=no_flat, no_chunks=no_chunks)
    if found.attention != VARLEN or not found.flat or family.per_sequence:
        why = [reason for reason in found.why if reason.startswith("padded")]
        raise _not_shifted(config, why[0] if why else f"the type {kind} has an attention of its own")
    return replace(found, attention=SHIFTED)


def _not_shifted(config: ModelConfig, reason: str) -> UsageError:
    what = "shift_attn needs flat batches, and attention by transformers' interface"
    fix = "leave shift_attn out"
    return UsageError(Problem("E-MODEL-025", what, _where(config), reason, fix))


def _flat_attention(config: ModelConfig, family: Family) -> str | None:
    """What reads flat batches, of models that do; None where the model cannot use what the config names."""
    wanted = FLAT_ATTENTION.get(config.flash_attn)
    if family.attention is None:
        return None if family.mask_only and wanted not in OURS else wanted
    named = config.flash_attn != "auto" and (
        config.flash_attn == "flex" or ATTENTION[config.flash_attn] != family.attention
    )
    return None if named else family.attention


def prove(model: Any, family: Family, planned: FastPath, config: ModelConfig) -> FastPath:
    """Try the planned ways on the loaded model, give it the forward that ends in the loss, or in rewards, and return
    what holds."""
    found = _with_forward(model, family, planned, config)
    if found.flat and (reason := _reads_across(model, family)):
        found = found.without_flat(reason)
        _change_attention(model, found.attention, reason, config)
    if found.picked:
        found = _with_kernel(model, found)
    if found.shares and (reason := _shares_wrongly(model)):
        found = found.without_sharing(reason)
    _raise_if_required(config, found)
    if config.shift_attn and not found.flat:
        raise _not_shifted(config, found.why[-1])
    return found


def _with_forward(model: Any, family: Family, planned: FastPath, config: ModelConfig) -> FastPath:
    """Raises MachineError where the rewards of a reward model are not those of transformers."""
    if reward_head(model) is not None:
        install_rewards(model, planned.loss)
        if not rewards_match(model):
            what, got = "this class of transformers makes its rewards in a way that is not known", type(model).__name__
            fix = "a model whose class has a linear output layer score, which reads the last token"
            raise MachineError(Problem("E-MODEL-036", what, _where(config), got, fix))
        return planned
    facts = HeadFacts.of(model, family)
    if planned.loss == "chunked" and not head_matches(model, facts):
        planned = planned.without_chunks("the output layer of this model is not a plain one")
    install(model, planned.loss, facts)
    return planned


def _with_kernel(model: Any, planned: FastPath) -> FastPath:
    """The model with the kernel that was picked, if its logits of a flat batch are those of `varlen`."""
    pieces = _pieces(model)
    reason = dropped(planned.attention, model.config)
    if not allows_kernel(model, planned.attention):
        reason = "its authors allow other kernels"
    if reason is None:
        try:
            with same_choices(model) as again:
                expected = _flat_logits(model, pieces)
                again()
                set_attention(model, planned.attention)
                reason = _differs(_flat_logits(model, pieces), expected, _tolerance(model))
        except (ImportError, TypeError, ValueError, RuntimeError) as error:  # whatever a kernel does not take
            reason = _first_line(error)
    if reason is None:
        return planned
    get_logger().info("attention: %s, as %s is not for this model (%s)", VARLEN, planned.attention, reason)
    set_attention(model, VARLEN)
    return replace(planned, attention=VARLEN, picked=False)


def _change_attention(model: Any, attention: str, reason: str, config: ModelConfig) -> None:
    """Raises MachineError where the model is bound to what it was loaded with."""
    with suppress(ValueError):
        set_attention(model, attention)
    if attention_of(model) in OURS:
        what = "the model does not read flat batches, and cannot change its attention any more"
        raise MachineError(Problem("E-MODEL-024", what, _where(config), reason, "fast_path: off"))


def _raise_if_required(config: ModelConfig, found: FastPath) -> None:
    if config.fast_path == "require" and found.why:
        what = "fast_path: require, and a quick way is not to be had"
        raise MachineError(Problem("E-MODEL-024", what, _where(config), "; ".join(found.why), "fast_path: auto"))


def _where(config: ModelConfig) -> str:
    return f"model_name_or_path: {config.model_name_or_path}"


def _reads_across(model: Any, family: Family) -> str | None:
    """What is wrong with the model's reading of a flat batch of three short sequences; None if it reads each as it
    would alone. The model reads them as its family does from now on."""
    segments = fit(model, family, trunk_of(model))
    pieces = _pieces(model)
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), same_choices(model) as again:
            alone = torch.cat([_shown(model, {"input_ids": piece[None]}) for piece in pieces]).float()
            before = calls() + segments.runs
            again()
            flat = _flat_logits(model, pieces)
    except (TypeError, ValueError, RuntimeError) as error:  # whatever the model's code does with a batch it cannot read
        return f"the model refuses a flat one ({_first_line(error)})"
    finally:
        model.train(training)
    if attention_of(model) in (*OURS, family.attention) and calls() + segments.runs == before:
        return "the model does not use the attention that reads flat ones"
    found = _differs(flat, alone, _tolerance(model))
    return found and f"sequences of a flat one see each other ({found})"


def _shares_wrongly(model: Any) -> str | None:
    """What is wrong where two answers share a prompt; None if their logits are those of the two sequences."""
    prompt, *answers = _pieces(model)
    alone = _flat_logits(model, [torch.cat([prompt, answer]) for answer in answers])
    size, first, second = len(prompt), *map(len, answers)
    begin = size + first
    segments = [Segment(0, begin, 0, 0), Segment(begin, begin + second, 0, size)]
    positions = [*range(begin), *range(size, size + second)]
    inputs = {
        "input_ids": torch.cat([prompt, *answers])[None],
        "position_ids": torch.tensor([positions], device=prompt.device),
        "bounds": SharedBounds(segments),
    }
    shared = _logits_of(model, inputs)
    expected = torch.cat([alone[:begin], alone[begin + size :]])
    found = _differs(shared, expected, _tolerance(model))
    return found and f"behind a shared prompt {found}"


def _pieces(model: Any) -> list[torch.Tensor]:
    """Three short sequences of random ids [L]."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    return [torch.randint(vocabulary, (length,), generator=generator).to(model.device) for length in _LENGTHS]


def _flat_logits(model: Any, pieces: Sequence[torch.Tensor]) -> torch.Tensor:
    """[T, V] float32 of these sequences in one flat batch, without dropout."""
    return _logits_of(model, flat_inputs(pieces))


def _logits_of(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            found = _shown(model, inputs).float()
    finally:
        model.train(training)
    return found


def _shown(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """What is compared of a row: its logits [T, V]; of a reward model, which has none, hidden states [T, H]."""
    if reward_head(model) is not None:
        hidden: torch.Tensor = trunk_of(model)(**trunk_inputs(inputs))[0]
        return hidden[0]
    logits: torch.Tensor = model(**inputs, use_cache=False).logits
    return logits[0]


def _tolerance(model: Any) -> float:
    return 1e-3 if model.dtype == torch.float32 else 5e-2


def _differs(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> str | None:
    off = float((found - expected).norm() / expected.norm())
    return None if off <= tolerance else f"logits differ by {off:.1e}"  # also where it is no number


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:100]


def flat_inputs(pieces: Sequence[torch.Tensor]) -> dict[str, Any]:
    """The inputs of a flat batch of sequences [L] of ids."""
    lengths = [len(piece) for piece in pieces]
    bounds = [0]
    for length in lengths:
        bounds.append(bounds[-1] + length)
    device = pieces[0].device
    borders = torch.tensor(bounds, dtype=torch.int32, device=device)
    return {
        "input_ids": torch.cat(list(pieces))[None],
        "position_ids": torch.cat([torch.arange(length, device=device) for length in lengths])[None],
        "bounds": tuple(bounds),
        "cu_seq_lens_q": borders,
        "cu_seq_lens_k": borders,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }
