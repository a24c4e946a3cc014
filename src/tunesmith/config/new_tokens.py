"""The tokens that a config adds to a vocabulary, in the order in which they get their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import Problem, UsageError

if TYPE_CHECKING:
    from tunesmith.config.model import ModelConfig

__all__ = ["NewToken", "new_tokens", "read_descriptions"]


@dataclass(frozen=True, slots=True)
class NewToken:
    """`special`: a control token, which text of users cannot write. `description`: what its row may begin from."""

    text: str
    special: bool
    description: str | None = None


def new_tokens(config: ModelConfig) -> tuple[NewToken, ...]:
    """Ordinary ones first, then special ones. Raises UsageError where the file of descriptions is not one."""
    plain = [NewToken(text, special=False) for text in config.add_tokens]
    if config.new_special_tokens_config is None:
        return (*plain, *(NewToken(text, special=True) for text in config.add_special_tokens))
    described = read_descriptions(config.new_special_tokens_config)
    return (*plain, *(NewToken(text, special=True, description=words) for text, words in described.items()))


def read_descriptions(name: str) -> Mapping[str, str]:
    """Token -> description, of a YAML file. Raises UsageError (E-MODEL-015) where it is no such mapping."""
    import yaml

    what = "a file of special tokens is a mapping from each token to its description"
    fix = 'lines like "<|think|>": "the beginning of a thought"'
    try:
        found: Any = yaml.safe_load(Path(name).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        got = error.strerror or type(error).__name__
        raise UsageError(
            Problem("E-MODEL-015", "the file of special tokens cannot be read", name, got, "the path of a YAML file")
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(Problem("E-MODEL-015", what, name, str(error).splitlines()[0], fix)) from error
    if not isinstance(found, dict) or not found:
        raise UsageError(Problem("E-MODEL-015", what, name, f"it holds {type(found).__name__}", fix))
    for token, words in found.items():
        if not (isinstance(token, str) and token.strip() and isinstance(words, str) and words.strip()):
            raise UsageError(Problem("E-MODEL-015", what, name, f"{token!r}: {words!r}", fix))
    return found
