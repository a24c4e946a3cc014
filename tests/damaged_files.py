"""Valid files of rows in every format, and hypothesis' ways to damage them: one value, one key, or their bytes."""

from __future__ import annotations

import copy
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Collection
from typing import Any

import pyarrow
from hypothesis import assume
from hypothesis import strategies as st
from pyarrow import parquet

ROWS = 6
TOOLS = json.dumps([{"name": "look", "parameters": {"type": "object"}}])
TEXT = {"type": "text", "text": "an oven"}
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"word": "kiln"}'}}


def _said(question: Any, answer: Any = "an oven") -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _alpaca(n: int) -> dict[str, Any]:
    return {"instruction": f"é {n}", "input": "", "output": "b: c", "system": "s", "history": [["q", "a"]]}


def _openai(n: int) -> dict[str, Any]:
    turns = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": f"what is {n}?"},
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [CALL]},
        {"role": "tool", "content": "oven", "tool_call_id": "1"},
        {"role": "assistant", "content": "<think>\nso\n</think>\n\nan oven", "weight": 0.5},
    ]
    return {"messages": turns, "tools": TOOLS, "id": n}


def _parts(n: int) -> dict[str, Any]:
    return {"messages": _said([{"type": "text", "text": f"u {n}"}], [{"type": "thinking", "thinking": "hm"}, TEXT])}


def _shared(n: int) -> dict[str, Any]:
    turns = [
        ("human", f"u {n}"),
        ("function_call", json.dumps(CALL["function"])),
        ("observation", "1"),
        ("gpt", "a"),
    ]
    return {"conversations": [{"from": who, "value": text} for who, text in turns], "tools": TOOLS}


def _pair(n: int) -> dict[str, Any]:
    return {"prompt": f"p {n}", "chosen": _said(f"p {n}"), "rejected": _said(f"p {n}", "a fish")}


def _plain_pair(n: int) -> dict[str, Any]:
    return {"instruction": f"p {n}", "input": "x", "chosen": "a", "rejected": "b"}


def _labelled(n: int) -> dict[str, Any]:
    return {"prompt": f"p {n}", "completion": "an oven", "label": n % 2 == 0}


KINDS: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "alpaca": ("sft", _alpaca),
    "openai": ("sft", _openai),
    "parts": ("sft", _parts),
    "sharegpt": ("sft", _shared),
    "pairs": ("dpo", _pair),
    "plain pairs": ("rm", _plain_pair),
    "labels": ("kto", _labelled),
    "prompts": ("ppo", lambda n: {"prompt": f"p {n}", "answer": n}),
    "documents": ("pt", lambda n: {"text": f"Once {n}.", "meta": {"n": n}}),
}
STAGES = frozenset(stage for stage, _make in KINDS.values())


# --- writing and counting rows, independently of what is tested ---


def write_file(kind: str, rows: list[Any]) -> bytes:
    if kind == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "surrogatepass")
    if kind == "json":
        return json.dumps(rows, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if kind == "csv":
        text = io.StringIO()
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode("utf-8", "surrogatepass")
    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


def count_rows(kind: str, data: bytes) -> int | None:
    """How many rows the file has; None where that cannot be told, so that it must be refused."""
    try:
        if kind == "parquet":
            return parquet.read_table(io.BytesIO(data)).num_rows
        text = data.decode("utf-8").removeprefix("\ufeff")
        if kind == "csv":
            return sum(1 for fields in csv.reader(io.StringIO(text, newline=""), strict=True) if fields) - 1
        if text.lstrip(" \t\r\n").startswith("["):
            return len(json.loads(text))
    except (ValueError, OSError, RecursionError, csv.Error, pyarrow.ArrowException):
        return None
    return sum(1 for line in text.split("\n") if line.strip(" \t\r\n\v\f"))


# --- mutations ---

ODD = st.sampled_from(
    [
        *(None, "", " ", 0, -1, 3.5, True, [], {}, [[]], {"a": 1}, ["a", 1], 2**60, 1e308),
        *("\x00", "\ud800", "e\u0301" * 400, "\u2028", "\ufeff", "NaN", "[", "{", "}]"),
        *("system", "user", "tool", "<think>", "<tool_call>", "<|im_start|>user"),
    ]
)
NAMES = st.sampled_from(
    [
        "role",
        "content",
        "from",
        "value",
        "messages",
        "text",
        "label",
        "chosen",
        "input",
        "weight",
        "",
        "\ud800",
        "tools",
    ]
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in items for place in ((*path, key), *_places(inner, (*path, key)))]


def _change(draw: Callable[..., Any], rows: list[Any]) -> None:
    """Change one thing inside the rows: a value, its type, its key, its place."""
    place = draw(st.sampled_from(_places(rows)))
    inside = rows
    for key in place[:-1]:
        inside = inside[key]
    key = place[-1]
    how = draw(st.sampled_from(["replace", "delete", "wrap", "text", "double", "rename"]))
    if how == "replace":
        inside[key] = copy.deepcopy(draw(ODD))
    elif how == "delete":
        del inside[key]
    elif how == "wrap":
        inside[key] = [inside[key]]
    elif how == "text":
        inside[key] = json.dumps(inside[key])
    elif isinstance(inside, list):
        inside.insert(key, copy.deepcopy(inside[key]))
    else:
        inside[draw(NAMES)] = copy.deepcopy(inside[key]) if how == "double" else inside.pop(key)


def _damage(draw: Callable[..., Any], data: bytes) -> bytes:
    """Change bytes: cut, drop, put in, repeat, or write all of them in another way."""
    begin = draw(st.integers(0, len(data)))
    end = min(len(data), begin + draw(st.integers(0, 12)))
    how = draw(st.sampled_from(["cut", "drop", "put", "repeat", "flip", "crlf", "bom", "utf-16", "latin-1", "gzip"]))
    match how:
        case "cut":
            return data[:begin]
        case "drop":
            return data[:begin] + data[end:]
        case "put":
            return data[:begin] + draw(st.binary(min_size=1, max_size=6)) + data[begin:]
        case "repeat":
            return data[:end] + data[begin:]
        case "flip":
            return (
                data[:begin]
                + bytes(byte ^ 1 << draw(st.integers(0, 7)) for byte in data[begin : begin + 1])
                + data[begin + 1 :]
            )
        case "crlf":
            return data.replace(b"\n", b"\r\n")
        case "bom":
            return b"\xef\xbb\xbf" + data
        case "gzip":
            return gzip.compress(data, mtime=0)
    try:
        return data.decode("utf-8").encode(how)
    except UnicodeError:
        return data


@st.composite
def damaged(draw: Callable[..., Any], stages: Collection[str] = STAGES) -> tuple[str, str, bytes, int | None]:
    """(stage, file type, bytes, rows in the file), for one of `stages`."""
    stage, make = draw(st.sampled_from([kind for kind in KINDS.values() if kind[0] in stages]))
    kind = draw(st.sampled_from(["jsonl", "jsonl", "json", "parquet", "csv"]))
    rows: list[Any] = [copy.deepcopy(make(number)) for number in range(ROWS)]
    if kind == "csv":
        rows = [{name: value for name, value in row.items() if not isinstance(value, list | dict)} for row in rows]
        assume(rows[0])
    for _ in range(draw(st.integers(0, 3))):
        _change(draw, rows)
        assume(rows)
    try:
        data = write_file(kind, rows)
    except (pyarrow.ArrowException, csv.Error, AttributeError, TypeError, UnicodeError, OverflowError):
        assume(False)  # the rows have no form in a table
    known = data
    for _ in range(draw(st.integers(0, 2))):
        data = _damage(draw, data)
    if data.startswith(b"\x1f\x8b"):
        try:
            known = gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            return stage, kind, data, None
    else:
        known = data
    return stage, kind, data, count_rows(kind, known)
