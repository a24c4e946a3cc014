"""Collects rows that cannot be used, so that all of them are told at once, grouped by what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tunesmith.core.errors import Problem
from tunesmith.core.types import Origin

__all__ = ["MOST_REASONS", "OTHER", "BadRowGroup", "BadRows"]

PLACES_SHOWN = 5
MOST_REASONS = 100
"""Faults that are counted apart. A reason may name what a row holds, and every row may hold something else."""
OTHER = "other faults"


@dataclass(slots=True)
class BadRowGroup:
    """Rows with the same fault, and the first places of it."""

    code: str
    what: str
    count: int = 0
    places: list[Origin] = field(default_factory=list)
    got: str | None = None
    fix: str | None = None

    @property
    def of_media(self) -> bool:
        return self.code.startswith("E-MEDIA-")

    @property
    def key(self) -> str:
        """The key of the config that says what becomes of such rows."""
        return "on_bad_media" if self.of_media else "on_bad_row"


class BadRows:
    """The unusable rows of one dataset."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str, str | None], BadRowGroup] = {}

    def add(
        self,
        origin: Origin,
        code: str,
        reason: str,
        field: str | None = None,
        got: str | None = None,
        fix: str | None = None,
    ) -> None:
        if len(self._groups) >= MOST_REASONS and (code, reason, field) not in self._groups:
            reason, field = OTHER, None
        group = self._groups.setdefault((code, reason, field), BadRowGroup(code, _with_field(reason, field)))
        group.count += 1
        if len(group.places) < PLACES_SHOWN:
            group.places.append(origin)
        if group.got is None:
            group.got = got
        elif group.of_media and got and group.count <= PLACES_SHOWN:
            group.got += f"; {got}"  # each row has files of its own
        if group.fix is None:
            group.fix = fix

    @property
    def count(self) -> int:
        return sum(group.count for group in self._groups.values())

    @property
    def media(self) -> int:
        """Those whose text is fine, and a picture, film or sound is not."""
        return sum(group.count for group in self._groups.values() if group.of_media)

    def groups(self) -> Iterator[BadRowGroup]:
        """The rows by what is wrong with them, the commonest first; those that are not told apart at the end."""
        yield from sorted(self._groups.values(), key=lambda group: (group.what == OTHER, -group.count))

    def problems(self, rows: int, *, media: bool | None = None) -> list[Problem]:
        """One problem per reason, the commonest first; `rows` is how many the dataset has. `media`: only those of
        media, or only the others."""
        return [
            Problem(
                group.code,
                f"{group.what}: {group.count:,} of {rows:,} rows",
                where=_places(group),
                got=group.got,
                fix=group.fix or f"mend the rows, or leave them out with {group.key}: skip and max_bad_rows",
            )
            for group in self.groups()
            if media is None or group.of_media == media
        ]

    def to_list(self) -> list[dict[str, Any]]:
        """The groups as plain values; `from_list` makes them again."""
        return [
            {**asdict(group), "reason": reason, "field": field_}
            for (_code, reason, field_), group in self._groups.items()
        ]

    @classmethod
    def from_list(cls, groups: Iterable[Mapping[str, Any]]) -> BadRows:
        made = cls()
        for saved in groups:
            group = BadRowGroup(saved["code"], saved["what"], saved["count"], got=saved["got"], fix=saved["fix"])
            group.places = [Origin(**place) for place in saved["places"]]
            made._groups[saved["code"], saved["reason"], saved["field"]] = group
        return made


def _with_field(reason: str, field: str | None) -> str:
    return reason if field is None else f'{reason} (field "{field}")'


def _places(group: BadRowGroup) -> str:
    """`data/x.json:3, :17, :40 and 12 more`: the file's name once per file."""
    texts, last = [], None
    for origin in group.places:
        place = str(origin)
        texts.append(place.removeprefix(origin.file).lstrip(", ") if origin.file == last else place)
        last = origin.file
    more = group.count - len(group.places)
    return ", ".join(texts) + (f" and {more:,} more" if more else "")
