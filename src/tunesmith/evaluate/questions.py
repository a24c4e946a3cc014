"""The questions of a benchmark: which files they are in, and what a row of them says.

Files are known by their names, in every layout that these benchmarks come in: `dev/anatomy_dev.csv`, `dev/anatomy.csv`,
`anatomy/dev-00000-of-00001.parquet`, all of it in a folder, in a zip file or in a repository of the hub. A row has a
question, four options (A to D, or a list `choices`) and an answer (a letter, or a number from 0); a CSV file without
a head has them in this order.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tunesmith.core.errors import DataError, MissingInputError, Problem
from tunesmith.core.types import Origin
from tunesmith.data.rows import Broken, parse
from tunesmith.data.sources.base import Blob, LocalFile, SourceFile
from tunesmith.data.sources.hub import open_files
from tunesmith.data.sources.kinds import kind_of
from tunesmith.data.sources.packed import MAGIC_LENGTH, unpacked
from tunesmith.evaluate.benchmarks import Benchmark, Subject
from tunesmith.hubs import HUB_NAMES, chosen_hub

__all__ = ["LETTERS", "Question", "Source", "read_subject", "source_of"]

LETTERS = "ABCD"
_SHARD = re.compile(r"-\d+-of-\d+$")
_HEAD = {"question", "answer"}


@dataclass(frozen=True, slots=True)
class Question:
    """`answer` is one of LETTERS."""

    text: str
    options: tuple[str, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where a benchmark is read from: `name` for messages, and the files that there are."""

    name: str
    blobs: Sequence[Blob]

    def of(self, subject: Subject, words: Sequence[str]) -> list[Blob]:
        """The files of a subject in a split, which `words` stand for."""
        return [blob for blob in self.blobs if _belongs(blob.name, subject.key, words)]


def source_of(benchmark: Benchmark, split: str, task_dir: str | None, *, offline: bool, again: bool) -> Source:
    """`task_dir`: a folder that holds the benchmark, or a folder of its name that does; None: the hub. `again`: what
    the hub's cache holds is fetched once more.

    Raises MissingInputError where no file is one of the benchmark's, and what the hub's errors are.
    """
    words = [*benchmark.splits[split], *benchmark.splits[benchmark.examples]]

    def wanted(name: str) -> bool:
        return any(_belongs(name, subject.key, words) for subject in benchmark.subjects)

    if task_dir is not None:
        folder = Path(task_dir).expanduser()
        folder = folder / benchmark.name if (folder / benchmark.name).is_dir() else folder
        source = Source(str(folder), _blobs(folder, wanted))
    elif (hub := chosen_hub()) != "hf":
        what = f"benchmarks are fetched from {HUB_NAMES['hf']} only"
        fix = f"name a folder with its files: task_dir, or unset the variable that asks for {HUB_NAMES[hub]}"
        raise MissingInputError(Problem("E-EVAL-002", what, "task_dir", fix=fix))
    else:
        blobs = open_files(benchmark.hub, lambda names: _choose(names, wanted), offline=offline, again=again)
        source = Source(f"hf://datasets/{benchmark.hub}", [blob for blob in blobs if wanted(blob.name)])
    if not source.blobs:
        what = f"no file of {benchmark.name} for the splits {' and '.join(dict.fromkeys(words))}"
        fix = f"task_dir: a folder with files like {words[0]}/{benchmark.subjects[0].key}_{words[0]}.csv"
        raise MissingInputError(Problem("E-EVAL-002", what, source.name, fix=fix))
    return source


def read_subject(source: Source, subject: Subject, words: Sequence[str]) -> list[Question]:
    """All questions, in the order of the files. Raises DataError for rows that are no question."""
    found: list[Question] = []
    problems: list[Problem] = []
    for blob in source.of(subject, words):
        for values, origin in _rows(blob):
            question = _question(values)
            if isinstance(question, str):
                fix = "a question, options A to D (or choices), and an answer"
                problems.append(Problem("E-EVAL-003", question, str(origin), fix=fix))
            else:
                found.append(question)
    if problems:
        raise DataError(problems)
    return found


# ---- which files ----


def _belongs(name: str, subject: str, words: Iterable[str]) -> bool:
    path = PurePosixPath(name.replace("!", "/"))
    if kind_of(path.name) is None:
        return False
    stem, folder = _SHARD.sub("", path.name.split(".")[0]), path.parent.name
    return any(
        stem == f"{subject}_{word}"
        or (stem == subject and (folder == word or folder.endswith(f"_{word}")))
        or (stem == word and folder == subject)
        for word in words
    )


def _choose(names: Sequence[str], wanted: Callable[[str], bool]) -> list[str]:
    """Of a repository: the files that are wanted, or its archives, where they may be."""
    return [name for name in names if wanted(name)] or [name for name in names if name.endswith(".zip")]


def _blobs(folder: Path, wanted: Callable[[str], bool]) -> list[Blob]:
    if not folder.is_dir():
        what = "there is no such folder"
        raise MissingInputError(Problem("E-EVAL-002", what, "task_dir", str(folder), "name the benchmark's folder"))
    paths = {path.as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    blobs: list[Blob] = []
    for name in _choose(list(paths), wanted):
        blob = LocalFile(paths[name])
        with blob.open() as stream:
            blobs += unpacked(blob, stream.read(MAGIC_LENGTH))
    return [blob for blob in blobs if wanted(blob.name)]


# ---- what a row says ----


def _rows(blob: Blob) -> Iterator[tuple[Mapping[str, Any] | Broken, Origin]]:
    kind = kind_of(blob.name)
    assert kind is not None, "chosen by its kind"
    if kind in ("csv", "tsv"):
        yield from _table(blob, "," if kind == "csv" else "\t")
        return
    for row in SourceFile(blob, kind).rows():
        yield parse(row.values), row.origin


def _table(blob: Blob, delimiter: str) -> Iterator[tuple[Mapping[str, Any], Origin]]:
    """With a head or without one, which the readers of datasets do not take."""
    names: Sequence[str] = ("question", *LETTERS, "answer")
    with io.TextIOWrapper(blob.open(), "utf-8-sig", newline="") as text:
        reader = csv.reader(text, delimiter=delimiter)
        try:
            for number, cells in enumerate(reader):
                if number == 0 and {cell.strip().lower() for cell in cells} >= _HEAD:
                    names = cells
                elif cells:
                    yield dict(zip(names, cells, strict=False)), Origin(blob.name, number, reader.line_num)
        except (csv.Error, UnicodeDecodeError) as error:
            what, fix = "the file cannot be read as a table", "save it again as UTF-8"
            raise DataError(Problem("E-EVAL-003", what, blob.name, got=str(error), fix=fix)) from error


def _question(values: Mapping[str, Any] | Broken) -> Question | str:
    """What is wrong with it as a text."""
    if isinstance(values, Broken):
        return values.reason
    row = {str(key).strip().lower(): value for key, value in values.items()}
    text, choices, answer = row.get("question"), row.get("choices"), row.get("answer")
    options = list(choices) if isinstance(choices, list) else [row.get(letter.lower()) for letter in LETTERS]
    if not isinstance(text, str) or not text.strip():
        return "there is no question"
    if len(options) != len(LETTERS) or not all(isinstance(option, str | int | float) for option in options):
        return "there are not four options"
    if isinstance(answer, int) and 0 <= answer < len(LETTERS):
        answer = LETTERS[answer]
    answer = answer.strip().upper() if isinstance(answer, str) else answer
    if not isinstance(answer, str) or len(answer) != 1 or answer not in LETTERS:
        return (
            "the answer is not one of the four" if answer else "there is no answer: those of some splits are not public"
        )
    return Question(text, tuple(str(option) for option in options), answer)
