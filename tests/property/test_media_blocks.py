"""Whatever cutoff_len does with a sample, the tokens of a medium stay together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.errors import DataError
from tunesmith.core.types import Encoded, MediaFacts, Medium, Placed
from tunesmith.data.dataset import TokenDataset
from tunesmith.data.length import fit_lengths

turns = st.lists(  # (tokens before the medium, of the medium, behind it, of the answer) of each turn
    st.tuples(st.integers(1, 4), st.integers(0, 6), st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=5
)


def sample(shape: list[tuple[int, int, int, int]], *, prompts: bool) -> Encoded:
    """`prompts`: questions are trained too, but no medium ever is."""
    trained: list[bool] = []
    media: list[Placed] = []
    for before, inside, behind, answer in shape:
        trained += [prompts] * before
        if inside:
            medium = Medium("image", str(len(media)), MediaFacts(digest=str(len(media))))
            media.append(Placed(medium, len(trained), len(trained) + inside))
        trained += [False] * inside + [prompts] * behind + [True] * answer
    return Encoded(range(len(trained)), trained, media=media)


@given(shapes=st.lists(turns, min_size=1, max_size=4), cutoff=st.integers(2, 30), prompts=st.booleans())
def test_no_medium_is_cut(shapes: list[list[tuple[int, int, int, int]]], cutoff: int, prompts: bool) -> None:
    whole = [sample(shape, prompts=prompts) for shape in shapes]
    before = TokenDataset.from_encoded(whole)
    for policy in ("truncate", "split", "drop"):
        try:
            found, outcome = fit_lengths(before, cutoff, policy)
        except DataError:
            continue
        for number, source in enumerate(outcome.source.tolist()):
            start = int(found.starts[number] - before.starts[source])
            end = start + int(found.lengths[number])
            inside = [one for one in whole[source].media if one.start < end and one.end > start]
            assert all(start <= one.start and one.end <= end for one in inside), (policy, start, end)
            told = found[number].get("media", [()])[0]
            assert [(one.start + start, one.medium) for one in told] == [(one.start, one.medium) for one in inside]
