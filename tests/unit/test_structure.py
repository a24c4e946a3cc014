"""The rules that keep the code readable and safe, checked on the source itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from tunesmith.core.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "tunesmith"
CODE = re.compile(r"E-[A-Z]+-\d{3}")
MOST_LINES, MOST_FUNCTION_LINES = 500, 80


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


SOURCE = python_files("src")
EVERYTHING = python_files("src", "tests", "scripts", "bench")
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in EVERYTHING}


def place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def nodes(paths: list[Path]) -> Iterator[tuple[Path, ast.AST]]:
    for path in paths:
        for node in ast.walk(TREES[path]):
            yield path, node


def dotted(node: ast.AST) -> str:
    """`a.b.c` as it is written; a part that is no name is left out."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imported(node: ast.AST) -> list[str]:
    """Full names that an import statement brings in: `from a.b import c` is a.b.c."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def at_module_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Statements that run when the module is imported: not in functions, not under `if TYPE_CHECKING`."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt))


def roots_imported(nodes_: Iterator[ast.AST]) -> set[str]:
    return {name.split(".")[0] for node in nodes_ for name in imported(node)}


def test_no_file_is_too_long() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in EVERYTHING}
    long = [f"{path.relative_to(ROOT)}: {lines}" for path, lines in lengths.items() if lines > MOST_LINES]
    assert not long, f"files over {MOST_LINES} lines: {long}"


def test_no_function_is_too_long() -> None:
    long = [
        f"{place(path, node)} {node.name}"
        for path, node in nodes(EVERYTHING)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > MOST_FUNCTION_LINES
    ]
    assert not long, f"functions over {MOST_FUNCTION_LINES} lines: {long}"


def test_every_module_and_folder_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in SOURCE
        if not ast.get_docstring(TREES[path]) and path.name not in {"_version.py", "__main__.py"}
    ]
    assert not silent, f"no module docstring: {silent}"


def test_error_codes_and_their_explanations_agree() -> None:
    used = {
        node.value
        for _, node in nodes(SOURCE)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value)
    }
    explained: dict[str, str] = {}
    for path in sorted((PACKAGE / "catalog" / "errors").glob("*.yaml")):
        written = re.findall(r"^E-[A-Z]+-\d+", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(written) == len(set(written)), f"{path.name} explains a code twice; YAML would keep the last"
        for code, entry in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            assert code not in explained, f"{code} is explained twice"
            assert code.split("-")[1].lower() == path.stem, f"{code} is in {path.name}"
            assert set(entry) == {"title", "exit", "text"}, f"{code} has {sorted(entry)}"
            explained[code] = path.name
    assert sorted(used - set(explained)) == [], "used in the source, not explained in catalog/errors"
    assert sorted(set(explained) - used) == [], "explained in catalog/errors, not used in the source"


def registries() -> list[tuple[str, str]]:
    """(module, name) of every registry of the package."""
    found = []
    for path in SOURCE:
        module = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
        for node in TREES[path].body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                if ast.unparse(node.value.func) == "Registry" and isinstance(target, ast.Name):
                    found.append((module, target.id))
    return found


@pytest.mark.parametrize(("module", "name"), registries())
def test_every_registry_entry_imports(module: str, name: str) -> None:
    registry = getattr(import_module(module), name)
    assert isinstance(registry, Registry)
    assert registry.names(), "an empty registry"
    for entry in registry:
        assert registry.get(entry) is not None


def test_environment_is_read_in_one_place() -> None:
    found = [
        place(path, node)
        for path, node in nodes(SOURCE)
        if isinstance(node, ast.Attribute)
        and ast.unparse(node) in {"os.environ", "os.getenv", "os.putenv"}
        and path != PACKAGE / "core" / "env.py"
    ]
    assert not found, f"environment variables outside core/env.py: {found}"


def test_nothing_runs_foreign_code() -> None:
    found = []
    # Tests may pickle: that a config survives the way to another process is worth a test. And there is a reader
    # of pickles that may make nothing but the classes of DCP's metadata: a subclass is the way to say so.
    may_pickle = {path for path in EVERYTHING if path.is_relative_to(ROOT / "tests")}
    may_pickle.add(PACKAGE / "models" / "quirks" / "dcp.py")
    for path, node in nodes(EVERYTHING):
        if isinstance(node, ast.Import | ast.ImportFrom):
            pickles = {"pickle", "cloudpickle", "dill", "marshal", "shelve"} & roots_imported(iter([node]))
            if pickles and path not in may_pickle:
                found.append(f"{place(path, node)} pickle")
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func)
        keywords = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
        if called in {"eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen"}:
            found.append(f"{place(path, node)} {called}")
        if keywords.get("shell") is True:
            found.append(f"{place(path, node)} shell=True")
        if called == "torch.load" and keywords.get("weights_only") is not True:
            found.append(f"{place(path, node)} bare torch.load")
    assert not found, found


def test_torchvision_and_torchaudio_are_never_imported_early() -> None:
    found = [path for path in SOURCE if {"torchvision", "torchaudio"} & roots_imported(at_module_level(TREES[path]))]
    assert not found


def test_trl_is_a_witness_of_tests_only() -> None:
    found = [place(path, node) for path, node in nodes(SOURCE) if "trl" in roots_imported(iter([node]))]
    assert not found


def test_light_folders_import_nothing_heavy_at_module_level() -> None:
    heavy = {"torch", "transformers", "peft", "datasets", "accelerate", "tokenizers", "pandas", "matplotlib"}
    light = ("cli", "core", "config", "catalog", "render")
    paths = [path for path in SOURCE if path.relative_to(PACKAGE).parts[0] in light or path.parent == PACKAGE]
    found = [f"{path.relative_to(ROOT)}" for path in paths if heavy & roots_imported(at_module_level(TREES[path]))]
    assert not found, f"heavy imports at module level: {found}"


def test_importing_the_light_folders_loads_no_training_stack() -> None:
    program = (
        "import sys, tunesmith, tunesmith.api, tunesmith.config, tunesmith.render, tunesmith.data, tunesmith.cli.main;"
        "print([name for name in ('torch', 'transformers', 'peft', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_foreign_private_names_stay_in_their_two_places() -> None:
    """Names with a leading underscore that the package itself does not define belong to a library underneath."""
    allowed = ("src/tunesmith/train/trainer.py", "src/tunesmith/models/quirks/")
    own = {"_exit"}  # of os: documented
    for _, node in nodes(SOURCE):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if ast.unparse(node.value) in {"self", "cls"}:
                own.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
    found = []
    for path, node in nodes(SOURCE):
        if str(path.relative_to(ROOT)).startswith(allowed):
            continue
        parts = [part for name in imported(node) for part in name.split(".") if not name.startswith("tunesmith")]
        if isinstance(node, ast.Attribute):
            parts.append(node.attr)
        foreign = [part for part in parts if part.startswith("_") and not part.startswith("__") and part not in own]
        found += [f"{place(path, node)} {part}" for part in foreign]
    assert not found, found


def test_import_contract_names_every_part_of_train() -> None:
    """A module of `train` that the contract does not name would be free to import anything."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    named = set(re.findall(r"tunesmith\.train\.(\w+)", str(settings["contracts"][0]["layers"])))
    present = {path.stem for path in (PACKAGE / "train").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert present - {"__init__", "__pycache__"} <= named


def test_import_contract_names_every_folder() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    named = set(re.findall(r"tunesmith\.(\w+)", str(settings["contracts"][0]["layers"])))
    present = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert present <= named


def committed_texts() -> Iterator[tuple[str, str]]:
    """(path, text) of the files under version control, or of all files where there is none."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = [name for name in done.stdout.split("\0") if name] or [str(path.relative_to(ROOT)) for path in EVERYTHING]
    for name in names:
        path = ROOT / name
        if path.suffix not in {".safetensors", ".png", ".woff2"} and path.is_file():
            yield name, path.read_text(encoding="utf-8", errors="replace")


def test_no_file_names_a_folder_of_one_machine() -> None:
    machine = re.compile(r"(?<![\w.<{-])/(?:" + "|".join(["work", "root", "Users/[a-z]+"]) + r")/\w")
    found = [name for name, text in committed_texts() if machine.search(text)]
    assert not found, f"paths of one machine in: {found}"


def test_source_does_not_read_the_test_assets() -> None:
    found = [name for name, text in committed_texts() if name.startswith("src/") and "../shared" in text]
    assert not found


def test_pinned_versions_are_plain() -> None:
    """The tested set is `name==version`: no build of one machine, no address, no local path."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin)] == []
    assert "torch==2.13.0" in pins
