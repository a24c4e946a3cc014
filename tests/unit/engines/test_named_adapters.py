"""Adapters by name: each request of a batch gets what its adapter alone would say."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.busy_engine import answers, differing, engine_of, generated, greedy, prompts
from tests.tiny_models import tiny_model
from tunesmith.core.errors import MissingInputError, UsageError
from tunesmith.engines.base import Piece, Request

pytestmark = pytest.mark.usefixtures("torch_one_thread")

NAMES = ("red", "green", "blue")


def adapted(model: Any, seed: int, **more: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4 + seed, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM", **more)
    found = get_peft_model(model, config).eval()
    torch.manual_seed(seed)
    for name, weight in found.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for seed, name in enumerate(NAMES):
        found[name] = tmp_path_factory.mktemp("adapters") / name
        adapted(tiny_model("llama", None), seed).save_pretrained(found[name])
    return found


def load(name: str | None, folders: dict[str, Path]) -> Any:
    from peft import PeftModel

    model = tiny_model("llama", None)
    return model if name is None else PeftModel.from_pretrained(model, folders[name]).eval()


@pytest.mark.parametrize("own", [None, "red"])
def test_a_batch_may_mix_adapters(own: str | None, folders: dict[str, Path]) -> None:
    """`own`: the adapter that the model has before any is loaded by name."""
    asked = prompts(8, 20, 97)
    names = [None, "green", "blue", None, "blue", "green", "green", None]
    models = {name: load(name if name else own, folders) for name in (None, "green", "blue")}
    said = [generated(models[name], prompt, 16) for name, prompt in zip(names, asked, strict=True)]
    with engine_of(load(own, folders), prefill_chunk_tokens=13) as engine:
        for name in ("green", "blue"):
            engine.load_adapter(name, str(folders[name]))
        assert engine.adapters == ("green", "blue")
        requests = [Request(prompt, greedy(16), adapter=name) for name, prompt in zip(names, asked, strict=True)]
        assert differing(answers(engine, requests), said) == []
        embedded = [engine.embed([asked[3]], adapter=name)[0] for name in (None, "green")]
        assert embedded[0] != embedded[1]
        for name in ("green", "blue"):
            engine.unload_adapter(name)
        plain = [number for number, name in enumerate(names) if name is None]
        found = answers(engine, [requests[number] for number in plain])
        assert differing(found, [said[number] for number in plain]) == []
        engine.load_adapter("green", str(folders["blue"]))  # another one under a name that was there: nothing is left
        found = answers(engine, [Request(asked[2], greedy(16), adapter="green")])
        assert differing(found, [said[2]]) == []


def test_models_with_states_have_adapters_too(tmp_path: Path) -> None:
    model = adapted(tiny_model("bamba", None), 1)
    model.save_pretrained(tmp_path / "one")
    prompt = prompts(2, 20, 97)[1]
    said = [generated(model, prompt, 10), generated(tiny_model("bamba", None), prompt, 10)]
    with engine_of(tiny_model("bamba", None)) as engine:
        engine.load_adapter("one", str(tmp_path / "one"))
        found = answers(engine, [Request(prompt, greedy(10), adapter=name) for name in ("one", None)])
        assert differing(found, said) == []


def test_names_that_are_unknown_or_taken(folders: dict[str, Path], tmp_path: Path) -> None:
    with engine_of(load(None, folders)) as engine:
        engine.load_adapter("red", str(folders["red"]))
        with pytest.raises(UsageError, match="E-ENGINE-009"):
            engine.load_adapter("red", str(folders["green"]))
        for ask in (
            lambda: engine.submit(Request((5,), adapter="green"), print),
            lambda: engine.embed([(5,)], adapter="green"),
            lambda: engine.unload_adapter("green"),
        ):
            with pytest.raises(UsageError, match="E-ENGINE-006"):
                ask()
        with pytest.raises(MissingInputError):
            engine.load_adapter("none", str(tmp_path / "nothing"))
        assert engine.adapters == ("red",)


@pytest.mark.parametrize("more", [{"modules_to_save": ["lm_head"]}, {"use_dora": True}])
def test_an_adapter_that_cannot_be_mixed_is_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    adapted(tiny_model("llama", None), 1, **more).save_pretrained(tmp_path / "whole")
    prompt = (5, 6, 7)
    said = [generated(tiny_model("llama", None), prompt, 10)]
    with engine_of(tiny_model("llama", None)) as engine:
        with pytest.raises(UsageError, match="E-ENGINE-010"):
            engine.load_adapter("whole", str(tmp_path / "whole"))
        assert engine.adapters == ()
        assert differing(answers(engine, [Request(prompt, greedy(10))]), said) == []


def test_replies_of_an_adapter_that_goes_end(folders: dict[str, Path]) -> None:
    with engine_of(load(None, folders), ()) as engine:
        engine.load_adapter("red", str(folders["red"]))
        pieces, begun, ended = list[Piece](), threading.Event(), threading.Event()

        def sink(piece: Piece) -> None:
            pieces.append(piece)
            begun.set()
            if piece.end:
                ended.set()

        engine.submit(Request((5,), greedy(50), adapter="red"), sink)
        begun.wait(60)
        engine.unload_adapter("red")
        assert ended.wait(60)
        end = pieces[-1].end
        assert end is not None
        assert end.error is not None
        assert end.error.code == "E-ENGINE-006"
