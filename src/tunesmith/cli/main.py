"""From the words of a command line to an exit code: run the verb, report what went wrong in one block.

Exit codes: 0, those of `tunesmith.core.errors`, 70 for a bug of ours, 130 after Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress

from tunesmith.core import env
from tunesmith.core.collector import no_collection
from tunesmith.core.disk import free_at, refusal
from tunesmith.core.errors import INTERRUPTED, Problem, StorageError, TunesmithError

__all__ = ["run"]

# Verbs that are over in a moment and make little garbage.
_QUICK = {"config", "explain", "init", "version"}


def run(argv: Sequence[str]) -> int:
    """Run `tunesmith ARGV...`; never raises for what a user or a bug can cause."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # replaced by a test or a notebook
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    with suppress(AttributeError):
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
    words, debug = _take_debug(list(argv))
    try:
        return _run(words)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `tunesmith ... | head`: the reader has seen enough
        _drop_stdout()
        return 0
    except TunesmithError as error:
        return _report(error, debug)
    except Exception as error:
        if isinstance(error, OSError) and (said := refusal(error)):
            return _report(_of_the_disk(said, error), debug)
        from tunesmith.cli.crash import report_bug

        return report_bug(error, words, debug)


def _run(words: list[str]) -> int:
    # Without garbage collection importing is faster: by 20 ms of the 170 that `config check` computes.
    with no_collection() if not words or words[0] in _QUICK or words[0].startswith("-") else nullcontext():
        from tunesmith.cli import app

        return app.invoke(words)


def _take_debug(words: list[str]) -> tuple[list[str], bool]:
    """`--debug` may stand anywhere before `--`. As a key of transformers, `debug=...` stays with the config."""
    end = words.index("--") if "--" in words else len(words)
    rest = [word for word in words[:end] if word != "--debug"] + words[end:]
    return rest, len(rest) < len(words) or env.get_bool("TUNESMITH_DEBUG")


def _report(error: TunesmithError, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    with suppress(OSError):  # the terminal was closed
        print(error, file=sys.stderr)
    return error.exit_code


def _of_the_disk(said: str, error: OSError) -> StorageError:
    where = str(error.filename) if error.filename else None
    fix = "free some space, or set another folder"
    return StorageError(Problem("E-CLI-008", said, where, free_at(where), fix))


def _drop_stdout() -> None:
    """Nobody reads any more: without this the interpreter complains when it flushes at exit."""
    with suppress(OSError, ValueError):
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115 - lives until the process ends
