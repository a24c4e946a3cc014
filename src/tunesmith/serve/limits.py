"""How much a request may ask for and hold, in one table."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LIMITS", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Counts, and sizes in bytes and seconds."""

    body_bytes: int = 25_000_000
    header_bytes: int = 16_384
    json_depth: int = 64
    messages: int = 2048
    parts: int = 1024
    """Parts of one message's content."""
    media: int = 16
    """Images, sounds and videos of one request."""
    media_bytes: int = 20_000_000
    """Of one of them."""
    media_pixels: int = 100_000_000
    """Of all images of one request, and of one frame of each of its videos."""
    media_seconds: float = 1800.0
    """Of all its sound and video."""
    tools: int = 128
    calls: int = 128
    """Tool calls of one message."""
    choices: int = 8
    stops: int = 4
    stop_chars: int = 64
    top_logprobs: int = 20
    bias_entries: int = 1024
    prompts: int = 64
    """Prompts of one request for completions."""
    replies: int = 64
    """Replies of one request for completions: prompts times choices."""
    inputs: int = 2048
    """Texts of one request for embeddings."""
    idle_seconds: float = 60.0
    """Without a byte of a body that is expected; for headers; between two requests of a connection."""
    body_seconds: float = 300.0
    """For a whole body."""
    generation_seconds: float = 600.0
    """For a whole answer: what the official client waits by itself."""
    grammar_seconds: float = 2.0
    """For making a grammar of a schema."""
    queue: int = 64
    """Requests that wait where MAX_CONCURRENT is set."""
    drain_seconds: float = 25.0
    """For answers that are being written when the server is asked to stop."""


LIMITS = Limits()
