"""Tools and calls of each dialect in Jinja: one tool, one call. What stands around and between them is taken from what
the dialect itself writes (`jinja_tools.py`).

In a tool's statements `tool` is as it was given and `function` its schema; in a call's, `function` has its name,
`arguments` are its arguments, `id` is the call's own and `number` how many calls the chat had before it. What takes
more than a line is a macro in a file of `macros/`, where `declare` writes one tool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files

from tunesmith.render.tools.base import Dialect
from tunesmith.render.tools.markup_forms import ArgumentPairs, NamedParameters

__all__ = ["FORMS", "Form", "quoted"]


def quoted(text: str) -> str:
    """A text as a literal of Jinja."""
    for plain, escaped in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(plain, escaped)
    return f"'{text}'"


_WRAPPED = "{{- tool | tojson }}"
_INDENTED = "{{- tool | tojson(indent=4) }}"
_FUNCTION = "{{- function | tojson }}"
_DECLARED = "{{- declare(function) }}"


@dataclass(frozen=True, slots=True)
class Form:
    """`tool`, `call`: statements. `whole`: `tool` writes all `tools` at once. `needs_mapping`: the call's arguments are
    taken apart, so that JSON text will not do. `id`: an expression for the id that is written for a call, which its
    result names again. `nine`: that id has nine characters. `macros`: files with what the statements call."""

    call: str
    tool: str = _WRAPPED
    whole: bool = False
    needs_mapping: bool = False
    id: str = ""
    nine: bool = False
    macros: tuple[str, ...] = ()

    @property
    def macro_lines(self) -> list[str]:
        folder = files("tunesmith.render").joinpath("macros")
        texts = [folder.joinpath(f"{name}.jinja").read_text(encoding="utf-8") for name in self.macros]
        return "".join(texts).splitlines()


_ARGUMENTS = "(arguments if arguments is string else arguments | tojson)"


def _json(key: str = "arguments", more: str = "") -> str:
    return f"{{{{- '{{\"name\": ' ~ function.name | tojson ~ ', \"{key}\": ' ~ {_ARGUMENTS}{more} ~ '}}' }}}}"


def _plain(before: str = "''", between: str = "''", behind: str = "''") -> str:
    """A name and JSON, with texts around."""
    return f"{{{{- {before} ~ function.name ~ {between} ~ {_ARGUMENTS} ~ {behind} }}}}"


# Values as `markup_forms.py` and the dialects write them.
_TEXT = "(value if value is string else value | tojson)"
_MIXED = "(value | tojson if value is sequence and value is not string else value)"
_PYTHON = "value"
_CDATA = (
    "('<![CDATA[' ~ value ~ ']]>' if value is string and ('<' in value or '&' in value or '\\n' in value) else value)"
)
_SINGLE = '("\'" ~ value ~ "\'" if value is string else (value | tojson if value is mapping else value))'


def _each_argument(text: str) -> str:
    return "{%- for key, value in arguments | items %}{{- " + text + " }}{%- endfor %}"


def _named(
    value: str, tool: str = _WRAPPED, macros: tuple[str, ...] = (), empty: str = ""
) -> Callable[[Dialect], Form]:
    """Functions with named parameters; the tags are the dialect's. `empty`: what stands for no arguments."""

    def form(dialect: Dialect) -> Form:
        assert isinstance(dialect, NamedParameters)
        before, behind = dialect.function[0].split("%")
        opening, opened = dialect.parameter[0].split("%")
        opened_for = quoted(opened + dialect.pad)
        if "@" in opened:
            left, right = opened.split("@")
            opened_for = f"{quoted(left)} ~ ('true' if value is string else 'false') ~ {quoted(right + dialect.pad)}"
        closing = quoted(dialect.pad + dialect.parameter[1])
        call = f"{{{{- {quoted(before)} ~ function.name ~ {quoted(behind)} }}}}"
        call += _each_argument(f"{quoted(opening)} ~ key ~ {opened_for} ~ {value} ~ {closing}")
        call += f"{{{{- '' if arguments else {quoted(empty)} }}}}" if empty else ""
        call += f"{{{{- {quoted(dialect.function[1])} }}}}"
        return Form(call, tool, needs_mapping=True, macros=macros)

    return form


def _pairs(dialect: Dialect) -> Form:
    assert isinstance(dialect, ArgumentPairs)
    between = quoted(f"</arg_key>{dialect.between}<arg_value>")
    call = f"{{{{- function.name ~ {quoted(dialect.after_name)} }}}}"
    call += _each_argument(f"'<arg_key>' ~ key ~ {between} ~ {_TEXT} ~ {quoted('</arg_value>' + dialect.after_pair)}")
    return Form(call, needs_mapping=True)


def _python(value: str, tool: str = _WRAPPED, macros: tuple[str, ...] = ()) -> Form:
    """`name(key=value, ...)`."""
    arguments = _each_argument(f"('' if loop.first else ', ') ~ key ~ '=' ~ {value}")
    call = "{{- function.name ~ '(' }}" + arguments + "{{- ')' }}"
    return Form(call, tool, needs_mapping=True, macros=macros)


def _gemma4(tool: str, nothing: str) -> Form:
    """`nothing`: how a value is written that is none."""
    call = "{{- function.name ~ mapping_of(arguments, false, " + quoted(nothing) + ") }}"
    return Form(call, tool, needs_mapping=True, macros=("gemma4",))


_ID = " ~ ', \"id\": ' ~ id | tojson"
_COMMAND_CALL = (
    '{{- \'    {"tool_call_id": "\' ~ number ~ \'", "tool_name": \' ~ function.name | tojson }}'
    "{{- ', \"parameters\": ' ~ " + _ARGUMENTS + " ~ '}' }}"
)
_COMMAND_PLUS_CALL = (
    "{{- '    {\\n        \"tool_name\": ' ~ function.name | tojson ~ ',\\n        \"parameters\": ' }}"
    "{{- arguments | tojson(indent=4) | replace('\\n', '\\n        ') ~ '\\n    }' }}"
)
_LLAMA3_CALL = (
    "{{- '[' if loop.first and not loop.last else '' }}"
    + _json("parameters")
    + "{{- ']' if loop.last and not loop.first else '' }}"
)
_FUNCTIONARY_CALL = (
    "{%- if function.name == 'python' %}"
    "{{- raise_exception('this chat template has no form for a function named python') }}"
    "{%- endif %}" + _plain("'<function='", "'>'", "'</function>'")
)

FORMS: Mapping[str, Callable[[Dialect], Form]] = {
    "apriel": lambda _: Form(
        _json(more=" ~ (', \"id\": ' ~ id | tojson if id is string else '')"), "{{- tool ~ '' }}", id="id"
    ),
    "command_r7b": lambda _: Form(_COMMAND_CALL, _DECLARED, id="number ~ ''", macros=("command_r7b",)),
    "command_r_plus": lambda _: Form(
        _COMMAND_PLUS_CALL, _DECLARED, needs_mapping=True, macros=("python_types", "command_r_plus")
    ),
    "deepseek_v3": lambda _: Form(
        _plain(between="'\\n```json\\n'"),
        "{{- tools | map(attribute='function') | list | tojson(indent=2) }}",
        whole=True,
    ),
    "deepseek_v3_1": lambda _: Form(_plain(between="'<｜tool▁sep｜>'")),
    "deepseek_v3_2": _named(_TEXT, _FUNCTION),
    "deepseek_v4": _named(_TEXT, _FUNCTION, empty="\n"),
    "default": lambda _: Form(_plain("'Action: '", "'\\nAction Input: '"), _DECLARED, macros=("default",)),
    "firefunction": lambda _: Form(_json(), "{{- tools | tojson }}", whole=True),
    "functionary": lambda _: Form(_FUNCTIONARY_CALL, _DECLARED, macros=("functionary",)),
    "gemma4": lambda _: _gemma4(_DECLARED, "None"),
    "gemma4_canonical": lambda _: _gemma4("{{- declare(function, all_names=true) }}", "null"),
    "gigachat": lambda _: Form(_json(), _DECLARED, macros=("gigachat",)),
    "glm4": lambda _: Form(_plain(between="'\\n'"), "{{- function.name ~ '\\n\\n' ~ function | tojson(indent=4) }}"),
    "glm4_7": _pairs,
    "glm4_moe": _pairs,
    "granite": lambda _: Form(_json(), "{{- tools | tojson(indent=4) }}", whole=True),
    "granite4": lambda _: Form(_json()),
    "harmony": lambda _: Form(
        _plain(between="'<|channel|>commentary json<|message|>'"), _DECLARED, macros=("harmony",)
    ),
    "hermes": lambda _: Form(_json(), _DECLARED, macros=("python_types", "hermes")),
    "kimi_k2": lambda _: Form(
        _plain("'functions.'", "':' ~ number ~ '<|tool_call_argument_begin|>'"),
        id="'functions.' ~ function.name ~ ':' ~ number",
    ),
    "laguna": _pairs,
    "lfm2": lambda _: _python("literal(value)", macros=("literal",)),
    "lfm2_5": lambda _: _python(_SINGLE),
    "ling": lambda _: Form(_json()),
    "llama3": lambda _: Form(_LLAMA3_CALL, _INDENTED),
    "llama3_json": lambda _: Form(_json("parameters"), _INDENTED),
    "llama3_pythonic": lambda _: _python("literal(value)", _INDENTED, ("literal",)),
    "minicpm5": _named(_CDATA),
    "minimax1": lambda _: Form(_json()),
    "minimax2": _named(_TEXT, _FUNCTION),
    "mistral": lambda _: Form(_json()),
    "mistral_v3": lambda _: Form(_json(more=_ID), _DECLARED, id="id", nine=True, macros=("mistral_v3",)),
    "mistral_v7": lambda _: Form(_json()),
    "mistral_v11": lambda _: Form(_plain(between="'[CALL_ID]' ~ id ~ '[ARGS]'"), id="id", nine=True),
    "mistral_v13": lambda _: Form(_plain(between="'[ARGS]'")),
    "nemotron": _named(_MIXED, "{{- declare(function, enum_first=true, required_last=true) }}", ("tags",)),
    "qwen": lambda _: Form(_json()),
    "qwen3_5": _named(_MIXED),
    "qwen3_6": _named(_TEXT),
    "qwen3_coder": _named(_MIXED, _DECLARED, ("tags",)),
    "seed_oss": _named(_PYTHON, _DECLARED, ("seed_oss",)),
}
