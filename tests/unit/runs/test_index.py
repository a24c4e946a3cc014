"""The list of runs is that of the files, whatever state the index is in."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tunesmith.core.process import ProcessId
from tunesmith.runs import index, manifest, registry
from tunesmith.runs.row import row_of

MakeRun = Callable[..., Path]


def ids() -> list[str]:
    return [row.id for row in index.rows()]


def in_index() -> set[str]:
    with closing(sqlite3.connect(index.index_file())) as database:
        return {found for (found,) in database.execute("SELECT id FROM runs")}


def test_rows_are_the_last_begun_first(make_run: MakeRun) -> None:
    assert index.rows() == []
    make_run("aa")
    make_run("bb", losses=(3.0, 2.5, 2.25), tags=["x"])
    first, second = index.rows()
    assert (first.id, first.done, first.total, first.loss, first.tags) == ("bb", 3, 3, 2.25, ("x",))
    assert (second.id, second.name, second.status) == ("aa", "out-aa", "finished")
    assert in_index() == {"aa", "bb"}
    assert index.rows() == [first, second]  # now from the index


def test_what_is_in_the_index_is_not_read_again(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run("aa")
    index.rows()
    reads = []
    monkeypatch.setattr(index, "row_of", lambda *place: reads.append(place) or row_of(*place))
    index.rows()
    assert reads == []
    with (folder / "trainer_log.jsonl").open("a") as log:
        log.write('{"current_steps": 3, "loss": 0.5}\n')
    assert index.rows()[0].loss == 0.5
    manifest.event(folder, "skipped")
    with manifest.changing(folder) as found:
        found["status"] = "failed"
    assert index.rows()[0].status == "failed"
    assert len(reads) == 2


def test_a_removed_folder_is_noticed_and_its_last_row_stays(make_run: MakeRun) -> None:
    folder = make_run("aa", name="first")
    index.rows()
    shutil.rmtree(folder)
    (row,) = index.rows()
    assert (row.status, row.name, row.loss) == ("gone", "first", 1.0)
    index.index_file().unlink()
    (row,) = index.rows()
    assert (row.status, row.output_dir) == ("gone", str(folder))


def test_a_folder_with_another_run_is_gone(make_run: MakeRun) -> None:
    folder = make_run("aa")
    with manifest.changing(folder) as found:
        found["id"] = "bb"
    assert index.rows()[0].status == "gone"


def test_a_run_that_is_forgotten_leaves_the_index(make_run: MakeRun) -> None:
    make_run("aa")
    make_run("bb")
    index.rows()
    registry.forget("aa")
    assert ids() == ["bb"]
    assert in_index() == {"bb"}


def test_a_dead_process_has_died(make_run: MakeRun) -> None:
    dead = {**ProcessId.of().to_dict(), "started": "before"}
    make_run("aa", status="running", process=dead)
    make_run("bb", status="running")
    make_run("cc", status="finished", process=dead)
    make_run("dd", status="running", process={**dead, "host": "elsewhere"})
    assert {row.id: row.status for row in index.rows()} == {
        "aa": "died",
        "bb": "running",
        "cc": "finished",
        "dd": "running",  # what is on another machine is known by its own words only
    }


def test_progress_is_that_of_the_log_where_the_record_is_older(make_run: MakeRun) -> None:
    make_run("aa", losses=(3.0, 2.0, 1.0), status="running", steps={"done": 1, "total": 3})
    assert index.rows()[0].done == 3


@pytest.mark.parametrize("damage", [b"", b"not a database at all", b"SQLite format 3\0" + bytes(200)])
def test_a_damaged_index_is_made_anew(make_run: MakeRun, damage: bytes) -> None:
    make_run("aa")
    index.rows()
    for suffix in ("-wal", "-shm"):
        index.index_file().with_name(index.index_file().name + suffix).unlink(missing_ok=True)
    index.index_file().write_bytes(damage)
    assert ids() == ["aa"]
    assert ids() == ["aa"]
    assert in_index() == {"aa"}


def test_damage_in_the_middle_is_mended(make_run: MakeRun) -> None:
    for number in range(60):
        make_run(f"{number:02x}", tags=["long"] * 20)
    index.rows()
    with closing(sqlite3.connect(index.index_file())) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(index.index_file().read_bytes())
    content[4096:8192] = bytes(4096)  # the second page: the root of the table
    index.index_file().write_bytes(content)
    assert len(ids()) == 60
    assert len(ids()) == 60
    assert len(in_index()) == 60


def test_an_index_of_another_version_is_made_anew(make_run: MakeRun) -> None:
    make_run("aa")
    index.rows()
    with closing(sqlite3.connect(index.index_file())) as database, database:
        database.execute("DROP TABLE runs")
        database.execute("CREATE TABLE runs (something TEXT)")
        database.execute("PRAGMA user_version=0")
    assert ids() == ["aa"]
    assert in_index() == {"aa"}


def test_rows_that_cannot_be_understood_are_read_again(make_run: MakeRun) -> None:
    make_run("aa")
    index.rows()
    with closing(sqlite3.connect(index.index_file())) as database, database:
        database.execute("UPDATE runs SET row = '{\"no\": 1}'")
    assert ids() == ["aa"]
    assert ids() == ["aa"]


def test_without_a_place_for_an_index_the_files_are_read(make_run: MakeRun, home: Path) -> None:
    make_run("aa")
    index.index_file().mkdir()
    assert ids() == ["aa"]


def test_files_that_are_no_entries_are_passed_over(make_run: MakeRun, home: Path) -> None:
    make_run("aa")
    (home / "runs" / "bb.json").write_text("{")
    (home / "runs" / "note.txt").write_text("x")
    assert {row.id: row.status for row in index.rows()} == {"aa": "finished", "bb": "gone"}


def test_several_processes_list_and_change_at_once(make_run: MakeRun) -> None:
    folders = [make_run(f"r{number}") for number in range(6)]
    program = (
        "import sys; from pathlib import Path\n"
        "from tunesmith.runs import index, manifest\n"
        "for n in range(12):\n"
        "    manifest.event(Path(sys.argv[1]), 'x', n=n)\n"
        "    rows = index.rows()\n"
        "    assert len(rows) == 6, rows\n"
        "    if n == 5 and sys.argv[2] == '0': index.index_file().write_bytes(b'damaged' * 99)\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(folder), str(number)], stderr=subprocess.PIPE, text=True)
        for number, folder in enumerate(folders[:4])
    ]
    told = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0, 0], told
    assert len(ids()) == 6
    assert [len(manifest.read(folder)["events"]) for folder in folders[:4]] == [12] * 4
    assert json.dumps(sorted(in_index())) == json.dumps([f"r{number}" for number in range(6)])
