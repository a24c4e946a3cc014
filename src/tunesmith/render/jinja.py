"""The Jinja dialect of chat templates, as transformers defines it: a sandbox, a few globals, `{% generation %}`.

A template is a program that came with a model's files, so it runs in an immutable sandbox and sees plain data only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
import jinja2.sandbox
import jinja2.utils

from tunesmith.render import jinja_limits as limits

__all__ = ["JinjaTemplate", "compile_template", "parse"]

_MARKS = "_generation_marks"  # context variable: the pair of characters put around generation blocks
_ESCAPED_PLANE_16 = re.compile(r"\\udb[c-f][0-9a-f]\\ud[c-f][0-9a-f]{2}")


class _Generation(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}`: what the model writes. Puts the context's marks around the text."""

    tags = {"generation"}  # noqa: RUF012  # declared so by jinja2

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_enclose"), [], [], body).set_lineno(line)

    @jinja2.pass_context
    def _enclose(self, context: jinja2.runtime.Context, caller: Callable[[], str]) -> str:
        marks = context.get(_MARKS)
        return f"{marks[0]}{caller()}{marks[1]}" if marks else caller()


class _Namespace(jinja2.utils.Namespace):
    """Jinja's namespace without names that begin with an underscore: those reach into the interpreter."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # `self` is a legal keyword of namespace()
        values = dict(*args[1:], **kwargs)
        for name in values:
            _refuse_private(name)
        jinja2.utils.Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a chat template may not set {name!r} on a namespace")


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _make_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without HTML escapes, as chat templates expect. Characters of plane 16 are never escaped: stand-ins of
    look-alikes (see `control.py`) must come through as they are."""
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    if ensure_ascii:
        text = _ESCAPED_PLANE_16.sub(lambda match: str(json.loads(f'"{match.group()}"')), text)
    return text


def _streams_to_json(value: Any, *args: Any, **kwargs: Any) -> str:
    """Takes what `map` and `selectattr` give as well, as llama.cpp's reader of templates does."""
    return _to_json(list(value) if isinstance(value, Iterator) else value, *args, **kwargs)


_DICT_ATTRIBUTES = frozenset(dir(dict))
_PLAIN_STR_METHODS = frozenset({"startswith", "endswith", "strip", "lstrip", "rstrip", "split", "lower", "upper"})


_WIDE_METHODS = frozenset({"center", "expandtabs", "format", "format_map", "ljust", "rjust", "zfill"})


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The immutable sandbox with a short way for what templates do most: message keys and harmless text methods.
    Both give what the sandbox itself would give, in a fifth of the time."""

    intercepted_binops = limits.BINARY

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        both = type(left) is str and type(right) is str
        if both and operator == "+" and len(left) + len(right) <= limits.LONGEST:  # the usual case, in a short way
            return left + right
        if operator == "%" and not isinstance(left, str):
            return left % right
        limits.check_operands(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(*arguments: Any, **named: Any) -> Any:
        """`self`, the context, what is called, and its arguments: any name may be one of theirs."""
        if (name := getattr(arguments[2], "__name__", None)) in _WIDE_METHODS:
            method = getattr(arguments[2], "__wrapped__", arguments[2])  # the sandbox puts something around str.format
            limits.check_call(name, [getattr(method, "__self__", None), *arguments[3:]])
        return limits.check(jinja2.sandbox.SandboxedEnvironment.call(*arguments, **named))

    def getattr(self, obj: Any, attribute: str) -> Any:
        kind = type(obj)
        if kind is dict and attribute not in _DICT_ATTRIBUTES:
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        if kind is str and attribute in _PLAIN_STR_METHODS:
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)


_LIST_CHANGES = frozenset({"append", "extend", "insert", "pop"})


class _ListSandbox(_Sandbox):
    """The sandbox for templates that change lists of their own (Kimi K2 queues the ids of calls), which transformers
    refuses. They may use these four methods of lists, and are given copies of the data."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if type(obj) is list and attr in _LIST_CHANGES:
            return True
        return super().is_safe_attribute(obj, attr, value)


@lru_cache(maxsize=4)
def _environment(changes_lists: bool = False, lenient: bool = False) -> _Sandbox:
    environment = (_ListSandbox if changes_lists else _Sandbox)(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters |= {**limits.bounded(environment.filters), **limits.FILTERS}
    environment.filters["tojson"] = _streams_to_json if lenient else _to_json
    environment.globals.update(
        raise_exception=_raise_exception, strftime_now=_strftime_now, dict=_make_dict, namespace=_Namespace
    )
    return environment


def parse(source: str) -> jinja2.nodes.Template:
    """The syntax tree of a chat template. Raises jinja2.TemplateSyntaxError."""
    return _environment().parse(source)


_REWRITING = frozenset({"replace", "translate", "lower", "upper", "title", "capitalize", "casefold", "striptags"})


class JinjaTemplate:
    """A compiled chat template. `literals`: the pieces of text it can write; `variables`: the names it asks for;
    `names`: its literals and the attributes it reads; `rewrites`: it takes words out of texts or changes letters;
    `changes_lists`: it may change lists that it made."""

    def __init__(self, source: str, lenient: bool = False) -> None:
        tree = _environment().parse(source)
        self.source = source
        self.variables = frozenset(jinja2.meta.find_undeclared_variables(tree))
        texts = {node.data for node in tree.find_all(jinja2.nodes.TemplateData)}
        texts |= {node.value for node in tree.find_all(jinja2.nodes.Const) if isinstance(node.value, str)}
        self.literals = tuple(sorted(texts))
        attributes = {node.attr for node in tree.find_all(jinja2.nodes.Getattr)}
        self.names = texts | attributes
        filters = {node.name for node in tree.find_all(jinja2.nodes.Filter)}
        self.rewrites = not _REWRITING.isdisjoint(attributes | filters)
        self.has_marks = bool(re.search(r"\{%-?\s*generation\s*-?%\}", source))
        self.changes_lists = not _LIST_CHANGES.isdisjoint(attributes)
        environment = _environment(self.changes_lists, lenient)
        self._compiled = environment.from_string(limits.limited(environment.parse(source), environment))

    def render(self, **variables: Any) -> str:
        """Raises jinja2.TemplateError, also where the template does too much (`jinja_limits`)."""
        limits.begin()
        length, pieces = 0, []
        try:
            for piece in self._compiled.generate(deepcopy(variables) if self.changes_lists else variables):
                length += len(piece)
                if length > limits.LONGEST:
                    raise jinja2.exceptions.SecurityError(f"a chat template wrote more than {length:,} characters")
                pieces.append(piece)
        except RecursionError:
            raise jinja2.exceptions.SecurityError("a chat template calls itself without an end") from None
        except OverflowError as error:  # of a range that the sandbox refuses
            raise jinja2.exceptions.SecurityError(f"a chat template goes too far: {error}") from error
        return "".join(pieces)

    def render_marked(self, marks: tuple[str, str], **variables: Any) -> tuple[str, list[tuple[int, int]]]:
        """Text, and the ranges that generation blocks wrote. `marks`: two characters that occur nowhere in it."""
        pieces = re.split(f"([{marks[0]}{marks[1]}])", self.render(**{**variables, _MARKS: marks}))
        text: list[str] = []
        ranges: list[tuple[int, int]] = []
        length = start = 0
        for piece in pieces:
            if piece == marks[0]:
                start = length
            elif piece == marks[1]:
                ranges.append((start, length))
            else:
                text.append(piece)
                length += len(piece)
        return "".join(text), ranges


@lru_cache(maxsize=32)
def compile_template(source: str, lenient: bool = False) -> JinjaTemplate:
    """Compile once per template text. `lenient`: with what other readers of templates take and transformers refuses,
    for comparing texts. Raises jinja2.TemplateSyntaxError."""
    return JinjaTemplate(source, lenient)
