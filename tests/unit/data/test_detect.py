"""Formats told by their columns, for every kind of example; and what is proposed where they cannot be."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from tunesmith.config.data import DataConfig
from tunesmith.core.errors import TunesmithError
from tunesmith.data import read_examples
from tunesmith.data.detect import LAYOUTS, Layout, detect, fitting, lacking
from tunesmith.data.formats import FORMATS
from tunesmith.data.formats.base import KINDS
from tunesmith.data.mapping import as_entry, as_yaml
from tunesmith.data.reading import load_datasets

ASKED = [{"role": "user", "content": "u"}]
ANSWERED = [*ASKED, {"role": "assistant", "content": "a"}]
SHARED = [{"from": "human", "value": "u"}]
REPLY = {"from": "gpt", "value": "a"}

FOUND = {
    "pairs of texts": (
        "dpo",
        {"prompt": "", "chosen": "", "rejected": ""},
        "alpaca (prompt: prompt, chosen: chosen, rejected: rejected)",
    ),
    "with a query": (
        "rm",
        {"instruction": "", "input": "", "chosen": "", "rejected": ""},
        "alpaca (prompt: instruction, query: input, chosen: chosen, rejected: rejected)",
    ),
    "pairs of lists": (
        "dpo",
        {"prompt": ASKED, "chosen": [REPLY], "rejected": [REPLY]},
        "trl (prompt: prompt, chosen: chosen, rejected: rejected)",
    ),
    "whole pairs": (
        "dpo",
        {"chosen": ANSWERED, "rejected": ANSWERED, "score": 1},
        "trl (chosen: chosen, rejected: rejected)",
    ),
    "ultrafeedback": (
        "dpo",
        {"prompt": "", "prompt_id": "", "messages": ANSWERED, "chosen": ANSWERED, "rejected": ANSWERED},
        "trl (prompt: prompt, chosen: chosen, rejected: rejected)",
    ),
    "sharegpt pairs": (
        "dpo",
        {"conversations": SHARED, "chosen": REPLY, "rejected": REPLY},
        "sharegpt (messages: conversations, chosen: chosen, rejected: rejected)",
    ),
    "openai pairs": (
        "dpo",
        {"messages": ASKED, "chosen": "a", "rejected": "b", "tools": ""},
        "openai (messages: messages, chosen: chosen, rejected: rejected, tools: tools)",
    ),
    "one answer": ("dpo", {"instruction": "", "output": ""}, None),
    "no rejected": ("dpo", {"prompt": "", "chosen": ""}, None),
    "labels": (
        "kto",
        {"prompt": "", "completion": "", "label": True},
        "alpaca (prompt: prompt, response: completion, kto_tag: label)",
    ),
    "labels of lists": (
        "kto",
        {"prompt": ASKED, "completion": [REPLY], "label": True},
        "trl (prompt: prompt, response: completion, kto_tag: label)",
    ),
    "labels of chats": ("kto", {"messages": ANSWERED, "kto_tag": 0}, "openai (messages: messages, kto_tag: kto_tag)"),
    "labels of shares": (
        "kto",
        {"conversations": [*SHARED, REPLY], "label": 0},
        "sharegpt (messages: conversations, kto_tag: label)",
    ),
    "prompts": ("ppo", {"prompt": "", "answer": ""}, "alpaca (prompt: prompt)"),
    "prompts as messages": ("prompt", {"prompt": ASKED, "x": 1}, "trl (prompt: prompt)"),
    "prompts of chats": ("ppo", {"conversations": SHARED}, "sharegpt (messages: conversations)"),
    "chats beside pairs": (
        "sft",
        {"prompt": "", "messages": ANSWERED, "chosen": ANSWERED, "rejected": ANSWERED},
        "openai (messages: messages)",
    ),
    "pairs for sft": ("sft", {"messages": ASKED, "chosen": "a", "rejected": "b"}, None),
    "a question alone": ("sft", {"messages": ASKED}, "openai (messages: messages)"),
    "completions": ("sft", {"prompt": ASKED, "completion": [REPLY]}, "trl (prompt: prompt, response: completion)"),
    "null at first": ("sft", {"instruction": None, "output": None}, "alpaca (prompt: instruction, response: output)"),
    "a wrong type": ("sft", {"instruction": ["a"], "output": 3}, "alpaca (prompt: instruction, response: output)"),
    "documents": ("pt", {"content": None}, "text (prompt: content)"),
}


@pytest.mark.parametrize("case", FOUND)
def test_the_layout_is_told_by_names_and_shapes(case):
    stage, row, found = FOUND[case]
    layout = detect([row], stage)
    assert (layout and str(layout)) == found


def test_a_column_that_is_null_at_first_is_judged_by_later_rows():
    rows = [{"messages": None}, {"messages": []}, {"messages": ANSWERED}]
    assert str(detect(rows, "sft")) == "openai (messages: messages)"


def test_every_rule_names_a_format_that_serves_its_kind_with_these_columns():
    for rule in LAYOUTS:
        if rule.format is None:
            continue
        stages = [stage for stage, kind in KINDS.items() if kind == rule.kind]
        for stage in stages:
            needed = FORMATS.get(rule.format).needed[stage]
            assert set(needed) <= set(rule.needs), rule
            assert set(rule.needs) | set(rule.may) <= set(FORMATS.get(rule.format).default_columns) | {"prompt"}, rule


def test_stages_that_fit_and_what_is_lacking():
    row = {"instruction": "", "output": ""}
    assert list(fitting([row])) == ["sft", "ppo"]
    assert lacking([row], "dpo") == ["chosen", "rejected"]
    assert lacking([row], "kto") == ["kto_tag"]
    assert lacking([{"prompt": "", "chosen": ""}], "dpo") == ["rejected"]
    assert lacking([{"foo": ""}], "sft") == []


def test_what_is_proposed_can_be_pasted():
    layout = Layout("alpaca", {"prompt": "Frage: a", "response": "no", "query": "in_put"})
    (entry,) = yaml.safe_load(as_yaml("my data/x.jsonl", layout))["dataset"]
    assert entry == {"path": "my data/x.jsonl", "format": "alpaca", "columns": dict(layout.columns)}
    assert json.loads(as_entry("x.jsonl", layout)) == {
        "my_data": {"file_name": "x.jsonl", "formatting": "alpaca", "columns": dict(layout.columns)}
    }


@pytest.mark.parametrize(
    ("stage", "row", "code", "said"),
    [
        ("sft", {"foo": "a", "bar": "b"}, "E-DATA-022", "foo, bar"),
        ("dpo", {"instruction": "a", "output": "b"}, "E-DATA-027", "needs chosen and rejected as well"),
        ("kto", {"instruction": "a", "output": "b"}, "E-DATA-027", "needs kto_tag as well"),
        ("sft", {"prompt": "a", "chosen": "b", "rejected": "c"}, "E-DATA-027", "stage: rm or dpo or ppo"),
        ("sft", {"text": "a"}, "E-DATA-027", "stage: pt"),
        ("dpo", {"prompt": "a", "chosen": "b"}, "E-DATA-011", "rejected"),
        ("sft", {"question": "a", "reply": "b"}, "E-DATA-011", "output, response, answer"),
        ("pt", {"body": "a"}, "E-DATA-022", "format: text"),
    ],
)
def test_what_cannot_be_told_is_asked_for(write, stage, row, code, said):
    with pytest.raises(TunesmithError) as caught:
        read_examples(DataConfig(dataset=(write("x.jsonl", [row]),)), stage=stage)
    (problem,) = caught.value.problems
    assert problem.code == code
    assert said in str(caught.value)
    if code != "E-DATA-027":
        pasted = re.search(r"(dataset: \[.*?\}\]) or, as an entry of dataset_info.json, (\{.*\})", problem.fix)
        assert yaml.safe_load(pasted[1])["dataset"][0]["path"] == "x.jsonl"
        assert json.loads(pasted[2])["my_data"]["file_name"] == "x.jsonl"


def test_what_is_pasted_is_read(write):
    write("data/x.jsonl", [{"frage": "a", "antwort": "b"}])
    write("data/dataset_info.json", {"d": {"file_name": "x.jsonl"}})
    write("x.jsonl", [{"prompt": "a", "reply": "b"}])
    with pytest.raises(TunesmithError) as caught:
        read_examples(DataConfig(dataset=("x.jsonl",)), stage="sft")
    (problem,) = caught.value.problems
    pasted = problem.fix.split("say which column it is: ")[1].split(" or, as")[0]
    (spec,) = yaml.safe_load(pasted)["dataset"]
    spec["columns"] = {"prompt": "prompt", "response": "reply"}
    (example,) = read_examples(DataConfig(dataset=(spec,)), stage="sft")
    assert [message.content for message in example.messages] == ["a", "b"]


def test_the_mapping_is_printed_with_what_is_not_read(write):
    name = write("x.jsonl", [{"id": 7, "question": "a", "answer": "b"}])
    (loaded,) = load_datasets(DataConfig(dataset=(name,)), stage="sft", seed=1)
    assert loaded.notices == ["x.jsonl: read as alpaca (prompt: question, response: answer); not read: id"]
