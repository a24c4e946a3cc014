"""Mixture-of-Depths: what is chosen, loss and checkpointing, saving and reading back, what is refused, and runs.

That a routed layer computes what it would on paper: tests/contracts/test_depths.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tunesmith
from tests.tiny_models import tiny_config
from tests.tiny_models import tiny_model as tiny
from tunesmith.config import load_config
from tunesmith.config.model import ModelConfig
from tunesmith.convert.llama_pro import expand
from tunesmith.core.errors import ConfigError, MissingInputError, UsageError
from tunesmith.engines.base import Request, Sampling
from tunesmith.engines.hf import HFEngine
from tunesmith.engines.outside import parts_of
from tunesmith.models.attention import VARLEN, register
from tunesmith.models.checkpointing import enable_checkpointing
from tunesmith.models.depth_plan import FLAG, Depths, plan_depths
from tunesmith.models.depths import ROUTER, _choose, add_routers, begin_routers, route, same_choices
from tunesmith.models.fast_path import flat_inputs
from tunesmith.models.flops import measure_flops
from tunesmith.models.load import load
from tunesmith.models.loss_forward import HeadFacts, install
from tunesmith.models.packing import check_packing
from tunesmith.stats.flops import flops_of_model
from tunesmith.train.plan import check_depths, resolve_plan

pytestmark = pytest.mark.usefixtures("torch_one_thread")

DEPTH = Depths(capacity=0.5)
ASKED = {"model_name_or_path": "m", "dataset": "d", "output_dir": "o", "finetuning_type": "full"}


def made(depths: Depths = DEPTH, attention: str = VARLEN) -> Any:
    register()
    model = tiny("llama", attention).train()
    add_routers(model, depths)
    begin_routers(model, seed=1)
    model.model.layers[1].depth_router.weight.data *= 20
    route(model, depths)
    return model


def batch() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    pieces = [torch.randint(3, 97, (length,), generator=generator) for length in (9, 6)]
    places = [[0, at] for at in (*range(8), *range(9, 14))]
    targets = torch.cat([piece[1:] for piece in pieces])
    return flat_inputs(pieces) | {"loss_positions": torch.tensor(places), "loss_targets": targets}


def gradients(model: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(**batch())["loss"].backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


# ---- what is chosen ----


def test_the_share_is_rounded_up() -> None:
    assert [Depths(0.125).chosen(length) for length in (0, 1, 8, 9, 16, 17)] == [0, 1, 1, 2, 2, 3]
    assert Depths(0.07).chosen(100) == 7  # and not 8, as 0.07 * 100 in floats would give
    assert list(Depths().layers(5)) == [1, 3]


def test_the_largest_of_each_sequence_in_their_order() -> None:
    """Of two alike the earlier one."""
    weights = torch.tensor([3.0, 1.0, 2.0, 0.0, 5.0, 5.0, 5.0, -1.0, -2.0])
    assert _choose(weights, (0, 4, 7, 9), DEPTH).tolist() == [0, 2, 4, 5, 7]


# ---- loss and gradient ----


@pytest.mark.parametrize("way", ["kept", "full"])
def test_every_way_to_the_loss_is_the_same(way: Any) -> None:
    one, other = made(), made()
    install(one, "chunked", HeadFacts())
    install(other, way, HeadFacts())
    wanted, found = gradients(one), gradients(other)
    assert wanted.keys() == found.keys()
    assert wanted[f"model.layers.1.{ROUTER}.weight"].abs().max() > 0
    for name, gradient in found.items():
        assert torch.allclose(gradient, wanted[name], atol=1e-5), name


@pytest.mark.parametrize(("mode", "reentrant"), [("full", True), ("full", False), ("selective", False)])
def test_activations_that_are_computed_again_change_nothing(mode: str, reentrant: bool) -> None:
    model = made()
    install(model, "chunked", HeadFacts())
    wanted = gradients(model)
    enable_checkpointing(model, mode, reentrant=reentrant)
    found = gradients(model)
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(found[name], wanted[name], atol=1e-6) for name in found)


def test_two_ways_are_compared_on_the_same_choices() -> None:
    """Routers whose numbers are turned round choose others, but not where they are to choose as before."""
    model, taken = made().eval(), []
    layer = model.model.layers[1]
    layer.input_layernorm.register_forward_pre_hook(lambda _, given: taken.append(given[0].detach()))
    pieces = [torch.arange(3, 12), torch.arange(20, 26)]
    with torch.no_grad():
        with same_choices(model) as again:
            for piece in pieces:
                model(input_ids=piece[None], use_cache=False)
            layer.depth_router.weight.neg_()
            again()
            model(**flat_inputs(pieces), use_cache=False)
        model(**flat_inputs(pieces), use_cache=False)
    first, second, both, others = taken
    assert torch.allclose(both, torch.cat([first, second], dim=1), atol=1e-5)
    assert not torch.allclose(both, others, atol=1e-2)


def test_half_precision_chooses_in_float32() -> None:
    model = made()
    with torch.autocast("cpu", torch.bfloat16):
        hidden = torch.randn(4, 32, dtype=torch.bfloat16)
        assert model.model.layers[1].depth_router(hidden).dtype == torch.float32
        assert model(**flat_inputs([torch.arange(9)]), use_cache=False).logits.isfinite().all()


def test_a_cache_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        made()(input_ids=torch.arange(9)[None], use_cache=True)
    assert caught.value.code == "E-MODEL-033"


def test_work_is_counted_for_the_chosen() -> None:
    """Of 64 tokens half: the layer's products count half, and its attention 32 tokens' pairs."""
    plain, routed = tiny("llama", VARLEN), made().eval()
    for model in (plain, routed):
        install(model, "chunked", HeadFacts())
    whole, half = measure_flops(plain), measure_flops(routed)
    (each,) = half.routed.values()
    assert each == half.attention[None] == whole.attention[None] / 2  # one of two layers
    router = 6 * 32  # forward, and twice backward
    assert half.layers == pytest.approx(whole.layers * 3 / 4 + router, rel=1e-3)
    lengths = np.array([64])
    pairs = each * (64 * 65 / 2 + 32 * 33 / 2)
    assert half.of(lengths, 0) == pytest.approx(half.layers * 64 + pairs)


def test_figures_of_a_config_need_no_weights(tiny_model: Path, tiny_data: Path) -> None:
    """2 of 5 layers compute an eighth: 3.25 of 5 of the products, and 6 x 64 a token for each router."""
    asked = {**ASKED, "model_name_or_path": str(tiny_model), "dataset_dir": str(tiny_data), "use_cpu": True}
    found = []
    for more in ({}, {"mixture_of_depths": "convert"}):
        config = load_config({**asked, **more}, verb="stats")
        found.append(flops_of_model(config, resolve_plan(config), media=False))
    plain, routed = found
    assert routed.each.layers == plain.each.layers * 3.25 / 5 + 2 * 6 * 64
    assert routed.parameters == plain.parameters + 2 * 64


# ---- folders ----


@pytest.fixture(scope="module")
def converted(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with routers that choose, as a run saves it."""
    folder = tmp_path_factory.mktemp("depths") / "model"
    asked = ModelConfig(model_name_or_path=str(tiny_model), mixture_of_depths="convert", mixture_of_depths_capacity=0.3)
    loaded = load(asked, dtype="float32", longest=512)
    for module in loaded.model.modules():
        if hasattr(module, ROUTER):
            getattr(module, ROUTER).weight.data *= 10
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def logits(folder: Path, **keys: Any) -> torch.Tensor:
    model = load(ModelConfig(model_name_or_path=str(folder), **keys), dtype="float32").model
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.arange(5, 45)[None], use_cache=False).logits
    return found


def test_a_saved_folder_is_read_back_to_the_bit_with_the_key_or_without(converted: Path, tmp_path: Path) -> None:
    assert json.loads((converted / "config.json").read_text())[FLAG] == {"capacity": 0.3, "every": 2, "first": 1}
    routers = {name for name in load_file(converted / "model.safetensors") if ROUTER in name}
    assert routers == {f"model.layers.{number}.{ROUTER}.weight" for number in (1, 3)}
    wanted = logits(converted)
    assert torch.equal(logits(converted, mixture_of_depths="load"), wanted)
    load(ModelConfig(model_name_or_path=str(converted)), dtype="float32").model.save_pretrained(tmp_path)
    shutil.copy(converted / "tokenizer.json", tmp_path)
    assert torch.equal(logits(tmp_path), wanted)
    dense = tmp_path / "dense"
    shutil.copytree(converted, dense)
    settings = json.loads((dense / "config.json").read_text())
    del settings[FLAG]
    (dense / "config.json").write_text(json.dumps(settings))
    assert not torch.allclose(logits(dense), wanted, atol=1e-2)


def test_new_routers_follow_from_the_seed(tiny_model: Path) -> None:
    asked = ModelConfig(model_name_or_path=str(tiny_model), mixture_of_depths="convert")
    routers = [
        load(asked, dtype="float32", longest=9, seed=seed).model.model.layers[1].depth_router.weight
        for seed in (1, 1, 2)
    ]
    assert torch.equal(routers[0], routers[1])
    assert not torch.equal(routers[0], routers[2])


def test_folders_of_another_kind_are_refused(converted: Path, tiny_model: Path, tmp_path: Path) -> None:
    for folder, key, longest in ((converted, "convert", 9), (tiny_model, "load", 9), (tiny_model, "convert", None)):
        with pytest.raises(UsageError) as caught:
            load(ModelConfig(model_name_or_path=str(folder), mixture_of_depths=key), dtype="float32", longest=longest)
        assert caught.value.code == "E-MODEL-032"
    shutil.copytree(converted, tmp_path / "m")
    weights = load_file(converted / "model.safetensors")
    weights.pop(f"model.layers.3.{ROUTER}.weight")
    save_file(weights, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    with pytest.raises(MissingInputError) as missing:
        logits(tmp_path / "m")
    assert missing.value.code == "E-MODEL-011"
    settings = json.loads((converted / "config.json").read_text())
    for wrong in ({"capacity": 0.0, "every": 2, "first": 1}, {"capacity": 0.5}, True):
        (tmp_path / "m" / "config.json").write_text(json.dumps(settings | {FLAG: wrong}))
        with pytest.raises(MissingInputError) as damaged:
            logits(tmp_path / "m")
        assert damaged.value.code == "E-MODEL-032"


@pytest.mark.parametrize(
    ("model_type", "changes", "reason"),
    [
        ("mamba", {}, "the type mamba"),
        ("bert", {}, "the type bert"),
        ("gemma3n_text", {}, "the type gemma3n_text"),
        ("mistral", {"sliding_window": 5}, "a window"),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ("llama", {"num_hidden_layers": 1}, "1 layers"),
    ],
)
def test_models_that_do_not_fit_are_refused(model_type: str, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_depths(ModelConfig(mixture_of_depths="convert"), tiny_config(model_type, **changes))
    assert caught.value.code == "E-MODEL-031"
    assert reason in str(caught.value)


def test_windows_of_other_layers_do_not_matter() -> None:
    settings = tiny_config("gemma2", layer_types=["sliding_attention", "full_attention"])
    assert plan_depths(ModelConfig(mixture_of_depths="convert"), settings) == Depths()


def test_quantized_weights_other_engines_packs_and_conversions_are_refused(converted: Path, tmp_path: Path) -> None:
    config = ModelConfig(model_name_or_path=str(converted))
    with pytest.raises(UsageError, match="quantized"):
        load(config, dtype="float32", quantization=FakeBase())  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="choose among the tokens of a row"):
        check_packing(config)
    asked = load_config({"model_name_or_path": str(converted), "infer_backend": "vllm"}, verb="chat")
    with pytest.raises(UsageError, match="all tokens in all layers"):
        parts_of(asked)
    with pytest.raises(UsageError, match="no mixture of depths"):
        expand(converted, tmp_path / "larger", 1, max_shard_size=10**9, check=False, progress=lambda *_: None)


class FakeBase:
    def arguments(self, dtype: str, device: str) -> dict[str, Any]:
        return {"quantization_config": None}


# ---- keys ----


PAIRS: dict[str, dict[str, Any]] = {
    "stage": {"stage": "dpo"},
    "finetuning_type": {"finetuning_type": "oft", "mixture_of_depths": "load"},
    "use_llama_pro": {"finetuning_type": "freeze", "use_llama_pro": True, "mixture_of_depths": "load"},
    "quantization_bit": {"finetuning_type": "lora", "quantization_bit": 4, "mixture_of_depths": "load"},
    "qat": {"qat": "int8"},
    "fp8": {"fp8": True},
    "shift_attn": {"shift_attn": True},
    "moe_aux_loss_coef": {"moe_aux_loss_coef": 0.1},
    "enable_liger_kernel": {"enable_liger_kernel": True},
    "torch_compile": {"torch_compile_mode": "default"},
    "fast_path": {"fast_path": "off", "packing": True},
}


@pytest.mark.parametrize("key", PAIRS)
def test_pairs_are_refused_before_anything_is_read(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({**ASKED, "mixture_of_depths": "convert", **PAIRS[key]})
    assert any(f'"{key}" does not go with mixture_of_depths' in problem.what for problem in caught.value.problems)


@pytest.mark.parametrize("method", ["lora", "freeze"])
def test_new_routers_train_with_all_weights(method: str) -> None:
    load_config({**ASKED, "mixture_of_depths": "load", "finetuning_type": method})
    with pytest.raises(ConfigError, match="makes new routers"):
        load_config({**ASKED, "mixture_of_depths": "convert", "finetuning_type": method})


def test_engines_that_compute_all_tokens_are_refused() -> None:
    for backend in ("vllm", "sglang"):
        with pytest.raises(ConfigError, match="all tokens in all layers"):
            load_config({"model_name_or_path": "m", "mixture_of_depths": "load", "infer_backend": backend}, verb="api")


def test_the_same_pairs_are_refused_where_only_the_folder_tells(converted: Path, tiny_model: Path) -> None:
    for folder, more in ((converted, {"qat": "int8"}), (converted, {"finetuning_type": "oft"})):
        config = load_config({**ASKED, "model_name_or_path": str(folder), **more})
        with pytest.raises(UsageError, match="does not go with a mixture of depths, which this model is"):
            check_depths(config)
    for folder, more in ((tiny_model, {"qat": "int8"}), (converted, {}), (converted, {"finetuning_type": "lora"})):
        check_depths(load_config({**ASKED, "model_name_or_path": str(folder), **more}))


def test_keys_without_effect_are_named() -> None:
    config = load_config({**ASKED, "mixture_of_depths_capacity": 0.5})
    assert "mixture_of_depths_capacity (only with mixture_of_depths: convert)" in str(config.warnings)
    chat = load_config({"model_name_or_path": "m", "mixture_of_depths": "load", "use_kv_cache": True}, verb="chat")
    assert "use_kv_cache (a mixture of depths reads everything again" in str(chat.warnings)


# ---- generation ----


def test_replies_read_everything_again_for_each_token(converted: Path) -> None:
    """Greedy replies are the arg max of a forward over all that is there; several requests do not change each other.
    What is scored is read at once, but for its last token."""
    config = load_config({"model_name_or_path": str(converted), "use_cpu": True}, verb="chat")
    model = load(ModelConfig(model_name_or_path=str(converted)), dtype="float32").model
    prompts = [tuple(range(10, 10 + length)) for length in (13, 4)]
    with HFEngine.from_config(config) as engine:
        asked = [Request(prompt, Sampling(do_sample=False, max_new_tokens=6, logprobs=0)) for prompt in prompts]
        pieces: dict[int, list[int]] = {0: [], 1: []}
        for number, piece in engine.run_all(asked):
            pieces[number] += [token.id for token in piece.tokens]
        scores = engine.score([(prompts[0], (7, 8))])
    for number, prompt in enumerate(prompts):
        ids = list(prompt)
        for token in pieces[number]:
            with torch.no_grad():
                found = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            assert token == int(found.argmax())
            ids.append(token)
    with torch.no_grad():
        whole = model(input_ids=torch.tensor([[*prompts[0], 7]]), use_cache=False).logits[0].log_softmax(-1)
    assert scores[0].logprobs == pytest.approx([float(whole[12, 7]), float(whole[13, 8])], abs=1e-5)


# ---- runs ----


def keys_of(tiny_model: Path, tiny_data: Path, **more: Any) -> dict[str, Any]:
    return {
        "model_name_or_path": str(tiny_model),
        "dataset": "new",
        "dataset_dir": str(tiny_data),
        "finetuning_type": "full",
        "mixture_of_depths": "convert",
        "mixture_of_depths_capacity": 0.25,
        "per_device_train_batch_size": 4,
        "learning_rate": 3e-3,
        "logging_steps": 1,
        "use_cpu": True,
        **more,
    }


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "trainer_log.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.slow
def test_a_run_converts_learns_and_is_read_back(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    """It goes on exactly, its result chats with the config that trained it, and adapters learn on it and merge."""
    keys = keys_of(tiny_model, tiny_data, max_steps=12, save_steps=6, output_dir=str(tmp_path / "out"))
    folder = tunesmith.train(keys).output_dir
    assert losses(folder)[-1] < 0.5 * losses(folder)[0]
    assert json.loads((folder / "self_proof.json").read_text())["holds"]
    assert json.loads((folder / "plan.json").read_text())["batches"] == "flat"
    assert json.loads((folder / "config.json").read_text())[FLAG]["capacity"] == 0.25

    shutil.copytree(folder / "checkpoint-6", tmp_path / "again" / "checkpoint-6")
    again = tunesmith.train(keys, output_dir=str(tmp_path / "again"), resume_from_checkpoint=True).output_dir
    assert losses(again) == losses(folder)[6:]
    whole, resumed = (load_file(one / "model.safetensors") for one in (folder, again))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)

    with tunesmith.chat(keys) as conversation:
        assert conversation.ask("a cat", do_sample=False, max_new_tokens=4)

    more = {
        "mixture_of_depths": "load",
        "finetuning_type": "lora",
        "output_dir": str(tmp_path / "lora"),
        "max_steps": 8,
    }
    lora = tunesmith.train(keys_of(folder, tiny_data, **more)).output_dir
    assert losses(lora)[-1] < losses(lora)[0]
    assert not any(ROUTER in name for name in load_file(lora / "adapter_model.safetensors"))
    merged = tunesmith.export_model(
        model_name_or_path=str(folder), adapter_name_or_path=str(lora), export_dir=str(tmp_path / "merged")
    )
    assert not (merged / "Modelfile").exists()
    assert not torch.equal(logits(merged), logits(folder))


@pytest.mark.slow
def test_padded_rows_train_the_same(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    runs = [
        losses(
            tunesmith.train(
                keys_of(
                    tiny_model,
                    tiny_data,
                    max_steps=4,
                    fast_path=way,
                    output_dir=str(tmp_path / way),
                    train_sampling_strategy="random",
                )
            ).output_dir
        )
        for way in ("require", "off")
    ]
    assert runs[0] == pytest.approx(runs[1], rel=1e-4)


@pytest.mark.slow
def test_it_can_begin_from_nothing(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    """As in the paper; and the config that did so chats with what was trained, not with random weights again."""
    keys = keys_of(tiny_model, tiny_data, max_steps=6, train_from_scratch=True, output_dir=str(tmp_path / "out"))
    folder = tunesmith.train(keys).output_dir
    assert losses(folder)[0] == pytest.approx(np.log(896), abs=0.2)
    assert losses(folder)[-1] < losses(folder)[0]
    with tunesmith.chat(keys) as conversation:
        own = conversation.engine.model.state_dict()
    saved = load_file(folder / "model.safetensors")
    assert all(torch.equal(own[name], saved[name]) for name in saved)
