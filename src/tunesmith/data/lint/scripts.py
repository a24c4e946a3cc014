"""In which scripts the texts are written, told by their letters' Unicode blocks.

A share of scripts shows what a detector of languages would be asked for most: rows in a script that nobody expected,
and tokenizers that were made for another one. It needs no model and no list of words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["SCRIPTS", "count_scripts"]

# First code point, one past the last, script. Blocks of the living scripts; punctuation, digits and signs belong to
# none. Source: Unicode 15 Blocks.txt, with the non-letters of the Latin blocks left out.
_BLOCKS = (
    (0x0041, 0x005B, "Latin"), (0x0061, 0x007B, "Latin"), (0x00AA, 0x00AB, "Latin"), (0x00BA, 0x00BB, "Latin"),
    (0x00C0, 0x00D7, "Latin"), (0x00D8, 0x00F7, "Latin"), (0x00F8, 0x02B9, "Latin"), (0x0370, 0x0400, "Greek"),
    (0x0400, 0x0530, "Cyrillic"), (0x0531, 0x0590, "Armenian"), (0x0591, 0x0600, "Hebrew"), (0x0620, 0x0660, "Arabic"),
    (0x066E, 0x06D4, "Arabic"), (0x06D5, 0x06F0, "Arabic"), (0x06FA, 0x0700, "Arabic"), (0x0750, 0x0780, "Arabic"),
    (0x0900, 0x0964, "Devanagari"), (0x0971, 0x0980, "Devanagari"), (0x0980, 0x09E6, "Bengali"),
    (0x0A00, 0x0A66, "Gurmukhi"), (0x0A80, 0x0AE6, "Gujarati"), (0x0B00, 0x0B66, "Odia"), (0x0B80, 0x0BE6, "Tamil"),
    (0x0C00, 0x0C66, "Telugu"), (0x0C80, 0x0CE6, "Kannada"), (0x0D00, 0x0D66, "Malayalam"), (0x0D80, 0x0E00, "Sinhala"),
    (0x0E01, 0x0E3F, "Thai"), (0x0E40, 0x0E50, "Thai"), (0x0E80, 0x0ED0, "Lao"), (0x0F40, 0x0FBD, "Tibetan"),
    (0x1000, 0x1040, "Burmese"), (0x10A0, 0x1100, "Georgian"), (0x1100, 0x1200, "Hangul"), (0x1200, 0x1360, "Ethiopic"),
    (0x1780, 0x17D4, "Khmer"), (0x1E00, 0x1F00, "Latin"), (0x1F00, 0x2000, "Greek"), (0x3041, 0x3100, "Kana"),
    (0x3131, 0x318F, "Hangul"), (0x31F0, 0x3200, "Kana"), (0x3400, 0x4DC0, "Han"), (0x4E00, 0xA000, "Han"),
    (0xAC00, 0xD7A4, "Hangul"), (0xF900, 0xFB00, "Han"), (0xFB1D, 0xFB50, "Hebrew"), (0xFB50, 0xFDD0, "Arabic"),
    (0xFE70, 0xFEFF, "Arabic"), (0xFF21, 0xFF3B, "Latin"), (0xFF41, 0xFF5B, "Latin"), (0xFF66, 0xFF9E, "Kana"),
    (0x20000, 0x323B0, "Han"),
)  # fmt: skip
SCRIPTS: tuple[str, ...] = tuple(dict.fromkeys(name for _, _, name in _BLOCKS))

_EDGES = np.array([edge for first, end, _ in _BLOCKS for edge in (first, end)])
_NOTHING = len(SCRIPTS)
_SCRIPT_AT = np.full(len(_EDGES) + 1, _NOTHING)  # between two edges: inside a block, or between blocks
_SCRIPT_AT[1::2] = [SCRIPTS.index(name) for _, _, name in _BLOCKS]
_TABLE = _SCRIPT_AT[np.searchsorted(_EDGES, np.arange(0x10000), side="right")].astype(np.uint8)


def count_scripts(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Letters of each script in each text [N, len(SCRIPTS)]."""
    counts = np.zeros((len(texts), len(SCRIPTS)), dtype=np.int64)
    if not texts:
        return counts
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    script = _TABLE[np.minimum(codes, 0xFFFF)]
    rare = np.flatnonzero(codes > 0xFFFF)
    script[rare] = _SCRIPT_AT[np.searchsorted(_EDGES, codes[rare], side="right")]
    text = np.repeat(np.arange(len(texts)), [len(one) for one in texts])
    letters = script != _NOTHING
    flat = text[letters] * len(SCRIPTS) + script[letters]
    return np.bincount(flat, minlength=counts.size).reshape(counts.shape)
