"""The field's reference's own rows with images, sound and video, and a YAML in its style: both run unchanged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

import tunesmith
from tests.media_cases import has_torchvision
from tests.tiny_seeing import save_case
from tunesmith.core.errors import DataError, MachineError

STYLE = Path(__file__).parents[1] / "assets" / "llamafactory_style" / "mllm_lora.yaml"
MODELS = {
    "Qwen/Qwen2-VL-2B-Instruct": "qwen2_vl",
    "Qwen/Qwen2-Audio-7B-Instruct": "qwen2_audio",
}
TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
COLUMNS = {
    "mllm_demo": ("images",),
    "mllm_audio_demo": ("audios",),
    "mllm_video_demo": ("videos",),
    "mllm_video_audio_demo": ("videos", "audios"),
}
# What keeps a run of such a file short; nothing else is changed.
SHORT = {"max_steps": 2, "use_cpu": True, "dataloader_num_workers": 0, "gradient_accumulation_steps": 2}
HEARS = {"model_name_or_path": "Qwen/Qwen2-Audio-7B-Instruct", "template": "qwen2_audio", "dataset": "mllm_audio_demo"}


@pytest.fixture(scope="module")
def workplace(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the names of that file mean something: tiny models, and `data/` with dataset_info.json."""
    folder = tmp_path_factory.mktemp("workplace")
    for name, case in MODELS.items():
        save_case(case, folder / name)
    data = folder / "data"
    shutil.copytree(assets / "data" / "multimodal", data)
    shutil.copy(assets / "data" / "sft" / "identity.json", data)
    registered = {"identity": {"file_name": "identity.json"}}
    for name, columns in COLUMNS.items():
        registered[name] = {
            "file_name": f"{name}.json",
            "formatting": "sharegpt",
            "columns": {"messages": "messages", **{column: column for column in columns}},
            "tags": TAGS,
        }
    data.chmod(0o755)
    (data / "dataset_info.json").write_text(json.dumps(registered))
    return folder


@pytest.fixture
def train(workplace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, torch_one_thread: None):
    monkeypatch.chdir(workplace)
    return lambda **changes: tunesmith.train(STYLE, **{**SHORT, "output_dir": str(tmp_path), **changes})


@pytest.mark.slow
@pytest.mark.parametrize("keys", [{}, HEARS], ids=["images", "sound"])
def test_rows_with_media_are_trained(train, keys: dict[str, str]) -> None:
    result = train(**keys)
    assert 0 < result.metrics["train_loss"] < 14  # ln(50400) = 10.8 nats is guessing
    report = json.loads((result.output_dir / "data_report.json").read_text())
    assert report["total"]["dropped"] == 0
    names = load_file(result.output_dir / "adapter_model.safetensors").keys()
    assert {"language_model" in name for name in names} == {True}, "encoder and projector are frozen"


@pytest.mark.slow
@pytest.mark.skipif(has_torchvision(), reason="what is tested is its absence")
def test_videos_are_an_error_where_the_processor_wants_torchvision(train) -> None:
    with pytest.raises(MachineError) as caught:
        train(dataset="mllm_video_demo")
    assert {problem.code for problem in caught.value.problems} == {"E-MEDIA-041"}


@pytest.mark.slow
def test_sound_for_a_model_that_only_sees_is_an_error_of_each_row(train) -> None:
    with pytest.raises(DataError) as caught:
        train(dataset="mllm_video_audio_demo")
    assert {problem.code for problem in caught.value.problems} == {"E-MEDIA-040"}
