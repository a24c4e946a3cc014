"""The Modelfile beside exported weights. `go_template` reads its TEMPLATE as Ollama would."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests.go_template import render
from tunesmith.config.template import TemplateConfig
from tunesmith.core.types import Chat, Message
from tunesmith.export.modelfile import Unsayable, ollama_template
from tunesmith.render.errors import RenderError
from tunesmith.render.slot_files import SlotFile, load_slots, parse_slots, template_names
from tunesmith.render.slots import SlotTemplate
from tunesmith.render.spans import join_text

BOS, EOS = "{BOS}", "{EOS}"
# Clean texts, for Ollama's language cannot remove blanks; each ends with a question.
CHATS = {
    "question": [("user", "Hi")],
    "system": [("system", "Be kind."), ("user", "Hi")],
    "turns": [("user", "a"), ("assistant", "b"), ("user", "c")],
    "system and turns": [("system", "s"), *[("user", "a"), ("assistant", "b")] * 2, ("user", "e {{ .Content }}")],
}

CHATML = """{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}{{ if eq .Role "system" }}\
<|im_start|>system
{{ .Content }}<|im_end|>
{{ else if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ if $last }}<|im_start|>assistant
{{ end }}{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ .Content }}{{ if not $last }}<|im_end|>
{{ end }}{{ end }}{{ end }}"""

LLAMA3 = """{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}{{ if eq .Role "system" }}\
<|start_header_id|>system<|end_header_id|>

{{ .Content }}<|eot_id|>{{ else if eq .Role "user" }}<|start_header_id|>user<|end_header_id|>

{{ .Content }}<|eot_id|>{{ if $last }}<|start_header_id|>assistant<|end_header_id|>

{{ end }}{{ else if eq .Role "assistant" }}<|start_header_id|>assistant<|end_header_id|>

{{ .Content }}{{ if not $last }}<|eot_id|>{{ end }}{{ end }}{{ end }}"""

GEMMA = """{{ $first := -1 }}{{ $question := -1 }}{{ range $i, $_ := .Messages }}{{ if eq .Role "user" }}\
{{ if eq $first -1 }}{{ $first = $i }}{{ end }}{{ $question = $i }}{{ end }}{{ end }}\
{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}{{ if eq .Role "user" }}\
<start_of_turn>user
{{ if (and (eq $i $first) $.System) }}{{ $.System }}

{{ end }}{{ .Content }}<end_of_turn>
{{ if $last }}<start_of_turn>model
{{ end }}{{ else if eq .Role "assistant" }}<start_of_turn>model
{{ .Content }}{{ if not $last }}<end_of_turn>
{{ end }}{{ end }}{{ end }}"""


@pytest.mark.parametrize(("name", "text"), [("chatml", CHATML), ("llama3", LLAMA3), ("gemma", GEMMA)])
def test_the_text_of_a_template(name: str, text: str) -> None:
    assert ollama_template(load_slots(name), TemplateConfig(), "<s>", "</s>", True) == text


@pytest.mark.parametrize("thinking", [None, True, False])
def test_ollamas_prompt_is_that_of_the_template(thinking: bool | None) -> None:
    """Every template of the catalog that can be said, told by Ollama to think, not to, or nothing."""
    said = 0
    for slots in _loadable():
        try:
            text = ollama_template(slots, TemplateConfig(), BOS, EOS, False)
        except Unsayable:
            continue
        said += 1
        settings = TemplateConfig(enable_thinking=thinking is not False)
        template = SlotTemplate(slots, settings, BOS, EOS)
        for case, rows in CHATS.items():
            if slots.system_in == "nowhere" and rows[0][0] == "system":
                continue
            chat = Chat(tuple(Message(role, content) for role, content in rows))  # type: ignore[arg-type]
            given = [{"role": message.role, "content": message.content} for message in template._messages(chat)]
            assert render(text, given, thinking) == join_text(template.prompt(chat, True)), (slots.name, case)
    assert said > 100


def test_what_cannot_be_said() -> None:
    refused = {}
    for slots in _loadable():
        try:
            ollama_template(slots, TemplateConfig(), BOS, EOS, False)
        except Unsayable as what:
            refused[slots.name] = str(what)
    assert {"gpt_oss", "llama3_2"} <= set(refused)
    assert refused["llama3_2"] == "{{today}}"
    assert len(refused) <= 12, refused


def test_odd_texts_come_through() -> None:
    odd = parse_slots(
        "odd",
        {
            "user": "{ {\u3000}\t{{content}}\n",
            "assistant": {"open": "<a>", "body": "{{content}}", "close": "<e>"},
            "stop": ["<e>"],
        },
    )
    text = ollama_template(odd, TemplateConfig(), "", "", False)
    assert render(text, [{"role": "user", "content": "x"}]) == "{ {\u3000}\tx\n<a>"
    assert all(char.isprintable() or char == "\n" for char in text)


def _loadable() -> list[SlotFile]:
    found = []
    for name in template_names():
        try:
            found.append(load_slots(name))
        except RenderError:
            continue
    return found


def exported(tiny_model: Path, tmp_path: Path, **keys: Any) -> str:
    keys = {"model_name_or_path": str(tiny_model), "export_dir": str(tmp_path / "out"), **keys}
    return (tunesmith.export_model(keys) / "Modelfile").read_text(encoding="utf-8")


def test_the_file_of_a_named_template(tiny_model: Path, tmp_path: Path) -> None:
    text = exported(tiny_model, tmp_path, template="chatml", default_system="Be\nbrief.")
    assert text == (
        f'# ollama create NAME -f Modelfile\nFROM .\nTEMPLATE """{CHATML}"""\nSYSTEM """Be\nbrief."""\n'
        'PARAMETER stop "<|im_end|>"\nPARAMETER num_ctx 512\n'
    )


def test_the_file_of_the_models_own_template(tiny_model: Path, tmp_path: Path) -> None:
    text = exported(tiny_model, tmp_path)
    assert text == (
        "# ollama create NAME -f Modelfile\nFROM .\n"
        "# TEMPLATE is left out: Ollama takes the chat template from the model's own files.\n"
        'PARAMETER stop "<|im_end|>"\nPARAMETER num_ctx 512\n'
    )


def test_the_templates_own_system_message(tiny_model: Path, tmp_path: Path) -> None:
    text = exported(tiny_model, tmp_path, template="alpaca")
    assert re.search(r'^SYSTEM """Below is an instruction.*request\.\n\n"""$', text, re.DOTALL | re.MULTILINE)


def test_a_template_that_cannot_be_said_is_left_out(tiny_model: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text('extends: chatml\nuser: "{{turn}}: {{content|trim}}<|im_end|>"\n', encoding="utf-8")
    text = exported(tiny_model, tmp_path, template=str(mine))
    assert '\n# TEMPLATE is left out: Ollama\'s language cannot say {{turn}} of the template "mine".\n' in text
    assert "\nTEMPLATE" not in text
    trimmed = mine.with_name("trimmed.yaml")
    trimmed.write_text("extends: chatml\ntrim: true\n", encoding="utf-8")
    assert "# In training blanks around messages were removed" in exported(
        tiny_model, tmp_path / "2", template=str(trimmed)
    )
