"""Templates of the catalog whose witness is LlamaFactory: the same names, the same text, the same stop words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith.core.types import Chat, Message, ToolCall
from tunesmith.render import make_renderer
from tunesmith.render.slot_files import load_slots, template_names
from tunesmith.render.slots import SlotTemplate
from tunesmith.render.spans import join_text
from tunesmith.render.tools import get_dialect
from tunesmith.render.tools.base import join_pieces

BOS, EOS = "{BOS}", "{EOS}"

# Names whose YAML is still to come; their witness is an official template.
TO_COME = {"gemma4", "gemma4n"}

# LlamaFactory's text has no stop token here (efficient_eos): its training puts one behind the chat, and has the first
# token of each next turn predict it. No text can say the latter, so here each reply is trained as the last of a chat.
STOP_BEHIND_THE_CHAT = {
    *("bailing", "breeze", "falcon", "fewshot", "hy_dense_1_8b", "hy_dense_7b", "index", "solar", "yi_vl"),
}

# Stop words of LlamaFactory that do not end a reply here, and why.
NO_STOP = {
    "chatml_de": {"<|im_start|>"},  # opens a message; no model writes it to end a reply
    "yi_vl": {"###"},  # no token of the model; LlamaFactory adds it to the vocabulary
}

# For SentencePiece tokenizers, which begin a text with a blank: LlamaFactory encodes piece by piece, so that its ids
# hold a blank before a reply that its text has not, and one between the system text and the first question.
BLANK_BEFORE_REPLY = {
    *("llama2", "llama2_zh", "llava", "llava_next", "llava_next_video", "openchat", "vicuna", "video_llava"),
    *("xuanyuan", "yi_vl"),
}
BLANK_BEHIND_SYSTEM = {"llava", "llava_next", "llava_next_video", "vicuna", "video_llava", "xuanyuan"}

# Where tools are written otherwise than in LlamaFactory, and why: (its text, ours).
OTHER_TOOLS = {
    # LlamaFactory leaves out the word that ends a call, so that its own parser does not find the call.
    "aeva": [("</arg_value><|observation|>", "</arg_value>\n</tool_call><|observation|>")],
    # LlamaFactory writes the schema as the row has it; here it always has OpenAI's form, as LFM2's own template has it.
    "lfm2_vl": [
        ('<|tool_list_start|>[{"name"', '<|tool_list_start|>[{"type": "function", "function": {"name"'),
        ("]<|tool_list_end|>", "}]<|tool_list_end|>"),
    ],
    # LlamaFactory sets the tools off from a system message that there is not; Qwen's own templates do not.
    "keye_vl": [("system\n\n\n# Tools", "system\n# Tools")],
    "qwen3_omni": [("system\n\n\n# Tools", "system\n# Tools")],
    "qwen3_vl": [("system\n\n\n# Tools", "system\n# Tools")],
    "qwen3_omni_nothink": [("system\n\n\n# Tools", "system\n# Tools")],
}


def _own_keys(name: str) -> dict[str, Any]:
    """What the template's own file says, without what it takes from others."""
    text = files("tunesmith").joinpath("catalog", "templates", f"{name}.yaml").read_text(encoding="utf-8")
    keys: dict[str, Any] = yaml.safe_load(text)
    return keys


WITNESSED = [name for name in template_names() if _own_keys(name).get("verified") == "llamafactory"]
# Those among all that have a text at all.
WHOLE = [name for name in template_names() if _own_keys(name).get("source") != "missing"]
# Those among the witnessed that write an empty thought where thinking is switched off.
SWITCHED = [name for name in WITNESSED if "no_thinking" in str(_own_keys(name).get("assistant"))]


@pytest.fixture(scope="module")
def witness(assets: Path) -> dict[str, Any]:
    """`cases`: the chats; `turns[template][case]`: their text, prompt and reply in turn; `texts`: the same joined;
    `facts[template]`: stop words, default system..."""
    found = json.loads((assets / "templates" / "rendered_by_llamafactory.json").read_text(encoding="utf-8"))
    turns: dict[str, dict[str, list[str]]] = {}
    for row in found["rendered"]:
        turns.setdefault(row["template"], {})[row["case"]] = row["turns"]
    texts = {name: {case: "".join(parts) for case, parts in cases.items()} for name, cases in turns.items()}
    facts = {row["template"]: row for row in found["templates"]}
    return {"cases": found["cases"], "turns": turns, "texts": texts, "facts": facts}


def _chat(case: dict[str, Any]) -> Chat:
    messages = [Message("system", case["system"])] if case["system"] else []
    for message in case["messages"]:
        if message["role"] == "function":
            call = json.loads(message["content"])
            messages.append(Message("assistant", "", tool_calls=(ToolCall(call["name"], call["arguments"]),)))
        else:
            messages.append(Message({"observation": "tool"}.get(message["role"], message["role"]), message["content"]))
    tools = [{"type": "function", "function": tool} for tool in json.loads(case["tools"] or "[]")]
    return Chat(tuple(messages), tools)


def _pieces(name: str, case: str, witness: dict[str, Any], blank: str = " ") -> list[str]:
    """The witness's text where LlamaFactory cuts it; `blank`: what its ids begin a piece with, for these names."""
    turns = list(witness["turns"][name][case])
    if name in BLANK_BEFORE_REPLY:
        turns[1::2] = [blank + reply for reply in turns[1::2]]
    if name in BLANK_BEHIND_SYSTEM:
        system = witness["cases"][case]["system"] or witness["facts"][name]["default_system"]
        assert turns[0].startswith(system)
        turns[:1] = [system, blank + turns[0].removeprefix(system)]
    return turns


@pytest.mark.parametrize("case", ["one_turn", "system", "two_turns", "two_turns_system"])
@pytest.mark.parametrize("name", WITNESSED)
def test_text_equals_llamafactory(name: str, case: str, witness: dict[str, Any], settings: Callable[..., Any]) -> None:
    template = SlotTemplate(load_slots(name), settings(), BOS, EOS)
    got = join_text(template.prompt(_chat(witness["cases"][case]), False))
    wanted = "".join(_pieces(name, case, witness))
    if name == "empty":  # its one deviation: a reply ends with the end-of-text token
        got = got.replace(EOS, "")
    if name in STOP_BEHIND_THE_CHAT:
        wanted += template.stops[0]
    assert got == wanted


# Official templates that write no tools, so that LlamaFactory is their witness for these.
TOOLS_WITNESSED = ["llama3", "qwen2_vl"]
TOOLS_WITNESSED += [name for name in WITNESSED if load_slots(name).dialect not in (None, "default")]


@pytest.mark.parametrize("name", sorted(BLANK_BEFORE_REPLY))
def test_ids_equal_llamafactorys_with_sentencepiece(
    name: str, witness: dict[str, Any], settings: Callable[..., Any], tokenizer_of: Callable[[str], Any]
) -> None:
    """Its ids are those of the pieces, encoded by themselves; ours those of a text with blanks of its own."""
    tokenizer = tokenizer_of("llama2")
    renderer = make_renderer(settings(template=name), tokenizer)
    ends = {BOS: tokenizer.bos_token, EOS: tokenizer.eos_token}

    def tokens(pieces: list[str]) -> list[str]:
        parts = [part for piece in pieces for part in re.split(f"({BOS}|{EOS})", piece) if part]
        found = [tokenizer.encode(ends.get(part, part), add_special_tokens=False) for part in parts]
        return tokenizer.convert_ids_to_tokens([token for ids in found for token in ids])

    for case in ("one_turn", "system", "two_turns_system"):
        pieces = _pieces(name, case, witness, blank="")
        (samples,) = renderer.encode_chats([_chat(witness["cases"][case])])
        learnt = [token for one in samples for token, flag in zip(one.ids, one.trained, strict=True) if flag]
        at = len(pieces) % 2 + 1  # a system text stands in a piece of its own
        replies = [reply + EOS * (name == "yi_vl") for reply in pieces[at::2]]
        assert tokenizer.convert_ids_to_tokens(learnt) == tokens(replies), case
        # Whether a blank follows a control token differs between tokenizers, and the models' templates write none
        # there; yi_vl has none behind the line ends of its system text.
        if case == "two_turns_system" or name == "yi_vl":
            continue
        got, wanted = tokenizer.convert_ids_to_tokens(list(samples[0].ids)), tokens(pieces)
        for words in (got, wanted):
            for index, (before, word) in enumerate(pairwise(list(words)), 1):
                words[index] = word.removeprefix("▁") if before in ends.values() else word
        assert got == wanted, case


@pytest.mark.parametrize("name", TOOLS_WITNESSED)
def test_tools_equal_llamafactory(name: str, witness: dict[str, Any], settings: Callable[..., Any]) -> None:
    template = SlotTemplate(load_slots(name), settings(), BOS, EOS)
    got = join_text(template.prompt(_chat(witness["cases"]["tools"]), False))
    wanted = witness["texts"][name].get("tools")
    if wanted is None:  # LlamaFactory writes the tools of this name in a form of its own (ReAct), not in the model's
        assert "get_weather" in got
        return
    for theirs, ours in OTHER_TOOLS.get(name, ()):
        assert theirs in wanted
        wanted = wanted.replace(theirs, ours)
    today = re.compile(r"Today Date: .*")
    assert today.sub("Today Date:", got) == today.sub("Today Date:", wanted)


# LlamaFactory writes a result in a form of its own here, which no witness at hand shows.
RESULTS_UNKNOWN = {
    *("bailing", "chatml", "chatml_de", "cpm4", "dbrx", "ernie", "falcon_h1", "gemma", "gemma2", "gemma3", "gemma3n"),
    *("opencoder", "paligemma_chat", "youtu"),
}
# LlamaFactory wraps the tools of this name alone into words of the model's, and describes them in none of its forms.
TOOLS_UNKNOWN = {"phi4_mini"}
REACT = [name for name in template_names() if _own_keys(name).get("source") != "missing"]
REACT = [name for name in REACT if load_slots(name).dialect == "default"]


def test_rows_with_tools_are_taken_where_llamafactory_takes_them(witness: dict[str, Any]) -> None:
    refused = {name for name in witness["texts"] if name not in TO_COME and not load_slots(name).dialect}
    assert refused == RESULTS_UNKNOWN | TOOLS_UNKNOWN
    assert len(REACT) > 55
    assert not set(REACT) & {name for name, texts in witness["texts"].items() if "tools" in texts}


@pytest.mark.parametrize("system", ["SYS-TEXT", None])
@pytest.mark.parametrize("name", REACT)
def test_tools_stand_as_llamafactorys_reference_has_them(
    name: str, system: str | None, settings: Callable[..., Any]
) -> None:
    """Behind the system text, which a chat without one gets for them; a call as a reply; a result as a question.

    So the text follows from that of a chat without tools, whose own witness is above.
    """
    template = SlotTemplate(load_slots(name), settings(default_system="" if system is None else None), BOS, EOS)
    turns = [Message("user", "QUESTION"), Message("assistant", "CALL"), Message("user", "RESULT")]
    turns.append(Message("assistant", "ANSWER"))
    plain = join_text(template.prompt(Chat((Message("system", "SYS-TEXT"), *turns)), False))
    tools = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"properties": {}}}}]
    text = join_pieces(get_dialect("default").write_tools(tools))
    calling = [turns[0], Message("assistant", "", tool_calls=(ToolCall("f", {"a": "b"}),)), Message("tool", "RESULT")]
    first = [Message("system", system)] if system else []
    got = join_text(template.prompt(Chat((*first, *calling, turns[3]), tools), False))
    assert plain.count("SYS-TEXT") == 1
    # A template that trims a system text trims what stands in it.
    for tools_text in (text, text.strip()):
        wanted = plain.replace("SYS-TEXT", (system or "") + tools_text)
        if got == wanted.replace("CALL", 'Action: f\nAction Input: {"a": "b"}'):
            break
    else:
        pytest.fail(f"got {got!r}, wanted {wanted!r}")


@pytest.mark.parametrize("name", WITNESSED)
def test_stop_words_are_those_of_llamafactory(name: str, witness: dict[str, Any], settings: Callable[..., Any]) -> None:
    stops = SlotTemplate(load_slots(name), settings(), BOS, EOS).stops
    wanted = set(witness["facts"][name]["stop_words"]) - NO_STOP.get(name, set())
    assert wanted <= set(stops)


@pytest.mark.parametrize("name", WITNESSED)
def test_thoughts_stand_between_llamafactorys_words(
    name: str, witness: dict[str, Any], settings: Callable[..., Any]
) -> None:
    thinking = load_slots(name).thinking
    assert [thinking.open, thinking.close] == witness["facts"][name]["thought_words"]


@pytest.mark.parametrize("name", SWITCHED)
def test_without_thinking_the_header_holds_an_empty_thought(
    name: str, witness: dict[str, Any], settings: Callable[..., Any]
) -> None:
    """As LlamaFactory has it: given to the model, not learned, and for the reply to the last question only."""
    fact = witness["facts"][name]
    opening, closing = fact["thought_words"]
    empty = closing if fact["kind"] == "Glm47ReasoningTemplate" else opening + closing
    chat = _chat(witness["cases"]["two_turns"])
    plain = SlotTemplate(load_slots(name), settings(), BOS, EOS)
    without = SlotTemplate(load_slots(name), settings(enable_thinking=False), BOS, EOS)
    asked = Chat(chat.messages[:-1])
    assert join_text(without.prompt(asked, True)) == join_text(plain.prompt(asked, True)) + empty
    (*_, sample) = without.samples(chat)
    assert join_text(sample).startswith(join_text(without.prompt(asked, True)))
    (*_, usual) = plain.samples(chat)
    trained = [[span.text for span in spans if span.trained][-1] for spans in (sample, usual)]
    assert trained[0] == trained[1]


def test_every_name_of_llamafactory_is_in_the_catalog(witness: dict[str, Any]) -> None:
    names = set(witness["texts"])
    assert len(names) == 124
    assert names - set(template_names()) <= TO_COME


@pytest.mark.parametrize("name", WHOLE)
def test_a_template_of_the_catalog_is_whole(name: str, settings: Callable[..., Any]) -> None:
    own = _own_keys(name)
    assert "verified" in own, "each file names its own witness"
    assert own.get("extends", name) in template_names()
    template = SlotTemplate(load_slots(name), settings(), BOS, EOS)
    asked, answered = Message("user", "a question"), Message("assistant", "an answer")
    (sample,) = template.samples(Chat((asked, answered)))
    trained = "".join(span.text for span in sample if span.trained)
    assert "an answer" in trained
    assert trained.endswith(template.stops[0])
    if name in WITNESSED:  # what is asked for is what is learned: header, then the answer and the token that ends it
        assert join_text(sample).startswith(join_text(template.prompt(Chat((asked,)), True)) + trained)


# No token ends a turn in these texts: the last reply learns the end of text.
ENDLESS = {"rwkv_world"}


@pytest.mark.parametrize("name", [name for name in WHOLE if name not in ENDLESS])
def test_every_reply_learns_to_end(name: str, settings: Callable[..., Any]) -> None:
    template = SlotTemplate(load_slots(name), settings(), BOS, EOS)
    turns = [Message("user", "1"), Message("assistant", "one"), Message("user", "2"), Message("assistant", "two")]
    trained = ["".join(span.text for span in spans if span.trained) for spans in template.samples(Chat(tuple(turns)))]
    ends = sum(text.count(stop) for text in trained for stop in set(template.stops))
    assert ends == 2


def test_template_files_have_one_name_each() -> None:
    # File systems that do not tell "Qwen" from "qwen" must not lose a template.
    lower = [name.lower() for name in template_names()]
    assert len(lower) == len(set(lower))
