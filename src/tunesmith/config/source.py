"""Reading configs: YAML, JSON and TOML files, mappings and `key=value` overrides, each key with its place."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from tunesmith.core.errors import ConfigError, MissingInputError, Problem
from tunesmith.core.suggest import did_you_mean

__all__ = ["Given", "Source", "read_overrides", "read_source"]

Source: TypeAlias = "str | Path | Mapping[str, Any] | None"
Overrides: TypeAlias = "Sequence[str] | Mapping[str, Any]"

_COMMAND_LINE = "command line"
_SUFFIXES = (".yaml", ".yml", ".json", ".toml")
_MOST_VALUES = 100_000  # an alias of aliases of aliases can stand for billions
# What libyaml says, in words for people who have never read its source.
_PLAIN_WORDS = {
    "mapping values are not allowed": 'a colon where none can be: quote text that holds ": ", and indent no key',
    "found a tab": "a tab in front of a key: use blanks",
    "found character that cannot start": "a tab or a special sign starts a value: use blanks, or quote the value",
    "could not determine a constructor": "a tag (!...) is not allowed: write a plain value",
    "but found another document": "a second document begins (---): one file holds one config",
    "could not find expected ':'": "a line without a colon: write `key: value`",
    "did not find expected key": "the indentation or a quote is off",
}
# libyaml where PyYAML was built with it: ten times as fast. Both build plain values only.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Given:
    """One key as it was written. `text`: the scalar, or the list of scalars, before YAML made numbers of them."""

    key: str
    value: Any
    place: str
    text: Any = None


def read_source(source: Source) -> tuple[list[Given], list[Problem]]:
    """The keys of a file or mapping in their order, and what is wrong with its form (keys written twice).

    Raises MissingInputError if there is no such file, ConfigError if it cannot be parsed.
    """
    if source is None:
        return [], []
    if isinstance(source, Mapping):
        return [Given(str(key), value, f'key "{key}"') for key, value in source.items()], []
    path = Path(source).expanduser()
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise MissingInputError(_unreadable(path, error)) from None
    except UnicodeDecodeError as error:
        what = f"{path} is not text in UTF-8"
        raise ConfigError(Problem("E-CONFIG-007", what, got=f"byte {error.start}: {error.reason}")) from None
    reader = {".json": _read_json, ".toml": _read_toml}.get(path.suffix.lower(), _read_yaml)
    givens = list(reader(content, str(path)))
    return givens, _twice(givens)


def _unreadable(path: Path, error: OSError) -> Problem:
    if path.is_dir():
        here = sorted(str(file) for file in path.iterdir() if file.suffix in _SUFFIXES and "config" not in file.name)
        if (path / "run.yaml").is_file():
            here = [str(path / "run.yaml")]
        elif (path / "config.json").is_file():
            fix = f"a model is named by a key: --model_name_or_path {path}"
            return Problem("E-CONFIG-006", f"{path} is the folder of a model, not a config file", fix=fix)
        fix = f"name the file in it: {' or '.join(here[:3])}" if here else "name a .yaml, .json or .toml file"
        return Problem("E-CONFIG-006", f"{path} is a folder, not a config file", fix=fix)
    if path.exists():
        return Problem("E-CONFIG-006", f"the config file {path} cannot be read", got=error.strerror)
    near = [str(file) for file in path.parent.iterdir()] if path.parent.is_dir() else []
    fix = did_you_mean(str(path), near) or "give the path of a .yaml, .json or .toml file"
    return Problem("E-CONFIG-006", f"there is no config file {path}", fix=fix)


def read_overrides(overrides: Overrides) -> tuple[list[Given], list[Problem]]:
    """The keys of `key=value` texts (values are read as YAML) or of a mapping."""
    if isinstance(overrides, Mapping):
        return [Given(str(key), value, f'argument "{key}"') for key, value in overrides.items()], []
    givens, problems = [], []
    for item in overrides:
        key, equals, text = item.partition("=")
        key = key.strip().removeprefix("--")
        if not equals or not key:
            problems.append(
                Problem(
                    "E-CONFIG-012", "a setting on the command line is not of the form key=value", _COMMAND_LINE, item
                )
            )
            continue
        givens.append(_parse_override(key, text, problems))
    return givens, problems


def _parse_override(key: str, text: str, problems: list[Problem]) -> Given:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        value = None if node is None else _construct(loader, node)
    except (yaml.YAMLError, RecursionError):
        return Given(key, text, _COMMAND_LINE, text)  # `template={x`: not YAML, so plain text
    finally:
        loader.dispose()
    return Given(key, value, _COMMAND_LINE, _written(node))


def _read_yaml(content: str, path: str) -> Iterator[Given]:
    loader = _Loader(content)
    try:
        root = loader.get_single_node()
        if root is None:
            return
        if not isinstance(root, yaml.MappingNode):
            raise _not_a_mapping(path)
        pairs = [(key, value) for key, value in root.value if key.tag != "tag:yaml.org,2002:merge"]
        own = {key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode)}
        loader.flatten_mapping(root)  # `<<: *other` puts the other mapping's pairs in front
        merged = root.value[: len(root.value) - len(pairs)]
        for key_node, node in [(k, v) for k, v in merged if k.value not in own] + pairs:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else str(key_node.start_mark.line + 1)
            place = f"{path}:{key_node.start_mark.line + 1}"
            yield Given(key, _construct(loader, node), place, _written(node))
    except yaml.YAMLError as error:
        raise ConfigError(_yaml_problem(error, path)) from None
    except RecursionError as error:
        raise ConfigError(Problem("E-CONFIG-007", f"the file cannot be read: {error}", path)) from None
    finally:
        loader.dispose()


def _construct(loader: Any, node: Any) -> Any:
    """The plain value of a node. What looks like a date or number and is none, like 2024-13-45, is text."""
    _refuse_repeated_keys(node, set(), [0])
    try:
        return loader.construct_object(node, deep=True)
    except ValueError:
        return _written(node)


def _refuse_repeated_keys(node: Any, inside: set[int], count: list[int]) -> None:
    """Inner mappings that name a key twice (the outermost is checked with all problems), or contain themselves, or
    grow beyond measure through aliases of aliases."""
    count[0] += 1
    if count[0] > _MOST_VALUES:
        raise yaml.MarkedYAMLError(problem="the aliases stand for too many values", problem_mark=node.start_mark)
    if id(node) in inside:
        raise yaml.MarkedYAMLError(problem="an alias points to what it is a part of", problem_mark=node.start_mark)
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        children = [value for _, value in node.value]
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in names:
                raise yaml.MarkedYAMLError(problem=f'key "{key.value}" is written twice', problem_mark=key.start_mark)
            names.add(str(key.value))
    else:
        return
    for child in children:
        _refuse_repeated_keys(child, inside | {id(node)}, count)


def _written(node: Any) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return node.value
    if isinstance(node, yaml.SequenceNode):
        return [item.value if isinstance(item, yaml.ScalarNode) else None for item in node.value]
    return None


def _yaml_problem(error: yaml.YAMLError, path: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    where = f"{path}:{mark.line + 1}" if mark else path
    said = str(getattr(error, "problem", None) or error).splitlines()[0]
    what = next((plain for words, plain in _PLAIN_WORDS.items() if said.startswith(words)), said)
    return Problem(
        "E-CONFIG-007", f"the file is not valid YAML: {what}", where, fix="check indentation and quotes here"
    )


def _read_json(content: str, path: str) -> Iterator[Given]:
    """Walks the outermost object by hand, because the json module tells no line numbers."""
    decoder = json.JSONDecoder()
    blank = re.compile(r"\s*")

    def skip(at: int) -> int:
        found = blank.match(content, at)
        assert found
        return found.end()

    try:
        if not isinstance(json.loads(content), dict):
            raise _not_a_mapping(path)
        at = skip(content.index("{") + 1)
        while content[at] != "}":
            line = content.count("\n", 0, at) + 1
            key, at = decoder.raw_decode(content, at)
            value, at = decoder.raw_decode(content, skip(skip(at) + 1))
            at = skip(at)
            yield Given(key, value, f"{path}:{line}")
            at = skip(at + 1) if content[at] == "," else at
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}"
        raise ConfigError(Problem("E-CONFIG-007", f"the file is not valid JSON: {error.msg}", where)) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
        raise ConfigError(Problem("E-CONFIG-007", f"the file cannot be read: {error}", path)) from None


def _read_toml(content: str, path: str) -> Iterator[Given]:
    import tomllib

    try:
        values = tomllib.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError(Problem("E-CONFIG-007", f"the file is not valid TOML: {error}", path)) from None
    for key, value in values.items():
        name = re.escape(key)
        found = re.search(rf"""^[ \t]*(?:\[[ \t]*)?["']?{name}["']?[ \t]*[=.\]]""", content, re.MULTILINE)
        where = f"{path}:{content.count(chr(10), 0, found.start()) + 1}" if found else path
        yield Given(key, value, where)


def _not_a_mapping(path: str) -> ConfigError:
    return ConfigError(Problem("E-CONFIG-007", "the file holds no keys", path, fix="write one `key: value` per line"))


def _twice(givens: Sequence[Given]) -> list[Problem]:
    first: dict[str, Given] = {}
    problems = []
    for given in givens:
        if given.key in first:
            what = f'key "{given.key}" is written twice'
            fix = f"keep one of them; the other is at {first[given.key].place}"
            problems.append(Problem("E-CONFIG-005", what, given.place, fix=fix))
        first.setdefault(given.key, given)
    return problems
