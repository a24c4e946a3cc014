"""Writes docs/keys.md from the table of keys.

python scripts/generate_keys_doc.py
"""

from __future__ import annotations

from pathlib import Path

from tunesmith.config.document import keys_page

TARGET = Path(__file__).parents[1] / "docs" / "keys.md"

if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(keys_page(), encoding="utf-8")
    print(f"wrote {TARGET}")
