"""Small models that see: rows with pictures in predictions, a chat, and adapters."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openai
import pytest

import tunesmith
from tests.media_families import CASES
from tests.seeing import colour_rows, coloured, seeing_model
from tests.seeing_engine import Sighted
from tests.serving import serving
from tunesmith.cli.chat import messages_of, talk
from tunesmith.config import load_config
from tunesmith.config.generate import GenerateConfig
from tunesmith.core.errors import UsageError
from tunesmith.core.types import PLACE, Medium, Message
from tunesmith.engines import make_engine
from tunesmith.engines.base import Sampling
from tunesmith.engines.rows import prompt_and_label
from tunesmith.evaluate.dataset import _rows
from tunesmith.evaluate.predict import _asked
from tunesmith.media.settle import Settler

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("torch_one_thread")]


@pytest.fixture(scope="module")
def sees(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seeing_model(tmp_path_factory.mktemp("sees"), stories)


@pytest.fixture
def keys(sees: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "model_name_or_path": str(sees),
        "dataset": str(colour_rows(tmp_path / "data", 6)),
        "output_dir": str(tmp_path / "out"),
        "use_cpu": True,
        "do_sample": False,
        "max_new_tokens": 4,
    }


def lines_of(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "generated_predictions.jsonl").read_text().splitlines()]


def plain(model: Path, rows: Path, prompts: list[list[int]]) -> list[str]:
    """What transformers itself makes of the same ids and pictures."""
    import torch
    from PIL import Image
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    processor = AutoProcessor.from_pretrained(model)
    loaded = LlavaForConditionalGeneration.from_pretrained(model, dtype=torch.float32)
    found = []
    for row, prompt in zip(json.loads(rows.read_text()), prompts, strict=True):
        picture = Image.open(rows.parent / row["images"][0])
        pixels = processor.image_processor(picture, return_tensors="pt")["pixel_values"]
        ids = torch.tensor([prompt])
        said = loaded.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, do_sample=False, max_new_tokens=4
        )
        text = processor.tokenizer.decode(said[0, len(prompt) :], skip_special_tokens=True)
        found.append(text)
    return found


def every_row(keys: dict[str, Any]) -> list[tuple[Any, int]]:
    datasets = _rows(load_config(keys, {}, verb="predict"), 1)
    return [(dataset, number) for dataset in datasets.values() for number in range(len(dataset))]


def test_predictions_of_rows_with_pictures_are_those_of_transformers(keys: dict[str, Any], tmp_path: Path) -> None:
    found = tunesmith.predict(keys)
    lines = lines_of(tmp_path / "out")
    assert found["predict_rows"] == 6
    prompts = [prompt_and_label(dataset[number], (2,))[0] for dataset, number in every_row(keys)]
    expected = plain(Path(keys["model_name_or_path"]), Path(keys["dataset"]), prompts)
    assert [line["predict"] for line in lines] == expected
    assert [line["label"].strip(" .") for line in lines] == ["red", "green", "blue", "black", "red", "green"]
    only = {"do_train": False, "do_predict": True, "eval_dataset": keys["dataset"], "dataset": None}
    tunesmith.train({**keys, **only, "output_dir": str(tmp_path / "run")})
    assert lines_of(tmp_path / "run") == lines


def test_another_picture_in_a_row_is_another_question(keys: dict[str, Any], tmp_path: Path) -> None:
    def asked() -> dict[str, Any]:
        renderer: Any = SimpleNamespace(fingerprint=dict)
        return _asked("weights", renderer, every_row(keys), Sampling.of(GenerateConfig()))

    before = asked()
    assert asked() == before
    coloured("black", 99).save(tmp_path / "data" / "0.png")
    after = asked()
    assert {name for name in before if before[name] != after[name]} == {"rows"}


def test_a_chat_with_a_picture(sees: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coloured("green", 3).save(tmp_path / "it.png")
    keys = {"model_name_or_path": str(sees), "use_cpu": True, "do_sample": False, "max_new_tokens": 4}
    with tunesmith.chat(keys) as conversation:
        lines = messages_of(["/image " + str(tmp_path / "it.png"), "The color is", "/raw", "/audio a.wav"])
        talk({"": conversation}, lines, interactive=True)
        out = capsys.readouterr()
        said = conversation.messages[-1].content
        assert out.out.startswith(f"{said}\n")
        assert f"{'<image>' * 16} The color is\n" in out.out  # what the model was given
        assert "E-MEDIA-040" in out.err  # it hears nothing
        engine: Any = conversation.engine
        again = engine.generate(conversation.messages[:1])
    assert again.text == said


@pytest.fixture(scope="module")
def two_ways(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`: a model whose text part may be loaded alone; `text` and `whole`: adapters of the one and of the other;
    `alone`: the text part, saved with the files of the processor."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder, made = tmp_path_factory.mktemp("two-ways"), Sighted(CASES["qwen3_5"])
    made.model().save_pretrained(folder / "base")
    text = AutoModelForCausalLM.from_pretrained(folder / "base")
    text.save_pretrained(folder / "alone")
    for name in ("base", "alone"):
        made.tokenizer.save_pretrained(folder / name)
        made.media.processor.image_processor.save_pretrained(folder / name)
        told = json.dumps({"processor_class": made.case.processor})
        (folder / name / "processor_config.json").write_text(told)
    lora = {"target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
    get_peft_model(text, LoraConfig(**lora)).save_pretrained(folder / "text")
    get_peft_model(made.model(), LoraConfig(**lora)).save_pretrained(folder / "whole")
    return folder


@pytest.mark.parametrize(
    ("model", "adapter", "sees"),
    [("base", None, True), ("base", "whole", True), ("base", "text", False), ("alone", None, False)],
)
def test_an_adapter_gets_the_part_that_it_was_trained_on(
    two_ways: Path, model: str, adapter: str | None, sees: bool
) -> None:
    named = {"adapter_name_or_path": str(two_ways / adapter)} if adapter else {}
    keys = {"model_name_or_path": str(two_ways / model), "use_cpu": True, **named}
    with make_engine(load_config(keys, {}, verb="api")) as engine:
        assert (engine.renderer.media is not None) == sees
        if adapter is None and sees:
            with pytest.raises(UsageError, match="E-METHOD-024"):
                engine.load_adapter("text", str(two_ways / "text"))
            engine.load_adapter("whole", str(two_ways / "whole"))
            assert engine.adapters == ("whole",)


def test_sound_is_heard_through_the_api(tmp_path: Path) -> None:
    """By a model whose class has no logits_to_keep."""
    import wave

    made = Sighted(CASES["qwen2_audio"])
    made.model().save_pretrained(tmp_path / "hears")
    made.tokenizer.save_pretrained(tmp_path / "hears")
    made.media.processor.feature_extractor.save_pretrained(tmp_path / "hears")
    told = json.dumps({"processor_class": made.case.processor})
    (tmp_path / "hears" / "processor_config.json").write_text(told)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((np.sin(np.arange(12_000) / 9) * 9_000).astype("<i2").tobytes())
    engine = make_engine(load_config({"model_name_or_path": str(tmp_path / "hears"), "use_cpu": True}, verb="api"))
    medium = Settler(None, None, tmp_path / "blobs").settle(Medium("audio", str(tmp_path / "a.wav")))
    chat = [Message("user", f"{PLACE}What is it?", media=[medium])]
    expected = engine.generate(chat, do_sample=False, max_new_tokens=4)
    data = base64.b64encode((tmp_path / "a.wav").read_bytes()).decode()
    parts = [
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
        {"type": "text", "text": "What is it?"},
    ]
    with serving(engine) as (url, _), openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        answer: Any = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": parts}],  # type: ignore[list-item,misc]
            max_tokens=4,
            temperature=0,
        )
    assert answer.choices[0].message.content == expected.text
    assert answer.usage.prompt_tokens == expected.prompt_tokens > 19  # 0.75 s are that many tokens
