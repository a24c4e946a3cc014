"""Duplicates, near-duplicates and rows that are on both sides of a split."""

from __future__ import annotations

from tunesmith.config.data import DataConfig
from tunesmith.core.types import Chat, Message
from tunesmith.data import build_datasets
from tunesmith.data.lint.run import lint, lint_examples

STORY = "The old river ran past the mill, and every evening the heron came to stand in its shallow water, number {}."


def rows(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"instruction": question, "output": answer} for question, answer in pairs]


def by_code(found) -> dict:
    return {one.code: one for one in found.report.findings}


UNLIKE = rows(("What is a heron?", "A bird."), ("Who painted this?", "Nobody knows."), ("Count to three.", "1 2 3"))


def test_exact_copies_are_counted_without_the_first(write) -> None:
    name = write("x.jsonl", [*UNLIKE, UNLIKE[0], UNLIKE[0], UNLIKE[1]])
    finding = by_code(lint(DataConfig(dataset=(name,)), stage="sft"))["E-LINT-007"]
    assert (finding.count, finding.total, finding.severity) == (3, 6, "warning")
    assert [(str(place.origin), place.note) for place in finding.places] == [
        ("x.jsonl:1", "3 times"),
        ("x.jsonl:2", "2 times"),
    ]


def test_outer_blanks_do_not_make_a_row_another_but_roles_do() -> None:
    def chat(*texts: str) -> Chat:
        return Chat([Message(role, text) for role, text in zip(("user", "assistant"), texts, strict=True)])

    assert [one.code for one in lint_examples([chat("hello you", "good bye"), chat(" hello you\n", "good bye ")])] == [
        "E-LINT-007"
    ]
    codes = [one.code for one in lint_examples([chat("hello you", "good bye"), chat("good bye", "hello you")])]
    assert "E-LINT-007" not in codes


def test_near_duplicates_name_their_likes_with_the_similarity(write) -> None:
    near = rows(("Tell me of the mill", STORY.format(1)), ("Tell me of the mill!", STORY.format("two")))
    name = write("x.jsonl", [*UNLIKE, *near])
    finding = by_code(lint(DataConfig(dataset=(name,)), stage="sft"))["E-LINT-008"]
    assert finding.count == 1
    (place,) = finding.places
    assert str(place.origin) == "x.jsonl:4"
    assert place.note.startswith("a cluster of 2: x.jsonl:5 (0.")
    assert "E-LINT-007" not in by_code(lint(DataConfig(dataset=(name,)), stage="sft"))


def test_a_system_message_that_all_share_makes_no_near_duplicates() -> None:
    system = Message("system", "You are a helpful assistant who answers at length and with care. " * 5)
    pairs = [("What is a heron?", "A bird."), ("Who painted this?", "Nobody knows.")]
    chats = [Chat((system, Message("user", question), Message("assistant", answer))) for question, answer in pairs]
    assert lint_examples(chats) == []


def test_evaluation_rows_in_the_training_data(write) -> None:
    train = write("train.jsonl", [*UNLIKE, *rows(("Tell me of the mill", STORY.format(1)))])
    held = write(
        "held.jsonl",
        [
            UNLIKE[1],
            *rows(
                ("Tell me of the mill.", STORY.format(2)),
                ("What is a heron?", "A wader of the family Ardeidae."),
                ("New", "New"),
            ),
        ],
    )
    found = lint(DataConfig(dataset=(train,), eval_dataset=(held,)), stage="sft")
    codes = by_code(found)
    assert [(str(p.origin), p.note) for p in codes["E-LINT-009"].places] == [("held.jsonl:1", "is train.jsonl:2")]
    (near,) = codes["E-LINT-010"].places
    assert str(near.origin) == "held.jsonl:2"
    assert near.note.startswith("like train.jsonl:4 (0.")
    assert [(str(p.origin), p.note) for p in codes["E-LINT-011"].places] == [
        ("held.jsonl:3", "the prompt of train.jsonl:1")
    ]
    assert codes["E-LINT-009"].total == 4
    assert found.report.leaks
    assert found.report.fails(on_leak=True)
    assert not found.report.fails()
    assert "E-LINT-007" not in codes  # a copy on the other side is a leak, not a duplicate


def test_val_size_holds_out_the_rows_that_a_run_holds_out(write, renderer) -> None:
    """Of each text there are two copies; a copy on the other side is a leak."""
    texts = [
        f"{word} and nothing but {word}s" for word in ("apple", "brick", "cloud", "drum", "eagle", "fence", "goat")
    ]
    name = write("x.jsonl", rows(*((f"Say {text}", text) for text in texts)) * 2)
    config = DataConfig(dataset=(name,), val_size=5)
    run = build_datasets(config, renderer, stage="sft", seed=3)
    lines = {
        side: {data.origin(i).line for i in range(len(data))}
        for side, data in (("train", run.train), ("eval", run.eval["validation"]))
    }
    leaked = {line for line in lines["eval"] if (line + 6) % 14 + 1 in lines["train"]}  # the copy is 7 lines away
    finding = by_code(lint(config, stage="sft", seed=3))["E-LINT-009"]
    assert 0 < len(leaked) == finding.count
    assert finding.total == 5
    assert {place.origin.line for place in finding.places} <= leaked


def test_rows_drawn_by_num_samples_and_rows_that_train_nothing_do_not_shift_the_split(write, renderer) -> None:
    texts = [
        f"{word} and nothing but {word}s" for word in ("apple", "brick", "cloud", "drum", "eagle", "fence", "goat")
    ]
    bad = rows(("unrenderable", "x"))
    name = write("x.jsonl", [*bad, *rows(*((f"Say {text}", text) for text in texts)) * 2])
    table = {"some": {"file_name": name, "num_samples": 11}}
    config = DataConfig(dataset=("some",), dataset_dir=table, val_size=4, on_bad_row="skip", max_bad_rows=3)
    run = build_datasets(config, renderer, stage="sft", seed=5)
    lines = [{data.origin(i).line for i in range(len(data))} for data in (run.train, run.eval["validation"])]
    leaked = {line for line in lines[1] if (line + 5) % 14 + 2 in lines[0]}  # the copy is 7 lines away, from line 2 on
    found = by_code(lint(config, stage="sft", seed=5, renderer=renderer))
    assert 0 < len(leaked) == found["E-LINT-009"].count
    assert {place.origin.line for place in found["E-LINT-009"].places} <= leaked
