"""Load a tokenizer, and nothing else: rendering and `data preview` need no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import MachineError, MissingInputError, Problem, UnavailableError, UsageError
from tunesmith.models.chat_template import template_beside
from tunesmith.models.locate import gguf_file, located, looks_local, model_folder
from tunesmith.models.quiet import quiet_libraries
from tunesmith.models.vocabulary import add_new_tokens

if TYPE_CHECKING:
    from tunesmith.config.model import ModelConfig

__all__ = [
    "first_line",
    "hub_arguments",
    "load_tokenizer",
    "pad_id_of",
    "refuse_foreign_code",
    "refuse_unreachable_hub",
    "with_suggestion",
]


def hub_arguments(config: ModelConfig) -> dict[str, Any]:
    """What every `from_pretrained` of transformers gets from the config."""
    arguments = {
        "cache_dir": config.cache_dir,
        "revision": config.model_revision,
        "token": config.hf_hub_token,
        "trust_remote_code": config.trust_remote_code,
    }
    return {name: value for name, value in arguments.items() if value is not None}


def load_tokenizer(config: ModelConfig) -> Any:
    """The model's fast tokenizer, with the chat template that was saved beside the last adapter, if one was, and with
    the tokens that adapters and the config add to it.

    Raises MissingInputError where model or tokenizer cannot be found, MachineError where it has no fast form.
    """
    config = located(config)
    name = str(config.model_name_or_path)
    model_folder(name)

    from transformers import AutoTokenizer

    quiet_libraries()
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, use_fast=True, **hub_arguments(config))
    except Exception as error:  # a faulty tokenizer.json or config.json ends in errors of every kind
        refuse_foreign_code(error, name)
        refuse_unreachable_hub(error, name)
        raise MissingInputError(
            Problem(
                "E-MODEL-003",
                "the tokenizer cannot be loaded",
                where=f"model_name_or_path: {name}",
                got=first_line(error),
                fix=_advice(name),
            )
        ) from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise MachineError(
            Problem(
                "E-MODEL-004",
                "this tokenizer has no fast form, which masks are made from",
                where=f"model_name_or_path: {name}",
                got=type(tokenizer).__name__,
                fix="convert it once with transformers and save the folder with its tokenizer.json",
            )
        )
    for adapter in config.adapter_name_or_path[-1:]:
        if template := template_beside(adapter, config.adapter_folder):
            tokenizer.chat_template = template
    add_new_tokens(tokenizer, config)
    return tokenizer


def _advice(name: str) -> str:
    if gguf_file(name):  # what it says of a tokenizer does not name the rule that cuts words
        return (
            "put tokenizer.json and tokenizer_config.json of the repository that it was made from beside the GGUF file"
        )
    fix = "the folder or repository needs a whole tokenizer.json (or what makes it) beside the weights"
    return with_suggestion(name, fix)


def pad_id_of(tokenizer: Any) -> int:
    """An id to fill batches with. Which one does not matter: padding is masked, and labels come from the renderer."""
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if candidate is not None:
            return int(candidate)
    return 0


def refuse_foreign_code(error: Exception, name: str) -> None:
    """Raise UsageError if `error` is transformers' refusal to run code that comes with the model."""
    if "trust_remote_code" in str(error):
        raise UsageError(
            Problem(
                "E-MODEL-010",
                "this model brings Python code of its own, which is not run unasked",
                where=f"model_name_or_path: {name}",
                fix="read that code; if you trust it, write trust_remote_code: true",
            )
        ) from error


def refuse_unreachable_hub(error: Exception, name: str) -> None:
    """Raise UnavailableError if `error` says that nothing could be downloaded."""
    if "couldn't connect to" in str(error):
        fix = "check the spelling and the network (HF_HUB_OFFLINE must be unset), or name a local folder"
        raise UnavailableError(
            Problem(
                "E-MODEL-014",
                "the model is neither a folder here nor in the cache, and the hub does not answer",
                where=f"model_name_or_path: {name}",
                fix=with_suggestion(name, fix),
            )
        ) from error


def with_suggestion(name: str, fix: str) -> str:
    """`fix`, and before it the names of the catalog that look like a name which is no folder here."""
    from tunesmith.models.catalog import suggestion

    hint = None if looks_local(name) else suggestion(name)
    return f"{hint} Else {fix}" if hint else fix


def first_line(error: BaseException) -> str:
    """What an error says first, or its kind if it says nothing. `Faulty field:` goes on in the next line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{lines[0]} {lines[1].strip()}" if lines[0].endswith(":") and len(lines) > 1 else lines[0]
