"""The stand-ins for vLLM and SGLang have no name that the packages do not have. Their sources are read, not imported,
so this needs no GPU. `make test-vllm` and `make test-sglang` install them."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests import stand_in_sglang, stand_in_vllm

VLLM_CLASSES: list[tuple[str, Any]] = [
    ("sampling_params.py", stand_in_vllm.SamplingParams),
    ("sampling_params.py", stand_in_vllm.StructuredOutputsParams),
    ("config/structured_outputs.py", stand_in_vllm.StructuredOutputsConfig),
    ("engine/arg_utils.py", stand_in_vllm.AsyncEngineArgs),
    ("lora/request.py", stand_in_vllm.LoRARequest),
    ("logprobs.py", stand_in_vllm.Logprob),
    ("outputs.py", stand_in_vllm.CompletionOutput),
]
VLLM_METHODS = ("generate", "add_lora", "remove_lora", "shutdown", "from_engine_args")
SGLANG_METHODS = ("async_generate", "async_load_lora_adapter", "async_unload_lora_adapter", "shutdown")


def source(package: str) -> Path:
    found = find_spec(package)
    assert found is not None
    assert found.submodule_search_locations
    return Path(next(iter(found.submodule_search_locations)))


def classes(path: Path) -> dict[str, ast.ClassDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def own_fields(node: ast.ClassDef) -> Iterator[str]:
    for one in node.body:
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            yield one.target.id


def methods(node: ast.ClassDef) -> dict[str, set[str]]:
    """Names of arguments by method."""
    return {
        one.name: {arg.arg for arg in (*one.args.args, *one.args.kwonlyargs)}
        for one in node.body
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def arguments(kind: Any, name: str) -> set[str]:
    return set(inspect.signature(getattr(kind, name)).parameters) | {"self"}


@pytest.mark.needs_package("vllm")
@pytest.mark.parametrize(("path", "kind"), VLLM_CLASSES, ids=lambda value: getattr(value, "__name__", value))
def test_fields_of_vllm(path: str, kind: Any) -> None:
    there = classes(source("vllm") / path)
    known = set(own_fields(there[kind.__name__]))
    if kind is stand_in_vllm.AsyncEngineArgs:
        known |= set(own_fields(there["EngineArgs"]))
    assert {field.name for field in fields(kind)} <= known


@pytest.mark.needs_package("vllm")
def test_methods_of_vllm() -> None:
    root = source("vllm")
    there = methods(classes(root / "v1/engine/async_llm.py")["AsyncLLM"])
    for name in VLLM_METHODS:
        assert arguments(stand_in_vllm.AsyncLLM, name) - {"self"} <= there[name]
    answer = methods(classes(root / "outputs.py")["RequestOutput"])["__init__"]
    assert {field.name for field in fields(stand_in_vllm.RequestOutput)} <= answer
    assert {kind.name for kind in stand_in_vllm.RequestOutputKind} == {"CUMULATIVE", "DELTA", "FINAL_ONLY"}
    assert "prompt_token_ids" in set(own_fields(classes(root / "inputs/llm.py")["TokensPrompt"]))


@pytest.mark.needs_package("sglang")
def test_fields_of_sglang() -> None:
    root = source("sglang") / "srt"
    known = set(own_fields(classes(root / "sampling/sampling_params.py")["SamplingParams"]))
    assert {field.name for field in fields(stand_in_sglang._Sampling)} <= known
    every = [node for path in (root / "arg_groups/fields").glob("*.py") for node in classes(path).values()]
    assert {field.name for field in fields(stand_in_sglang._ServerArgs)} <= {
        name for node in every for name in own_fields(node)
    }


@pytest.mark.needs_package("sglang")
def test_methods_of_sglang() -> None:
    root = source("sglang") / "srt"
    there = methods(classes(root / "entrypoints/engine.py")["Engine"])
    for name in SGLANG_METHODS:
        assert arguments(stand_in_sglang.Engine, name) <= there[name]
    manager = methods(classes(root / "managers/tokenizer_manager.py")["TokenizerManager"])
    assert arguments(stand_in_sglang._TokenizerManager, "abort_request") <= manager["abort_request"]
    update = set(own_fields(classes(root / "managers/io_struct.py")["LoRAUpdateOutput"]))
    assert {field.name for field in fields(stand_in_sglang._LoRAUpdate)} <= update
