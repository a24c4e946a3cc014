"""RunPlan: everything that follows from the config and the hardware, as plain values to print and to save."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["RunPlan"]


_ATTENTION = {
    "varlen": " (SDPA within each sequence)",
    "varlen_shifted": " (SDPA in quarters of each sequence, shifted in half of the heads; whole in evaluation)",
    "varlen_flex": " (FlexAttention over the sequences of a batch)",
}
"""What the names of our own implementations mean, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """A run's derived values. `dtype` is that of frozen weights, `autocast` that of the arithmetic where it differs
    from the weights' own, `attention` the chosen implementation, `batches` whether they are flat or padded, `loss`
    where logits are computed, `packing` whether sequences share rows, `order` how rows are drawn,
    `gradient_checkpointing` off or its mode, `quantization` what the base is quantized with, `shares` whether
    answers to one prompt stand behind it once."""

    stage: str
    finetuning_type: str
    device: str
    dtype: str
    autocast: str | None
    attention: str
    batches: str
    loss: str
    packing: bool
    world_size: int
    per_device_batch_size: int
    gradient_accumulation_steps: int
    global_batch_size: int
    order: str
    seed: int
    cutoff_len: int
    gradient_checkpointing: str
    resume: str | None
    output_dir: str
    quantization: str | None = None
    shares: bool = False

    def __post_init__(self) -> None:
        rows = self.per_device_batch_size * self.gradient_accumulation_steps * self.world_size
        assert rows == self.global_batch_size, f"a step has {rows} rows, not {self.global_batch_size}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """`name  value` lines, aligned, for people."""
        shown = {name: "-" if value is None else str(value) for name, value in asdict(self).items()}
        shown["attention"] += _ATTENTION.get(self.attention, "")
        width = max(map(len, shown))
        return [f"{name:<{width}}  {value}" for name, value in shown.items()]
