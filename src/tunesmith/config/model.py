"""Which weights are loaded, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from tunesmith.config.fields import ignored, never, section, works


@section
class ModelConfig:
    """Base weights, adapters, and how both are loaded."""

    model_name_or_path: str | None = works(None)
    """Base weights: a local folder, a repository of the hub, or a name of the catalog (`tunesmith models list`)."""
    adapter_name_or_path: tuple[str, ...] = works(())
    """Comma list of adapters. All but the last are merged into the base; the last goes on training."""
    adapter_folder: str | None = works(None)
    """Folder inside the adapter's repository that holds its weights."""
    cache_dir: str | None = works(None)
    """Folder for downloaded models and adapters (default: that of the Hugging Face hub)."""
    use_fast_tokenizer: bool = never(True, "the Rust tokenizers are the only ones: leave the key out")
    """Use the tokenizers written in Rust."""
    resize_vocab: bool = works(False)
    """Grow the embeddings when the tokenizer has more tokens than they have rows; adding tokens turns it on."""
    split_special_tokens: bool = never(
        False, "text of users and tools is always split, text of the template never: leave the key out"
    )
    """Treat the text of special tokens like any other text."""
    add_tokens: tuple[str, ...] = works(())
    """Comma list of ordinary tokens to add to the vocabulary."""
    add_special_tokens: tuple[str, ...] = works(())
    """Comma list of special (control) tokens to add to the vocabulary."""
    new_special_tokens_config: str | None = works(None)
    """YAML file of special tokens and their descriptions; takes the place of `add_special_tokens`."""
    init_special_tokens: Literal["noise_init", "desc_init", "desc_init_w_noise"] = works("noise_init")
    """How new embedding rows begin: the mean row with noise, the mean of the description's embeddings, or that with
    noise."""
    model_revision: str = works("main")
    """Branch, tag or commit of the hub's repository."""
    low_cpu_mem_usage: bool = ignored(True, "weights are always streamed into place")
    """Stream weights instead of holding them twice in main memory."""
    rope_scaling: Literal["linear", "dynamic", "yarn", "llama3", "longrope"] | None = works(None)
    """Recipe that stretches rotary positions over a longer context, that of `cutoff_len` or `rope_factor`."""
    rope_factor: float | None = works(None, above=1)
    """How many times longer than the model's original context; left out, by `cutoff_len` in training, 2 elsewhere."""
    rope_factors: Mapping[str, Any] | str | None = works(None)
    """longrope: `short_factor` and `long_factor`, a number above 0 for each frequency. A mapping, or a YAML or JSON
    file."""
    flash_attn: Literal["auto", "disabled", "sdpa", "fa2", "fa3", "flex"] = works("auto")
    """Attention. disabled: eager. In flat batches sdpa runs in each sequence (varlen), auto is an installed
    flash-attention or varlen, flex is FlexAttention."""
    fast_path: Literal["auto", "off", "require"] = works("auto")
    """Train without padding and without the logits of all tokens: where that is exact, never (as transformers trains),
    or else stop."""
    shift_attn: bool = works(False)
    """Shifted sparse attention of LongLoRA in training: in quarters of a sequence, shifted in half of the heads."""
    mixture_of_depths: Literal["convert", "load"] | None = works(None)
    """Every second layer computes tokens that its router chooses: convert an ordinary model in training, or load such
    a one."""
    mixture_of_depths_capacity: float = works(0.125, above=0, most=1)
    """Share of a sequence's tokens that a layer with a router computes, with `mixture_of_depths: convert`."""
    use_unsloth: bool = never(False, "training runs on unpatched transformers: leave the key out")
    """Load and train through Unsloth."""
    use_unsloth_gc: bool = works(False)
    """Another name of `gradient_checkpointing_mode: offload`; nothing of Unsloth is needed."""
    enable_liger_kernel: bool = works(False)
    """Liger's Triton kernels in the layers, on a GPU; the loss stays ours. Needs the extra `liger`."""
    moe_aux_loss_coef: float | None = works(None, least=0)
    """Weight of the routers' load-balancing loss in training of a mixture of experts; left out, there is none."""
    disable_gradient_checkpointing: bool = works(False)
    """Keep all activations instead of computing them again in the backward pass: faster, more memory."""
    gradient_checkpointing_mode: Literal["full", "selective", "offload"] = works("full")
    """Keep only the inputs of layers (full), the outputs of attention too (selective), or the inputs in main memory
    (offload)."""
    use_reentrant_gc: bool = works(True)
    """The re-entrant flavour of PyTorch's checkpointing."""
    upcast_layernorm: bool = works(False)
    """Hold the weights of norm layers in float32."""
    upcast_lmhead_output: bool = ignored(False, "the loss and generation compute from float32 scores in any case")
    """Cast the output of the language model's head to float32."""
    train_from_scratch: bool = works(False)
    """Begin from random weights; only the model's configuration is read."""
    offload_folder: str = ignored("offload", "weights are held on one device as a whole")
    """Folder for weights that fit neither the device nor main memory."""
    use_v1_kernels: bool | None = never(False, "kernels are chosen by `flash_attn`: leave the key out")
    """Kernel patches of another project's rewrite."""
    infer_dtype: Literal["auto", "float16", "bfloat16", "float32"] = works("auto")
    """Number type of the weights in chat and export."""
    hf_hub_token: str | None = works(None, secret=True)
    """Access token of the Hugging Face hub. Never printed and never saved; HF_TOKEN does the same."""
    ms_hub_token: str | None = works(None, secret=True)
    """Access token of ModelScope, for USE_MODELSCOPE_HUB=1."""
    om_hub_token: str | None = works(None, secret=True)
    """Access token of Modelers (openMind), for USE_OPENMIND_HUB=1."""
    print_param_status: bool = works(False)
    """Print name, type, device and trainability of every weight."""
    trust_remote_code: bool = works(False)
    """Allow Python code that comes with the model to run."""

    @property
    def adds_tokens(self) -> bool:
        """Whether the vocabulary may grow."""
        named = self.add_tokens or self.add_special_tokens or self.new_special_tokens_config
        return bool(named) or self.resize_vocab
