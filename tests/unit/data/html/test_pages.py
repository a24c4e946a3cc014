"""The pages: one file, nothing foreign, no script; what rows hold is text, and their secrets are hidden."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import numpy as np
import pytest

from tunesmith.config.data import DataConfig
from tunesmith.core.types import Origin
from tunesmith.data.html.charts import histogram_svg
from tunesmith.data.html.check_page import check_page
from tunesmith.data.html.page import escape, page
from tunesmith.data.html.preview_page import preview_page
from tunesmith.data.html.strip import strip
from tunesmith.data.lint.run import lint
from tunesmith.data.lint.statistics import Lengths, histogram
from tunesmith.data.preview import Piece, Preview, PreviewRow, preview_rows

KEY = "hf_" + "aB3" * 12
HOSTILE = [
    "<script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' autofocus onfocus='alert(1)",
    "]]><svg onload=alert(1)>",
    "<!-- --><iframe src=javascript:alert(1)>",
    "&lt;script&gt; &amp; {{7*7}} ${7*7}",
    "\u202egnp.exe \x1b[2J \0 \u2066",
]
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "div", "span", "section", "details"),
    *("summary", "table", "tr", "th", "td", "code", "b", "svg", "rect", "line", "text"),
    *("figure", "figcaption", "img", "br"),
}
VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Parses a page as a browser would, and keeps its tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.values: list[str] = []
        self.sources: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.values += [value for _, value in attrs if value]
        self.sources += [value or "" for name, value in attrs if name == "src"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)


def read(text: str) -> Reader:
    found = Reader(text)
    assert found.open == []
    assert found.tags <= TAGS
    assert not {name for name in found.attributes if name.startswith("on") or name in ("style", "href")}
    assert all(source.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) for source in found.sources)
    assert not re.search(r"https?://|url\(|@import", text)
    return found


def decode(ids) -> str:
    return bytes(ids).decode("utf-8", "replace")


@pytest.fixture
def hostile(write, renderer):
    """A file whose rows are hostile in every place that a page shows, and the page of its check."""
    rows = [{"instruction": f"{evil} {KEY}", "output": f"{evil} jane@university.edu \ufffd"} for evil in HOSTILE]
    name = write("<b>x.jsonl", [*rows, rows[0], {"instruction": HOSTILE[0], "output": 7}])
    found = lint(DataConfig(dataset=(name,), cutoff_len=60), stage="sft", renderer=renderer)
    strips = {number: list(preview_rows(renderer, decode, [example], 60)) for number, example in found.examples.items()}
    return found, check_page(found.report, name, strips, {})


def test_hostile_rows_are_text(hostile) -> None:
    found, text = hostile
    reader = read(text)
    assert "script" not in reader.tags
    shown = "".join(reader.texts)
    assert HOSTILE[0] in shown
    assert HOSTILE[2] in shown
    assert "<b>x.jsonl" in shown
    assert {one.code for one in found.report.findings} >= {"E-DATA-014", "E-LINT-018", "E-LINT-020", "E-LINT-007"}
    assert "\0" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_secrets_are_hidden_in_the_strips_too(hostile) -> None:
    _, text = hostile
    reader = read(text)
    shown = "".join(reader.texts)
    assert 'class="strip"' in text
    assert KEY[:12] not in shown
    assert "jane" not in shown
    assert "•" in shown
    assert "hidden · " in "".join(reader.values)
    ids = [int(match) for value in reader.values for match in re.findall(r"^id (\d+) ·", value)]
    assert KEY not in bytes(one for one in ids if one < 256).decode("latin-1")


def test_the_policy_allows_this_style_and_nothing_else(hostile) -> None:
    _, text = hostile
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'")
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_a_report_of_nothing_is_a_page(write) -> None:
    name = write("x.jsonl", [{"instruction": "Hello", "output": "Good day."}])
    text = check_page(lint(DataConfig(dataset=(name,)), stage="sft").report, "run.yaml", {}, {})
    reader = read(text)
    assert "Nothing was found." in reader.texts
    assert any("names no model" in told for told in reader.texts)


def test_preview_shows_tokens_with_reason_weight_and_what_is_cut() -> None:
    pieces = (
        Piece("Hi\n", (5,), False, why="prompt"),
        Piece("Yo", (6, 7), True, weight=0.5),
        Piece("</s>", (2,), True),
    )
    row = PreviewRow(
        3,
        Origin("x.jsonl", 3, 4),
        pieces,
        4,
        3,
        "cut at cutoff_len: 1",
        label="chosen",
        lost=(Piece("!", (9,), False, why="cut"),),
    )
    text = preview_page(Preview([row], 9, [], []), "run.yaml", ["shown: 1 of 9 rows"], {})
    read(text)
    assert '<span class="prompt" title="id 5 · not trained: a message of the user">Hi↵\n</span>' in text
    assert '<span class="trained weighted" title="id 6, 7 · trained, weight 0.5">Yo</span>' in text
    assert '<span class="trained" title="id 2 · trained, weight 1">&lt;/s&gt;</span>' in text
    assert '<span class="cut" title="id 9 · not trained: behind cutoff_len">!</span>' in text
    assert "<b>chosen: </b>4 tokens, 3 trained" in text


def test_hidden_ranges_cover_every_piece_that_they_touch() -> None:
    pieces = [Piece("abc", (1,), True), Piece("def", (2,), True), Piece("ghi", (3,), True)]
    text = strip(pieces, [(2, 4)])
    assert "abc" not in text
    assert "def" not in text
    assert "ghi" in text
    assert "id 1" not in text


def test_escape_takes_anything() -> None:
    assert escape("\ud800\x9b\u202e\t\n<&\"'") == "\ufffd\ufffd\\u202e\t\n&lt;&amp;&quot;&#x27;"
    page("\ud800", ["<p></p>"]).encode("utf-8")


def test_a_histogram_shows_every_bar_and_the_cutoff() -> None:
    values = np.array([1, 1, 50, 99])
    edges, counts = histogram(values)
    lengths = Lengths("tokens", 1, 25, 99, 99, edges, counts)
    svg = histogram_svg(lengths, 50)
    assert svg.count('<rect class="bar"') == 3
    assert "0 to 4 tokens: 2 rows" in svg
    assert "cutoff_len 50" in svg
    assert "cutoff_len" not in histogram_svg(lengths, 5000)
    assert histogram_svg(Lengths("tokens")) == ""
