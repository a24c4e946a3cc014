"""The built wheel, installed beside the checkout's dependencies but outside the checkout, works on its own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
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
    # A copy of what is committed or could be: building in the checkout would leave build/ and egg-info behind.
    source = folder / "source"
    call("git", "-c", f"safe.directory={ROOT}", "clone", "--quiet", "--no-hardlinks", ROOT, source, cwd=folder)
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
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "src/tunesmith"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    wanted = {name.removeprefix("src/tunesmith/") for name in tracked.stdout.split("\0") if name}
    assert sorted(wanted - there) == []


def test_a_config_is_checked(installed: Callable[..., str]) -> None:
    program = "import tunesmith; print(sorted(tunesmith.__all__))"
    assert "train" in installed("python", "-c", program)
