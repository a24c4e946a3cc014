"""What the API serves beside the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.config.fields import section, works


@section
class ServeConfig:
    """Adapters of the API. Its address and keys are variables of the environment."""

    adapters: Mapping[str, Any] | None = works(None)
    """Adapters that requests may name, as a mapping from names to paths."""
    adapter_dir: str | None = works(None)
    """Folder of adapters that may be loaded by the name of their folder while the API runs."""
