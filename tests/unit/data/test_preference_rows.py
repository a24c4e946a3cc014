"""Rows for preference, feedback and prompt stages, in every form that datasets write them."""

from __future__ import annotations

import pytest

from tunesmith.config.data import DataConfig
from tunesmith.core.errors import TunesmithError
from tunesmith.core.types import Feedback, Message, Origin, Preference, Prompt
from tunesmith.data import read_examples
from tunesmith.data.formats import FORMATS
from tunesmith.data.rows import RowError

HERE = Origin("x", 0)
U, GOOD, BAD = Message("user", "u"), Message("assistant", "good"), Message("assistant", "bad")
SYSTEM = Message("system", "s")


def convert(name, row, stage, columns=None, tags=None, **settings):
    return FORMATS.get(name)(stage, columns, tags, **settings).example(row, HERE)


def said(*turns):
    return [{"role": role, "content": text} for role, text in turns]


def shared(*turns):
    return [{"from": who, "value": text} for who, text in turns]


USER, ANSWER, WORSE = ("user", "u"), ("assistant", "good"), ("assistant", "bad")

PAIRS = {
    "alpaca": ("alpaca", {"instruction": "u", "input": "", "chosen": "good", "rejected": "bad"}),
    "alpaca, answers as messages": (
        "alpaca",
        {"instruction": "u", "chosen": said(ANSWER)[0], "rejected": shared(("gpt", "bad"))[0]},
    ),
    "sharegpt": (
        "sharegpt",
        {
            "conversations": shared(("human", "u")),
            "chosen": shared(("gpt", "good"))[0],
            "rejected": shared(("gpt", "bad"))[0],
        },
    ),
    "sharegpt, answers as text": (
        "sharegpt",
        {"conversations": shared(("human", "u")), "chosen": "good", "rejected": "bad"},
    ),
    "openai": ("openai", {"messages": said(USER), "chosen": said(ANSWER), "rejected": said(WORSE)}),
    "trl": ("trl", {"prompt": "u", "chosen": "good", "rejected": "bad"}),
    "trl, messages": ("trl", {"prompt": said(USER), "chosen": said(ANSWER), "rejected": said(WORSE)}),
    "trl, no prompt": ("trl", {"chosen": said(USER, ANSWER), "rejected": said(USER, WORSE)}),
    "trl, a null prompt": ("trl", {"prompt": None, "chosen": said(USER, ANSWER), "rejected": said(USER, WORSE)}),
    "ultrafeedback": ("trl", {"prompt": "u", "chosen": said(USER, ANSWER), "rejected": said(USER, WORSE)}),
}


@pytest.mark.parametrize("stage", ["dpo", "rm"])
@pytest.mark.parametrize("case", PAIRS)
def test_pairs(case, stage):
    name, row = PAIRS[case]
    margin = 0.0 if stage == "rm" else None
    assert convert(name, row, stage) == Preference([U], [GOOD], [BAD], (), HERE, margin=margin)


def test_pairs_with_tools_system_and_history():
    tools = [{"name": "f", "parameters": {}}]
    row = {
        "instruction": "u",
        "system": "s",
        "history": [["a", "b"]],
        "chosen": "<think>\nhm\n</think>\n\ngood",
        "rejected": '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>',
        "tools": tools,
    }
    found = convert("alpaca", row, "dpo")
    assert [message.role for message in found.prompt] == ["system", "user", "assistant", "user"]
    assert found.chosen == [Message("assistant", "good", reasoning="hm")]
    assert found.rejected[0].tool_calls[0].name == "f"
    assert found.tools[0]["function"]["name"] == "f"


def test_the_system_text_of_a_column_is_not_another_prompt():
    row = {"prompt": "u", "system": "s", "chosen": said(USER, ANSWER), "rejected": said(USER, WORSE)}
    assert convert("trl", row, "dpo") == Preference([SYSTEM, U], [GOOD], [BAD], (), HERE)


def test_answers_of_several_messages_part_at_the_first_difference():
    chosen = said(USER, ("assistant", "same"), ("user", "v"), ANSWER)
    rejected = said(USER, ("assistant", "same"), ("user", "v"), WORSE)
    found = convert("trl", {"chosen": chosen, "rejected": rejected}, "dpo")
    assert [message.content for message in found.prompt] == ["u", "same", "v"]
    assert (found.chosen, found.rejected) == ([GOOD], [BAD])


def test_an_answer_that_goes_on_longer_begins_where_both_answer():
    longer = said(USER, ANSWER, ("user", "v"), WORSE)
    found = convert("trl", {"chosen": said(USER, ANSWER), "rejected": longer}, "dpo")
    assert found.prompt == [U]
    assert [message.content for message in found.rejected] == ["good", "v", "bad"]


def test_results_of_tools_may_differ_behind_the_same_call():
    def run(result, answer):
        call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
        return [*said(USER), call, *said(("tool", result), ("assistant", answer))]

    found = convert("trl", {"chosen": run("1", "one"), "rejected": run("2", "two")}, "dpo")
    assert found.prompt == [U]
    assert [message.role for message in found.chosen] == ["assistant", "tool", "assistant"]


@pytest.mark.parametrize("value", [None, 2, 0.5, "0.5", -1])
@pytest.mark.parametrize("case", PAIRS)
def test_margins_are_for_reward_models(case, value):
    name, row = PAIRS[case]
    assert convert(name, {**row, "margin": value}, "rm").margin == float(value or 0)
    assert convert(name, {**row, "margin": value}, "dpo").margin is None
    assert convert(name, row, "rm").margin == 0


@pytest.mark.parametrize("value", ["much", True, [1], float("nan"), float("inf"), "nan", 10**400])
def test_margins_are_numbers(value):
    name, row = PAIRS["alpaca"]
    with pytest.raises(RowError, match="not a number") as caught:
        convert(name, {**row, "margin": value}, "rm")
    assert (caught.value.code, caught.value.field) == ("E-DATA-014", "margin")


FAULTY_PAIRS = {
    "the same": ("trl", {"prompt": "u", "chosen": "a", "rejected": "a"}, "E-DATA-060", "the same"),
    "the same, whole": (
        "trl",
        {"chosen": said(USER, ANSWER), "rejected": said(USER, ANSWER)},
        "E-DATA-060",
        "the same",
    ),
    "the same but for weights": (
        "openai",
        {"messages": said(USER), "chosen": {**said(ANSWER)[0], "weight": 1}, "rejected": said(ANSWER)[0]},
        "E-DATA-060",
        "the same",
    ),
    "no rejected": ("alpaca", {"instruction": "u", "chosen": "a"}, "E-DATA-011", "missing"),
    "null rejected": ("alpaca", {"instruction": "u", "chosen": "a", "rejected": None}, "E-DATA-013", "null"),
    "empty": ("alpaca", {"instruction": "u", "chosen": "a", "rejected": " "}, "E-DATA-012", "empty answer"),
    "a number": ("alpaca", {"instruction": "u", "chosen": "a", "rejected": 3}, "E-DATA-014", "a number"),
    "other prompts": (
        "trl",
        {"chosen": said(USER, ANSWER), "rejected": said(("user", "v"), WORSE)},
        "E-DATA-062",
        "same prompt",
    ),
    "other follow-ups": (
        "trl",
        {
            "chosen": said(USER, ("assistant", "a"), ("user", "v"), ANSWER),
            "rejected": said(USER, ("assistant", "a"), ("user", "w"), WORSE),
        },
        "E-DATA-062",
        "same prompt",
    ),
    "another prompt than the row's": (
        "trl",
        {"prompt": "v", "chosen": said(USER, ANSWER), "rejected": said(USER, WORSE)},
        "E-DATA-062",
        "differs from that of the row",
    ),
    "no prompt at all": ("trl", {"chosen": said(ANSWER), "rejected": said(WORSE)}, "E-DATA-016", "without a prompt"),
    "texts without a prompt": ("trl", {"chosen": "a", "rejected": "b"}, "E-DATA-016", "without a prompt"),
    "empty lists": ("trl", {"prompt": "u", "chosen": [], "rejected": said(WORSE)}, "E-DATA-016", "no messages"),
    "only the prompt": (
        "trl",
        {"prompt": "u", "chosen": said(USER), "rejected": said(USER, WORSE)},
        "E-DATA-016",
        "no answer",
    ),
    "a prompt that is answered": (
        "openai",
        {"messages": said(USER, ANSWER), "chosen": "a", "rejected": "b"},
        "E-DATA-016",
        "ends with an answer",
    ),
}


@pytest.mark.parametrize("case", FAULTY_PAIRS)
def test_pairs_that_cannot_be_used(case):
    name, row, code, reason = FAULTY_PAIRS[case]
    with pytest.raises(RowError, match=reason) as caught:
        convert(name, row, "dpo")
    assert caught.value.code == code


LABELLED = {
    "alpaca": ("alpaca", {"instruction": "u", "output": "good"}, "kto_tag"),
    "sharegpt": ("sharegpt", {"conversations": shared(("human", "u"), ("gpt", "good"))}, "kto_tag"),
    "openai": ("openai", {"messages": said(USER, ANSWER)}, "label"),
    "trl": ("trl", {"prompt": "u", "completion": "good"}, "label"),
    "trl, messages": ("trl", {"prompt": said(USER), "completion": said(ANSWER)}, "label"),
}


@pytest.mark.parametrize("case", LABELLED)
@pytest.mark.parametrize(
    ("value", "liked"), [(True, True), (False, False), (1, True), (0, False), ("True", True), ("false", False)]
)
def test_feedback(case, value, liked):
    name, row, column = LABELLED[case]
    assert convert(name, {**row, column: value}, "kto") == Feedback([U], [GOOD], liked, (), HERE)


@pytest.mark.parametrize(
    ("value", "code"),
    [("yes", "E-DATA-061"), (2, "E-DATA-061"), (1.0, "E-DATA-061"), ([], "E-DATA-061"), (None, "E-DATA-013")],
)
def test_labels_are_not_guessed_at(value, code):
    with pytest.raises(RowError) as caught:
        convert("trl", {"prompt": "u", "completion": "a", "label": value}, "kto")
    assert caught.value.code == code


def test_the_answer_of_a_conversation_is_its_last_message():
    turns = said(USER, ("assistant", "a"), ("user", "v"), ANSWER)
    found = convert("openai", {"messages": turns, "label": True}, "kto")
    assert ([message.content for message in found.prompt], found.answer) == (["u", "a", "v"], [GOOD])


PROMPTS = {
    "text": ("trl", {"prompt": "u"}),
    "messages": ("trl", {"prompt": said(USER)}),
    "alpaca": ("alpaca", {"instruction": "u", "input": None}),
    "openai": ("openai", {"messages": said(USER)}),
    "openai, answered": ("openai", {"messages": said(USER, ANSWER)}),
    "sharegpt": ("sharegpt", {"conversations": shared(("human", "u"))}),
}


@pytest.mark.parametrize("stage", ["ppo", "prompt"])
@pytest.mark.parametrize("case", PROMPTS)
def test_prompts_carry_the_other_columns(case, stage):
    name, row = PROMPTS[case]
    found = convert(name, {**row, "answer": "42", "level": 3}, stage)
    assert found == Prompt([U], (), {"answer": "42", "level": 3}, HERE)


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"prompt": " "}, "E-DATA-012"),
        ({"prompt": None}, "E-DATA-013"),
        ({}, "E-DATA-011"),
        ({"prompt": []}, "E-DATA-016"),
    ],
)
def test_prompts_that_cannot_be_used(row, code):
    with pytest.raises(RowError) as caught:
        convert("trl", row, "ppo")
    assert caught.value.code == code


def test_a_prompt_and_a_completion_train_as_a_chat():
    row = {"prompt": said(USER), "completion": said(ANSWER)}
    assert list(convert("trl", row, "sft").messages) == [U, GOOD]
    assert list(convert("trl", {"prompt": "u", "completion": "good"}, "sft").messages) == [U, GOOD]


@pytest.mark.parametrize("stage", ["dpo", "rm", "kto", "ppo", "prompt"])
def test_every_stage_reads_a_file_that_nobody_described(write, stage):
    rows = [
        {"prompt": f"u{i}", "chosen": "a", "rejected": "b", "completion": "c", "label": i % 2 == 0} for i in range(4)
    ]
    name = write("x.jsonl", rows)
    found = read_examples(DataConfig(dataset=(name,)), stage=stage)
    kinds = {"dpo": Preference, "rm": Preference, "kto": Feedback, "ppo": Prompt, "prompt": Prompt}
    assert [type(one) for one in found] == [kinds[stage]] * 4


def test_entries_of_the_table_for_pairs(write):
    columns = {"messages": "conversations", "chosen": "better", "rejected": "worse"}
    write(
        "data/dataset_info.json",
        {"d": {"file_name": "x.json", "formatting": "sharegpt", "ranking": True, "columns": columns}},
    )
    better, worse = shared(("gpt", "good"), ("gpt", "bad"))
    write("data/x.json", [{"conversations": shared(("human", "u")), "better": better, "worse": worse}])
    (found,) = read_examples(DataConfig(dataset=("d",)), stage="dpo")
    assert (found.prompt, found.chosen, found.rejected) == ([U], [GOOD], [BAD])
    with pytest.raises(TunesmithError, match="ranking pairs cannot be used for stage sft") as caught:
        read_examples(DataConfig(dataset=("d",)), stage="sft")
    assert caught.value.problems[0].fix == "stage: rm or dpo or ppo, or another dataset"


def test_feedback_of_one_kind_is_refused_over_all_datasets(write):
    liked = write("liked.jsonl", [{"prompt": "u", "completion": "a", "label": True}] * 3)
    disliked = write("disliked.jsonl", [{"prompt": "u", "completion": "a", "label": False}] * 2)
    with pytest.raises(TunesmithError, match="all 3 labels are true") as caught:
        read_examples(DataConfig(dataset=(liked,)), stage="kto")
    assert caught.value.code == "E-DATA-061"
    assert len(read_examples(DataConfig(dataset=(liked, disliked)), stage="kto")) == 5
