"""What a dialect writes is what the models' own templates render, character for character."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.types import ToolCall
from tunesmith.render.jinja import JinjaTemplate
from tunesmith.render.tools import DIALECTS, DialectRefusal, get_dialect
from tunesmith.render.tools.base import join_pieces

# dialect -> the templates that are its witnesses.
OFFICIAL = {
    "apriel": ["official/Apriel-1.6-15b-Thinker-fixed"],
    "command_r7b": ["official/CohereForAI-c4ai-command-r7b-12-2024-tool_use"],
    "command_r_plus": ["official/CohereForAI-c4ai-command-r-plus-tool_use"],
    "deepseek_v3": ["with_generation_marks/deepseekv3"],
    "deepseek_v3_1": ["official/deepseek-ai-DeepSeek-V3.1"],
    "deepseek_v3_2": ["official/deepseek-ai-DeepSeek-V3.2"],
    "deepseek_v4": ["official/deepseek-ai-DeepSeek-V4-Flash-0731"],
    "firefunction": ["official/fireworks-ai-llama-3-firefunction-v2"],
    "functionary": ["official/meetkai-functionary-medium-v3.1"],
    "gemma4": ["official/google-gemma-4-31B-it"],
    "gemma4_canonical": ["with_generation_marks/diffusion_gemma"],
    "gigachat": ["official/GigaChat3-10B-A1.8B"],
    "glm4_7": ["official/GLM-4.7-Flash"],
    "glm4_moe": ["official/GLM-4.6", "with_generation_marks/glm4moe"],
    "granite4": ["official/ibm-granite-granite-4.0"],
    "harmony": ["official/openai-gpt-oss-120b"],
    "hermes": [
        "official/NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
        "official/NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
    ],
    "kimi_k2": ["official/moonshotai-Kimi-K2"],
    "laguna": ["official/poolside-Laguna-XS-2.1", "official/poolside-Laguna-XS.2"],
    "lfm2_5": ["with_generation_marks/lfm2_2_5"],
    "llama3_json": [
        "official/meta-llama-Llama-3.1-8B-Instruct",
        "official/meta-llama-Llama-3.2-3B-Instruct",
        "official/meta-llama-Llama-3.3-70B-Instruct",
    ],
    "minicpm5": ["official/openbmb-MiniCPM5-1B"],
    "minimax1": ["official/MiniMax-M1"],
    "minimax2": ["official/MiniMax-M2"],
    "mistral_v11": ["official/Mistral-Small-3.2-24B-Instruct-2506"],
    "mistral_v13": [
        "official/mistralai-Ministral-3-14B-Reasoning-2512",
        "official/unsloth-mistral-Devstral-Small-2507",
    ],
    "mistral_v3": ["official/mistralai-Mistral-Nemo-Instruct-2407"],
    "nemotron": ["official/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "with_generation_marks/nemotron_3_ultra"],
    "qwen": [
        "official/Qwen-Qwen2.5-7B-Instruct",
        "official/Qwen-Qwen3-0.6B",
        "official/Qwen-QwQ-32B",
        "official/MiMo-VL",
        "with_generation_marks/qwen3_instruct_2507",
        "with_generation_marks/qwen3_vl",
    ],
    "qwen3_5": ["official/Qwen3.5-4B", "with_generation_marks/qwen3_5_nothink"],
    "qwen3_6": ["with_generation_marks/qwen3_6"],
    "qwen3_coder": ["official/Qwen3-Coder"],
    "seed_oss": ["official/ByteDance-Seed-OSS"],
}
# dialect -> names of LlamaFactory whose rendering is its witness, and which part of it.
LLAMAFACTORY = {
    "glm4": ("glm4", "tools and calls"),
    "lfm2": ("lfm2", "calls"),
    "ling": ("bailing_v2", "tools and calls"),
    "llama3": ("llama3", "tools and calls"),
    "mistral": ("mistral", "tools and calls"),
    "mistral_v7": ("mistral_small", "tools and calls"),
}
# The template shows tools and writes no calls, or the other way round; tested below by other means.
NO_TOOLS = {"deepseek_v3", "deepseek_v3_1"}
OTHERWISE = {"default", "granite", "llama3_pythonic", *LLAMAFACTORY}
PAIRS = [(dialect, file) for dialect, files in OFFICIAL.items() for file in files]
# Writes the calls alike; shows a list without a description with a comma too many, which the newer template mended.
CALLS_ALONE = [("gemma4", "official/google-gemma-4-31B-it-interleaved")]

SIMPLE = {
    "city": {"type": "string", "description": "Name of the city."},
    "days": {"type": "integer", "description": "How many days."},
    "scale": {"type": "number", "description": 'A <scale> & "more".'},
}
RICH = {
    **SIMPLE,
    "unit": {"type": "string", "description": "Unit.", "enum": ["c", "f"], "default": "c"},
    "exact": {"type": "boolean", "description": "Exact?"},
    "tags": {"type": "array", "description": "Tags.", "items": {"type": "string"}},
}
NESTED = {
    **RICH,
    "place": {
        "type": "object",
        "description": "A place.",
        "properties": {"lat": {"type": "number"}, "name": {"type": "string", "description": "Name."}},
        "required": ["lat"],
    },
    "points": {
        "type": "array",
        "items": {"type": "object", "properties": {"x": {"type": "integer"}}},
    },
    "when": {"type": ["string", "null"], "description": "When."},
}


def _tools(properties: dict[str, Any]) -> list[dict[str, Any]]:
    parameters = {"type": "object", "properties": properties, "required": ["city"]}
    weather = {"name": "get_weather", "description": "Weather of a city.", "parameters": parameters}
    ping = {"name": "ping", "description": "Nothing to give é.", "parameters": {"type": "object", "properties": {}}}
    return [{"type": "function", "function": weather}, {"type": "function", "function": ping}]


ARGUMENTS: list[dict[str, Any]] = [
    {"city": "Oslo", "days": 2},
    {"city": "Ærø <b>&amp;\ntwo\tlines", "scale": 1.5, "exact": True, "when": None},
    {"unit": "c", "tags": ["a", "b c"], "place": {"name": "x \"y\" 'z'", "lat": -0.5}, "points": [{"x": 1}, {"x": 2}]},
]
CALLS = [ToolCall("get_weather", arguments, f"abcdefgh{index}") for index, arguments in enumerate(ARGUMENTS)]
PING = ToolCall("ping", {}, "abcdefgh9")


def _template(assets: Path, file: str) -> JinjaTemplate:
    return JinjaTemplate((assets / "templates" / f"{file}.jinja").read_text(encoding="utf-8"))


def _render(template: JinjaTemplate, tools: list[dict[str, Any]], calls: list[ToolCall], content: str) -> str | None:
    """The text of a chat with one reply, or None where the template refuses it."""
    for as_text in (False, True):
        reply: dict[str, Any] = {"role": "assistant", "content": content}
        if calls:
            reply["tool_calls"] = [
                {
                    "type": "function",
                    **({"id": call.id} if call.id else {}),
                    "function": {
                        "name": call.name,
                        "arguments": json.dumps(call.arguments, ensure_ascii=False) if as_text else call.arguments,
                    },
                }
                for call in calls
            ]
        try:
            return template.render(
                messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather?"}, reply],
                tools=tools,
                functions=json.dumps(tools, ensure_ascii=False),
                datetime="today",
                bos_token="<BOS>",
                eos_token="<EOS>",
                add_generation_prompt=False,
            )
        except Exception:  # whatever a template raises
            continue
    return None


def test_every_dialect_has_a_witness() -> None:
    assert set(DIALECTS) == set(OFFICIAL) | OTHERWISE


@pytest.mark.parametrize(("name", "file"), PAIRS)
def test_tools_are_shown_as_the_template_shows_them(assets: Path, name: str, file: str) -> None:
    template = _template(assets, file)
    rendered = 0
    for properties in (SIMPLE, RICH, NESTED):
        tools = _tools(properties)
        text = _render(template, tools, [], "Hello")
        if text is None:
            continue
        rendered += 1
        written = join_pieces(get_dialect(name).write_tools(tools))
        if name in NO_TOOLS:
            assert "get_weather" not in text
        else:
            assert written in text
    assert rendered


def test_a_form_without_a_list_of_tools_says_which_has_one() -> None:
    dialect = get_dialect("deepseek_v3_1")
    assert dialect.tools_text([], thinking=False) == []
    with pytest.raises(DialectRefusal, match=r"E-RENDER-021.*list of tools(.|\n)*get_weather, ping(.|\n)*deepseek_v3"):
        dialect.tools_text(_tools(SIMPLE), thinking=True)


@pytest.mark.parametrize(("name", "file"), PAIRS + CALLS_ALONE)
def test_calls_are_written_as_the_template_writes_them(assets: Path, name: str, file: str) -> None:
    template = _template(assets, file)
    tools = _tools(NESTED)
    shown = _tools(SIMPLE) if _render(template, tools, CALLS[:1], "") is None else tools
    cases = [([call], "") for call in (*CALLS, PING)] + [([CALLS[0], PING], ""), (CALLS[1:], ""), (CALLS[:1], "So:")]
    equal = 0
    for calls, content in cases:
        if name == "apriel":  # its template writes ids in earlier turns only
            calls = [replace(call, id=None) for call in calls]
        text = _render(template, shown, calls, content)
        try:
            written = join_pieces(get_dialect(name).write_calls(calls, content, tools))
        except DialectRefusal:
            # What we refuse, the template refuses too, or leaves a part out.
            left_out = text is None or "So:" not in text or "ping" not in text.rsplit("Weather?", 1)[-1]
            assert left_out or len(calls) == 1, (calls, content)
            continue
        assert text is not None, (calls, content)
        assert written in text, f"{written}\n---\n{text[-3000:]}"
        equal += 1
    assert equal >= 4


@pytest.mark.parametrize("name", sorted(LLAMAFACTORY))
def test_forms_that_only_llamafactory_shows(assets: Path, name: str) -> None:
    witness = json.loads((assets / "templates" / "rendered_by_llamafactory.json").read_text(encoding="utf-8"))
    template, parts = LLAMAFACTORY[name]
    turns = next(row["turns"] for row in witness["rendered"] if row["template"] == template and row["case"] == "tools")
    case = witness["cases"]["tools"]
    call = json.loads(case["messages"][1]["content"])
    dialect = get_dialect(name)
    assert join_pieces(dialect.write_calls([ToolCall(call["name"], call["arguments"])])) in turns[1]
    if parts == "tools and calls":
        assert join_pieces(dialect.write_tools(json.loads(case["tools"]))) in turns[0]


def test_granite_shows_tools_as_its_template(assets: Path) -> None:
    text = _render(_template(assets, "official/ibm-granite-granite-3.3-2B-Instruct"), _tools(NESTED), [], "Hello")
    assert text is not None
    assert join_pieces(get_dialect("granite").write_tools(_tools(NESTED))) in text


def test_deepseek_r1_shows_tools_as_llama_cpp_does(assets: Path) -> None:
    source = (assets / "templates/official/llama-cpp-deepseek-r1.jinja").read_text(encoding="utf-8")
    template = JinjaTemplate(
        source.replace("map(attribute='function') | tojson", "map(attribute='function') | list | tojson")
    )
    text = _render(template, _tools(NESTED), [], "Hello")
    assert text is not None
    assert join_pieces(get_dialect("deepseek_v3").write_tools(_tools(NESTED))) in text


def test_lfm2_shows_tools_as_its_template(assets: Path) -> None:
    text = _render(_template(assets, "official/LFM2-8B-A1B"), _tools(NESTED), [], "Hello")
    assert text is not None
    assert join_pieces(get_dialect("lfm2").write_tools(_tools(NESTED))) in text
