"""Loading a model's processor from its folder: which files it may have, what is missing; and in another process."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.media_cases import Case, processor_of, tokenizer_of
from tests.media_families import CASES
from tunesmith.config.model import ModelConfig
from tunesmith.core.errors import DataError, MachineError, MissingInputError, UsageError
from tunesmith.core.types import Medium
from tunesmith.media.family import MediaFamily
from tunesmith.media.limits import MediaLimits
from tunesmith.media.processor import Media
from tunesmith.media.settle import Settler
from tunesmith.models.media import family_of_type, load_media, media_family_of
from tunesmith.models.tokenizer import load_tokenizer

needs_no_torchvision = pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is there")


def _saved(case: Case, folder: Path) -> Path:
    """A folder as a repository has it, but for the weights."""
    tokenizer = tokenizer_of(case)
    tokenizer.save_pretrained(folder)
    assert case.config is not None
    case.config(tokenizer.convert_tokens_to_ids).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = _saved(CASES["llava"], tmp_path_factory.mktemp("llava"))
    processor_of(CASES["llava"], tokenizer_of(CASES["llava"])).save_pretrained(folder)
    return folder


def _loaded(folder: Path, limits: MediaLimits | None = None) -> Media | None:
    config = ModelConfig(model_name_or_path=str(folder))
    return load_media(config, limits or MediaLimits(), load_tokenizer(config))


@pytest.fixture
def picture(tmp_path: Path) -> Medium:
    path = tmp_path / "cat.png"
    Image.new("RGB", (50, 70), "red").save(path)
    return Settler(tmp_path, tmp_path, tmp_path / "blobs").settle(Medium("image", "cat.png"))


def test_a_folder_with_a_processor(llava: Path, picture: Medium) -> None:
    media = _loaded(llava)
    assert media is not None
    assert (media.kinds, media.missing) == (("image",), ())
    assert media.text_for(picture) == "<image>" * 16
    assert media.inputs([picture])["pixel_values"].shape == (1, 3, 56, 56)


def test_it_is_the_same_in_another_process(llava: Path, picture: Medium) -> None:
    media = _loaded(llava, MediaLimits(image_max_pixels=900))
    again = pickle.loads(pickle.dumps(media))  # noqa: S301
    assert media is not None
    assert again.fingerprint() == media.fingerprint()
    assert bool((again.inputs([picture])["pixel_values"] == media.inputs([picture])["pixel_values"]).all())


def test_a_model_of_text_has_none(tiny_model: Path) -> None:
    assert _loaded(tiny_model) is None


def test_the_template_beside_a_processor_is_the_models(llava: Path, tmp_path: Path) -> None:
    for file in llava.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "{{ messages }}"}), "utf-8")
    config = ModelConfig(model_name_or_path=str(tmp_path))
    tokenizer = load_tokenizer(config)
    tokenizer.chat_template = None
    assert load_media(config, MediaLimits(), tokenizer) is not None
    assert tokenizer.chat_template == "{{ messages }}"


@needs_no_torchvision
def test_images_without_torchvision_and_videos_not(tmp_path: Path, picture: Medium) -> None:
    """As repositories were saved before processors had a file of their own."""
    folder = _saved(CASES["qwen2_vl"], tmp_path / "qwen")
    CASES["qwen2_vl"].parts()["image_processor"].save_pretrained(folder)
    media = _loaded(folder)
    assert media is not None
    assert (media.kinds, media.missing) == (("image", "video"), ("video",))
    assert media.text_for(picture) == "<|image_pad|>" * 4  # 50 x 70 becomes 56 x 56: 2 x 2 patches of 28 pixels
    with pytest.raises(MachineError) as found:
        media.text_for(Medium("video", "film.mp4", picture.facts))
    assert found.value.problems[0].code == "E-MEDIA-041"
    assert "tunesmith[torchvision]" in str(found.value)


@needs_no_torchvision
def test_a_processor_that_needs_torchvision_for_all(tmp_path: Path) -> None:
    folder = _saved(CASES["mistral3"], tmp_path)
    (folder / "processor_config.json").write_text('{"processor_class": "PixtralProcessor"}', "utf-8")
    with pytest.raises(MachineError) as found:
        _loaded(folder)
    assert found.value.problems[0].code == "E-MEDIA-041"


def _broken(folder: Path) -> None:
    (folder / "processor_config.json").write_text("{", "utf-8")


def _foreign(folder: Path) -> None:
    (folder / "processor_config.json").write_text('{"processor_class": "MossVLProcessor"}', "utf-8")


def _without_token(folder: Path) -> None:
    file = folder / "tokenizer.json"
    file.write_text(file.read_text("utf-8").replace('"<image>"', '"<other>"'), "utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}', "utf-8")


@pytest.mark.parametrize(
    ("damage", "error", "code"),
    [
        (_broken, MissingInputError, "E-MEDIA-044"),
        (_foreign, UsageError, "E-MEDIA-047"),
        (_without_token, MissingInputError, "E-MEDIA-044"),
    ],
)
def test_what_is_wrong_with_a_folder(
    llava: Path, tmp_path: Path, damage: Callable[[Path], None], error: type[Any], code: str
) -> None:
    for file in llava.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    damage(tmp_path)
    with pytest.raises(error) as found:
        _loaded(tmp_path)
    assert found.value.problems[0].code == code


def test_sound_has_the_rate_that_the_model_hears(tmp_path: Path) -> None:
    case = CASES["qwen2_audio"]
    folder = _saved(case, tmp_path)
    processor_of(case, tokenizer_of(case)).save_pretrained(folder)
    with pytest.raises(UsageError) as found:
        _loaded(folder, MediaLimits(audio_sampling_rate=8000))
    assert found.value.problems[0].code == "E-MEDIA-045"
    assert found.value.problems[0].fix == "audio_sampling_rate: 16000"
    media = _loaded(folder)
    assert media is not None
    assert media.kinds == ("audio",)
    with pytest.raises(DataError, match="takes sound, no images"):
        media.placeholder("image")


def test_facts_by_the_type_of_a_model() -> None:
    assert family_of_type("idefics3").axes == {"pixel_values": 1, "pixel_attention_mask": 1}
    assert family_of_type("qwen3_5") == media_family_of("Qwen3VLProcessor")
    assert family_of_type("llama") == media_family_of("no processor") == MediaFamily()
