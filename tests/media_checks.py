"""What is compared for a family of models that see or hear, as one record for each kind of media.

All families, for docs/multimodal.md: python -m tests.media_checks bench/results/multimodal.json [folder of torchvision]
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.media_cases import ASSETS, Case, Shelf, has_torchvision, media_of_case, tokenizer_of
from tests.media_families import CASES
from tests.official import official_source
from tests.torchvision_oracle import use_torchvision
from tunesmith.config.template import TemplateConfig
from tunesmith.core.types import PLACE, Chat, Encoded, Medium, Message
from tunesmith.media.processor import Media
from tunesmith.render import Renderer, make_renderer

__all__ = ["KINDS", "SOURCES", "chat_template", "check", "check_template", "reason_not_to"]

KINDS = ("image", "video", "audio")
_ARGUMENTS = {"image": "images", "video": "videos", "audio": "audio"}
_START = "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n"
_TEXT = "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
_END = "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"


SOURCES = {
    "gemma3": "with_generation_marks/gemma3.jinja",
    "gemma4": "official/google-gemma-4-31B-it.jinja",
    "idefics3": "with_generation_marks/idefics3.jinja",
    "llava_next": "with_generation_marks/llava_next.jinja",
    "mistral3": "official/Mistral-Small-3.2-24B-Instruct-2506.jinja",
    "qwen2_5_vl": "with_generation_marks/qwen2_5_vl.jinja",
    "qwen3_5": "official/Qwen3.5-4B.jinja",
    "qwen3_vl": "with_generation_marks/qwen3_vl.jinja",
}
"""Families whose own chat template is at hand."""
_OF_TEMPLATES = ("<start_of_turn>", "<end_of_turn>", "<|turn>", "<turn|>", "[INST]", "[/INST]", "<end_of_utterance>")


def check_template(name: str, source: str) -> None:
    """Raises AssertionError where ids are not those of the processor's `apply_chat_template`."""
    case, shelf = CASES[name], Shelf()
    tokenizer = tokenizer_of(case)
    tokenizer.add_special_tokens({"additional_special_tokens": list(_OF_TEMPLATES)}, replace_extra_special_tokens=False)
    tokenizer.chat_template = source
    media = media_of_case(case, shelf, tokenizer=tokenizer)
    renderer = make_renderer(TemplateConfig(enable_thinking=None), tokenizer, media=media)
    for chat in _chats(_some(shelf, "image", case.even)):
        read = {str(one.source): shelf.read(one) for message in chat.messages for one in message.media}
        told = [{"role": one.role, "content": _parts(one, read)} for one in chat.messages[:-1]]
        settings = {"images_kwargs": dict(case.call.get("image", {}))}
        expected = media.processor.apply_chat_template(
            [told], chat_template=source, tokenize=True, add_generation_prompt=True, processor_kwargs=settings
        )
        ids = expected["input_ids"] if hasattr(expected, "keys") else expected
        own = renderer.prompt(chat.messages[:-1]).ids
        assert list(own) == [int(token) for token in ids[0]], tokenizer.decode(own)


def _parts(message: Message, read: dict[str, Any]) -> Any:
    """The content as users of transformers write it."""
    parts: list[dict[str, Any]] = []
    for number, text in enumerate(message.content.split(PLACE)):
        if number:
            parts.append({"type": "image", "image": read[str(message.media[number - 1].source)]})
        if text:
            parts.append({"type": "text", "text": text})
    return parts


def reason_not_to(case: Case, kind: str) -> str | None:
    """Why a kind of media cannot be tried here."""
    if (kind == "video" or case.torchvision) and not has_torchvision():
        return "needs torchvision"
    return case.lacks()


def kinds_of(case: Case) -> list[str]:
    """The kinds that a family takes, also where they cannot be tried here."""
    return [kind for kind in KINDS if kind in (case.feature or ("image",))]


def check(name: str, kind: str) -> dict[str, Any]:
    """Raises AssertionError where something is not as the processor or the model has it."""
    torch.manual_seed(0)
    case, shelf = CASES[name], Shelf()
    tokenizer = tokenizer_of(case)
    media = media_of_case(case, shelf, tokenizer=tokenizer)
    tokenizer.chat_template = chat_template(media)
    renderer = make_renderer(TemplateConfig(), tokenizer, media=media)
    chats = _chats(_some(shelf, kind, case.even))
    encoded = [found[0] for found in renderer.encode_chats(chats)]
    for chat, found in zip(chats, encoded, strict=True):
        expected = _by_processor(case, media, shelf, renderer, chat, kind)
        assert list(found.ids) == expected, f"{tokenizer.decode(found.ids)!r} is not {tokenizer.decode(expected)!r}"
        _placed_well(case, kind, tokenizer, found)
    _joined_well(case, media, encoded)
    told = {"family": name, "kind": kind, "ids": True, "features": None, "backward": None, "why": ""}
    if why := case.model_lacks():
        return {**told, "why": why}
    return {**told, **_through_model(case, kind, tokenizer, media, encoded[1])}


def chat_template(media: Media) -> str:
    parts = "{% if p.type == 'text' %}{{ p.text }}" + "".join(
        f"{{% elif p.type == '{kind}' %}}{media.placeholder(kind, 1)}" for kind in media.kinds
    )
    return _START + _TEXT + parts + "{% endif %}" + _END


def _some(shelf: Shelf, kind: str, even: bool) -> list[Medium]:
    """Three of unequal size."""
    if kind == "audio":
        return [shelf.audio(0.7), shelf.audio(1.33), shelf.audio(2.2)]
    sizes = [(60, 90), (200, 40), (33, 200)]
    if kind == "image":
        return [shelf.image(*size) for size in sizes]
    return [shelf.video(60, 90, 8), shelf.video(112, 56, 8 if even else 4), shelf.video(84, 84, 8)]


def _chats(some: Sequence[Medium]) -> list[Chat]:
    """One medium; and three, one of them in a later turn."""
    one = [Message("user", f"What is {PLACE}?", media=some[:1]), Message("assistant", "A thing.")]
    three = [
        Message("user", f"See {PLACE} and {PLACE}", media=some[:2]),
        Message("assistant", "Two things."),
        Message("user", f"{PLACE}again", media=some[2:]),
        Message("assistant", "A third."),
    ]
    return [Chat(one), Chat(three)]


def _by_processor(case: Case, media: Media, shelf: Shelf, renderer: Renderer, chat: Chat, kind: str) -> list[int]:
    """Ids that the processor itself gives for the same text and the media themselves."""
    text = case.told(renderer.text(chat))
    read = [shelf.read(medium) for message in chat.messages for medium in message.media]
    settings: dict[str, Any] = dict(case.call.get(kind, {}))
    if kind == "video":
        settings |= {"video_metadata": [told for _, told in read], "do_sample_frames": False}
        read = [frames for frames, _ in read]
    if kind == "audio":
        settings["sampling_rate"] = 16_000
    given = {_ARGUMENTS[kind]: read, f"{_ARGUMENTS[kind]}_kwargs": settings}
    ids = media.processor(text=[text], **given)["input_ids"][0]
    return [int(token) for token in ids]


def _placed_well(case: Case, kind: str, tokenizer: Any, found: Encoded) -> None:
    """All tokens that get features stand in places, and nothing else trained or written by a user does."""
    inside = {at for placed in found.media for at in range(placed.start, placed.end)}
    feature = tokenizer.convert_tokens_to_ids(case.feature.get(kind, case.literal))
    assert {at for at, token in enumerate(found.ids) if token == feature} <= inside
    assert not any(found.trained[at] for at in inside)


def _joined_well(case: Case, media: Media, encoded: Sequence[Encoded]) -> None:
    """Tensors of two sequences, joined, are those of one with the media of both."""
    some = [[placed.medium for placed in found.media] for found in encoded]
    joined = media.join([media.inputs(one) for one in some])
    together = media.inputs([medium for one in some for medium in one])
    assert joined.keys() == together.keys()
    for name, tensor in together.items():
        own = joined[name]
        if case.batched:  # [sequences, media, ...] there, [1, media, ...] here: without what fills up
            own = torch.cat([row[: len(one)] for row, one in zip(own, some, strict=True)])[None]
        assert own.shape == tensor.shape, name
        first = len(some[0]) if case.padded and len(own) > len(some[1]) else 0  # the second sequence has the longest
        assert torch.equal(own[first:], tensor[first:]), name


def _through_model(case: Case, kind: str, tokenizer: Any, media: Media, found: Encoded) -> dict[str, Any]:
    """Features are counted, and a forward and a backward pass made, of a tiny random model."""
    import transformers

    assert case.config is not None
    torch.manual_seed(0)
    model = getattr(transformers, case.model)(case.config(tokenizer.convert_tokens_to_ids)).train()
    inputs = media.inputs([placed.medium for placed in found.media])
    inputs = {name: one.float() if one.is_floating_point() else one for name, one in inputs.items()}
    told = {"features": None, "backward": True}
    ids = torch.tensor([list(found.ids)])
    types = media.token_types(found.ids, trained=found.trained, inputs=inputs)
    labels = torch.where(torch.tensor([list(found.trained)]), ids, -100)
    others = {**inputs, **{name: one[None] for name, one in types.items()}, "attention_mask": torch.ones_like(ids)}
    if kind in case.feature:
        feature = tokenizer.convert_tokens_to_ids(case.feature[kind])
        told["features"] = count = list(found.ids).count(feature)
        if case.counted:
            assert _rows(model, kind, inputs) == count
        else:
            with pytest.raises(ValueError, match="do not match"):
                model(input_ids=_without_one(ids, feature), **others)
    loss = model(input_ids=ids, labels=labels, **others).loss
    loss.backward()
    assert torch.isfinite(loss)
    own = [one for name, one in model.named_parameters() if any(tower in name for tower in case.tower)]
    assert any(one.grad is not None and bool(one.grad.abs().sum() > 0) for one in own), "no gradient reaches the tower"
    return told


def _without_one(ids: Any, feature: int) -> Any:
    """The ids, with the last token of a feature replaced."""
    last = int((ids[0] == feature).nonzero()[-1])
    return ids.index_fill(1, torch.tensor([last]), 0)


def _rows(model: Any, kind: str, inputs: dict[str, Any]) -> int:
    """How many embeddings the model makes of media."""
    inner = getattr(model, "model", model)
    names = (f"get_{kind}_features", "get_image_features")  # the same for frames, where there is no other
    make = next(found for name in names for one in (model, inner) if (found := getattr(one, name, None)))
    taken = {
        *inspect.signature(make).parameters,
        *inspect.signature(getattr(inner, make.__name__)).parameters,
    }
    out = make(**{name: one for name, one in inputs.items() if name in taken})
    found = next(
        one
        for one in (getattr(out, "pooler_output", None), getattr(out, "last_hidden_state", None), out)
        if one is not None
    )
    return sum(one.numel() // one.shape[-1] for one in (found if isinstance(found, list | tuple) else [found]))


def main() -> None:
    target = Path(sys.argv[1])
    if len(sys.argv) > 2:
        use_torchvision(Path(sys.argv[2]).resolve())
    results = []
    for name, case in CASES.items():
        for kind in kinds_of(case):
            why = reason_not_to(case, kind)
            results.append({"family": name, "kind": kind, "why": why} if why else check(name, kind))
            if kind == "image" and not why and name in SOURCES:
                check_template(name, official_source(SOURCES[name], ASSETS))
                results[-1]["template"] = SOURCES[name]
            print(results[-1])
    target.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
