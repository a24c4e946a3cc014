"""Logins and secret parameters of addresses."""

from __future__ import annotations

import logging

import pytest

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.log import _Plain
from tunesmith.core.secrets import hide_in_addresses


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("https://me:pw@host/a.jsonl", "https://***@host/a.jsonl"),
        ("s3://key:sec@bucket/a and http://u@h:80/x", "s3://***@bucket/a and http://***@h:80/x"),
        ("https://host/a?token=abc&b=1", "https://host/a?token=***&b=1"),
        ("https://b.s3.com/a?X-Amz-Signature=ff&X-Amz-Credential=k%2Fx&x=2", "https://b.s3.com/a?X-Amz-Signature=***&X-Amz-Credential=***&x=2"),
        ("https://b.net/a?sv=1&sig=abc%3D", "https://b.net/a?sv=1&sig=***"),
        ("https://host/a?api_key=x#part", "https://host/a?api_key=***#part"),
        ("https://host/path@v2/a.json", "https://host/path@v2/a.json"),
        ("hf://datasets/a/b@main/c.json", "hf://datasets/a/b@main/c.json"),
        ("me@host.org ?token=abc", "me@host.org ?token=abc"),
        ("https://host/a?tokens=5&monkey=1", "https://host/a?tokens=5&monkey=***"),
    ],
)  # fmt: skip
def test_what_is_hidden_and_what_is_not(text: str, safe: str) -> None:
    assert hide_in_addresses(text) == safe


def test_errors_and_logs_hide_them() -> None:
    address = "https://me:pw@host/a?token=abc"
    error = DataError(Problem("E-DATA-040", f"no {address}", address, address, f"try {address}"))
    assert "pw" not in str(error)
    assert "abc" not in str(error)
    record = logging.LogRecord("x", logging.INFO, "f", 1, "reads %s", (address,), None)
    assert _Plain().format(record) == "reads https://***@host/a?token=***"
