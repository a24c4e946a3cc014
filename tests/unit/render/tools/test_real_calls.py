"""Every dialect over the calls of public data: what is written comes back, and little is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real_calls import RealCase, real_cases
from tunesmith.render.tools import DIALECTS, DialectRefusal, get_dialect
from tunesmith.render.tools.base import join_pieces
from tunesmith.render.tools.schemas import same_value


@pytest.fixture(scope="module")
def real(assets: Path) -> list[RealCase]:
    return real_cases(assets)


def test_the_data_is_there(real: list[RealCase]) -> None:
    assert len(real) > 850
    assert sum(len(case.calls) > 1 for case in real) > 200


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_real_calls_come_back(name: str, real: list[RealCase]) -> None:
    dialect = get_dialect(name)
    refused = []
    for case in real:
        try:
            text = join_pieces(dialect.write_calls(case.calls, case.content, case.tools))
        except DialectRefusal as refusal:
            shape = (dialect.max_calls and len(case.calls) > dialect.max_calls) or (
                case.content.strip() and not dialect.takes_content
            )
            if not shape:
                refused.append(f"{case.where}: {refusal.problems[0].what}, {refusal.problems[0].got}")
            continue
        parsed = dialect.parse(text, case.tools)
        assert [call.name for call in parsed.calls] == [call.name for call in case.calls]
        for read, call in zip(parsed.calls, case.calls, strict=True):
            assert same_value(dict(read.arguments), dict(call.arguments))
    # Where values stand without quotes, data whose values are not of the schema's type cannot be carried.
    assert len(refused) <= len(real) * 0.02, refused[:10]
    if name == "qwen":
        assert not refused
