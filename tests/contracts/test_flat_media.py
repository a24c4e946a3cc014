"""Models that see or hear, on flat batches: loss and gradient are those of padded ones, with pictures of unequal size,
a text without any, and sound. Derives the list of types in models/families/flat.py.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch

from tests.media_cases import Shelf, media_of_case, tokenizer_of
from tests.media_checks import _chats, _some, chat_template, kinds_of, reason_not_to
from tests.media_families import CASES
from tunesmith.config.objective import ObjectiveConfig
from tunesmith.config.template import TemplateConfig
from tunesmith.core.types import Chat, Message
from tunesmith.data.collate import FlatCollator, PaddingCollator
from tunesmith.data.dataset import TokenDataset
from tunesmith.data.seen import MediaOfSequences
from tunesmith.models.attention import VARLEN, calls, register
from tunesmith.models.families.flat import SEEING
from tunesmith.models.family import family_of
from tunesmith.models.loss_forward import HeadFacts, install
from tunesmith.models.seeing import set_attention
from tunesmith.objectives.sft import SupervisedFineTuning
from tunesmith.render import make_renderer

QUICK = {"llava", "qwen2_vl"}


def made(name: str) -> tuple[Any, MediaOfSequences, list[dict[str, Any]]]:
    """A tiny model of a family, what reads its media, and three samples: one medium, three of them, none."""
    import transformers

    case = CASES[name]
    kind = next(one for one in kinds_of(case) if reason_not_to(case, one) is None)
    torch.manual_seed(0)
    shelf, tokenizer = Shelf(), tokenizer_of(case)
    media = media_of_case(case, shelf, tokenizer=tokenizer)
    tokenizer.chat_template = chat_template(media)
    renderer = make_renderer(TemplateConfig(), tokenizer, media=media)
    words = [Message("user", "No picture, what then?"), Message("assistant", "Words.")]
    chats = [*_chats(_some(shelf, kind, case.even)), Chat(words)]
    rows = TokenDataset.from_encoded(chain.from_iterable(renderer.encode_chats(chats)))
    model = getattr(transformers, case.model)(case.config(tokenizer.convert_tokens_to_ids)).eval()
    register()
    install(model, "chunked", HeadFacts.of(model, family_of(model.config.model_type)))
    return model, MediaOfSequences(media), [rows[number] for number in range(len(rows))]


def exact(name: str) -> str | None:
    """What is wrong with flat batches of a family; None where nothing is."""
    model, read, samples = made(name)
    before = calls()
    try:
        wanted = computed(model, PaddingCollator(0, read_media=read)(samples))
        set_attention(model, VARLEN)
        found = computed(model, FlatCollator(0, read_media=read)(samples))
    except (TypeError, ValueError, RuntimeError, KeyError, AssertionError, ImportError) as error:
        return f"refuses them: {str(error).splitlines()[:1]}"
    return "does not use the attention" if calls() == before else differs(found, wanted)


def differs(found: tuple[float, torch.Tensor], wanted: tuple[float, torch.Tensor]) -> str | None:
    off = abs(found[0] - wanted[0]) / abs(wanted[0])
    far = (found[1] - wanted[1]).norm() / wanted[1].norm()
    return None if off < 1e-5 and far < 1e-4 else f"loss is off by {off:.1e}, gradient by {far:.1e}"


def computed(model: Any, batch: dict[str, Any]) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    loss = SupervisedFineTuning(ObjectiveConfig()).compute(model, batch).loss_sum
    loss.backward()
    gradient = [(torch.zeros_like(one) if one.grad is None else one.grad).flatten() for one in model.parameters()]
    return float(loss.detach()), torch.cat(gradient)


NOT_FOR_ALL = {"gemma4": "its larger models see a picture from both sides"}
"""Types of which the tiny model is exact, and others of the type are not."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CASES]
)
def test_the_list_of_types_that_read_flat_batches_with_media(name: str) -> None:
    case = CASES[name]
    if case.model_lacks() or all(reason_not_to(case, kind) for kind in kinds_of(case)):
        assert case.model_type not in SEEING or name == "pixtral", "what is in the list is tried"
        return
    assert (exact(name) is None) == (case.model_type in SEEING or case.model_type in NOT_FOR_ALL)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CASES]
)
def test_a_padded_batch_is_its_rows_one_by_one(name: str) -> None:
    case = CASES[name]
    if case.model_lacks() or all(reason_not_to(case, kind) for kind in kinds_of(case)):
        return
    model, read, samples = made(name)
    collate = PaddingCollator(0, read_media=read)
    rows = [computed(model, collate([sample])) for sample in samples]
    wanted = sum(loss for loss, _ in rows), sum(gradient for _, gradient in rows)
    assert differs(computed(model, collate(samples)), wanted) is None
