"""What the documents say about the code is so: folders, layers, paths, links, targets, codes, numbers."""

from __future__ import annotations

import json
import re
import runpy
import tomllib
from pathlib import Path

import pytest
import yaml

from tunesmith.cli.explain import find
from tunesmith.render.slot_files import parse_slots

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "tunesmith"
PAGES = [
    ROOT / name
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "examples/README.md",
        "docs/architecture.md",
        "docs/optimizers.md",
        "docs/runs.md",
        "docs/serving.md",
        "docs/quantization.md",
    )
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def section(number: int) -> str:
    """A numbered section of the architecture."""
    match = re.search(rf"^## {number}\. .*?(?=^## |\Z)", ARCHITECTURE, re.MULTILINE | re.DOTALL)
    assert match
    return match[0]


def folders(of: Path) -> set[str]:
    return {path.name for path in of.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def test_the_tree_is_that_of_the_folders() -> None:
    tree = FENCE.search(section(3))
    assert tree
    named = dict(re.findall(r"^  (\w+)(?:/|\.py) +(.*)$", tree[2], re.MULTILINE))
    modules = {path.stem for path in PACKAGE.glob("*.py") if not path.name.startswith("_")}
    assert set(named) == folders(PACKAGE) | modules
    top = dict(re.findall(r"^(\w+)/ +(.*)$", tree[2], re.MULTILINE))
    assert {"tests", "bench", "scripts", "examples"} == set(top)
    assert set(re.findall(r"(\w+)/", top["tests"])) == folders(ROOT / "tests")


def test_the_layers_are_those_of_the_contract() -> None:
    """The page lists what exists, in the order of the contract, which also knows folders that are still to come."""
    page = FENCE.search(section(4))
    assert page
    told = [set(re.findall(r"[\w.]+", line.split("  ")[0])) for line in page[2].splitlines()]
    contract = []
    for line in PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]:
        names = set(re.findall(r"tunesmith\.([\w.]+)", line))
        paths = {name: PACKAGE.joinpath(*name.split(".")) for name in names}
        there = {name for name, path in paths.items() if path.is_dir() or path.with_suffix(".py").is_file()}
        if there:
            # The modules of train, but for the run, share a layer, and the page does not list them.
            contract.append({"train" if name.startswith("train.") and name != "train.run" else name for name in there})
    assert told == contract


def test_the_dependencies_are_those_of_the_package() -> None:
    told = set(re.findall(r"[\w-]+", section(13).split("\n", 1)[1].split(". ")[0].lower()))
    assert told == {re.split(r"[<>=]", name)[0].lower() for name in PROJECT["project"]["dependencies"]}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = prose(page)
    links = [link.split("#")[0] for link in re.findall(r"\]\((?!https?://)([^)]+)\)", text)]
    assert [link for link in links if not (page.parent / link).exists()] == []
    quoted = [word for word in re.findall(r"`([^`\s]+)`", text) if re.fullmatch(r"[\w.-]+(/[\w.*-]+)*/?", word)]
    paths = [word for word in quoted if "/" in word]
    missing = [path for path in paths if not any(list(base.glob(path.rstrip("/"))) for base in (ROOT, PACKAGE))]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_codes_that_can_be_explained_and_targets_that_can_be_made(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for code in re.findall(r"tunesmith explain (E-[A-Z]+-\d+)", text):
        assert find(code)[0] == code
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)
    assert set(named) <= set(targets)


def test_numbers_of_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    demo = PACKAGE / "catalog" / "demo"
    rows = (demo / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert re.findall(r"([\d,]+) rows about", text) == [f"{len(rows):,}"]
    questions = json.loads((demo / "questions.json").read_text(encoding="utf-8"))
    assert len(questions) == 3
    needs = PROJECT["project"]
    (python,) = re.findall(r"Python ([\d.]+) or newer", text)
    (torch,) = re.findall(r"torch ([\d.]+) and newer", text)
    (extras,) = re.findall(r'"\.\[([\w,]+)\]"', text)
    assert needs["requires-python"] == f">={python}"
    assert f"torch>={torch}" in needs["dependencies"]
    assert set(extras.split(",")) <= set(needs["optional-dependencies"])


def test_limits_of_the_code_are_told_as_they_are_enforced() -> None:
    enforced = (ROOT / "tests" / "unit" / "test_structure.py").read_text(encoding="utf-8")
    assert "MOST_LINES, MOST_FUNCTION_LINES = 500, 80" in enforced
    for page in ("CONTRIBUTING.md", "docs/architecture.md"):
        words = " ".join((ROOT / page).read_text(encoding="utf-8").split())
        assert re.search(r"files? over 500 lines(,| and) (no )?functions? over 80", words), page
    strict = {name.removeprefix("tunesmith.") for name in PROJECT["tool"]["mypy"]["packages"]}
    words = " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    assert set(re.findall(r"\w+", re.search(r"`mypy --strict` on ([\w, ]+), the import", words)[1])) - {"and"} == strict


def test_the_template_of_the_contributors_page_is_one() -> None:
    blocks = dict(FENCE.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    found = parse_slots("mine", yaml.safe_load(blocks["yaml"]))
    assert found


def test_the_table_of_flat_batches_is_that_of_the_lists() -> None:
    path = ROOT / "scripts" / "generate_flat_doc.py"
    script = runpy.run_path(str(path))
    text = script["TARGET"].read_text(encoding="utf-8")
    assert script["page"](text) == text, f"run: python {path.relative_to(ROOT)}"
    assert text.count("\n| as they are | ") == 1


def test_the_page_of_mixtures_of_depths_is_what_was_measured() -> None:
    path = ROOT / "scripts" / "generate_surgery_doc.py"
    script = runpy.run_path(str(path))
    text = script["TARGET"].read_text(encoding="utf-8")
    assert script["page"](text) == text, f"run: python {path.relative_to(ROOT)}"
    assert "| capacity 0.125 |" in text


def test_the_tables_of_optimizers_are_those_of_the_config() -> None:
    path = ROOT / "scripts" / "generate_optimizers_doc.py"
    script = runpy.run_path(str(path))
    text = script["TARGET"].read_text(encoding="utf-8")
    assert script["page"](text) == text, f"run: python {path.relative_to(ROOT)}"
    assert "| `optim: soap` | Tunesmith | all |" in text
