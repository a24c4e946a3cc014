"""`tunesmith convert KIND SOURCE TARGET`: checkpoints in other layouts. Kinds import their packages when they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from tunesmith.cli.app import CONTEXT, Verb, make_app
from tunesmith.cli.output import file_size, print_json
from tunesmith.core import log
from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.signals import StopSignals

EPILOG = """\b
Examples:
  tunesmith convert llamafy-qwen Qwen-7B qwen-as-llama
  tunesmith convert llama-pro Llama-3.2-1B expanded --num-expand 4
  tunesmith convert dcp-to-hf checkpoint-100/pytorch_model_fsdp_0 model \\
      --config Llama-3.2-1B
  tunesmith convert pissa-init Llama-3.2-1B start --rank 16

\b
SOURCE is a folder and never changes. TARGET must be new or empty.
docs/convert.md tells what each does and checks.
"""

app = make_app(help="Checkpoints in other layouts.", subcommand_metavar="KIND SOURCE TARGET ...", epilog=EPILOG)

Source = Annotated[str, typer.Argument(metavar="SOURCE", show_default=False, help="The folder to read.")]
Target = Annotated[str, typer.Argument(metavar="TARGET", show_default=False, help="The folder to write.")]
Size = Annotated[str, typer.Option("--shard-size", metavar="SIZE", help="The largest file, such as 500MB.")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
Rank = Annotated[int, typer.Option("--rank", metavar="R", min=1, help="Of the adapter.")]
Alpha = Annotated[int, typer.Option("--alpha", metavar="N", min=0, help="Of the adapter; 0: twice the rank.")]
Modules = Annotated[str, typer.Option("--target", metavar="NAMES", help="Linear modules, with commas, or all.")]


@app.callback()
def _convert() -> None:
    """Checkpoints in other layouts."""


@app.command("llamafy-baichuan2", cls=Verb, context_settings=CONTEXT)
def llamafy_baichuan2(source: Source, target: Target, shard_size: Size = "2GB", as_json: AsJson = False) -> None:
    """Baichuan 2 (7B) in the layout of LLaMA.

    W_pack becomes q, k and v; the output layer is normalised once and for all.
    """
    _llamafy("llamafy-baichuan2", source, target, shard_size, as_json)


@app.command("llamafy-qwen", cls=Verb, context_settings=CONTEXT)
def llamafy_qwen(source: Source, target: Target, shard_size: Size = "2GB", as_json: AsJson = False) -> None:
    """Qwen (the first, not Qwen1.5 and later) in the layout of LLaMA."""
    _llamafy("llamafy-qwen", source, target, shard_size, as_json)


@app.command("llama-pro", cls=Verb, context_settings=CONTEXT)
def llama_pro(
    source: Source,
    target: Target,
    num_expand: Annotated[int, typer.Option(metavar="N", min=1, help="How many layers are added.")] = 8,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Compare logits before and after.")] = True,
    shard_size: Size = "2GB",
    as_json: AsJson = False,
) -> None:
    """Add layers that change nothing until they are trained (LLaMA Pro).

    After every (layers / N) layers stands a copy of the last whose outputs are zero.
    """
    size = _size(shard_size)

    def work(progress: Any) -> dict[str, Any]:
        from tunesmith.convert.llama_pro import expand

        places = Path(source).expanduser(), Path(target).expanduser()
        return expand(*places, num_expand, max_shard_size=size, check=check, progress=progress)

    found = _run("expanding", "weights", work)
    keys = {"model_name_or_path": target, "use_llama_pro": "true", "freeze_trainable_layers": num_expand}
    _tell(found, target, as_json, {**keys, "finetuning_type": "freeze"})


@app.command("dcp-to-hf", cls=Verb, context_settings=CONTEXT)
def dcp_to_hf(
    source: Source,
    target: Target,
    config: Annotated[str, typer.Option(metavar="FOLDER", help="With config.json, if SOURCE has none.")] = "",
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="Before the names; found if left out.")] = "",
    shard_size: Size = "2GB",
    as_json: AsJson = False,
) -> None:
    """A folder of torch.distributed.checkpoint as safetensors.

    Only the model's tensors are read; its metadata may name nothing that runs.
    """
    size, folder = _size(shard_size), Path(config).expanduser() if config else None

    def work(progress: Any) -> dict[str, Any]:
        from tunesmith.convert.dcp import dcp_to_hf as run

        places = Path(source).expanduser(), Path(target).expanduser()
        return run(*places, folder, prefix=prefix or None, max_shard_size=size, progress=progress)

    _tell(_run("reading", "weights", work), target, as_json)


@app.command("hf-to-dcp", cls=Verb, context_settings=CONTEXT)
def hf_to_dcp(source: Source, target: Target, as_json: AsJson = False) -> None:
    """A model folder as one of torch.distributed.checkpoint."""

    def work(progress: Any) -> dict[str, Any]:
        from tunesmith.convert.dcp import hf_to_dcp as run

        return run(Path(source).expanduser(), Path(target).expanduser(), progress=progress)

    _tell(_run("writing", "weights", work), target, as_json)


@app.command("pissa-init", cls=Verb, context_settings=CONTEXT)
def pissa_init(
    source: Source,
    target: Target,
    rank: Rank = 16,
    alpha: Alpha = 0,
    modules: Modules = "all",
    iterations: Annotated[int, typer.Option(metavar="N", min=-1, help="Of the fast SVD; -1: exact.")] = 16,
    shard_size: Size = "2GB",
    as_json: AsJson = False,
) -> None:
    """An adapter of the largest singular values, and the base without them (PiSSA)."""
    _initial("pissa-init", source, target, (rank, alpha, modules, iterations), shard_size, as_json)


@app.command("loftq-init", cls=Verb, context_settings=CONTEXT)
def loftq_init(
    source: Source,
    target: Target,
    rank: Rank = 16,
    alpha: Alpha = 0,
    modules: Modules = "all",
    iterations: Annotated[int, typer.Option(metavar="N", min=1, help="Turns of quantizing and fitting.")] = 4,
    shard_size: Size = "2GB",
    as_json: AsJson = False,
) -> None:
    """A base that 4 bits (nf4) can hold, and an adapter of what they lose (LoftQ)."""
    _initial("loftq-init", source, target, (rank, alpha, modules, iterations), shard_size, as_json)


def _llamafy(kind: str, source: str, target: str, shard_size: str, as_json: bool) -> None:
    size = _size(shard_size)

    def work(progress: Any) -> dict[str, Any]:
        from tunesmith.convert.llamafy import llamafy

        places = Path(source).expanduser(), Path(target).expanduser()
        return llamafy(kind, *places, max_shard_size=size, progress=progress)

    _tell(_run("converting", "weights", work), target, as_json)


def _initial(
    kind: str, source: str, target: str, asked: tuple[int, int, str, int], shard_size: str, as_json: bool
) -> None:
    size = _size(shard_size)
    rank, alpha, modules, iterations = asked

    def work(progress: Any) -> dict[str, Any]:
        from tunesmith.convert.initial import InitialSettings, initial_adapter

        names = tuple(name.strip() for name in modules.split(",") if name.strip())
        settings = InitialSettings(rank=rank, alpha=alpha or None, targets=names, iterations=iterations)
        places = Path(source).expanduser(), Path(target).expanduser()
        return initial_adapter(kind, *places, settings, max_shard_size=size, progress=progress)

    found = _run("taking apart", "layers", work)
    keys = {"model_name_or_path": target, "adapter_name_or_path": found["adapter"], "finetuning_type": "lora"}
    if kind == "loftq-init":
        keys |= {"quantization_bit": "4", "quantization_type": "nf4", "double_quantization": "false"}
    _tell(found, target, as_json, keys)


def _size(text: str) -> int:
    from tunesmith.core.disk import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        what, fix = "a size is a number with KB, MB or GB", "--shard-size 2GB"
        raise UsageError(Problem("E-CONVERT-019", what, "--shard-size", text, fix)) from error


def _run(label: str, unit: str, work: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """The conversion with a bar. A signal ends it like Ctrl-C: what was begun is deleted."""
    log.setup()
    from tunesmith.models.quiet import quiet_libraries
    from tunesmith.train.counting import Counting

    quiet_libraries()
    with StopSignals(), ExitStack() as stack:
        bars: list[Counting] = []

        def progress(done: int, total: int | None) -> None:
            if not bars:  # the time for imports and reading is not that of the work
                bars.append(stack.enter_context(Counting(label, unit)))
            bars[0](done, total)

        return work(progress)


def _tell(found: Mapping[str, Any], target: str, as_json: bool, keys: Mapping[str, Any] | None = None) -> None:
    if as_json:
        print_json({"target": target, **found, **({"config": keys} if keys else {})})
        return
    texts = {
        "bytes": lambda value: f"size: {file_size(value)}",
        "logits_moved": lambda value: f"logits moved by at most {value:.1e} of the largest",
        "copied": lambda value: "copied: " + (", ".join(value) or "no tokenizer is there"),
    }
    print(f"written: {target}")
    for name, value in found.items():
        text = texts.get(name, lambda value, name=name: f"{name.replace('_', ' ')}: {value}")
        print(f"  {text(value)}")
    if keys:
        print("to train from it:")
        for key, value in keys.items():
            print(f"  {key}: {value}")
