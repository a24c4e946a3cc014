"""Data with media in runs of several processes, streamed, and with pictures that do not decode."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_preferences_on_ranks import assert_close_weights
from tests.run_logs import curve, log, same_weights
from tests.seeing import colour_rows, seeing_model
from tests.two_ranks import TwoRanks

pytestmark = pytest.mark.slow

ROWS, BAD = 16, 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, stories: Path) -> Path:
    return seeing_model(tmp_path_factory.mktemp("seeing") / "model", stories)


@pytest.fixture(scope="module")
def ranks() -> Iterator[TwoRanks]:
    with TwoRanks(["tests.e2e.test_seeing_processes", "tunesmith.train.trainer", "transformers"]) as found:
        yield found


@pytest.fixture
def keys(model: Path, tmp_path: Path, torch_one_thread: None) -> dict[str, Any]:
    """All of the model trains, on rows in their order."""
    return {
        "model_name_or_path": str(model),
        "stage": "sft",
        "finetuning_type": "full",
        "freeze_vision_tower": False,
        "freeze_multi_modal_projector": False,
        "dataset": str(colour_rows(tmp_path / "data", ROWS)),
        "output_dir": str(tmp_path / "out"),
        "disable_shuffling": True,
        "per_device_train_batch_size": 2,
        "max_steps": 4,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
    }


def undecodable(picture: Path) -> None:
    """A PNG whose file is whole: all its checksums hold, but its pixels are no deflated bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", b"x\x9c" + b"\xff" * 200) + chunk(b"IEND", b"")
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + pixels)


def without_picture(file: Path, numbers: list[int]) -> None:
    rows = json.loads(file.read_text())
    for number in numbers:
        rows[number]["messages"][0]["content"] = "The color is"
        rows[number]["images"] = []
    file.write_text(json.dumps(rows))


def trained(keys: dict[str, Any]) -> Any:
    import tunesmith

    return tunesmith.train(keys)


def refused(keys: dict[str, Any]) -> tuple[str, int]:
    """What a run ends with."""
    from tunesmith.core.errors import TunesmithError

    with pytest.raises(TunesmithError) as caught:
        trained(keys)
    return str(caught.value), caught.value.exit_code


@pytest.mark.parametrize("more", [{}, {"fast_path": "off"}], ids=["flat", "padded"])
def test_a_rank_without_pictures_trains_the_tower_with_the_others(
    ranks: TwoRanks, keys: dict[str, Any], tmp_path: Path, more: dict[str, Any]
) -> None:
    """Of each step's eight rows the second process sees those without pictures; in the third step nobody sees one."""
    without_picture(Path(keys["dataset"]), [*range(2, ROWS, 4), *range(3, ROWS, 4), 8, 9, 12, 13])
    keys |= {"max_steps": 6, **more}
    two = ranks.call(trained, {**keys, "output_dir": str(tmp_path / "two")})[0]
    one = trained({**keys, "output_dir": str(tmp_path / "one"), "gradient_accumulation_steps": 2})
    for found, wanted in zip(curve(two), curve(one), strict=True):
        assert found == pytest.approx(wanted, rel=1e-4)
    assert_close_weights(one.output_dir, two.output_dir)


def test_a_bad_picture_on_one_rank_ends_the_run_on_all_and_saves_it(ranks: TwoRanks, keys: dict[str, Any]) -> None:
    """Each step has rows 4n to 4n + 3, of which the second process sees the last two: row 10 in the third step."""
    undecodable(Path(keys["dataset"]).parent / "10.png")
    first, second = ranks.call(refused, keys)
    assert first == second
    assert first[1] == 65
    assert "rows-0.json, row 10: " in first[0]
    assert "10.png" in first[0]
    assert (Path(keys["output_dir"]) / "checkpoint-2" / "manifest.json").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_pixels_that_do_not_decode_end_the_run_with_their_row_and_what_was_trained_is_saved(
    keys: dict[str, Any], workers: int, capfd: pytest.CaptureFixture[str]
) -> None:
    undecodable(Path(keys["dataset"]).parent / f"{BAD}.png")
    text, code = refused({**keys, "dataloader_num_workers": workers})
    assert (code, "error[E-MEDIA-014]" in text, "Traceback" in text + capfd.readouterr().err) == (65, True, False), text
    assert f"rows-0.json, row {BAD}: " in text
    assert f"{BAD}.png" in text
    assert (Path(keys["output_dir"]) / "checkpoint-3" / "manifest.json").exists()


def test_in_an_evaluation_too_and_the_step_before_it_is_saved(keys: dict[str, Any], tmp_path: Path) -> None:
    held = colour_rows(tmp_path / "held", 4)
    undecodable(held.parent / "2.png")
    keys |= {"eval_dataset": str(held), "eval_strategy": "steps", "eval_steps": 2}
    text, code = refused(keys)
    assert (code, "rows-0.json, row 2: " in text) == (65, True), text
    assert (Path(keys["output_dir"]) / "checkpoint-2" / "manifest.json").exists()
    colour_rows(tmp_path / "held", 4)
    assert [line["current_steps"] for line in log(trained(keys)) if "eval_loss" in line] == [2, 4]


def test_what_is_left_out_trains_nothing_and_is_counted(keys: dict[str, Any], tmp_path: Path) -> None:
    """Over micro-batches and two rounds of the rows. As if the row had no label: a blank picture is seen, no word is
    learnt."""
    undecodable(Path(keys["dataset"]).parent / f"{BAD}.png")
    keys |= {"on_bad_media": "skip", "max_bad_rows": 1, "gradient_accumulation_steps": 2, "max_steps": 8}
    found = trained({**keys, "output_dir": str(tmp_path / "found")})
    assert found.metrics["train_bad_media"] == 2
    assert [line["current_steps"] for line in log(found) if line.get("bad_media") == 1] == [2, 6]
    results = json.loads((tmp_path / "found" / "train_results.json").read_text())
    assert results["train_bad_media"] == 2
    record = json.loads((tmp_path / "found" / "run.json").read_text())
    assert record["metrics"]["train_bad_media"] == 2
    whole = colour_rows(tmp_path / "whole", ROWS)
    rows = json.loads(whole.read_text())
    del rows[BAD]  # a mean over tokens does not know of a row without any
    whole.write_text(json.dumps(rows))
    keys |= {"dataset": str(whole), "gradient_accumulation_steps": 1, "per_device_train_batch_size": 3, "max_steps": 1}
    other = Path(keys["dataset"]).parent / "short.json"
    other.write_text(json.dumps(rows[4:7]))  # the second step of the run above had rows 4, 5, 7
    alone = trained({**keys, "dataset": str(other), "output_dir": str(tmp_path / "alone"), "learning_rate": 1e-30})
    begin = {**keys, "dataset": str(_step_with_the_bad_row(tmp_path)), "per_device_train_batch_size": 4}
    both = trained({**begin, "output_dir": str(tmp_path / "both"), "learning_rate": 1e-30})
    assert curve(both)[0] == pytest.approx(curve(alone)[0], rel=1e-5)


def _step_with_the_bad_row(folder: Path) -> Path:
    file = folder / "data" / "step.json"
    file.write_text(json.dumps(json.loads((folder / "data" / "rows-0.json").read_text())[4:8]))
    return file


def test_a_stream_with_pictures_goes_on_to_the_bit(keys: dict[str, Any], tmp_path: Path) -> None:
    keys |= {"streaming": True, "buffer_size": 5, "disable_shuffling": False, "max_steps": 6}
    whole = trained({**keys, "output_dir": str(tmp_path / "whole")})
    trained({**keys, "output_dir": str(tmp_path / "parts"), "max_steps": 3, "save_strategy": "steps", "save_steps": 3})
    parts = trained({**keys, "output_dir": str(tmp_path / "parts")})
    assert curve(parts) == curve(whole)
    assert same_weights(parts, whole)
