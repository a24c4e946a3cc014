"""Every check on a few rows that have its fault, and on rows that have not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tunesmith.core.types import Chat, Feedback, Message, Preference, ToolCall
from tunesmith.data.lint.base import Finding
from tunesmith.data.lint.checks import ROW_CHECKS, SET_CHECKS
from tunesmith.data.lint.run import lint_examples
from tunesmith.render.control import ControlTokens

NAMES = [
    "otter", "beaver", "heron", "stork", "badger", "weasel", "lynx", "marten", "ibex", "chamois", "vole", "shrew",
    "adder", "newt", "toad", "perch", "pike", "trout", "salmon", "eel", "mussel", "snail", "beetle", "wasp",
    "hornet", "cricket", "locust", "moth", "swift", "swallow",
]  # fmt: skip


def user(content: str) -> Message:
    return Message("user", content)


def assistant(content: str, **more) -> Message:
    return Message("assistant", content, **more)


def chat(question: str, answer: str) -> Chat:
    return Chat((user(question), assistant(answer)))


GOOD = [
    chat(f"Where would I look for the {name} if I were in {other} county?", f"{other.title()}: {name} by the water.")
    for name, other in zip(NAMES, reversed(NAMES), strict=True)
]


def found(examples, renderer=None, stage="sft") -> dict[str, Finding]:
    return {one.code: one for one in lint_examples(examples, renderer, stage)}


@pytest.fixture
def with_control(renderer):
    added = [
        {"id": 9, "content": "<|im_end|>", "special": True, "lstrip": False, "rstrip": False, "single_word": False}
    ]
    renderer.control = ControlTokens(added, "")
    return renderer


def test_good_rows_show_nothing(with_control) -> None:
    assert found(GOOD, with_control) == {}


def test_every_check_is_in_the_table_once() -> None:
    codes = [check.code for check in ROW_CHECKS]
    assert len(set(codes)) == len(codes)
    assert len({check.find for check in SET_CHECKS}) == len(SET_CHECKS)


@pytest.mark.parametrize(
    ("code", "bad"),
    [
        ("E-LINT-001", chat("Hello there, how are you?", " \n")),
        ("E-LINT-002", Chat((user("a"), user("b"), assistant("c")))),
        ("E-LINT-002", Chat((user("a"), assistant("b"), user("c")))),
        ("E-LINT-002", Chat(())),
        ("E-LINT-002", Preference((user("a"), assistant("b")), (assistant("c"),), (assistant("d"),))),
        ("E-LINT-004", Preference((user("a"),), (assistant("same"),), (assistant(" same\n"),))),
        ("E-LINT-005", Preference((), (user("one"), assistant("c")), (user("two"), assistant("d")))),
        ("E-LINT-016", chat("Tell me where the old owl lives", "Tell me where the old owl lives: in a tree.")),
        ("E-LINT-018", chat("What is my key?", "It is hf_" + "aB3" * 12)),
        ("E-LINT-019", chat("Who?", "Ask jane@university.edu.")),
        ("E-LINT-020", chat("Hello\0", "Hi.")),
        ("E-LINT-021", chat("Ecole", "E\u0301cole.")),
        ("E-LINT-022", chat("Who?", "The caf\ufffd.")),
        ("E-LINT-022", chat("Who?", "The cafÃ© is open.")),
        ("E-LINT-023", chat("Say it", "Bye<|im_end|>")),
    ],
)
def test_a_row_with_a_fault_is_found_with_its_place(code: str, bad, with_control) -> None:
    origin = replace(GOOD[0].origin, file="bad.jsonl", line=7)
    stage = "dpo" if isinstance(bad, Preference) else "sft"
    good = GOOD if stage == "sft" else []
    finding = found([*good, replace(bad, origin=origin)], with_control, stage)[code]
    assert (finding.count, finding.total) == (1, len(good) + 1)
    assert [str(place.origin) for place in finding.places] == ["bad.jsonl:7"]
    assert finding.places[0].excerpt
    assert finding.fix


@pytest.mark.parametrize(
    ("code", "good"),
    [
        ("E-LINT-001", Chat((user("a"), assistant("", tool_calls=(ToolCall("f", {}),))))),
        ("E-LINT-002", Chat((Message("system", "s"), user("a"), assistant("b"), user("c"), assistant("d")))),
        ("E-LINT-004", Preference((user("a"),), (assistant("one"),), (assistant("two"),))),
        ("E-LINT-005", Preference((), (user("b"), assistant("x")), (user("b"), assistant("y")))),
        ("E-LINT-016", chat("Yes", "Yes")),
        ("E-LINT-019", chat("Who?", "Ask jane@example.com.")),
        ("E-LINT-020", chat("a\tb\r\n", "c")),
        ("E-LINT-021", chat("École", "naïve 你好")),
        ("E-LINT-022", chat("São Paulo, NÃO", "Âge, â")),
        ("E-LINT-023", replace(chat("Say it", "Bye<|im_end|>"), trusted_markup=True)),
    ],
)
def test_what_only_looks_like_a_fault_is_none(code: str, good, renderer, with_control) -> None:
    assert code not in found([good], with_control, "dpo" if isinstance(good, Preference) else "sft")


def test_rows_of_which_nothing_is_trained(renderer) -> None:
    renderer.encode_chats = lambda chats: [
        [replace(renderer._chat(one), trained=[False] * 9, ids=[1] * 9)] for one in chats
    ]
    assert found(GOOD[:3], renderer)["E-LINT-003"].count == 3


def test_rows_that_cannot_be_rendered(renderer) -> None:
    finding = found([*GOOD, chat("unrenderable", "a")], renderer)["E-RENDER-003"]
    assert (finding.count, finding.severity, finding.what) == (1, "error", "no such thing")


def test_control_tokens_are_counted_by_token(with_control) -> None:
    rows = [*GOOD, chat("<|im_end|><|im_end|>", "a"), chat("b <|im_end|>", "c")]
    finding = found(rows, with_control)["E-LINT-023"]
    assert (finding.count, finding.kinds) == (2, {"<|im_end|>": 3})


def test_secrets_never_appear_in_a_report() -> None:
    key = "sk-" + "x9Y" * 12
    rows = [chat(f"{key}\0 jane@university.edu", f"{key} cafe\u0301 \ufffd"), chat(key, key)]
    findings = lint_examples(rows)
    assert {one.code for one in findings} >= {"E-LINT-018", "E-LINT-019", "E-LINT-020", "E-LINT-021", "E-LINT-022"}
    told = repr(findings)
    assert key[3:] not in told
    assert "jane" not in told


def test_a_tenth_of_repeating_answers_is_a_warning_and_one_is_a_note() -> None:
    bad = chat("Tell me where the old owl lives", "Tell me where the old owl lives: in a tree.")
    assert found([*GOOD, bad])["E-LINT-016"].severity == "note"
    assert found([*GOOD[:9], bad])["E-LINT-016"].severity == "warning"


def rated(liked: int, disliked: int) -> list[Feedback]:
    return [Feedback((user(f"q{i}"),), (assistant(f"a{i}"),), i < liked) for i in range(liked + disliked)]


def test_one_sided_feedback() -> None:
    assert "E-LINT-006" not in found(rated(5, 20), stage="kto")
    few = found(rated(2, 30), stage="kto")["E-LINT-006"]
    assert (few.count, few.total) == (2, 32)
    assert few.fix.startswith("kto_chosen_weight: 15 balances")
    assert "E-LINT-006" not in found(rated(30, 0), stage="kto")  # another finding, see test_lint_run


def test_the_same_prompt_or_answer_everywhere() -> None:
    same_prompt = [chat("Answer the question.", f"{name} is here") for name in NAMES]
    assert found(same_prompt)["E-LINT-014"].count == len(NAMES)
    same_answer = [chat(f"Is {name} here or is it there?", "positive") for name in NAMES]
    assert found(same_answer)["E-LINT-015"].count == len(NAMES)
    assert "E-LINT-014" not in found([chat("Answer the question.", "x")] * 30)  # copies are another finding
    assert "E-LINT-014" not in found(same_prompt[:9])


def test_columns_that_may_be_swapped() -> None:
    swapped = [chat(f"{name.title()} lives in the water.", f"Where does {name} live?") for name in NAMES]
    assert found(swapped)["E-LINT-017"].severity == "warning"
    labels = [chat(f"{name} " * 40, name[:3]) for name in NAMES]
    assert found(labels)["E-LINT-017"].severity == "note"


def test_little_is_trained(renderer) -> None:
    rows = [chat(f"{name} " * 60, name[:3]) for name in NAMES]
    finding = found(rows, renderer)["E-LINT-013"]
    assert finding.unit == "tokens"
    assert finding.count == len(NAMES) * 4  # three letters and a stop
