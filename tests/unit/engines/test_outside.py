"""vLLM and SGLang behind the contract, over stand-ins with their names: what they say equals what our engine says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import stand_in_sglang, stand_in_vllm
from tunesmith.config import load_config
from tunesmith.core.errors import MachineError, MissingInputError, TunesmithError, UsageError
from tunesmith.core.types import Message
from tunesmith.engines import make_engine, sglang, vllm
from tunesmith.engines.base import Engine, Overloaded, Piece, Request, Sampling

pytestmark = pytest.mark.usefixtures("torch_one_thread")

STAND_INS: dict[str, Any] = {"vllm": stand_in_vllm, "sglang": stand_in_sglang}
Make = Callable[..., Any]


def class_of(name: str) -> Any:
    return stand_in_vllm.AsyncLLM if name == "vllm" else stand_in_sglang.Engine


@pytest.fixture(params=sorted(STAND_INS))
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    found: str = request.param
    monkeypatch.setenv("SGLANG_RETURN_ORIGINAL_LOGPROB", "0")  # the engine changes it
    STAND_INS[found].install(monkeypatch)
    return found


@pytest.fixture
def make(tiny_model: Path) -> Make:
    def make(name: str, verb: str = "api", **keys: Any) -> Any:
        base = {"model_name_or_path": str(tiny_model), "infer_backend": name, "infer_dtype": "float32"}
        maxlen = {"vllm": "vllm_maxlen", "sglang": "sglang_maxlen"}.get(name)
        limits = {maxlen: 200} if maxlen else {"use_cpu": True}
        return make_engine(load_config({**base, **limits, **keys}, verb=verb))

    return make


@pytest.fixture
def adapter(tiny_model: Path, tmp_path: Path) -> str:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    wanted = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, lora_alpha=64)
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), wanted).save_pretrained(tmp_path / "poet")
    return str(tmp_path / "poet")


def asked(engine: Engine, *samplings: Sampling, **more: Any) -> list[Request]:
    prompts = [engine.renderer.encode_prompt([Message("user", text)]) for text in ("a cat", "Why?", "dogs and cats")]
    return [Request(tuple(prompt), sampling, **more) for prompt in prompts for sampling in samplings]


def answers(engine: Engine, requests: list[Request]) -> list[Piece]:
    found = dict(engine.run_all(requests))
    return [found[number] for number in range(len(requests))]


GREEDY = Sampling(do_sample=False, max_new_tokens=20)


def test_replies_equal_those_of_our_engine(name: str, make: Make) -> None:
    samplings = [
        GREEDY,
        Sampling(do_sample=False, max_new_tokens=20, stop=("e", "zz")),
        Sampling(do_sample=False, max_new_tokens=12, logit_bias={40: 3.0, 41: 2.0}, skip_special_tokens=False),
        Sampling(temperature=0.0, max_new_tokens=8, logprobs=3),
        Sampling(do_sample=False, max_new_tokens=None, max_length=60, logprobs=0),
    ]
    with make("huggingface") as ours, make(name) as theirs:
        for one, other in zip(
            answers(theirs, asked(theirs, *samplings)), answers(ours, asked(ours, *samplings)), strict=True
        ):
            assert one.text == other.text
            assert [token.id for token in one.tokens] == [token.id for token in other.tokens]
            assert one.end is not None
            assert other.end is not None
            assert (one.end.finish_reason, one.end.stop) == (other.end.finish_reason, other.end.stop)
            assert (one.end.prompt_tokens, one.end.completion_tokens) == (
                other.end.prompt_tokens,
                other.end.completion_tokens,
            )
            assert one.end.cached_tokens == 2
            for token, expected in zip(one.tokens, other.tokens, strict=True):
                assert token.logprob == (
                    expected.logprob if expected.logprob is None else pytest.approx(expected.logprob, abs=1e-4)
                )
                assert [id for id, _ in token.top] == [id for id, _ in expected.top]
                assert [p for _, p in token.top] == pytest.approx([p for _, p in expected.top], abs=1e-4)
        assert theirs.generate([Message("user", "a cat")], do_sample=False, max_new_tokens=9).text == (
            ours.generate([Message("user", "a cat")], do_sample=False, max_new_tokens=9).text
        )
    assert class_of(name).made[0].closed


def test_scores_equal_those_of_our_engine(name: str, make: Make) -> None:
    with make("huggingface") as ours, make(name) as theirs:
        best = answers(ours, [Request((5, 6, 7), Sampling(do_sample=False, max_new_tokens=3))])[0]
        likely = [token.id for token in best.tokens]
        pairs = [((5, 6, 7), likely), ((5,), (9, 8)), ([5, 6, 7], (likely[0], 9))]
        for one, other in zip(theirs.score(pairs), ours.score(pairs), strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
            assert one.greedy == other.greedy
        assert [score.greedy for score in ours.score(pairs)] == [True, False, False]
        for wrong in (((), (1,)), ((1,), ()), ((1,) * 199, (1,))):
            with pytest.raises(TunesmithError) as caught:
                theirs.score([wrong])
            assert caught.value.code == "E-ENGINE-011"


def test_adapters_are_chosen_by_request(name: str, make: Make, adapter: str, tmp_path: Path) -> None:
    with make("huggingface") as ours, make(name, adapter_dir=str(tmp_path)) as theirs:
        for engine in (ours, theirs):
            engine.load_adapter("poet", adapter)
        assert theirs.adapters == ("poet",)
        plain, tuned = answers(theirs, asked(theirs, GREEDY)), answers(theirs, asked(theirs, GREEDY, adapter="poet"))
        assert [piece.text for piece in plain] != [piece.text for piece in tuned]
        assert [piece.text for piece in tuned] == [
            piece.text for piece in answers(ours, asked(ours, GREEDY, adapter="poet"))
        ]
        one, other = (engine.score([((5, 6), (7, 8))], "poet")[0] for engine in (theirs, ours))
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        for wrong, code in (
            (lambda: theirs.load_adapter("poet", adapter), "E-ENGINE-009"),
            (lambda: theirs.load_adapter("other", str(tmp_path)), "E-MODEL-002"),
            (lambda: theirs.unload_adapter("other"), "E-ENGINE-006"),
            (lambda: theirs.submit(Request((1,), adapter="other"), print), "E-ENGINE-006"),
            (lambda: theirs.submit(Request((1,), adapter=""), print), "E-ENGINE-006"),
        ):
            with pytest.raises(TunesmithError) as caught:
                wrong()
            assert caught.value.code == code
        theirs.unload_adapter("poet")
        assert theirs.adapters == ()
        assert not class_of(name).made[-1].loras


def test_an_adapter_that_the_engine_does_not_take(name: str, make: Make, tiny_model: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    wanted = LoraConfig(r=65, target_modules=["q_proj"])
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), wanted).save_pretrained(tmp_path / "wide")
    with pytest.raises(MissingInputError) as caught:
        make(name, adapter_name_or_path=str(tmp_path / "wide"))
    assert caught.value.code == "E-ENGINE-034"
    assert "65" in str(caught.value)
    assert class_of(name).made[-1].closed
    with pytest.raises(UsageError) as several:
        make(name, adapter_name_or_path="a,b")
    assert several.value.code == "E-ENGINE-032"


def test_the_adapter_of_the_config_is_the_model_as_configured(name: str, make: Make, adapter: str) -> None:
    with make("huggingface", adapter_name_or_path=adapter) as ours, make(name, adapter_name_or_path=adapter) as theirs:
        assert theirs.adapters == ()
        found, expected = answers(theirs, asked(theirs, GREEDY)), answers(ours, asked(ours, GREEDY))
        assert [piece.text for piece in found] == [piece.text for piece in expected]


def test_a_reply_that_is_cancelled_ends_there_too(name: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_of(name), "pause", 0.01)
    with make(name, max_batch_requests=1, max_queued_requests=2) as engine:
        there = class_of(name).made[-1]
        gone: list[str] = there.aborted if name == "vllm" else there.tokenizer_manager.aborted
        long = Sampling(
            do_sample=False, max_new_tokens=150, logit_bias=dict.fromkeys(engine.renderer.stop_ids, -10000.0)
        )
        ends: list[Piece] = []
        came, over = threading.Event(), threading.Semaphore(0)

        def sink(piece: Piece) -> None:
            came.set()
            if piece.end:
                ends.append(piece)
                over.release()

        first = engine.submit(Request((5, 6), long), sink)
        for _ in range(2):
            engine.submit(Request((5, 6), long), sink)
        with pytest.raises(Overloaded):
            engine.submit(Request((5, 6), long), sink)
        assert came.wait(10)
        first.cancel()
        first.cancel()
        assert over.acquire(timeout=10)
        assert [piece.end.finish_reason for piece in ends if piece.end] == ["cancelled"]
        assert len(gone) == 1
        assert engine.stats()["running"] == 2
        stream = engine.stream([Message("user", "hello")], do_sample=False, logit_bias=long.logit_bias)
        assert next(stream)
        stream.close()
    assert over.acquire(timeout=10)
    assert over.acquire(timeout=10)
    assert {piece.end.finish_reason for piece in ends if piece.end} == {"cancelled"}
    assert len(gone) == 4
    engine.close()  # a second time changes nothing


def test_unloading_an_adapter_ends_its_requests(
    name: str, make: Make, adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_of(name), "pause", 0.01)
    with make(name, adapter_dir=str(tmp_path)) as engine:
        engine.load_adapter("poet", adapter)
        long = Sampling(
            do_sample=False, max_new_tokens=150, logit_bias=dict.fromkeys(engine.renderer.stop_ids, -10000.0)
        )
        ends: list[Piece] = []
        came, over = threading.Event(), threading.Event()

        def sink(piece: Piece) -> None:
            came.set()
            if piece.end:
                ends.append(piece)
                over.set()

        engine.submit(Request((5, 6), long, adapter="poet"), sink)
        assert came.wait(10)
        engine.unload_adapter("poet")
        assert over.wait(10)
        (piece,) = ends
        assert piece.end is not None
        assert piece.end.error is not None
        assert piece.end.error.code == "E-ENGINE-006"


def test_an_engine_that_fails_ends_the_reply_with_an_error(
    name: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make(name) as engine:
        monkeypatch.setattr(class_of(name), "_logits", lambda *_: 1 / 0)
        with pytest.raises(TunesmithError) as caught:
            engine.generate([Message("user", "hello")])
    assert caught.value.code == "E-ENGINE-007"
    assert "division" in str(caught.value)


# ---- what is passed on ----


@pytest.mark.parametrize("module", [vllm, sglang])
def test_every_field_of_sampling_is_known(module: Any) -> None:
    named = {*module._SAME.split(), *module._MADE_HERE}
    assert named == {field.name for field in fields(Sampling)}


def test_how_tokens_are_drawn_at_vllm() -> None:
    drawn = Sampling(
        temperature=0.7,
        top_p=0.6,
        top_k=5,
        min_p=0.1,
        seed=4,
        repetition_penalty=1.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        logit_bias={3: 1.0},
        stop=("x",),
        logprobs=2,
    )
    assert vllm.as_sampling(drawn, 9, (2, 4)) == {
        "temperature": 0.7,
        "top_p": 0.6,
        "top_k": 5,
        "min_p": 0.1,
        "seed": 4,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "logit_bias": {3: 1.0},
        "logprobs": 2,
        "max_tokens": 9,
        "stop_token_ids": [2, 4],
        "ignore_eos": True,
        "detokenize": False,
    }
    assert vllm.as_sampling(Sampling(do_sample=False), 9, ())["temperature"] == 0
    assert vllm.as_sampling(Sampling(temperature=0.0), 9, ())["temperature"] == 0


def test_how_tokens_are_drawn_at_sglang() -> None:
    drawn = Sampling(temperature=0.7, top_p=0.6, top_k=0, min_p=0.1, seed=4, presence_penalty=0.2, logit_bias={3: 1.0})
    found = sglang.as_sampling(drawn, 9, (2, 4), seeded=True)
    assert found == {
        "temperature": 0.7,
        "top_p": 0.6,
        "top_k": -1,
        "min_p": 0.1,
        "sampling_seed": 4,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.0,
        "logit_bias": {"3": 1.0},
        "max_new_tokens": 9,
        "stop_token_ids": [2, 4],
        "ignore_eos": True,
    }
    seeds = {sglang.as_sampling(Sampling(), 9, (), seeded=True)["sampling_seed"] for _ in range(9)}
    assert len(seeds) == 9  # without one all requests would be drawn alike
    assert "sampling_seed" not in sglang.as_sampling(Sampling(), 9, (), seeded=False)


@pytest.mark.parametrize(
    ("sampling", "word"),
    [
        (Sampling(repetition_penalty=1.2), "repetition_penalty"),
        (Sampling(seed=3), "seed"),
        (Sampling(logprobs=1, presence_penalty=0.1), "log probabilities"),
        (Sampling(logprobs=1, logit_bias={1: 1.0}), "log probabilities"),
    ],
)
def test_what_sglang_means_differently_is_refused(sampling: Sampling, word: str) -> None:
    with pytest.raises(UsageError) as caught:
        sglang.as_sampling(sampling, 9, (), seeded=False)
    assert caught.value.code == "E-ENGINE-031"
    assert word in str(caught.value)


def test_what_the_engine_refuses_by_itself_is_an_error_at_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_vllm.install(monkeypatch)
    with make("vllm") as engine:
        for sampling in (Sampling(temperature=2.5), Sampling(presence_penalty=3.0), Sampling(logprobs=21)):
            with pytest.raises(UsageError) as caught:
                engine.submit(Request((1, 2), sampling), print)
            assert caught.value.code == "E-ENGINE-031"
            assert "out of range" in str(caught.value)
        with pytest.raises(UsageError):
            engine.embed([[1]])


def test_grammars_go_to_vllm_and_other_constraints_do_not(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.serve.grammar import Grammars, as_json

    stand_in_vllm.install(monkeypatch)
    with make("vllm") as engine:
        grammars = Grammars(engine.tokenizer, engine.renderer.stop_ids, 10)
        text = f"start: {as_json({'type': 'object'})}"
        whole, behind = (
            grammars.made(text, "response_format"),
            grammars.made(text, "response_format", trigger="</think>"),
        )
        list(engine.run(Request((5, 6), GREEDY, constraint=grammars.constraint(whole))))
        ((params, _),) = stand_in_vllm.AsyncLLM.made[-1].asked
        assert params.structured_outputs == stand_in_vllm.StructuredOutputsParams(grammar=text)
        with pytest.raises(UsageError) as caught:
            engine.submit(Request((5, 6), GREEDY, constraint=grammars.constraint(behind)), print)
        assert caught.value.code == "E-ENGINE-031"
        grammars.close()
    stand_in_sglang.install(monkeypatch)
    with make("sglang") as engine, pytest.raises(UsageError):
        engine.submit(Request((5, 6), GREEDY, constraint=grammars.constraint(whole)), print)


# ---- how they are started ----


def test_what_vllm_is_started_with(make: Make, adapter: str, monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    stand_in_vllm.install(monkeypatch)
    keys = {"vllm_maxlen": 77, "vllm_gpu_util": 0.5, "vllm_enforce_eager": True, "vllm_max_lora_rank": 20}
    more = {"adapters": {"poet": adapter, "clerk": adapter}, "vllm_config": {"enable_prefix_caching": False, "seed": 5}}
    with make("vllm", **keys, **more, max_batch_requests=3) as engine:
        assert engine.context == 77
        assert engine.at_once == 3
    args = stand_in_vllm.AsyncLLM.made[-1].args
    assert (args.model, args.max_model_len, args.gpu_memory_utilization) == (str(tiny_model), 77, 0.5)
    assert (args.enforce_eager, args.enable_lora, args.max_lora_rank, args.max_loras) == (True, True, 32, 2)
    assert (args.enable_prefix_caching, args.seed, args.max_num_seqs) == (False, 5, 3)
    assert (args.logprobs_mode, args.generation_config) == ("raw_logprobs", "vllm")
    for wrong, code in (({"max_model_len": 5}, "E-ENGINE-032"), ({"no_such_argument": 5}, "E-ENGINE-033")):
        with pytest.raises(TunesmithError) as caught:
            make("vllm", vllm_config=wrong)
        assert caught.value.code == code
        assert next(iter(wrong)) in str(caught.value)


def test_what_sglang_is_started_with(make: Make, adapter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_RETURN_ORIGINAL_LOGPROB", "0")
    stand_in_sglang.install(monkeypatch)
    keys = {"sglang_maxlen": 77, "sglang_mem_fraction": 0.5, "sglang_tp_size": 2, "sglang_lora_backend": "csgmv"}
    more = {"adapters": {"poet": adapter}, "sglang_config": {"enable_deterministic_inference": True}}
    with make("sglang", **keys, **more) as engine:
        assert engine.context == 77
        list(engine.run(Request((5, 6), Sampling(seed=8, max_new_tokens=2))))
    there = stand_in_sglang.Engine.made[-1]
    args = there.args
    assert (args.context_length, args.mem_fraction_static, args.tp_size) == (77, 0.5, 2)
    assert (args.lora_backend, args.enable_lora, args.max_loras_per_batch) == ("csgmv", True, 2)
    assert there.asked[0][0].sampling_seed == 8
    for wrong, code in (({"context_length": 5}, "E-ENGINE-032"), ({"no_such_argument": 5}, "E-ENGINE-033")):
        with pytest.raises(TunesmithError) as caught:
            make("sglang", sglang_config=wrong)
        assert caught.value.code == code
    with pytest.raises(MachineError) as caught:
        make("sglang", sglang_lora_backend="flashinfer", adapters={"poet": adapter})
    assert "flashinfer" in str(caught.value)


@pytest.mark.parametrize("backend", ["vllm", "sglang"])
def test_a_package_that_is_missing_is_named(make: Make, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_RETURN_ORIGINAL_LOGPROB", "0")
    with pytest.raises(MachineError) as caught:
        make(backend)
    assert caught.value.code == "E-ENGINE-030"
    assert f"pip install 'tunesmith[{backend}]'" in str(caught.value)


def test_keys_of_one_engine_have_no_effect_on_another() -> None:
    keys = {"model_name_or_path": "m", "vllm_maxlen": 5, "sglang_maxlen": 6}
    warnings = " ".join(load_config({**keys, "infer_backend": "vllm"}, verb="chat").warnings)
    assert "sglang_maxlen" in warnings
    assert "vllm_maxlen" not in warnings.replace("sglang_maxlen", "")
