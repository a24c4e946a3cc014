"""A small model that sees, made of stories260K and a tower of random weights, and pictures that it can learn from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.stories import language_of, put_in, template_of

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 50, 220), "black": (20, 20, 20)}
TEMPLATE = template_of("image", "<image>")


def seeing_model(folder: Path, stories: Path, *, size: int = 32) -> Path:
    """LLaVA: stories260K behind a CLIP tower of two layers and a projector with random weights; 16 tokens a picture."""
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer, language = language_of(stories, "<image>")
    tower = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=size,
        patch_size=size // 4,
    )
    config = LlavaConfig(
        vision_config=tower,
        text_config=language.config,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=language.config.tie_word_embeddings,
    )
    model = LlavaForConditionalGeneration(config)
    put_in(model, language)
    model.save_pretrained(folder)
    pixels = {"height": size, "width": size}
    images = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size=pixels)
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=size // 4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    processor.save_pretrained(folder)
    return folder


def coloured(name: str, seed: int, size: int = 32) -> Any:
    """A picture of this colour under much noise."""
    from PIL import Image

    noise = np.random.default_rng(seed).normal(0, 40, (size, size, 3))
    return Image.fromarray(np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8))


def colour_rows(folder: Path, count: int, *, first: int = 0) -> Path:
    """Pictures and a file of rows that ask for their colours. `first`: the number of the first picture."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(first, first + count):
        name = list(COLOURS)[number % len(COLOURS)]
        coloured(name, number).save(folder / f"{number}.png")
        said = [{"role": "user", "content": "<image>The color is"}, {"role": "assistant", "content": f" {name}"}]
        rows.append({"messages": said, "images": [f"{number}.png"]})
    file = folder / f"rows-{first}.json"
    file.write_text(json.dumps(rows))
    return file


def colour_pairs(folder: Path, count: int, *, first: int = 0) -> Path:
    """The same as pairs: the right colour is chosen, another one rejected."""
    rows = []
    for row in json.loads(colour_rows(folder, count, first=first).read_text()):
        question, answer = row["messages"]
        names = list(COLOURS)
        wrong = names[(names.index(answer["content"].strip()) + 1) % len(names)]
        rejected = {**answer, "content": f" {wrong}"}
        rows.append({"messages": [question], "chosen": answer, "rejected": rejected, "images": row["images"]})
    file = folder / f"pairs-{first}.json"
    file.write_text(json.dumps(rows))
    return file


def colour_feedback(folder: Path, count: int, *, first: int = 0) -> Path:
    """The same as feedback: every other answer is another colour, and disliked."""
    rows = []
    for number, row in enumerate(json.loads(colour_pairs(folder, count, first=first).read_text())):
        liked = number // len(COLOURS) % 2 == 0
        said = [*row["messages"], row["chosen" if liked else "rejected"]]
        rows.append({"messages": said, "label": liked, "images": row["images"]})
    file = folder / f"feedback-{first}.json"
    file.write_text(json.dumps(rows))
    return file
