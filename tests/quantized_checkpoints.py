"""Checkpoints that are quantized already, made of a small Llama model, as each format says it in config.json."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["MAKERS", "claiming", "make_bnb4", "make_compressed", "make_fp8", "make_gguf", "make_torchao"]


def _tokenizer_files(source: Path, target: Path) -> None:
    for file in source.iterdir():
        if "token" in file.name or file.suffix == ".jinja":
            shutil.copy(file, target)


def _saved_by_transformers(source: Path, target: Path, settings: Any) -> Path:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, quantization_config=settings)
    model.save_pretrained(target)
    _tokenizer_files(source, target)
    return target


def make_bnb4(source: Path, target: Path) -> Path:
    from transformers import BitsAndBytesConfig

    return _saved_by_transformers(source, target, BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"))


def make_torchao(source: Path, target: Path) -> Path:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return _saved_by_transformers(source, target, TorchAoConfig(Int8WeightOnlyConfig()))


def claiming(source: Path, target: Path, **values: Any) -> Path:
    """A copy whose config.json says that it is quantized as `values` tell."""
    shutil.copytree(source, target)
    path = target / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": values}))
    return target


def _rewritten(source: Path, target: Path, change: Callable[[Tensor], dict[str, Tensor]], **values: Any) -> Path:
    """A copy with what `change` makes of the weight of every linear layer of the blocks, by the ends of their names."""
    from safetensors.torch import load_file, save_file

    claiming(source, target, **values)
    (path,) = target.glob("*.safetensors")
    found: dict[str, Tensor] = {}
    for name, tensor in load_file(path).items():
        if tensor.ndim == 2 and ".layers." in name:
            found |= {name.removesuffix("weight") + end: part for end, part in change(tensor).items()}
        else:
            found[name] = tensor
    save_file(found, path, metadata={"format": "pt"})
    return target


def make_fp8(source: Path, target: Path) -> Path:
    """Floats of eight bits with a scale for every block, as DeepSeek's checkpoints have them: those have 128 x 128."""
    size = 4

    def change(weight: Tensor) -> dict[str, Tensor]:
        blocks = weight.view(weight.shape[0] // size, size, -1, size)
        scales = blocks.abs().amax((1, 3)).clamp(min=1e-12) / 448  # the largest that the type holds
        packed = (blocks / scales[:, None, :, None]).view_as(weight).to(torch.float8_e4m3fn)
        return {"weight": packed, "weight_scale_inv": scales.float()}

    settings = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [size, size]}
    return _rewritten(source, target, change, **settings)


def make_compressed(source: Path, target: Path) -> Path:
    """Integers of eight bits with a scale for every row, in compressed-tensors' plain format."""

    def change(weight: Tensor) -> dict[str, Tensor]:
        scales = weight.abs().amax(1, keepdim=True) / 127
        return {"weight": (weight / scales).round().to(torch.int8), "weight_scale": scales.float()}

    weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    return _rewritten(
        source,
        target,
        change,
        quant_method="compressed-tensors",
        format="int-quantized",
        quantization_status="compressed",
        ignore=["lm_head"],
        config_groups={"group_0": group},
    )


# GGUF's names of what Llama has.
_GGUF = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}


def make_gguf(source: Path, target: Path) -> Path:
    """One GGUF file in float32, but for Q8_0 where rows are a multiple of 32, beside the tokenizer's files."""
    import gguf
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    config = model.config
    target.mkdir(parents=True)
    writer = gguf.GGUFWriter(str(target / "model.gguf"), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    eight = gguf.GGMLQuantizationType.Q8_0
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        own = next((ours for theirs, ours in _GGUF.items() if name.endswith(theirs)), None)
        assert own, name
        if ".layers." in name:
            own = f"blk.{name.split('.')[2]}.{own}"
        for part, count in heads.items():
            if part in name:  # GGUF keeps pairs of a rotation side by side
                tensor = tensor.view(count, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
        array = tensor.contiguous().numpy()
        if tensor.ndim == 2 and tensor.shape[1] % 32 == 0:
            writer.add_tensor(own, gguf.quants.quantize(array, eight), raw_dtype=eight)
        else:
            writer.add_tensor(own, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _tokenizer_files(source, target)
    return target


MAKERS = {
    "bnb4": make_bnb4,
    "torchao": make_torchao,
    "fp8": make_fp8,
    "compressed-tensors": make_compressed,
    "gguf": make_gguf,
}
