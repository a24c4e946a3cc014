"""What is left of a folder when the power goes: what was synced, and of the rest as much as the model says.

A journal (shim.py) is replayed on a model of a disk. A file has bytes that are safe since its last sync; a folder has
names that are safe since its own. Everything else waits in a queue that a cut throws away (`NOTHING`), or of which
all names but no bytes were written (`NAMES`: file systems that write names early), or any part (`SOME`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tests.faults.shim import Point

__all__ = ["MODELS", "Disk"]

MODELS = ("nothing", "names", "some")


@dataclass(eq=False, slots=True)
class _File:
    inode: int
    size: int = 0
    safe: int = 0


@dataclass(eq=False, slots=True)
class _Folder:
    now: dict[str, _Node] = field(default_factory=dict)
    safe: dict[str, _Node] = field(default_factory=dict)


_Node = _File | _Folder
_Change = list[tuple[_Folder, str, _Node | None]]


class Disk:
    """`root` was empty when the journal began."""

    def __init__(self, root: Path, journal: list[Point]) -> None:
        self._root_path = root
        self._root = _Folder()
        self._files: dict[int, _File] = {}
        self._waiting: list[_Change] = []
        for point in journal:
            self._replay(point)

    def after_the_cut(self, kept: Path, target: Path, model: str, seed: str) -> None:
        """Write into `target` what the model leaves. `kept` holds each file by its inode, with all bytes."""
        chance = random.Random(seed)
        for change in self._waiting:
            if model == "names" or (model == "some" and chance.random() < 0.5):
                _apply(change, "safe")
        self._write(self._root, kept, target, chance if model == "some" else None)

    def _write(self, folder: _Folder, kept: Path, target: Path, chance: random.Random | None) -> None:
        target.mkdir(parents=True, exist_ok=True)
        for name, node in sorted(folder.safe.items()):
            if isinstance(node, _Folder):
                self._write(node, kept, target / name, chance)
                continue
            data = (kept / str(node.inode)).read_bytes()
            more = max(len(data) - node.safe, 0)
            (target / name).write_bytes(data[: node.safe + (chance.randint(0, more) if chance else 0)])

    # ---- replaying ----

    def _replay(self, point: Point) -> None:
        if point.call in {"open", "truncate", "write", "sync"}:
            self._on_file(point)
        elif point.call == "mkdir":
            self._change(self._entry(point.path, _Folder()))
        elif point.call in {"unlink", "rmdir"}:
            self._change(self._entry(point.path, None))
        elif point.call == "rename":
            node = self._files.get(point.inode) or self._find(point.path)
            assert node is not None, point
            self._change([*self._entry(point.path, None), *self._entry(point.other, node)])
        else:
            raise AssertionError(f"the model knows no {point.call}")

    def _on_file(self, point: Point) -> None:
        path = point.path.removesuffix(" (deleted)")
        folder = self._find(path)
        if isinstance(folder, _Folder):
            assert point.call == "sync", point
            self._sync(folder)
            return
        file = self._files.setdefault(point.inode, _File(point.inode))
        if folder is not file and path == point.path:
            self._change(self._entry(path, file, moved=True))
        file.size = point.size
        if point.call == "sync":
            file.safe = point.size
        elif point.call == "truncate":
            file.safe = min(file.safe, point.size)

    def _sync(self, folder: _Folder) -> None:
        """The names of a folder are safe, with what went before for the same names: a rename out of another folder
        takes a name away there that may have waited too."""
        safe: list[_Change] = []
        names: set[tuple[int, str]] = set()
        for change in reversed(self._waiting):
            own = {(id(one), name) for one, name, _ in change}
            if own & names or any(one is folder for one, _, _ in change):
                names |= own
                safe.insert(0, change)
        for change in safe:
            _apply(change, "safe")
        self._waiting = [change for change in self._waiting if not any(change is one for one in safe)]

    def _entry(self, path: str, node: _Node | None, moved: bool = False) -> _Change:
        """`node` under this name. Some libraries rename by calls that the shim cannot see: `moved` takes the name away
        that it had beside."""
        folder = self._find(str(PurePosixPath(path).parent))
        assert isinstance(folder, _Folder), f"no folder for {path}"
        name = PurePosixPath(path).name
        others = [other for other, found in folder.now.items() if moved and found is node and other != name]
        return [*((folder, other, None) for other in others), (folder, name, node)]

    def _find(self, path: str) -> _Node | None:
        node: _Node | None = self._root
        for part in PurePosixPath(path).relative_to(self._root_path).parts:
            node = node.now.get(part) if isinstance(node, _Folder) else None
        return node

    def _change(self, change: _Change) -> None:
        _apply(change, "now")
        self._waiting.append(change)


def _apply(change: _Change, which: str) -> None:
    for folder, name, node in change:
        names: dict[str, _Node] = getattr(folder, which)
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node
