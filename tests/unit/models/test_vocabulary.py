"""New tokens: in the tokenizer, in the data, in the embeddings, beside an adapter, and after a merge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tunesmith
from tests.tiny_models import tiny_model as tiny
from tunesmith.config import load_config
from tunesmith.config.model import ModelConfig
from tunesmith.core.errors import ConfigError, MissingInputError, UsageError
from tunesmith.core.types import Chat, Message
from tunesmith.methods.base import Given
from tunesmith.models.load import load
from tunesmith.models.loss_forward import HeadFacts, install
from tunesmith.models.tokenizer import load_tokenizer
from tunesmith.models.vocabulary import fresh_tokens, grow, warn_if_unseen
from tunesmith.render import make_renderer

pytestmark = pytest.mark.usefixtures("torch_one_thread")

SIZE, TOKENS = 896, 736
"""Rows of the tiny model, and tokens of its tokenizer: the rows between them are a padding zone."""


def keys(folder: Path, **more: Any) -> ModelConfig:
    return ModelConfig(model_name_or_path=str(folder), **more)


def descriptions(folder: Path, **tokens: str) -> str:
    path = folder / "tokens.yaml"
    path.write_text("".join(f'"<|{name}|>": "{words}"\n' for name, words in tokens.items()))
    return str(path)


@pytest.mark.parametrize("many", [3, 200], ids=["in rows that are there", "in new rows"])
def test_new_tokens_are_one_token_each_and_get_rows(tiny_model: Path, many: int) -> None:
    """736 + 200 + 1 tokens need 937 rows: 960, a multiple of 64."""
    words = tuple(f"wug{number}x" for number in range(many))
    config = keys(tiny_model, add_tokens=words, add_special_tokens=("<|tool|>",))
    loaded = load(config, dtype="float32")
    tokenizer, model = loaded.tokenizer, loaded.model
    assert tokenizer.encode("wug0x<|tool|>wug2x", add_special_tokens=False) == [TOKENS, TOKENS + many, TOKENS + 2]
    assert tokenizer.decode([TOKENS, TOKENS + many], skip_special_tokens=True) == "wug0x"
    rows = SIZE if many == 3 else 960
    table = model.get_input_embeddings().weight
    assert table.shape[0] == model.config.vocab_size == rows
    assert model.get_output_embeddings().weight is table, "tied, as before"
    assert fresh_tokens(model) == tuple(range(TOKENS, TOKENS + many + 1))
    before = AutoModelForCausalLM.from_pretrained(tiny_model).get_input_embeddings().weight
    assert torch.equal(table[:TOKENS], before[:TOKENS])
    if many == 200:  # filled up: the mean row, so that none of them is likely
        assert torch.allclose(table[TOKENS + 201 :], before[:TOKENS].mean(0), atol=1e-7)
    again = load(config, dtype="float32").model.get_input_embeddings().weight
    assert torch.equal(table, again), "the seed decides"
    other = load(config, dtype="float32", seed=43).model.get_input_embeddings().weight
    assert not torch.equal(table[TOKENS], other[TOKENS])


def test_a_special_token_is_a_control_token(tiny_model: Path) -> None:
    """Text of a user cannot write it, text that is trusted can; an ordinary token anybody writes."""
    tokenizer = load_tokenizer(keys(tiny_model, add_tokens=("wug",), add_special_tokens=("<|tool|>",)))
    renderer = make_renderer(load_config({"model_name_or_path": "x"}, verb="show").template, tokenizer)
    messages = (Message("user", "a wug <|tool|>"), Message("assistant", "wug"))
    (plain,), (trusted,) = renderer.encode_chats([Chat(messages), Chat(messages, trusted_markup=True)])
    wug, tool = TOKENS, TOKENS + 1
    assert list(plain.ids).count(wug) == list(trusted.ids).count(wug) == 2
    assert (list(plain.ids).count(tool), list(trusted.ids).count(tool)) == (0, 1)


@pytest.mark.parametrize("how", ["noise_init", "desc_init", "desc_init_w_noise"])
def test_rows_begin_as_they_were_asked_to(tiny_model: Path, tmp_path: Path, how: Any) -> None:
    file = descriptions(tmp_path, think="once upon a time", tool="the little dog")
    config = keys(tiny_model, add_tokens=("wug",), new_special_tokens_config=file, init_special_tokens=how)
    loaded = load(config, dtype="float32")
    table, tokenizer = loaded.model.get_input_embeddings().weight.detach(), loaded.tokenizer
    known = table[:TOKENS]
    spread = float(known.std(0).mean())
    for token, text in (("wug", None), ("<|think|>", "once upon a time"), ("<|tool|>", "the little dog")):
        row = table[tokenizer.convert_tokens_to_ids(token)]
        described = text is not None and how != "noise_init"
        middle = known[tokenizer.encode(text, add_special_tokens=False)].mean(0) if described else known.mean(0)
        if described and how == "desc_init":
            assert torch.allclose(row, middle, atol=1e-6)
        else:  # the root mean square of 64 normal numbers is within 4 / sqrt(2 * 64) of their spread
            assert abs(float((row - middle).square().mean().sqrt()) / spread - 1) < 0.36
    assert len({tuple(table[number].tolist()) for number in range(TOKENS, TOKENS + 3)}) == 3


def test_an_output_layer_of_its_own_gets_rows_too(tiny_model: Path) -> None:
    model = tiny("phi", None, vocab_size=TOKENS)  # with a bias
    assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight
    tokenizer = load_tokenizer(keys(tiny_model, add_tokens=("wug",)))
    with torch.no_grad():
        model.lm_head.bias.fill_(0.5)
    grow(model, tokenizer, keys(tiny_model), 0)
    head, table = model.lm_head.weight.detach(), model.get_input_embeddings().weight.detach()
    assert head.shape[0] == table.shape[0] == model.config.vocab_size == 768
    for rows in (head, table):
        spread = float(rows[:TOKENS].std(0).mean())
        assert 0.4 < float((rows[TOKENS] - rows[:TOKENS].mean(0)).std()) / spread < 1.7  # of 32 numbers
        assert torch.allclose(rows[TOKENS + 1 :], rows[:TOKENS].mean(0), atol=1e-6)
    assert torch.equal(model.lm_head.bias, torch.full((768,), 0.5))


def test_a_composite_keeps_its_parts_of_one_mind(tiny_model: Path) -> None:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {"vocab_size": TOKENS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "head_dim": 8}
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**sizes, "image_size": 8, "patch_size": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    model = Gemma3ForConditionalGeneration(Gemma3Config(text_config={**text, **heads}, vision_config=vision))
    grow(model, load_tokenizer(keys(tiny_model, add_tokens=("wug",))), keys(tiny_model), 0)
    assert model.config.text_config.vocab_size == model.get_input_embeddings().weight.shape[0] == 768


def test_a_tokenizer_that_outgrew_the_model(tiny_model: Path, tmp_path: Path) -> None:
    """Its tokens were added by others: `resize_vocab` gives them rows, without it that is an error."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens([f"wug{number}x" for number in range(170)])
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(MissingInputError) as caught:
        load(keys(tmp_path), dtype="float32")
    assert caught.value.code == "E-MODEL-007"
    assert "resize_vocab: true" in str(caught.value)
    grown = load(keys(tmp_path, resize_vocab=True), dtype="float32").model
    assert grown.config.vocab_size == 960  # 906 tokens
    assert fresh_tokens(grown) == tuple(range(SIZE, TOKENS + 170)), "the rows that were there are left alone"


def test_tokens_that_no_row_holds_are_told(tiny_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = load_tokenizer(keys(tiny_model, add_tokens=("wug", "fep")))
    warn_if_unseen(tokenizer, [np.array([3, TOKENS]), np.array([5, 6])])
    assert "1 new tokens stand nowhere in the training data ('fep')" in caplog.text
    caplog.clear()
    warn_if_unseen(tokenizer, [np.array([3, TOKENS]), np.array([TOKENS + 1])])
    assert not caplog.text


# ---- what is refused ----


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("- a\n- b\n", "list"),
        ("", "NoneType"),
        ("<|a|>: ''\n", "''"),
        ("<|a|>: 3\n", "3"),
        ("a: [\n", "parsing"),
    ],
)
def test_a_file_of_tokens_is_a_mapping(tmp_path: Path, text: str, got: str) -> None:
    (tmp_path / "tokens.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(
            {"model_name_or_path": "x", "new_special_tokens_config": str(tmp_path / "tokens.yaml")}, verb="chat"
        )
    assert caught.value.code == "E-MODEL-015"
    assert got in str(caught.value)


def test_a_missing_file_of_tokens(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"model_name_or_path": "x", "new_special_tokens_config": str(tmp_path / "none")}, verb="chat")
    assert caught.value.code == "E-MODEL-015"


def test_descriptions_need_a_file() -> None:
    """LlamaFactory begins from noise and says so."""
    with pytest.raises(ConfigError) as caught:
        load_config(
            {"model_name_or_path": "x", "add_special_tokens": "<|a|>", "init_special_tokens": "desc_init"}, (), "chat"
        )
    assert caught.value.code == "E-CONFIG-022"


def test_a_token_is_added_once() -> None:
    with pytest.raises(ConfigError, match="twice"):
        load_config({"model_name_or_path": "x", "add_tokens": "wug", "add_special_tokens": "wug"}, verb="chat")


def test_the_file_takes_the_place_of_the_list(tmp_path: Path) -> None:
    file = descriptions(tmp_path, think="a thought")
    given = {"model_name_or_path": "x", "add_special_tokens": "<|a|>", "new_special_tokens_config": file}
    config = load_config(given, verb="chat")
    assert any("add_special_tokens" in line and "takes its place" in line for line in config.warnings)


@pytest.mark.parametrize("backend", ["vllm", "sglang"])
def test_engines_of_others_load_models_as_they_are(backend: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"model_name_or_path": "x", "add_tokens": "wug", "infer_backend": backend}, verb="chat")
    assert caught.value.code == "E-CONFIG-021"


# ---- under an adapter ----


@pytest.mark.parametrize("tied", [True, False])
def test_lora_trains_the_rows_of_new_tokens_alone(tiny_model: Path, tied: bool) -> None:
    """And the loss through such an output layer, in chunks, is the one of all logits."""
    from tunesmith.config.method import MethodConfig
    from tunesmith.methods.lora import Lora
    from tunesmith.models.family import family_of

    model = tiny("llama", None, vocab_size=TOKENS, tie_word_embeddings=tied)
    tokenizer = load_tokenizer(keys(tiny_model, add_tokens=("wug", "fep")))
    grow(model, tokenizer, keys(tiny_model), 0)
    install(model, "chunked", HeadFacts())
    wrapped = Lora(MethodConfig(lora_target=("q_proj",))).apply(model, Given(family_of("llama")))
    trained = {name: weight for name, weight in wrapped.named_parameters() if weight.requires_grad}
    rows = {name: weight.shape for name, weight in trained.items() if "trainable_tokens" in name}
    assert set(rows.values()) == {(2, 32)}
    assert len(rows) == (1 if tied else 2)
    ids = torch.tensor([[5, TOKENS, 7, TOKENS + 1, 9]])
    positions = torch.tensor([[0, 0], [0, 1], [0, 2], [0, 3]])
    found = wrapped(input_ids=ids, loss_positions=positions, loss_targets=ids[0, 1:])["loss"]
    logits = wrapped(input_ids=ids).logits[0, :-1]
    wanted = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
    assert torch.allclose(found, wanted, atol=1e-5)
    gradients = torch.autograd.grad(found, list(trained.values()))
    for one, other in zip(gradients, torch.autograd.grad(wanted, list(trained.values())), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_an_output_layer_with_a_bias_is_trained_as_a_whole(tiny_model: Path) -> None:
    """PEFT leaves the bias out where it exchanges rows."""
    from peft import LoraConfig

    from tunesmith.methods.new_tokens import train_new_tokens

    model = tiny("phi", None, vocab_size=TOKENS)
    grow(model, load_tokenizer(keys(tiny_model, add_tokens=("wug",))), keys(tiny_model), 0)
    settings = LoraConfig(target_modules=["q_proj"])
    train_new_tokens(settings, model)
    assert settings.trainable_token_indices == {"model.embed_tokens": [TOKENS]}
    assert settings.modules_to_save == ["lm_head"]
    named = LoraConfig(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    train_new_tokens(named, model)
    assert named.trainable_token_indices is None


@pytest.fixture
def taught(tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    """Keys of a run that teaches two new words: six questions are answered by them. 200 more make the model grow."""
    rows = [{"instruction": f"say {word}", "input": "", "output": "wug fep"} for word in ["one", "two", "six", "ten"]]
    (tmp_path / "words.json").write_text(json.dumps(rows))
    return {
        "model_name_or_path": str(tiny_model),
        "dataset": str(tmp_path / "words.json"),
        "add_tokens": ["wug", "fep", *(f"wug{number}x" for number in range(200))],
        "output_dir": str(tmp_path / "out"),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 30,
        "learning_rate": 5e-3,
        "save_strategy": "no",
        "disable_gradient_checkpointing": True,
        "use_cpu": True,
    }


def answer(**given: Any) -> str:
    with tunesmith.chat({**given, "use_cpu": True, "do_sample": False}) as conversation:
        return conversation.ask("say two", max_new_tokens=6)


def test_a_lora_run_learns_a_new_token(taught: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    folder = tunesmith.train(taught).output_dir
    adapter = {"model_name_or_path": str(tiny_model), "adapter_name_or_path": str(folder)}
    assert answer(**adapter) == "wug fep", "the tokens come from beside the adapter"
    size = (folder / "adapter_model.safetensors").stat().st_size
    assert size < 600_000, "the grown table of 960 x 64 numbers is not in it"
    merged = tunesmith.export_model({**adapter, "export_dir": str(tmp_path / "merged")})
    assert answer(model_name_or_path=str(merged)) == "wug fep"
    plain = AutoModelForCausalLM.from_pretrained(merged)
    assert plain.config.vocab_size == plain.get_input_embeddings().weight.shape[0] == 960
    assert AutoTokenizer.from_pretrained(merged).convert_tokens_to_ids("fep") == TOKENS + 1


@pytest.mark.slow
def test_a_resumed_run_of_new_tokens_gives_the_same_bits(taught: dict[str, Any], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    often = {**taught, "num_train_epochs": 1, "max_steps": 6, "save_strategy": "steps", "save_steps": 3}
    whole = load_file(tunesmith.train(often).output_dir / "adapter_model.safetensors")
    half = {**often, "output_dir": str(tmp_path / "half")}
    tunesmith.train({**half, "max_steps": 3, "lr_scheduler_type": "constant"})
    again = tunesmith.train({**half, "lr_scheduler_type": "constant"})
    straight = tunesmith.train({**often, "lr_scheduler_type": "constant", "output_dir": str(tmp_path / "straight")})
    assert str(again.plan.resume).endswith("checkpoint-3")
    found, wanted = (load_file(one.output_dir / "adapter_model.safetensors") for one in (again, straight))
    assert found.keys() == wanted.keys() == whole.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"finetuning_type": "full"}, {"bf16": True}, {"additional_target": "embed_tokens"}])
def test_other_ways_to_learn_it(taught: dict[str, Any], tiny_model: Path, more: dict[str, Any]) -> None:
    folder = tunesmith.train({**taught, **more}).output_dir
    if more.get("finetuning_type") == "full":
        assert answer(model_name_or_path=str(folder)) == "wug fep"
    else:
        assert answer(model_name_or_path=str(tiny_model), adapter_name_or_path=str(folder)) == "wug fep"


@pytest.mark.slow
def test_an_adapter_that_goes_on_has_no_rows_for_more_tokens(taught: dict[str, Any], tmp_path: Path) -> None:
    first = tunesmith.train({**taught, "add_tokens": None, "max_steps": 1}).output_dir
    second = {**taught, "adapter_name_or_path": str(first), "output_dir": str(tmp_path / "second"), "max_steps": 1}
    with pytest.raises(UsageError) as caught:
        tunesmith.train(second)
    assert caught.value.code == "E-MODEL-018"
    tunesmith.train({**second, "create_new_adapter": True})


@pytest.mark.slow
def test_the_tokens_of_an_adapter_keep_their_numbers(taught: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    folder = tunesmith.train({**taught, "add_tokens": "wug", "max_steps": 1}).output_dir
    other = tmp_path / "other"
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens(["another"])
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(other)
    tokenizer.save_pretrained(other)
    with pytest.raises(MissingInputError) as caught:
        answer(model_name_or_path=str(other), adapter_name_or_path=str(folder))
    assert caught.value.code == "E-MODEL-016"


@pytest.mark.slow
def test_frozen_rows_are_told(taught: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    keys_of_freeze = {**taught, "finetuning_type": "freeze", "max_steps": 1}
    tunesmith.train(keys_of_freeze)
    assert "the rows of new tokens are frozen" in caplog.text
