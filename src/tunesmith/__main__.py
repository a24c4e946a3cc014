"""`tunesmith ...` and `python -m tunesmith ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code of the process. Without `argv`: the words of this process, which ends."""
    from tunesmith.cli.main import run

    if argv is not None:
        return run(argv)
    from tunesmith.core.ending import ended_by

    return ended_by(lambda: run(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
