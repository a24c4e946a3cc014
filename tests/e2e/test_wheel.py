"""The built wheel, installed beside the checkout's dependencies but outside the checkout, works on its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_SOURCE = shutil.ignore_patterns("__pycache__")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def call(*command: object, cwd: Path) -> str:
    """Standard output of a command; its whole output in the failure."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run a program of a fresh environment that holds the wheel, in an empty folder."""
    folder = tmp_path_factory.mktemp("wheel")
    # A copy: building in the checkout would leave build/ and egg-info behind, and would read what is left there.
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src" / "tunesmith", source / "src" / "tunesmith", ignore=NOT_SOURCE)
    call(sys.executable, "-m", "build", "--wheel", "--outdir", folder / "dist", source, cwd=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    environment = folder / "venv"
    call(sys.executable, "-m", "venv", environment, cwd=folder)
    python = environment / "bin" / "python"
    call(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    site = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    # The dependencies come from the environment that runs the tests. Its editable install of the package is a .pth
    # file, and those of an added folder are not followed.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    empty = folder / "empty"
    empty.mkdir()
    return lambda program, *words: call(environment / "bin" / program, *words, cwd=empty)


def test_package_comes_from_the_wheel(installed: Callable[..., str]) -> None:
    where = installed("python", "-c", "import tunesmith; print(tunesmith.__file__)")
    assert "venv" in Path(where.strip()).parts
    assert not where.startswith(str(ROOT))


def test_verbs_run(installed: Callable[..., str]) -> None:
    from tunesmith import __version__

    assert __version__ in installed("tunesmith", "version")
    assert "E-DEMO-001" in installed("tunesmith", "explain", "E-DEMO-001")
    assert "train" in installed("tunesmith", "--help")


def test_catalog_is_inside(installed: Callable[..., str]) -> None:
    """Every data file of the package in the checkout is in the wheel."""
    program = (
        "import pathlib, tunesmith; base = pathlib.Path(tunesmith.__file__).parent;"
        "print('\\n'.join(str(p.relative_to(base)) for p in base.rglob('*') if p.is_file()))"
    )
    there = set(installed("python", "-c", program).splitlines())
    base = ROOT / "src" / "tunesmith"
    files = (path.relative_to(base) for path in base.rglob("*") if path.is_file())
    wanted = {str(path) for path in files if "__pycache__" not in path.parts}
    assert sorted(wanted - there) == []


def test_python_api_is_there(installed: Callable[..., str]) -> None:
    assert "train" in installed("python", "-c", "import tunesmith; print(tunesmith.__all__, tunesmith.load_config)")
