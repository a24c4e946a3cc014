"""The training loop: our own keys, names that transformers no longer has, and its arguments that the user set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from tunesmith.config import hf as _hf
from tunesmith.config.fields import ignored, later, never, section, works

_XLA = "training on TPUs"


@section
class TrainConfig:
    """Training arguments. `hf` holds those of transformers that the user set, under the names it has today."""

    hf: Mapping[str, Any] = field(default_factory=dict)

    strict_keys: bool = works(False)
    """Keys without effect are an error, not a warning."""
    disable_shuffling: bool = works(False)
    """Take the training rows in their order."""
    include_effective_tokens_per_second: bool = works(False)
    """Report the tokens per second that were not padding."""
    peak_tflops: float | None = works(None, above=0)
    """Most TFLOP/s of a device in the run's arithmetic, for `mfu`. Left out: from data sheets, if known."""
    overwrite_output_dir: bool = works(False)
    """Begin anew in a folder that holds an earlier run, instead of resuming it."""
    resume_allow: tuple[str, ...] = works(())
    """Keys that may differ from those of the checkpoint, though they change what is learnt."""
    async_save: bool = works(False)
    """Write checkpoints in the background, from copies in main memory. Without effect with several processes."""
    disk_reserve_gb: float = works(0.0, least=0)
    """GB of disk held in output_dir while training, given up for a checkpoint when the disk is full; 0: none."""
    on_disk_full: Literal["stop", "continue"] = works("stop")
    """A checkpoint that the disk does not take: stop, or train on while an earlier one is whole."""
    on_nonfinite: Literal["stop", "skip", "rollback"] = works("stop")
    """A step whose loss or gradient is not finite: end the run, leave the step out, or go back and leave it out."""
    stop_grace: float = works(25.0, above=0)
    """Seconds that a run which is asked to stop has for it. Then the process ends."""
    memory_probe: bool = works(True)
    """Try the largest micro-batch before the first step, so that a run that is out of memory says so at once."""
    eval_generate_samples: int = works(50, least=1)
    """Rows of each evaluation dataset, from the first on, that an evaluation answers with `predict_with_generate`."""
    log_generations: int = works(3, least=0)
    """Of those, how many are written to `generations.jsonl` at each evaluation."""
    logging_dir: str | None = works(None)
    """Folder of TensorBoard's files."""
    warmup_ratio: float = works(0.0, least=0, most=1)
    """Share of the steps that warm up. Today: `warmup_steps` below 1."""
    evaluation_strategy: Literal["no", "steps", "epoch"] | None = works(None)
    """Today: `eval_strategy`."""
    group_by_length: bool = works(False)
    """Batch rows of similar length. Today: `train_sampling_strategy: group_by_length`."""
    no_cuda: bool = works(False)
    """Train on the processor. Today: `use_cpu`."""
    per_gpu_train_batch_size: int | None = works(None, least=1)
    """Today: `per_device_train_batch_size`."""
    per_gpu_eval_batch_size: int | None = works(None, least=1)
    """Today: `per_device_eval_batch_size`."""
    adafactor: bool = works(False)
    """Today: `optim: adafactor`."""
    gradient_checkpointing: bool | None = works(None)
    """Compute activations again in the backward pass. On unless `disable_gradient_checkpointing` is."""
    gradient_checkpointing_kwargs: Mapping[str, Any] | None = works(None)
    """`use_reentrant` is `use_reentrant_gc`, `offload: true` is `gradient_checkpointing_mode: offload`."""
    activation_checkpointing: bool | None = works(None)
    """Another name of `gradient_checkpointing`."""
    activation_checkpointing_kwargs: Mapping[str, Any] | None = works(None)
    """Another name of `gradient_checkpointing_kwargs`."""
    use_liger_kernel: bool = works(False)
    """Another name of `enable_liger_kernel`."""
    save_safetensors: bool = never(True, "weights are written as safetensors, which every reader takes")
    """Write weights as safetensors."""
    use_mps_device: bool = ignored(False, "Apple's GPUs are used where they are")
    """Train on Apple's GPU."""
    half_precision_backend: str = never("auto", "mixed precision is PyTorch's own: leave the key out")
    """Library for mixed precision."""
    fp16_backend: str = never("auto", "mixed precision is PyTorch's own: leave the key out")
    """Older name of `half_precision_backend`."""
    fp16_opt_level: str = ignored("O1", "mixed precision is PyTorch's own")
    """Level of Apex."""
    include_tokens_per_second: bool = ignored(False, "tokens per second are always reported")
    """Report tokens per second."""
    include_inputs_for_metrics: bool = ignored(False, "evaluation adds up sums and keeps no inputs")
    """Give metrics the inputs."""
    use_legacy_prediction_loop: bool = ignored(False, "there is one evaluation loop")
    """An evaluation loop of old."""
    past_index: int = never(-1, "no model uses it any more: leave the key out")
    """Index of the past state in the outputs."""
    jit_mode_eval: bool = never(False, "use `torch_compile: true`")
    """Trace the model for evaluation."""
    use_ipex: bool = never(False, "PyTorch has its optimisations for Intel built in: leave the key out")
    """Intel's extension of PyTorch."""
    torchdynamo: str | None = never(None, "use `torch_compile: true` and `torch_compile_backend`")
    """Backend of torch.compile."""
    ray_scope: str = never("last", "no search over settings is built in: leave the key out")
    """Scope of a search on Ray."""
    mp_parameters: str = never("", "SageMaker's model parallelism is not supported: leave the key out")
    """Settings of SageMaker."""
    tpu_num_cores: int | None = later(None, _XLA)
    """Number of TPU cores."""
    tpu_metrics_debug: bool = later(False, _XLA)
    """Print metrics of the TPU."""
    fsdp_min_num_params: int = later(0, "sharded training (FSDP)")
    """Smallest number of weights for a shard."""
    fsdp_transformer_layer_cls_to_wrap: str | None = later(None, "sharded training (FSDP)")
    """Layer that becomes a shard."""
    push_to_hub_model_id: str | None = works(None)
    """Older name of `hub_model_id`."""
    push_to_hub_organization: str | None = works(None)
    """Organisation that owns the repository, where `hub_model_id` does not say."""
    push_to_hub_token: str | None = works(None, secret=True)
    """Older name of `hub_token`."""

    def value(self, name: str) -> Any:
        """The user's value of a training argument of transformers, or its default."""
        return self.hf[name] if name in self.hf else _hf.arguments()[name].default

    @property
    def output_dir(self) -> str | None:
        """Folder of the run."""
        found: str | None = self.value("output_dir")
        return found

    @property
    def do_train(self) -> bool:
        """Whether to train: as written, or else unless the run only evaluates or predicts."""
        return bool(self.hf.get("do_train", not (self.hf.get("do_eval") or self.hf.get("do_predict"))))

    @property
    def do_eval(self) -> bool:
        """Whether to evaluate after training; evaluation during it asks for that too."""
        return bool(self.value("do_eval")) or self.value("eval_strategy") != "no"

    @property
    def do_predict(self) -> bool:
        """Whether to write predictions for the evaluation data."""
        return bool(self.value("do_predict"))
