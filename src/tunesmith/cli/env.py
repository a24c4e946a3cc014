"""`tunesmith env`: versions, device and settings, for a bug report."""

from __future__ import annotations

import os
import platform
import sys
from typing import Annotated, Any

import typer

from tunesmith._version import __version__
from tunesmith.cli.app import Verb, make_app
from tunesmith.cli.output import print_json, table_lines
from tunesmith.core import env as environment
from tunesmith.core.machine import cpus, memory_gib, package_version, processor
from tunesmith.core.secrets import redact

PACKAGES = (
    *("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "huggingface-hub"),
    *("numpy", "pyarrow", "typer", "rich"),
    *(
        "starlette",
        "uvicorn",
        "llguidance",
        "gguf",
        "matplotlib",
        "tensorboard",
        "flash-attn",
        "bitsandbytes",
        "deepspeed",
        "vllm",
    ),
)
_GIB = 1 << 30

app = make_app(no_args_is_help=False)


@app.command(cls=Verb)
def env(as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Show versions, device, memory, cache folder and the environment variables that are set."""
    facts = collect()
    if as_json:
        print_json(facts)
        return
    for title, rows in facts.items():
        print(f"{title}:")
        shown = {name: _text(value) for name, value in rows.items()} or {"(none set)": ""}
        print("\n".join(table_lines(shown, indent="  ")))


def collect() -> dict[str, dict[str, Any]]:
    """Everything `tunesmith env` shows. Values of secret variables are hidden; absent packages are None."""
    return {
        "tunesmith": {"version": __version__, "python": platform.python_version(), "executable": sys.executable},
        "packages": {name: package_version(name) for name in PACKAGES},
        "machine": {
            "platform": platform.platform(),
            "processor": processor(),
            "cpus": cpus(),
            "memory_gib": memory_gib(),
            **_devices(),
        },
        "folders": {"cache": str(environment.cache_dir()), "working": os.getcwd()},
        "variables": redact(_variables()),
    }


def _variables() -> dict[str, str]:
    """The variables of the table that are set to something other than their default."""
    values = {name: environment.get(name) for name in environment.TABLE}
    return {name: value for name, value in values.items() if value != environment.TABLE[name].default}


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _devices() -> dict[str, Any]:
    """Accelerators as torch sees them. A torch that cannot be imported is part of the answer, not an error."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return {"torch_import": f"{type(error).__name__}: {error}"}
    gpus = [
        f"{torch.cuda.get_device_name(i)} ({torch.cuda.get_device_properties(i).total_memory / _GIB:.0f} GiB)"
        for i in range(torch.cuda.device_count())
    ]
    return {
        "gpus": gpus,
        "cuda": torch.version.cuda,
        "torch_threads": torch.get_num_threads(),
    }
