"""Two processes that train together, over gloo. They stay, so that what they import is imported once."""

from __future__ import annotations

import gc
import os
import socket
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

__all__ = ["TwoRanks", "spare_the_collector"]


class TwoRanks:
    """`preload`: modules that both need; they are forks of a server that has imported them."""

    def __init__(self, preload: Sequence[str]) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload(list(preload))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._pipes, self._processes = [], []
        for rank in range(2):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, rank, port), daemon=True)
            process.start()
            self._pipes.append(here)
            self._processes.append(process)

    def call(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What `function(*arguments)` returns in rank 0 and in rank 1. Tensors travel as arrays of numpy."""
        for pipe in self._pipes:
            pipe.send((function, arguments))
        answers: dict[Any, Any] = {}
        while len(answers) < len(self._pipes):
            for pipe in wait([pipe for pipe in self._pipes if pipe not in answers]):
                failed, answers[pipe] = pipe.recv()  # type: ignore[union-attr]
                assert not failed, answers[pipe]  # the other one waits for this one
        return [answers[pipe] for pipe in self._pipes]

    def close(self) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.close()
            process.join(10)
            process.kill()

    def __enter__(self) -> TwoRanks:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _serve(pipe: Connection, rank: int, port: int) -> None:
    import torch

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    begun = False
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((False, function(*arguments)))
        except Exception:
            pipe.send((True, traceback.format_exc()))
        gc.collect()  # what DDP keeps of the model of before
        if not begun:
            begun = True
            spare_the_collector()


def spare_the_collector() -> None:
    """Trainers collect garbage in every run, which takes ten times as long as a tiny step: what the libraries hold by
    now is looked at no more, until `gc.unfreeze()`."""
    gc.collect()
    gc.freeze()
