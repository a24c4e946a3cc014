"""What the server counts, in Prometheus' text form. Routes, reasons and codes are labels; texts never are."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping

from tunesmith._version import __version__

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_PREFIX = "tunesmith_"

_COUNTERS = {
    "requests_total": "Requests that were answered, by route, method and status.",
    "rejected_total": "Requests that were refused, by code of the error.",
    "prompt_tokens_total": "Tokens of prompts whose replies have ended.",
    "cached_tokens_total": "Of them those that were not computed again.",
    "completion_tokens_total": "Tokens of replies that have ended.",
    "replies_total": "Replies that have ended, by reason.",
    "scores_total": "Texts that got a reward.",
}
_HISTOGRAMS = {
    "request_seconds": "From the first byte of a request to the last of its answer.",
    "first_text_seconds": "From a request for text to its first piece.",
    "next_text_seconds": "Between two pieces of one answer.",
}


class Metrics:
    """Counters and histograms; safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, dict[tuple[tuple[str, str], ...], float]] = defaultdict(lambda: defaultdict(float))
        self._histograms = {name: [0] * (len(_SECONDS) + 1) for name in _HISTOGRAMS}
        self._sums = dict.fromkeys(_HISTOGRAMS, 0.0)
        self.load_seconds = 0.0

    def count(self, name: str, amount: float = 1.0, **labels: str) -> None:
        assert name in _COUNTERS, name
        with self._lock:
            self._counters[name][tuple(sorted(labels.items()))] += amount

    def observe(self, name: str, seconds: float) -> None:
        with self._lock:
            self._histograms[name][bisect_left(_SECONDS, seconds)] += 1
            self._sums[name] += seconds

    def value(self, name: str, **labels: str) -> float:
        """Of a counter."""
        with self._lock:
            return self._counters[name].get(tuple(sorted(labels.items())), 0.0)

    def text(self, gauges: Mapping[str, float], engine: Mapping[str, float]) -> str:
        """`gauges`: what the server does now; `engine`: what the engine says of itself."""
        with self._lock:
            return "\n".join([*self._lines(gauges, engine), ""])

    def _lines(self, gauges: Mapping[str, float], engine: Mapping[str, float]) -> Iterator[str]:
        yield from _head("build_info", "gauge", "Version of the server.")
        yield f'{_PREFIX}build_info{{version="{__version__}"}} 1'
        now = {"load_seconds": self.load_seconds, **gauges}
        for name, value in {**now, **{f"engine_{name}": value for name, value in engine.items()}}.items():
            yield from _head(name, "gauge", name.replace("_", " "))
            yield f"{_PREFIX}{name} {value:g}"
        for name, meaning in _COUNTERS.items():
            yield from _head(name, "counter", meaning)
            for labels, value in self._counters[name].items() or {(): 0.0}.items():
                yield f"{_PREFIX}{name}{_labels(labels)} {value:.16g}"
        for name, meaning in _HISTOGRAMS.items():
            yield from _head(name, "histogram", meaning)
            total = 0
            for bound, count in zip([*map(str, _SECONDS), "+Inf"], self._histograms[name], strict=True):
                total += count
                yield f'{_PREFIX}{name}_bucket{{le="{bound}"}} {total}'
            yield f"{_PREFIX}{name}_sum {self._sums[name]:.6f}"
            yield f"{_PREFIX}{name}_count {total}"


def _head(name: str, kind: str, meaning: str) -> Iterator[str]:
    yield f"# HELP {_PREFIX}{name} {meaning}"
    yield f"# TYPE {_PREFIX}{name} {kind}"


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    def quoted(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{quoted(value)}"' for name, value in labels) + "}" if labels else ""
