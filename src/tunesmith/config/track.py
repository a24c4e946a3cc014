"""Curves and experiment trackers beyond `report_to`."""

from __future__ import annotations

from typing import Literal

from tunesmith.config.fields import later, section, works

_WHAT = "settings of SwanLab (`report_to: swanlab` works)"


@section
class TrackConfig:
    """Plots and SwanLab."""

    plot_loss: bool = works(False)
    """Save the curve of the loss as an image."""
    use_swanlab: bool = later(False, _WHAT)
    """Log to SwanLab."""
    swanlab_project: str | None = later("llamafactory", _WHAT)
    """Project."""
    swanlab_workspace: str | None = later(None, _WHAT)
    """Workspace."""
    swanlab_run_name: str | None = later(None, _WHAT)
    """Name of the experiment."""
    swanlab_mode: Literal["cloud", "local"] = later("cloud", _WHAT)
    """Where experiments are kept."""
    swanlab_api_key: str | None = later(None, _WHAT, secret=True)
    """Key of the account."""
    swanlab_logdir: str | None = later(None, _WHAT)
    """Folder for local logs."""
    swanlab_lark_webhook_url: str | None = later(None, _WHAT, secret=True)
    """Address of a Lark notification."""
    swanlab_lark_secret: str | None = later(None, _WHAT, secret=True)
    """Secret of that notification."""
