"""A dataset that is open: its files, the format of its rows, and which of them are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tunesmith.core.errors import DataError
from tunesmith.data.blocks import BlockEncoder, Converted, convert
from tunesmith.data.formats import Format
from tunesmith.data.formats.base import KINDS, WITH_MARGINS
from tunesmith.data.mapping import absent_columns, make_format
from tunesmith.data.mix import sample
from tunesmith.data.rows import Broken, Row, parse
from tunesmith.data.settling import Settle, Settler
from tunesmith.data.sources.digests import mark_of
from tunesmith.data.sources.opening import open_source

if TYPE_CHECKING:
    from tunesmith.data.sources.base import SourceFile
    from tunesmith.data.spec import DatasetSpec
    from tunesmith.render import Renderer

__all__ = ["DataFile", "OpenDataset", "open_dataset"]

Ints = npt.NDArray[np.int64]
HEAD = 20  # rows that detection looks at
_BYTES_OF_A_ROW = 1000  # roughly, where only the number of rows is known


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file that rows of a run came from. `digest` is of its bytes and of how they are read; of a stream, which does
    not read files before it needs them, `whole` is False, and it tells versions apart by size, beginning and end."""

    dataset: str
    use: str
    name: str
    digest: str
    whole: bool = True

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class OpenDataset:
    spec: DatasetSpec
    stage: str
    files: Sequence[SourceFile]
    format: Format | None
    """None where the first rows are all broken."""
    notices: list[str]
    head: Sequence[Mapping[str, Any]]
    max_samples: int | None
    seed: int
    settle: Settle | None = None
    """What becomes of media; None where the rows have none."""
    media_dir: str | None = None
    _chosen: Ints | None = field(default=None)

    @property
    def chosen(self) -> Ints | None:
        """With num_samples: the numbers of the rows that are read, in the order of the sample, repeats included.
        Counting the rows takes a pass over the files."""
        if self._chosen is None and self.spec.num_samples is not None:
            total = sum(1 for file in self.files for _ in file.rows())
            self._chosen = sample(total, self.spec.num_samples, self.seed)[: self.max_samples]
        return self._chosen

    def rows(self) -> Iterator[Row]:
        """The rows that are read, each once, in the order of the files."""
        every = chain.from_iterable(file.rows() for file in self.files)
        if self.chosen is None:
            return islice(every, self.max_samples)
        wanted = set(self.chosen.tolist())
        return (row for number, row in enumerate(every) if number in wanted)

    @property
    def size(self) -> int | None:
        """Bytes to read; None if that is not known. A guess where only some rows are read."""
        if self.max_samples is not None and self.spec.num_samples is None:
            return self.max_samples * _BYTES_OF_A_ROW
        paths = [file.blob.path for file in self.files]
        return None if None in paths else sum(path.stat().st_size for path in paths if path is not None)

    def convert(self, rows: Sequence[Row]) -> Converted:
        """Rows as examples, their media settled."""
        return convert(rows, self.format, trusted_markup=self.spec.trusted_markup, settle=self.settle)

    def encoder(self, renderer: Renderer) -> BlockEncoder:
        """What makes samples of rows."""
        spec = self.spec
        how: dict[str, Any] = {"trusted_markup": spec.trusted_markup, "weight": spec.weight, "settle": self.settle}
        return BlockEncoder(self.format, renderer, **how)

    def raise_for_absent(self, columns: Iterable[str]) -> None:
        """DataError where no row has a column that is needed; `columns` are those of all rows."""
        names = list(columns)
        if names and (absent := absent_columns(self.spec, self.format, names, self.head, self.stage)):
            raise DataError(absent)

    def marked_files(self, use: str) -> list[DataFile]:
        """The files of a stream; `use` is train or eval."""
        return [DataFile(self.spec.name, use, file.name, mark_of(file.blob), whole=False) for file in self.files]

    def key(self) -> dict[str, Any]:
        """What the examples depend on, as plain values: two datasets with one key have the same examples."""
        made = self.format
        return {
            "kind": KINDS[self.stage],
            "margins": self.stage == WITH_MARGINS,
            "files": [[file.name, file.digest()] for file in self.files],
            "format": None if made is None else [type(made).__name__, made.columns, made.tags, made.merge_consecutive],
            "spec": [self.spec.name, self.spec.trusted_markup, self.spec.weight, self.spec.num_samples],
            "media_dir": self.media_dir,
            "max_samples": self.max_samples,
            "seed": self.seed if self.spec.num_samples is not None else None,
        }


def open_dataset(
    spec: DatasetSpec,
    stage: str,
    *,
    max_samples: int | None,
    seed: int,
    offline: bool,
    streaming: bool = False,
    media_dir: str | None = None,
) -> OpenDataset:
    """With `streaming`, what is remote is read where it lies, and num_samples is left out, as drawing rows needs to
    know how many there are.

    Raises what `open_source` raises, and DataError where no format fits the rows."""
    if streaming and spec.num_samples is not None:
        notice = "num_samples is without effect with streaming: all rows are read (max_samples takes the first)"
        spec = replace(spec, num_samples=None, notices=(*spec.notices, notice))
    files = open_source(spec, offline=offline, streaming=streaming)
    first = islice(chain.from_iterable(file.rows() for file in files), HEAD)
    head = [values for row in first if not isinstance(values := parse(row.values), Broken)]
    format_, notices = make_format(spec, head, stage)
    settle = None if format_ is None or KINDS[stage] == "document" else Settler(files, media_dir, offline=offline)
    told = [*spec.notices, *notices]
    return OpenDataset(spec, stage, files, format_, told, head, max_samples, seed, settle, media_dir)
