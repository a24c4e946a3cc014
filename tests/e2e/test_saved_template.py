"""What is saved chats elsewhere as it was trained: chat template and stop tokens, in plain transformers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import tunesmith
from tunesmith.config.template import TemplateConfig
from tunesmith.core.types import Chat, Message
from tunesmith.render import make_renderer
from tunesmith.render.checking import builtin_chats
from tunesmith.render.spans import join_text

CASES = ("one_turn", "system", "two_turns", "thought", "open_question")


def rows(chat):
    return [
        {"role": message.role, "content": message.content}
        | ({"reasoning_content": message.reasoning} if message.reasoning else {})
        for message in chat.messages
    ]


def trained_with(template, tiny_model):
    from transformers import AutoTokenizer

    return make_renderer(TemplateConfig(template=template), AutoTokenizer.from_pretrained(tiny_model))


def same_texts(folder, renderer):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    for case in CASES:
        chat = builtin_chats()[case]
        if chat.messages[-1].role == "assistant":
            (spans,) = renderer.samples(chat)
            assert tokenizer.apply_chat_template(rows(chat), tokenize=False) == join_text(spans), case
        else:
            asked = tokenizer.apply_chat_template(rows(chat), tokenize=False, add_generation_prompt=True)
            assert asked == renderer.text(chat, open_reply=True), case
    return tokenizer


@pytest.mark.parametrize("template", ["alpaca", "smollm2"])
def test_a_full_run_saves_the_template_it_trained_with(template, run, tiny_model):
    folder = run(template=template, finetuning_type="full", max_steps=2, save_strategy="steps", save_steps=1).output_dir
    renderer = trained_with(template, tiny_model)
    same_texts(folder, renderer)
    same_texts(folder / "checkpoint-1", renderer)
    with tunesmith.chat(model_name_or_path=str(folder), use_cpu=True) as conversation:
        own = conversation.engine.renderer
        assert own.name == "auto"
        assert own.stop_ids == renderer.stop_ids
        for case in CASES:
            chat = builtin_chats()[case]
            assert own.text(chat) == renderer.text(chat)
        messages = [Message("user", "Hi")]
        assert own.encode_prompt(messages) == renderer.encode_prompt(messages)


@pytest.mark.slow
def test_the_command_line_chats_with_the_saved_folder(run):
    folder = run(template="alpaca", finetuning_type="full", max_steps=2).output_dir
    command = [sys.executable, "-m", "tunesmith", "chat", "--model_name_or_path", str(folder), "max_new_tokens=4"]
    done = subprocess.run(command, input="Hello\n", capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_an_adapter_brings_the_template_it_was_trained_with(run, tiny_model, tmp_path):
    folder = run(template="alpaca", max_steps=2).output_dir
    renderer = trained_with("alpaca", tiny_model)
    same_texts(folder, renderer)
    keys = {"model_name_or_path": str(tiny_model), "adapter_name_or_path": str(folder)}
    with tunesmith.chat({**keys, "use_cpu": True}) as conversation:
        assert conversation.engine.renderer.text(Chat((Message("user", "Hi"),))).startswith("Below is an instruction")
    merged = tunesmith.export_model({**keys, "export_dir": str(tmp_path / "merged")})
    same_texts(merged, renderer)


def test_export_with_a_named_template_carries_it(tiny_model, tmp_path):
    keys = {"model_name_or_path": str(tiny_model), "template": "alpaca", "default_system": "Be brief."}
    folder = tunesmith.export_model({**keys, "export_dir": str(tmp_path / "out")})
    from transformers import AutoTokenizer

    text = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False
    )
    assert text == "Be brief.### Instruction:\nHi\n\n### Response:\n"


@pytest.mark.parametrize("template", [None, "chatml"])
def test_the_models_own_template_is_kept_where_it_writes_the_same(template, run, tiny_model):
    folder = run(template=template, max_steps=1, template_check="off").output_dir
    assert (folder / "chat_template.jinja").read_text() == (tiny_model / "chat_template.jinja").read_text()


def test_plain_generate_stops_at_the_templates_token(tiny_model, tmp_path):
    """A base model that ends with another token than the template's: both end a reply from now on."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.eos_token = "<|endoftext|>"
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.generation_config.eos_token_id = model.config.eos_token_id = 0
    for part in (tokenizer, model):
        part.save_pretrained(tmp_path / "base")
    keys = {"model_name_or_path": str(tmp_path / "base"), "template": "chatml"}
    folder = tunesmith.export_model({**keys, "export_dir": str(tmp_path / "out")})
    assert GenerationConfig.from_pretrained(folder).eos_token_id == [0, 2]
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}))
    result = tunesmith.train(
        {**keys, "dataset": str(data), "output_dir": str(tmp_path / "run"), "finetuning_type": "full", "max_steps": 1}
        | {"use_cpu": True, "save_strategy": "no"}
    )
    assert sorted(GenerationConfig.from_pretrained(result.output_dir).eos_token_id) == [0, 2]


def test_pre_training_changes_no_template(run, tiny_model):
    folder = run(stage="pt", dataset="stories", cutoff_len=64, max_steps=1).output_dir
    assert (folder / "chat_template.jinja").read_text() == (tiny_model / "chat_template.jinja").read_text()


def with_other_end(tiny_model, folder, **generation):
    """The tiny model as a base model that ends texts with another token than chats, and generates as told."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.eos_token = "<|endoftext|>"
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.generation_config.eos_token_id = model.config.eos_token_id = 0
    for part in (tokenizer, model):
        part.save_pretrained(folder)
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **generation}))
    return str(folder)


def test_an_adapter_folder_says_which_tokens_end_a_reply(run, tiny_model, tmp_path):
    from transformers import GenerationConfig

    base = with_other_end(tiny_model, tmp_path / "base", temperature=0.6, do_sample=True)
    keys = {"model_name_or_path": base, "template": "chatml", "save_strategy": "steps", "save_steps": 1}
    folder = run(**keys, max_steps=1).output_dir
    assert (folder / "adapter_config.json").is_file()
    for place in (folder, folder / "checkpoint-1"):
        saved = GenerationConfig.from_pretrained(place)
        assert sorted(saved.eos_token_id) == [0, 2]
        assert (saved.temperature, saved.do_sample) == (0.6, True)


@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({"temperature": 0.6}, {"temperature": 0.6, "do_sample": True}),
        ({"temperature": 0.6, "length_penalty": 2.0, "num_beams": 1}, {}),
    ],
)
def test_a_run_ends_well_with_settings_that_transformers_does_not_save(
    finetuning_type, told, kept, run, tiny_model, tmp_path
):
    """Models of old have sampling values without do_sample; transformers raises when these are saved."""
    base = with_other_end(tiny_model, tmp_path / "base", **told)
    folder = run(model_name_or_path=base, template="chatml", finetuning_type=finetuning_type, max_steps=1).output_dir
    saved = json.loads((folder / "generation_config.json").read_text())
    assert sorted(saved["eos_token_id"]) == [0, 2]
    assert {key: saved[key] for key in kept} == kept
    assert kept or "temperature" not in saved
