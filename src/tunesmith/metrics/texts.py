"""How close predictions are to what was expected: exact match, accuracy, BLEU and ROUGE, each with a 95 % interval.

BLEU is sacreBLEU's (arXiv 1804.08771), with its signature. ROUGE (Lin 2004) is computed here: rouge-score's numbers on
English without stemming, and words of any language otherwise. Shares have Wilson's interval, the others one from 1,000
draws of rows; with one seed the same rows are drawn for every figure and every run over the same rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from tunesmith.core.log import get_logger
from tunesmith.metrics.intervals import bootstrap, wilson

__all__ = ["BLEU_TOKENIZERS", "HINT", "Language", "language_of", "lcs", "score_texts", "words_of"]

Language: TypeAlias = Literal["zh", "ja", "ko", "other"]
HINT = "pip install 'tunesmith[metrics]'"

# Tokenisers of sacreBLEU by language: those that need no package of their own.
BLEU_TOKENIZERS: dict[Language, str] = {"zh": "zh", "ja": "char", "ko": "char", "other": "13a"}
_HAN, _KANA, _HANGUL = (
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af",
    "\u3040-\u30ff\uff66-\uff9f",
    "\uac00-\ud7af\u1100-\u11ff",
)
_SCRIPTS = {"han": re.compile(f"[{_HAN}]"), "kana": re.compile(f"[{_KANA}]"), "hangul": re.compile(f"[{_HANGUL}]")}
_WORDS = re.compile(rf"[{_HAN}{_KANA}{_HANGUL}]|[^\W_{_HAN}{_KANA}{_HANGUL}]+")
_ORDERS = (1, 2)

Floats: TypeAlias = npt.NDArray[np.float64]


def score_texts(predictions: Sequence[str], labels: Sequence[str], seed: int) -> dict[str, Any]:
    """Figures by name, with `_low` and `_high` for the ends of their intervals. `exact_match` and `accuracy` are
    shares; BLEU and ROUGE are in percent, under the names that LlamaFactory has for them.

    Without sacrebleu BLEU is left out, and a warning says so.
    """
    pairs = list(zip(predictions, labels, strict=True))
    if not pairs:
        return {}
    found: dict[str, Any] = {
        **_share("exact_match", [one == other for one, other in pairs]),
        **_share("accuracy", [_plain(one) == _plain(other) for one, other in pairs]),
    }
    rouge = np.array([_rouge(*pair) for pair in pairs])
    for column, name in enumerate((*(f"rouge-{order}" for order in _ORDERS), "rouge-l")):
        found |= _figure(name, rouge[:, [column]], lambda sums: 100 * sums[:, 0] / len(pairs), seed)
    return found | _bleu(predictions, labels, seed)


def language_of(texts: Sequence[str]) -> Language:
    """What most of the letters say: `other` where less than a fifth are Han, kana or hangul; ja where a tenth of those
    are kana, ko where most are hangul."""
    whole = "".join(texts)
    counts = {name: len(pattern.findall(whole)) for name, pattern in _SCRIPTS.items()}
    eastern, letters = sum(counts.values()), sum(map(str.isalpha, whole))
    if not eastern or eastern < 0.2 * letters:
        return "other"
    if counts["hangul"] > eastern / 2:
        return "ko"
    return "ja" if counts["kana"] >= eastern / 10 else "zh"


def words_of(text: str) -> list[str]:
    """What ROUGE compares, in lower case: words, and each Han, kana or hangul character by itself."""
    return _WORDS.findall(text.lower())


def _plain(text: str) -> str:
    return text.strip().casefold()


def _share(name: str, marks: Sequence[bool]) -> dict[str, float]:
    low, high = wilson(sum(marks), len(marks))
    return {name: sum(marks) / len(marks), f"{name}_low": low, f"{name}_high": high}


def _figure(name: str, rows: Floats, figure: Callable[[Floats], Floats], seed: int) -> dict[str, float]:
    """A figure of sums over rows [N, K] of what each adds."""
    low, high = bootstrap(rows, figure, seed=seed)
    return {name: float(figure(rows.sum(axis=0, keepdims=True))[0]), f"{name}_low": low, f"{name}_high": high}


# ---- ROUGE ----


def _rouge(prediction: str, label: str) -> list[float]:
    """F1 of words, of pairs of words, and of the longest common subsequence."""
    one, other = words_of(prediction), words_of(label)
    found = []
    for order in _ORDERS:
        grams = [Counter(zip(*(words[start:] for start in range(order)), strict=False)) for words in (one, other)]
        found.append(_f1((grams[0] & grams[1]).total(), grams[0].total(), grams[1].total()))
    return [*found, _f1(lcs(one, other), len(one), len(other))]


def _f1(common: int, one: int, other: int) -> float:
    return 2 * common / (one + other) if common else 0.0


def lcs(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence, a row of the table at a time in the bits of one number (Hyyrö 2004,
    "Bit-parallel LCS-length computation revisited")."""
    places: dict[str, int] = {}
    for number, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << number
    row = whole = (1 << len(one)) - 1
    for word in other:
        hits = row & places.get(word, 0)
        row = (row + hits | row - hits) & whole
    return len(one) - row.bit_count()


# ---- BLEU ----


@dataclass(frozen=True, slots=True)
class _Sums:
    """How BLEU is computed of sums over rows: matches and counts of n-grams, lengths of both sides [.., 10]."""

    compute: Callable[..., Any]

    def __call__(self, sums: Floats) -> Floats:
        found = []
        for row in sums:
            counts = [int(value) for value in row]
            found.append(self.compute(counts[:4], counts[4:8], counts[8], counts[9], smooth_method="exp").score)
        return np.array(found)


def _bleu(predictions: Sequence[str], labels: Sequence[str], seed: int) -> dict[str, Any]:
    try:
        from sacrebleu.metrics import BLEU
    except ImportError:
        get_logger().warning("bleu-4 is left out: sacrebleu is not installed: %s", HINT)
        return {}
    metric = BLEU(tokenize=BLEU_TOKENIZERS[language_of(labels)])
    rows = []
    for prediction, label in zip(predictions, labels, strict=True):
        score = metric.corpus_score([prediction], [[label]])
        rows.append([*score.counts, *score.totals, score.sys_len, score.ref_len])
    figures: dict[str, Any] = _figure("bleu-4", np.array(rows, dtype=np.float64), _Sums(BLEU.compute_bleu), seed)
    return figures | {"bleu_signature": str(metric.get_signature())}
