"""Merging and writing out a finished model."""

from __future__ import annotations

from typing import Literal

from tunesmith.config.fields import later, never, section, works

_QUANTISE = "quantised export"


@section
class ExportConfig:
    """Where and how `tunesmith export` writes."""

    export_dir: str | None = works(None)
    """Folder that the merged model is written to."""
    export_size: float = works(5.0, above=0)
    """Largest file of weights in GB."""
    export_device: Literal["cpu", "auto"] = works("cpu")
    """Where weights are merged: in main memory, or on the accelerator if there is one."""
    merge_method: Literal["in_order", "linear", "ties", "dare_linear", "dare_ties"] = works("in_order")
    """How several adapters become one change of the weights: one on top of the other, or weighed against each other."""
    merge_weights: tuple[float, ...] = works(())
    """linear, ties, dare: a number for each adapter, by which its change is multiplied; left out, 1."""
    merge_density: float = works(0.5, above=0, below=1)
    """ties, dare: share of each change that is kept, the largest of it (ties) or any of it (dare)."""
    export_quantization_bit: int | None = later(None, _QUANTISE)
    """Bits per weight of the exported model (GPTQ)."""
    export_quantization_dataset: str | None = later(None, _QUANTISE)
    """File or dataset for the calibration of the quantiser."""
    export_quantization_nsamples: int = later(128, _QUANTISE)
    """Number of samples for calibration."""
    export_quantization_maxlen: int = later(1024, _QUANTISE)
    """Tokens per sample for calibration."""
    export_legacy_format: bool = never(False, "weights are written as safetensors, which every reader takes")
    """Write pickled .bin files."""
    export_hub_model_id: str | None = later(None, "uploading to the hub")
    """Repository of the hub to upload to after saving."""
