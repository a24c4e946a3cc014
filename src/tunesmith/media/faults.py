"""What is wrong with a medium, as problems: each names the file, what was got and what to do."""

from __future__ import annotations

from tunesmith.core.errors import DataError, MachineError, Problem

__all__ = ["REPLACE", "changed", "damaged", "fault", "not_installed", "not_of_its_kind", "too_large"]

REPLACE = "mend or replace the file, or leave its row out"
_SHOWN = 300
_WORDS = {"image": "image", "video": "video", "audio": "sound"}


def fault(code: str, what: str, where: object, got: str | None = None, fix: str = REPLACE) -> DataError:
    """`where` may be text that a dataset brings, of any length."""
    place = str(where)
    return DataError(Problem(code, what, place if len(place) <= _SHOWN else f"{place[:_SHOWN]}...", got, fix))


def damaged(where: object, why: object) -> DataError:
    """`why`: the words of the decoder, or its exception."""
    got = why if isinstance(why, str) else f"{type(why).__name__}: {why}"
    return fault("E-MEDIA-014", "the file is damaged", where, got)


def too_large(where: object, what: str, got: str, fix: str = REPLACE) -> DataError:
    return fault("E-MEDIA-016", what, where, got, fix)


def not_of_its_kind(where: object, kind: str, got: str) -> DataError:
    what = f"this is no {_WORDS[kind]}, whatever its name says"
    return fault("E-MEDIA-012", what, where, got, "check where the file came from; its first bytes say what it is")


def changed(where: object, got: str) -> DataError:
    what = "the file is another than when the data was prepared"
    return fault("E-MEDIA-022", what, where, got, "put the old file back, or prepare the data again")


def not_installed(error: ImportError) -> MachineError:
    what = f"to read media the package {error.name} is needed"
    return MachineError(Problem("E-MEDIA-018", what, fix="pip install 'tunesmith[media]'"))
