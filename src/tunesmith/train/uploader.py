"""The process that uploads to the Hugging Face hub, for the run that has started it (`uploads.py`).

A process of its own: hashing and sending take no time from training, and one that hangs is killed. It reads one JSON
object a line, the repository first and then folders, and answers each with one line. It ends with its input.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

__all__ = ["main"]

_REFUSED = (400, 401, 403, 404, 409, 422)
"""What asking again does not change."""


def main() -> None:
    """Do what the lines of the input say, in order, as long as the input is open."""
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_work, args=(lines,), daemon=True).start()
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)  # whoever asked is gone, or wants no more; nothing of an upload counts before its commit


def _work(lines: queue.Queue[str]) -> None:
    hub = _Hub(json.loads(lines.get()))
    answer = _told(hub.open)
    while True:
        print(json.dumps(answer), flush=True)
        answer = _told(partial(hub.send, json.loads(lines.get())))


def _told(action: Callable[[], str]) -> dict[str, Any]:
    try:
        return {"done": action()}
    except Exception as error:  # of the hub's library, of the network, of the disk: the run says which
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return {"error": " ".join(lines[:2]) or type(error).__name__, "refused": _is_refused(error)}


class _Hub:
    """`repository`: name, token, endpoint, private, revision."""

    def __init__(self, repository: Mapping[str, Any]) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
        self._repository = repository
        self._api = HfApi(endpoint=repository["endpoint"], token=repository["token"])
        self._name: str | None = None

    def open(self) -> str:
        """The whole name of the repository, which is made where it is not there."""
        if self._name is None:
            told = self._repository
            name = str(self._api.create_repo(told["name"], private=told["private"], exist_ok=True).repo_id)
            if told["revision"] is not None:
                self._api.create_branch(name, branch=told["revision"], exist_ok=True)
            self._name = name
        return self._name

    def send(self, wanted: Mapping[str, Any]) -> str:
        """One commit of all files below a folder; returns its address."""
        done = self._api.upload_folder(
            repo_id=self.open(),
            folder_path=wanted["folder"],
            path_in_repo=wanted["to"],
            commit_message=wanted["message"],
            revision=self._repository["revision"],
        )
        return str(done.commit_url)


def _is_refused(error: Exception) -> bool:
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

    if isinstance(error, HFValidationError | LocalTokenNotFoundError | OfflineModeIsEnabled):
        return True
    return getattr(getattr(error, "response", None), "status_code", None) in _REFUSED


if __name__ == "__main__":
    main()
