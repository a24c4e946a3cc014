"""A small model that hears, made of stories260K and an encoder of random weights, and tones that it can learn."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np

from tests.stories import language_of, put_in, template_of

TONES = {"low": 220.0, "mid": 700.0, "high": 2200.0}  # Hz
RATE = 16_000
SECONDS = 0.4  # 10 tokens
TEMPLATE = template_of("audio", "<|AUDIO|>")


def hearing_model(folder: Path, stories: Path) -> Path:
    """Qwen2-Audio: stories260K behind an encoder of two layers, for a second of sound, and a projector, both with
    random weights."""
    import torch
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        WhisperFeatureExtractor,
    )

    tokenizer, language = language_of(stories, "<|AUDIO|>")
    encoder = {
        "num_mel_bins": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "d_model": 32,
        "max_source_positions": 50,
    }
    config = Qwen2AudioConfig(
        audio_config=encoder,
        text_config=language.config,
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
        tie_word_embeddings=language.config.tie_word_embeddings,
    )
    model = Qwen2AudioForConditionalGeneration(config)
    put_in(model, language)
    with torch.no_grad():  # what begins as small as transformers has it says too little to be learned from in seconds
        for one in [*model.model.audio_tower.parameters(), *model.model.multi_modal_projector.parameters()]:
            if one.requires_grad and one.ndim > 1:
                one *= 10
    model.save_pretrained(folder)
    sounds = WhisperFeatureExtractor(feature_size=32, sampling_rate=RATE, chunk_length=1, return_attention_mask=True)
    Qwen2AudioProcessor(sounds, tokenizer, chat_template=TEMPLATE).save_pretrained(folder)
    return folder


def tone(name: str, seed: int) -> np.ndarray:
    """A sine that begins anywhere, a tenth higher or lower than its name says, under noise of half its loudness."""
    chance = np.random.default_rng(seed)
    times = np.arange(round(SECONDS * RATE)) / RATE
    height = TONES[name] * chance.uniform(0.9, 1.1)
    found: np.ndarray = np.sin(2 * np.pi * (height * times + chance.uniform())) + chance.normal(0, 0.5, len(times))
    return found


def tone_rows(folder: Path, count: int, *, first: int = 0) -> Path:
    """Files of sound and a file of rows that ask what is heard. `first`: the number of the first sound."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(first, first + count):
        name = list(TONES)[number % len(TONES)]
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes((tone(name, number) * 8000).clip(-32_768, 32_767).astype("<i2").tobytes())
        said = [{"role": "user", "content": "<audio>The sound is"}, {"role": "assistant", "content": f" {name}"}]
        rows.append({"messages": said, "audios": [f"{number}.wav"]})
    file_of_rows = folder / f"rows-{first}.json"
    file_of_rows.write_text(json.dumps(rows))
    return file_of_rows
