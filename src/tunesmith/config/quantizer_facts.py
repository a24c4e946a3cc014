"""What each way of quantizing a base model needs and allows, as plain facts: no torch.

Two kinds of lines: weights that are quantized while they are loaded (`quantization_bit`), and checkpoints that are
quantized already and say so in their config.json.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from tunesmith.config.run_config import RunConfig

__all__ = [
    "FLOAT8",
    "ON_THE_FLY",
    "QAT",
    "QUANTIZERS",
    "Kept",
    "QuantizerFacts",
    "bits_of",
    "quantizer_of",
    "saved_kind",
]

Kept: TypeAlias = Literal["packed", "dequantized", "no"]
"""What of a base is in memory: its packed weights, ordinary ones made of them while loading, or nothing: refused."""


@dataclass(frozen=True, slots=True)
class QuantizerFacts:
    """`bits`: None where a checkpoint of this kind says how many. `packages`: pip's names with the least versions.
    `extra`: of this package, that installs them. `devices`: kinds that run it, any if empty. `capability`: of CUDA, the
    least. `trains`: adapters that train on it; `any` where nothing is left of the quantization. `shards`: what
    can hold parts of it on several devices. `proof`: how far it is tested. `instead`: of what is refused, what to use.
    """

    name: str
    library: str
    bits: float | None
    kept: Kept = "packed"
    packages: tuple[tuple[str, str], ...] = ()
    extra: str | None = None
    devices: tuple[str, ...] = ()
    capability: tuple[int, int] | None = None
    trains: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()
    proof: str = "not run"
    instead: str = ""

    @property
    def merges(self) -> bool:
        """Whether adapters can be merged into it: rounding again would change what they learnt."""
        return self.kept == "dequantized"

    def can_train(self, kind: str) -> bool:
        """Whether the method (full, freeze, lora, dora, oft ...) trains on it."""
        return kind in self.trains or "any" in self.trains


_LORA = ("lora", "rslora", "dora", "oft")
_OTHERS = ("boft", "vera", "shadow", "loftq")
_TRAINED = "trained, saved and loaded on a CPU"
_BNB = QuantizerFacts(
    name="bnb4",
    library="bitsandbytes",
    bits=4,
    packages=(("bitsandbytes", "0.46.1"),),
    extra="bitsandbytes",
    trains=(*_LORA, *_OTHERS, "adalora", "ia3", "randlora", "road", "miss", "hira"),
    shards=("fsdp", "zero3"),
    proof=_TRAINED,
)
_HQQ = QuantizerFacts(
    name="hqq",
    library="hqq",
    bits=4,
    trains=(*_LORA, *_OTHERS, "miss", "ln_tuning"),
    proof=_TRAINED,
)
_AO = QuantizerFacts(
    name="torchao_int8",
    library="torchao",
    bits=8,
    packages=(("torchao", "0.16"),),
    extra="torchao",
    trains=(*_LORA, *_OTHERS, "adalora", "ia3", "randlora", "road", "miss"),
    proof=_TRAINED,
)
_ON_THE_FLY = (
    _BNB,
    replace(_BNB, name="bnb8", bits=8, shards=()),
    *(replace(_HQQ, name=f"hqq{bits}", bits=bits) for bits in (1, 2, 3, 4, 5, 6, 8)),
    _AO,
    replace(_AO, name="torchao_fp8"),
    # Its kernels are of CUDA, and PEFT has no adapter for its weights.
    replace(_AO, name="torchao_int4", bits=4, devices=("cuda",), capability=(8, 0), trains=(), proof="not run"),
    # The kernels come from the hub; PEFT's adapter is for the layers of another package.
    QuantizerFacts("eetq8", "eetq", 8, packages=(("kernels", "0.10.2"),), devices=("cuda",)),
)
ON_THE_FLY = {facts.name: facts for facts in _ON_THE_FLY}

_UNQUANTIZED = "name the model that it was made from, with quantization_bit: 4"
_GPTQ = QuantizerFacts(
    "gptq", "gptq", None, packages=(("optimum", "1.24"), ("gptqmodel", "5.0")), trains=("lora", "oft")
)
_FP8 = QuantizerFacts(
    "fp8", "fp8", 8, kept="dequantized", trains=("any",), shards=("fsdp", "zero3"), proof="loaded on a CPU"
)
_ONLY_GENERATES = QuantizerFacts("bitnet", "bitnet", None)
_REFUSED = QuantizerFacts("hqq", "hqq", None, kept="no", proof="refused")
_SAVED = (
    _GPTQ,
    replace(_GPTQ, name="awq", library="awq", packages=(("gptqmodel", "5.0"),)),
    replace(_GPTQ, name="aqlm", library="aqlm", packages=(("aqlm", "1.1"),), trains=("lora",)),
    _FP8,
    replace(_FP8, name="mxfp8", proof="not run"),
    replace(_FP8, name="mxfp4", library="mxfp4", bits=4, proof="not run"),
    replace(
        _FP8,
        name="compressed-tensors",
        library="compressed-tensors",
        bits=None,
        packages=(("compressed-tensors", "0.15"),),
        extra="compressed-tensors",
        shards=(),
    ),
    replace(
        _FP8,
        name="gguf",
        library="gguf",
        bits=None,
        packages=(("gguf", "0.17"),),
        extra="gguf",
        shards=(),
        proof="trained on a CPU",
    ),
    replace(_AO, name="torchao", bits=None, trains=("lora", "rslora", "dora", "oft"), proof="trained on a CPU"),
    replace(_ONLY_GENERATES, name="quanto", library="quanto", packages=(("optimum-quanto", "0.2.5"),)),
    replace(_ONLY_GENERATES, name="eetq", library="eetq", packages=(("kernels", "0.10.2"),), devices=("cuda",)),
    _ONLY_GENERATES,
    replace(_ONLY_GENERATES, name="vptq", packages=(("vptq", "0.0.4"),), devices=("cuda",)),
    replace(_ONLY_GENERATES, name="spqr", packages=(("spqr_quant", "0.2"),), devices=("cuda",)),
    replace(_ONLY_GENERATES, name="higgs", packages=(("flute-kernel", "0.3"),), devices=("cuda",)),
    replace(
        _ONLY_GENERATES, name="fbgemm_fp8", packages=(("fbgemm-gpu", "1.0"),), devices=("cuda",), capability=(9, 0)
    ),
    replace(_ONLY_GENERATES, name="auto-round", packages=(("auto-round", "0.5"),)),
    replace(_ONLY_GENERATES, name="quark", packages=(("amd-quark", "0.8"),)),
    # transformers knows the name and cannot load it.
    replace(_REFUSED, instead="name the model that it was made from, with quantization_method: hqq"),
)
QUANTIZERS: dict[str, QuantizerFacts] = {**ON_THE_FLY, **{facts.name: facts for facts in _SAVED}}

# What `fp8: true` needs; it quantizes nothing that is kept.
FLOAT8 = replace(_AO, name="fp8 arithmetic", devices=("cuda",), capability=(8, 9), trains=(), proof="emulated on a CPU")
# What `qat` needs.
QAT = replace(_AO, name="qat", trains=("full", "freeze"))

# quantization_method -> the start of the names of its lines. Methods that are not here only name kinds of checkpoints.
_METHODS = {"bnb": "bnb", "bitsandbytes": "bnb", "hqq": "hqq", "torchao": "torchao_int", "eetq": "eetq"}


def bits_of(method: str) -> tuple[float, ...]:
    """Bits that a `quantization_method` can quantize to while loading; none for kinds of checkpoints."""
    start = _METHODS.get(method)
    found = (facts.bits for name, facts in ON_THE_FLY.items() if start and name.startswith(start))
    return tuple(sorted(bits for bits in found if bits is not None))


def quantizer_of(config: RunConfig) -> QuantizerFacts | None:
    """What the config quantizes the base with while it is loaded; None where it does not, or asks for what there is
    not (an error of the checks)."""
    asked = config.quantization
    if asked.quantization_bit is None:
        return None
    start = _METHODS.get(asked.quantization_method, "?")
    if start == "torchao_int" and asked.quantization_type == "fp8" and asked.quantization_bit == 8:
        return ON_THE_FLY["torchao_fp8"]
    return ON_THE_FLY.get(f"{start}{asked.quantization_bit}")


def saved_kind(method: str, values: dict[str, object]) -> QuantizerFacts | None:
    """The line of a checkpoint: `method` is `quant_method` of its config.json, `values` what stands beside it. None
    where the kind is not known."""
    if method == "bitsandbytes" or values.get("load_in_4bit") or values.get("load_in_8bit"):
        return QUANTIZERS["bnb4" if values.get("load_in_4bit") else "bnb8"]
    return QUANTIZERS.get(method) if method not in ON_THE_FLY else None
