"""Letters by script."""

from __future__ import annotations

import unicodedata

import pytest

from tunesmith.data.lint.scripts import SCRIPTS, count_scripts


def counted(text: str) -> dict[str, int]:
    return {name: int(n) for name, n in zip(SCRIPTS, count_scripts([text])[0], strict=True) if n}


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Straße", "Latin"), ("Привет", "Cyrillic"), ("Ωραία", "Greek"), ("你好", "Han"), ("こんにちは", "Kana"),
        ("안녕", "Hangul"), ("مرحبا", "Arabic"), ("שלום", "Hebrew"), ("नमस्ते", "Devanagari"), ("สวัสดี", "Thai"),
        ("𠮷𠀀", "Han"),
    ],
)  # fmt: skip
def test_words_of_one_script(text: str, script: str) -> None:
    assert counted(text) == {script: len(text)}


def test_signs_and_digits_belong_to_no_script() -> None:
    assert counted("1 + 2 = 3, (é)!? — 。🜂") == {"Latin": 1}


def test_texts_are_counted_apart() -> None:
    counts = count_scripts(["ab", "", "я1"])
    assert counts.sum(axis=1).tolist() == [2, 0, 1]
    assert count_scripts([]).shape == (0, len(SCRIPTS))


def test_the_table_agrees_with_the_names_of_unicode() -> None:
    """For every letter of the scripts whose name tells them."""
    wrong = []
    for script in ("Latin", "Greek", "Cyrillic", "Armenian", "Georgian", "Thai", "Tamil"):
        for code in range(0x250):
            name = unicodedata.name(chr(code), "")
            if name.startswith(script.upper()) and "LETTER" in name and counted(chr(code)) != {script: 1}:
                wrong.append(name)
    assert wrong == []
