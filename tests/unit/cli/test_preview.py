"""Samples with marks, in colour and as JSON."""

from __future__ import annotations

from dataclasses import replace

from tunesmith.cli.preview import as_dict, coloured, head, legend, marked, parts, summary, token_lines, totals
from tunesmith.core.types import Origin
from tunesmith.data.preview import Piece, Preview, PreviewRow
from tunesmith.data.report import DatasetReport


def row(*pieces: tuple[str, bool], **changes) -> PreviewRow:
    tokens = tuple(Piece(text, (index,), trained) for index, (text, trained) in enumerate(pieces))
    trained = sum(piece.trained for piece in tokens)
    return PreviewRow(
        **{"number": 0, "origin": Origin("x.jsonl", 0, 1), "note": None} | changes,
        pieces=tokens,
        tokens=len(tokens),
        trained=trained,
    )


CHAT = row(("Hi", False), (" you", False), (" Hel", True), ("lo</s>", True), ("\n", False))


def test_pieces_of_one_kind_are_one_part() -> None:
    assert list(parts(CHAT)) == [("Hi you", False), (" Hello</s>", True), ("\n", False)]
    assert marked(CHAT) == "Hi you⟦ Hello</s>⟧\n"


def test_the_head_names_place_and_counts() -> None:
    assert head(CHAT) == "row 0: x.jsonl:1, 5 tokens, 2 trained"
    assert head(row(number=3, sample=1, samples=2)).startswith("row 3 (sample 1 of 2): ")
    assert head(row(note="cut at cutoff_len")).endswith("\n  cut at cutoff_len")


def test_colour_marks_the_same_characters() -> None:
    text = coloured(row(("[bold]Hi", False), (" Hello", True)))
    assert text.plain == "[bold]Hi Hello"
    (trained,) = [span for span in text.spans if "green" in str(span.style)]
    assert text.plain[trained.start : trained.end] == " Hello"


def test_colours_tell_why_a_part_is_not_trained() -> None:
    pieces = (
        Piece("<|user|>", (1,), False, why="template"),
        Piece("Hi", (2,), False, why="prompt"),
        Piece("Hello", (3,), True),
    )
    mixed = row()
    mixed = replace(mixed, pieces=pieces)
    styles = [str(span.style) for span in coloured(mixed).spans]
    assert styles == ["dim", "cyan", "bold green"]
    assert legend([mixed]).plain == "trained   not trained: prompt template"


def test_a_line_per_token() -> None:
    pieces = (
        Piece("Hi\n", (1,), False, why="prompt"),
        Piece("🜂", (7, 8), True, weight=0.5),
        Piece("</s>", (2,), True),
    )
    lost = (Piece("end", (9,), False, why="cut"),)
    assert [line.split(maxsplit=1) for line in token_lines(replace(row(), pieces=pieces, lost=lost))] == [
        ["1", "Hi\\n" + " " * 38 + "prompt"],
        ["7", "8  🜂" + " " * 41 + "trained, weight 0.5"],
        ["2", "</s>" + " " * 38 + "trained"],
        ["9", "end" + " " * 39 + "cut"],
    ]


def test_parts_of_other_weights_and_reasons_stand_apart() -> None:
    pieces = (Piece("a", (1,), True, weight=2.0), Piece("b", (2,), True), Piece("c", (3,), False, why="weight"))
    plain = as_dict(Preview([replace(row(label="chosen"), pieces=pieces)], 1, [], []), None)
    assert plain["rows"][0]["label"] == "chosen"
    assert [(part["text"], part["weight"], part["why"]) for part in plain["rows"][0]["parts"]] == [
        ("a", 2.0, None),
        ("b", 1.0, None),
        ("c", 1.0, "weight"),
    ]
    assert head(row(label="chosen")).startswith("row 0, chosen: ")


def test_data_cannot_steer_the_terminal() -> None:
    forged = row(("\x1b]0;title\x07\tkept\n\r\x9b1m\x7f", False))
    assert marked(forged) == coloured(forged).plain == "␛]0;title␇\tkept\n␍\ufffd1m␡"


def test_counts_are_of_what_is_shown_and_kept() -> None:
    report = DatasetReport("x", "train", rows=9)
    report.drop("no answer", Origin("x.jsonl", 7, 8))
    lost = row(("a", True), number=1, note="dropped: too long", dropped=True)
    again = row(("b", True), sample=2, samples=2)
    found = Preview([CHAT, again, lost], 8, [report], ["x: read as alpaca"])
    assert totals(found.rows) == {"rows": 2, "samples": 2, "tokens": 6, "trained": 3, "media": 0, "media_tokens": 0}
    assert summary(found, "auto") == [
        "shown: 2 of 8 rows, 6 tokens, 3 trained",
        "template: auto",
        "x: 9 rows",
        "  dropped 1: no answer (first: x.jsonl:8)",
        "note: x: read as alpaca",
    ]
    plain = as_dict(found, "auto")
    assert plain["shown"] == totals(found.rows)
    assert plain["datasets"] == [{"name": "x", "use": "train", "rows": 9, "dropped": {"no answer": 1}}]
    assert plain["rows"][0]["parts"][1] == {"text": " Hello</s>", "trained": True, "why": None, "weight": 1.0}
