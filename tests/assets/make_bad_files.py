"""Writes the files of bad_data/B01 to B22: what is wrong with them is in their bytes, which an editor would mend.

python tests/assets/make_bad_files.py
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path

import pyarrow
from pyarrow import parquet

FOLDER = Path(__file__).parent / "bad_data"
ROWS = [{"instruction": f"Name {word}.", "input": "", "output": f"It is {word}."} for word in ("red", "blue", "green")]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
ARRAY = json.dumps(ROWS, indent=1)
CAFE = LINES + '{"instruction": "Où est le café ?", "input": "", "output": "Là."}\n'
TABLE = "instruction,output\nName red.,It is red.\nName blue.,It is blue.\n"


def table(rows: list[dict[str, str]]) -> bytes:
    buffer = io.BytesIO()
    schema = pyarrow.schema([(name, pyarrow.string()) for name in ROWS[0]])
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema), buffer)
    return buffer.getvalue()


def zstd(data: bytes) -> bytes:
    return pyarrow.Codec("zstd").compress(data, asbytes=True)


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def files() -> dict[str, bytes]:
    good = table(ROWS)
    texts = {
        "B01/empty.json": "",
        "B01/blank.jsonl": "\n  \n\n",
        "B02/empty_list.json": "[]\n",
        "B02/header.csv": "instruction,output\n",
        "B03/cut.json": ARRAY[:-15],
        "B03/cut_behind_a_row.json": ARRAY.rstrip("]\n"),
        "B04/broken_line.jsonl": LINES * 3 + '{"instruction": "Name x.", "output" "y"}\n' + LINES,
        "B05/mark.jsonl": "\ufeff" + LINES,
        "B05/mark.json": "\ufeff" + ARRAY,
        "B05/mark.csv": "\ufeff" + TABLE,
        "B08/crlf.jsonl": LINES.replace("\n", "\r\n") + "\r\n\r\n\n",
        "B08/crlf.csv": TABLE.replace("\n", "\r\n") + "\r\n",
        "B08/commas.jsonl": LINES.replace("}\n", "},\n"),
        "B08/comma_at_the_end.json": ARRAY.rstrip("]\n") + ",\n]\n",
        "B10/alpaca_train.jsonl": LINES,
        "B11/rows.xlsx": "PK",
        "B11/rows.log": LINES,
        "B12/a.jsonl": LINES,
        "B12/b.jsonl": LINES,
        "B12/notes.md": "# Notes\n",
        "B15/nested.json": json.dumps({"version": 2, "data": ROWS}, indent=1),
        "B15/two.json": json.dumps({"train": ROWS, "test": ROWS}),
        "B16/one_line.jsonl": '{"instruction": "' + "x" * 50_000,
        "B16/one_row.json": '[\n{"instruction": "Name red.", "output": "' + "x" * 50_000,
        "B17/rows.jsonl": LINES,
        "B18/dataset_info.json": json.dumps({"good": {"file_name": "../B17/rows.jsonl"}}),
        "B19/dataset_info.json": json.dumps({"nowhere": {"formatting": "alpaca"}}),
        "B20/dataset_info.json": json.dumps({"slip": {"file_name": "../B17/rows.jsonl", "formatting": "sharegptt"}}),
        "B22/open_quote.csv": TABLE + 'Name green.,"It is green.\n',
        "B22/quote_inside.csv": TABLE + 'Name green.,"It is "very" green."\n',
        "B22/ragged.csv": TABLE + "Name green.\nName white.,It is white.,really\n",
        "B22/semicolons.csv": TABLE.replace(",", ";"),
    }
    binary = {
        "B06/latin1.jsonl": CAFE.encode("latin-1"),
        "B06/latin1.csv": (TABLE + "Où ?,Là.\n").encode("latin-1"),
        "B07/utf16.jsonl": LINES.encode("utf-16"),
        "B07/utf16.json": ARRAY.encode("utf-16"),
        "B09/gzip.jsonl": gzip.compress(LINES.encode(), mtime=0),
        "B09/zstd.jsonl": zstd(LINES.encode()),
        "B09/zip.jsonl": zipped({"rows.jsonl": LINES.encode()}),
        "B09/damaged.jsonl": gzip.compress(LINES.encode(), mtime=0)[:60],
        "B09/bomb.jsonl": gzip.compress(b" " * 30_000_000, mtime=0),
        "B21/no_rows.parquet": table([]),
        "B21/wrong_magic.parquet": b"PAR0" + good[4:-4] + b"PAR0",
        "B21/no_footer.parquet": good[: len(good) // 2],
        "B21/damaged_footer.parquet": good[:-60] + bytes(52) + good[-8:],
    }
    return {name: text.encode("utf-8") for name, text in texts.items()} | binary


if __name__ == "__main__":
    for name, data in files().items():
        target = FOLDER / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    print(f"wrote {len(files())} files below {FOLDER}")
