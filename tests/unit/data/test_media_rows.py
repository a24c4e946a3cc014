"""Rows with media in all forms that datasets write them: placeholders and columns, content parts, pairs, feedback."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.unit.data.conftest import ByteRenderer
from tunesmith.config.data import DataConfig
from tunesmith.core.errors import DataError
from tunesmith.core.types import PLACE, Chat, Encoded, Medium, Message, Origin, Placed
from tunesmith.core.types import MediaFacts as Facts
from tunesmith.data import build_datasets, read_examples
from tunesmith.data.dataset import TokenDataset
from tunesmith.data.detect import detect
from tunesmith.data.fingerprint import fingerprint
from tunesmith.data.formats import FORMATS
from tunesmith.data.mismatch import MISMATCHED, mismatched
from tunesmith.data.pack import units
from tunesmith.data.rows import RowError
from tunesmith.data.store import GrowingFiles, SampleWriter, open_samples

HERE = Origin("x", 0)
A, B = Medium("image", "a.png"), Medium("image", "b.png")
ANSWER = {"role": "assistant", "content": "yes"}
IMAGES = {"messages": "messages", "images": "images"}


def convert(name, row, stage="sft", columns=None, **settings):
    return FORMATS.get(name)(stage, columns, **settings).example(row, HERE)


def asked(content, **more):
    return {"messages": [{"role": "user", "content": content}, ANSWER], **more}


def test_words_in_texts_are_places_of_the_media_of_a_column_in_order():
    row = {
        "conversations": [
            {"from": "human", "value": "<image>one <audio>two"},
            {"from": "gpt", "value": "yes"},
            {"from": "human", "value": "and <image>?"},
            {"from": "gpt", "value": "no"},
        ],
        "images": ["a.png", {"path": "b.png", "bytes": None}],
        "audios": b"RIFF",
    }
    first, _, second, _ = convert("sharegpt", row).messages
    assert (first.content, first.media) == (f"{PLACE}one {PLACE}two", (A, Medium("audio", b"RIFF")))
    assert (second.content, second.media) == (f"and {PLACE}?", (B,))
    alpaca = {"instruction": "<image>what", "input": "now <image>", "output": "yes", "images": ["a.png", "b.png"]}
    assert convert("alpaca", alpaca).messages[0].media == (A, B)


def test_content_parts_bring_their_own_media_or_take_the_next_of_the_column():
    parts = [
        {"type": "image_url", "image_url": {"url": "a.png"}},
        {"type": "text", "text": f"a <image> in prose {PLACE}"},
        {"type": "image"},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "video", "video": ["1.png", "2.png"]},
    ]
    message = convert("openai", asked(parts, images=["b.png"])).messages[0]
    assert message.content == f"{PLACE}a <image> in prose \ufffd{PLACE}{PLACE}{PLACE}"
    assert message.media[:2] == (A, B)
    own = convert("openai", asked(parts[:2])).messages[0]
    assert own.content == f"{PLACE}a <image> in prose \ufffd"
    assert own.media == (A,)
    rest = convert("openai", asked([*parts[2:], {"type": "text", "text": "?"}], images=["b.png"])).messages[0]
    assert rest.content == f"{PLACE}{PLACE}{PLACE}?"
    kinds = [(one.kind, one.source) for one in rest.media]
    assert kinds == [("image", "b.png"), ("audio", "data:audio/wav;base64,UklGRg=="), ("video", ("1.png", "2.png"))]


def test_words_stay_words_where_no_column_holds_such_media():
    assert convert("openai", asked("an <image> tag")).messages[0] == Message("user", "an <image> tag")
    assert convert("openai", asked("an <image> tag", images=None)).messages[0].content == "an <image> tag"
    message = convert("openai", asked("<image>a <video> tag", images=["a.png"])).messages[0]
    assert (message.content, message.media) == (f"{PLACE}a <video> tag", (A,))
    assert convert("openai", asked(f"a {PLACE} of text")).messages[0].content == f"a {PLACE} of text"


@pytest.mark.parametrize(
    ("row", "columns", "code", "said"),
    [
        (asked("<image>", images=["a.png", "b.png"]), None, "E-MEDIA-030", "1 <image> for 2 of the media"),
        (asked("<image><image>", images=["a.png"]), None, "E-MEDIA-030", "2 <image> for 1"),
        (asked("none", images=["a.png"]), None, "E-MEDIA-030", "0 <image> for 1"),
        (asked("<image>", images=[]), IMAGES, "E-MEDIA-030", "1 <image> for 0"),
        (asked("<image>"), IMAGES, "E-MEDIA-030", "1 <image> for 0"),
        (asked([{"type": "image"}]), None, "E-MEDIA-030", "1 <image> for 0"),
        (asked("<image>", images=[3]), None, "E-MEDIA-032", "a number where a path"),
        (asked("<image>", images=[""]), None, "E-MEDIA-032", "an empty text where a path"),
        (asked("<image>", images=[{"name": "a"}]), None, "E-MEDIA-032", "where a path"),
        (asked([{"type": "image_url", "image_url": {"detail": "low"}}]), None, "E-MEDIA-032", "where a path"),
    ],
)
def test_places_and_media_that_do_not_go_together_are_refused(row, columns, code, said):
    with pytest.raises(RowError) as caught:
        convert("openai", row, columns=columns)
    assert (caught.value.code, said in caught.value.reason) == (code, True), caught.value.reason


@pytest.mark.parametrize("content", ["<image>", [{"type": "image", "image": "a.png"}]])
def test_an_answer_holds_no_medium(content):
    row = {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": content}]}
    row |= {"images": ["a.png"]} if isinstance(content, str) else {}
    with pytest.raises(RowError) as caught:
        convert("openai", row)
    assert caught.value.code == "E-MEDIA-031"


def test_pairs_feedback_and_prompts_have_the_media_of_their_prompt():
    row = {"prompt": "<image>u", "images": ["a.png"]}
    pair = convert("trl", {**row, "chosen": "good", "rejected": "bad"}, "dpo")
    assert [one.media for one in (*pair.prompt, *pair.chosen, *pair.rejected)] == [(A,), (), ()]
    feedback = convert("trl", {**row, "completion": "good", "label": True}, "kto")
    assert feedback.prompt[0].media == (A,)
    found = convert("trl", {**row, "id": 7}, "prompt")
    assert (found.messages[0].media, found.extra) == ((A,), {"id": 7})


def test_merged_messages_keep_their_media():
    turns = [{"from": "human", "value": text} for text in ("<image>x", f"a {PLACE}", "y<image>")]
    row = {"conversations": [*turns, {"from": "gpt", "value": "yes"}], "images": ["a.png", "b.png"]}
    message = convert("sharegpt", row, merge_consecutive=True).messages[0]
    assert message.media == (A, B)
    assert message.content.count(PLACE) == 2


def test_detection_reads_columns_of_media_that_hold_some():
    rows = [asked("<image>", image=["a.png"], audio=None)]
    assert detect(rows, "sft").columns == {"messages": "messages", "images": "image"}
    assert "images" not in detect([asked("u", images=None)], "sft").columns


def test_places_and_media_are_as_many():
    with pytest.raises(ValueError, match="1 places for 2 media"):
        Message("user", PLACE, media=(A, B))


def _pictures(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 6)).save(folder / name)


def test_rows_with_bad_media_are_left_out_and_counted(write, renderer, tmp_path):
    _pictures(tmp_path, "a.png")
    rows = [asked("<image>?", images=[name]) for name in ("a.png", "gone.png", "a.png")]
    data = {"dataset": (write("x.jsonl", rows),)}
    with pytest.raises(DataError) as caught:
        build_datasets(DataConfig(**data), renderer, stage="sft", seed=1)
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("E-MEDIA-010", "x.jsonl:2")
    with pytest.raises(DataError):  # a medium is no other bad row
        build_datasets(DataConfig(**data, on_bad_row="skip", max_bad_rows=1), renderer, stage="sft", seed=1)
    found = build_datasets(DataConfig(**data, on_bad_media="skip", max_bad_rows=1), renderer, stage="sft", seed=1)
    assert len(found.train) == 2
    assert found.report.datasets[0].dropped_places == {problem.what.partition(":")[0]: ["x.jsonl:2"]}
    with pytest.raises(DataError) as caught:
        build_datasets(DataConfig(**data, on_bad_media="skip", max_bad_rows=0), renderer, stage="sft", seed=1)
    assert [one.code for one in caught.value.problems] == ["E-DATA-023", "E-MEDIA-010"]


def test_paths_begin_at_media_dir_then_at_the_folder_of_the_dataset(write, tmp_path):
    _pictures(tmp_path / "data", "a.png", "b.png")
    _pictures(tmp_path / "pictures", "a.png")
    name = write("data/x.jsonl", [asked("<image><image>", images=["a.png", "b.png"])])
    data = DataConfig(dataset=(name,), media_dir=str(tmp_path / "pictures"))
    (example,) = read_examples(data, stage="sft")
    sources = [one.source for one in example.messages[0].media]
    assert sources == [str(tmp_path / "pictures" / "a.png"), str(tmp_path / "data" / "b.png")]
    assert [one.facts.width for one in example.messages[0].media] == [8, 8]


class SeeingBytes(ByteRenderer):
    """The first bytes of a chat stand for its media."""

    def encode_batch(self, chats, *, open_reply=False):
        found = super().encode_batch(chats, open_reply=open_reply)
        for number, chat in enumerate(chats):
            media = [one for message in chat.messages for one in message.media]
            found.media[number] = tuple(Placed(one, at, at + 1) for at, one in enumerate(media))
        return found


def test_an_entry_of_the_cache_is_used_again_until_a_picture_changes(write, tmp_path, monkeypatch):
    renderer = SeeingBytes()
    _pictures(tmp_path, "a.png", "b.png")
    name = write("x.jsonl", [asked("<image>?", images=[one]) for one in ("a.png", "b.png")])
    read = []
    monkeypatch.setattr("tunesmith.media.settle.MEASURES", {"image": lambda path: (read.append(path), Facts(8, 6))[1]})

    def build():
        return build_datasets(DataConfig(dataset=(name,)), renderer, stage="sft", seed=1)

    build()
    assert (len(read), len(renderer.batches)) == (2, 1)
    build()
    assert (len(read), len(renderer.batches)) == (2, 1), "nothing is looked at again"
    Image.new("RGB", (9, 9)).save(tmp_path / "b.png")
    build()
    assert len(renderer.batches) == 2, "the entry is made anew"


def _placed(name, start, end):
    return Placed(Medium("image", name, Facts(4, 3, digest=name)), start, end)


def _sequences():
    return [
        Encoded(range(6), [False] * 4 + [True] * 2, HERE, media=(_placed("a", 0, 2), _placed("b", 3, 4))),
        Encoded(range(3), [False, True, True], HERE),
        Encoded(range(5), [False] * 3 + [True] * 2, HERE, media=(_placed("c", 1, 3),)),
    ]


def test_media_go_with_their_sequences_through_files_views_and_packs(tmp_path):
    held = TokenDataset.from_encoded(_sequences())
    assert [[len(own) for own in held[n]["media"]] for n in range(3)] == [[2], [0], [1]]
    with GrowingFiles(tmp_path) as files:
        writer = SampleWriter(files)
        for sequence in _sequences():  # a block each
            size, trained = len(sequence.ids), sum(sequence.trained)
            table = np.array([[size, trained, 0, 0, 0, -1, 0, 0]])
            ids, mask = np.array(sequence.ids, np.int32), np.array(sequence.trained)
            writer.add(ids, mask, None, table, sequence.media)
    stored, _ = open_samples(tmp_path, ["x"])
    for dataset in (held, stored):
        assert dataset.has_media
        assert [dataset[n]["media"][0] for n in range(3)] == [one.media for one in _sequences()]
        assert dataset.take(np.array([2, 0]))[0]["media"] == [(_placed("c", 1, 3),)]
        pack = units(dataset)[0]
        assert pack["media"] == [_sequences()[0].media]
    assert fingerprint(held) == fingerprint(TokenDataset.from_encoded(_sequences()))
    other = [
        Encoded(one.ids, one.trained, HERE, media=tuple(_placed("z", p.start, p.end) for p in one.media))
        for one in _sequences()
    ]
    assert fingerprint(TokenDataset.from_encoded(other)) != fingerprint(held), "another picture is another dataset"


def test_a_mismatched_answer_comes_with_the_media_of_its_prompt():
    found = mismatched(TokenDataset.from_encoded(_sequences()), 6)
    assert found[0][MISMATCHED + "media"] == [_sequences()[0].media]
    assert found[1][MISMATCHED + "media"] == [()]


def test_lines_of_media_are_plain_json(tmp_path):
    with GrowingFiles(tmp_path) as files:
        one = _sequences()[0]
        table = np.array([[6, 2, 0, 0, 0, -1, 0, 0]])
        SampleWriter(files).add(np.array(one.ids, np.int32), np.array(one.trained), None, table, one.media)
    lines = [json.loads(line) for line in (tmp_path / "media.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["source"], line["facts"]["width"]) for line in lines] == [
        ("image", "a", 4),
        ("image", "b", 4),
    ]
    assert Chat([Message("user", PLACE, media=(A,))]).messages[0].media == (A,)
