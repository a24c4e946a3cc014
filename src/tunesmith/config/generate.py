"""How replies are drawn."""

from __future__ import annotations

from tunesmith.config.fields import later, section, works

_BEAMS = "beam search"


@section
class GenerateConfig:
    """Sampling and length of replies, for chat and prediction."""

    do_sample: bool = works(True)
    """Draw tokens at random; false always takes the likeliest."""
    temperature: float = works(0.95, least=0)
    """Flattens (above 1) or sharpens (below 1) the distribution."""
    top_p: float = works(0.7, above=0, most=1)
    """Keep the likeliest tokens that together have this probability."""
    top_k: int = works(50, least=0)
    """Keep this many of the likeliest tokens; 0 keeps all."""
    num_beams: int = later(1, _BEAMS)
    """Number of beams."""
    max_length: int = works(1024, least=1)
    """Most tokens of prompt and reply together; counts only where `max_new_tokens` is 0."""
    max_new_tokens: int = works(1024, least=0)
    """Most tokens of a reply."""
    repetition_penalty: float = works(1.0, above=0)
    """Above 1, tokens that were there before become less likely."""
    length_penalty: float = later(1.0, _BEAMS)
    """Exponent of the length in beam search."""
    skip_special_tokens: bool = works(True)
    """Leave special tokens out of the text."""
    eval_num_beams: int | None = later(None, _BEAMS)
    """Number of beams in prediction."""
