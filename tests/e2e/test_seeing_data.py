"""Verbs that read data, on rows with pictures and a model that sees, through the command line."""

from __future__ import annotations

import json

import pytest

from tests.seeing import colour_rows, seeing_model
from tunesmith.__main__ import main

ROWS, PATCHES = 8, 16


@pytest.fixture(scope="module")
def seeing(tmp_path_factory, stories):
    folder = tmp_path_factory.mktemp("seeing")
    return seeing_model(folder / "model", stories), colour_rows(folder / "data", ROWS)


@pytest.fixture
def run(seeing, capsys):
    keys = ["--model_name_or_path", str(seeing[0]), "--dataset", str(seeing[1])]

    def call(*words):
        code = main([*words[:2], *keys, *words[2:]])
        return code, capsys.readouterr().out

    return call


def test_preview_shows_media_in_all_its_forms(run, tmp_path):
    code, text = run("data", "preview", "--rows", "1", "--html", str(tmp_path / "rows.html"), "--json")
    assert code == 0
    (row,) = json.loads(text)["rows"]
    assert [(one["tokens"], one["width"]) for one in row["media"]] == [(PATCHES, 32)]
    assert (row["parts"][0]["text"], row["parts"][0]["why"]) == ("[image 16 tokens]", "media")
    assert (tmp_path / "rows.html").read_text().count('src="data:image/png;base64,') == 1
    assert "<image>" not in run("data", "preview")[1], "no placeholder a hundred times"


def test_check_tells_the_media_and_draws_those_of_findings(run, seeing, tmp_path):
    rows = json.loads(seeing[1].read_text())
    (twice := seeing[1].with_name("twice.json")).write_text(json.dumps([*rows, rows[0]]))
    code, text = run("data", "check", f"dataset={twice}", "--html", str(tmp_path / "check.html"))
    assert code == 0
    assert f"9 images (8 different), 32 x 32 pixels, {9 * PATCHES} tokens" in text
    page = (tmp_path / "check.html").read_text()
    assert page.count('src="data:image/png;base64,') == 1, "of the copied row"
    rows[1]["images"] = ["gone.png"]
    (bad := seeing[1].with_name("bad.json")).write_text(json.dumps(rows))
    code, text = run("data", "check", f"dataset={bad}", "--json")
    assert code == 65
    (finding,) = [one for one in json.loads(text)["findings"] if one["severity"] == "error"]
    assert (finding["code"], finding["kinds"]) == ("E-MEDIA-010", {"gone.png": 1})


def test_templates_are_checked_and_shown_with_media(seeing, capsys):
    model, rows = map(str, seeing)
    assert main(["template", "render", "--model", model, "--data", rows, "--rows", "1"]) == 0
    assert "[<image> 16 times]The color is⟦ red<s>⟧" in capsys.readouterr().out
    main(["template", "check", "--model", model, "--data", rows])
    assert f"masks: {ROWS} of {ROWS} equal, 0 different" in capsys.readouterr().out
