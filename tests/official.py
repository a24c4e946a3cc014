"""The models' own chat templates that the catalog's are compared with, by the name under which a YAML has them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["AUTO_RIGHT", "official_source"]

AUTO_RIGHT = (46, 50)
"""On so many official templates are auto's masks right, of so many; `tests/parity/test_auto_masks.py` counts them."""

OWN = Path(__file__).parent / "assets" / "templates"


def official_source(file: str, assets: Path) -> str:
    """The text of `official/NAME.jinja` and the like: of the shared assets, or else of the project's own."""
    shared = assets / "templates" / file
    return (shared if shared.is_file() else OWN / file).read_text(encoding="utf-8")
