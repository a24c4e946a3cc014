"""Tools and calls of each dialect in Jinja: one tool, one call. What stands around and between them is taken from what
the dialect itself writes (`jinja_tools.py`).

In a tool's lines `tool` is as it was given and `function` its schema; in a call's, `function` has its name, `arguments`
are its arguments, `id` is the call's own and `number` how many calls the chat had before it. A dialect that is not here
cannot be said: Gemma 4's schemas, and those that write tools as signatures with types (harmony, hermes, functionary,
command_r_plus, firefunction, gigachat).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tunesmith.render.tools.base import Dialect
from tunesmith.render.tools.markup_forms import ArgumentPairs, NamedParameters

__all__ = ["FORMS", "Form", "quoted"]


def quoted(text: str) -> str:
    """A text as a literal of Jinja."""
    for plain, escaped in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(plain, escaped)
    return f"'{text}'"


@dataclass(frozen=True, slots=True)
class Form:
    """`tool`, `call`: statements. `whole`: `tool` writes all `tools` at once. `needs_mapping`: the call's arguments are
    taken apart, so that JSON text will not do. `id`: an expression for the id that is written for a call, which its
    result names again. `nine`: that id has nine characters. `macros`: what the statements call."""

    call: str
    tool: str = "{{- tool | tojson }}"
    whole: bool = False
    needs_mapping: bool = False
    id: str = ""
    nine: bool = False
    macros: str = ""


_ARGUMENTS = "(arguments if arguments is string else arguments | tojson)"
_FUNCTION = "{{- function | tojson }}"
_INDENTED = "{{- tool | tojson(indent=4) }}"
_NAME = "function.name | tojson"


def _json(key: str = "arguments", more: str = "") -> str:
    return "{{- '{\"name\": ' ~ " + _NAME + f" ~ ', \"{key}\": ' ~ {_ARGUMENTS}{more} ~ '}}' }}}}"


def _plain(before: str = "''", between: str = "''", behind: str = "''") -> str:
    """A name and JSON, with texts around."""
    return f"{{{{- {before} ~ function.name ~ {between} ~ {_ARGUMENTS} ~ {behind} }}}}"


_OBJECTS = "value is sequence and value is not string"
# Values as `markup_forms.py` and the dialects write them.
_TEXT = "(value if value is string else value | tojson)"
_MIXED = f"(value | tojson if {_OBJECTS} else value)"
_PYTHON = "value"
_CDATA = (
    "('<![CDATA[' ~ value ~ ']]>' if value is string and ('<' in value or '&' in value or '\\n' in value) else value)"
)
_SINGLE = '("\'" ~ value ~ "\'" if value is string else (value | tojson if value is mapping else value))'


def _each_argument(text: str) -> str:
    return "{%- for key, value in arguments | items %}{{- " + text + " }}{%- endfor %}"


def _named(
    value: str, tool: str = "{{- tool | tojson }}", macros: str = "", empty: str = ""
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


def _python(value: str, tool: str = "{{- tool | tojson }}", macros: str = "") -> Form:
    """`name(key=value, ...)`."""
    arguments = _each_argument(f"('' if loop.first else ', ') ~ key ~ '=' ~ {value}")
    call = "{{- function.name ~ '(' }}" + arguments + "{{- ')' }}"
    return Form(call, tool, needs_mapping=True, macros=macros)


_LITERAL = """\
{%- macro literal(value) %}
    {%- if value is string %}
        {{- value | tojson }}
    {%- elif value is mapping %}
        {{- '{' }}
        {%- for key, item in value | items %}
            {{- ('' if loop.first else ', ') ~ literal(key) ~ ': ' ~ literal(item) }}
        {%- endfor %}
        {{- '}' }}
    {%- elif value is sequence %}
        {{- '[' }}
        {%- for item in value %}
            {{- ('' if loop.first else ', ') ~ literal(item) }}
        {%- endfor %}
        {{- ']' }}
    {%- else %}
        {{- value }}
    {%- endif %}
{%- endmacro %}"""

_DEFAULT = (
    "{{- '> Tool Name: ' ~ function.name ~ '\\nTool Description: ' ~ (function.description | default('')) }}"
    "{{- '\\nTool Args:\\n' }}"
    "{%- for key, schema in ((function.parameters or {}).properties or {}) | items %}"
    "{{- '  - ' ~ key ~ ' (' ~ (schema.type | default('')) }}"
    "{{- (', required' if key in (function.parameters.required or []) else '') ~ '): ' }}"
    "{{- schema.description | default('') }}"
    "{{- ', should be one of [' ~ schema.enum | join(', ') ~ ']' if schema.enum else '' }}"
    "{%- if 'items' in schema and schema['items'] %}"
    "{{- ', where each item should be ' ~ (schema['items'].type | default('')) }}"
    "{%- endif %}"
    "{{- '\\n' }}"
    "{%- endfor %}"
    "{{- '\\n' }}"
)

_TAGGED = """\
{%- macro tagged(schema, handled) %}
    {%- for key, value in schema | items if key not in handled %}
        {{- '\\n<' ~ key ~ '>' ~ (value | tojson if value is sequence and value is not string else value) }}
        {{- '</' ~ key ~ '>' }}
    {%- endfor %}
{%- endmacro %}"""


def _tags(enum_first: bool, required_last: bool) -> str:
    """As `qwen_tags.declare`."""
    enum = "{{- '\\n<enum>' ~ schema.enum | tojson ~ '</enum>' if 'enum' in schema else '' }}" if enum_first else ""
    required = (
        "{{- '\\n<required>' ~ function.parameters.required | tojson ~ '</required>' "
        "if 'required' in (function.parameters or {}) else '' }}"
        if required_last
        else ""
    )
    handled = "['name', 'type', 'description'" + (", 'enum']" if enum_first else "]")
    outer = "['type', 'properties'" + (", 'required']" if required_last else "]")
    described = "{{- '\\n<description>' ~ %s.description | trim ~ '</description>' if 'description' in %s else '' }}"
    return (
        "{{- '\\n<function>\\n<name>' ~ function.name ~ '</name>' }}"
        + described % ("function", "function")
        + "{{- '\\n<parameters>' }}"
        "{%- for name, schema in ((function.parameters or {}).properties or {}) | items %}"
        "{{- '\\n<parameter>\\n<name>' ~ name ~ '</name>' }}"
        "{{- '\\n<type>' ~ schema.type ~ '</type>' if 'type' in schema else '' }}"
        + described % ("schema", "schema")
        + enum
        + f"{{{{- tagged(schema, {handled}) ~ '\\n</parameter>' }}}}"
        "{%- endfor %}"
        + f"{{{{- tagged(function.parameters or {{}}, {outer}) }}}}"
        + required
        + "{{- '\\n</parameters>' ~"
        " tagged(function, ['type', 'name', 'description', 'parameters']) ~ '\\n</function>' }}"
    )


_SEED_TYPE = """\
{%- macro kind(schema) %}
    {%- set known = {'string': 'str', 'number': 'int', 'integer': 'int', 'boolean': 'bool', 'array': 'list'} %}
    {{- known[schema.type] if schema.type is string and schema.type in known else 'Any' }}
{%- endmacro %}"""
_SEED = (
    "{{- 'Function:\\ndef ' ~ function.name ~ '(' }}"
    "{%- set required = (function.parameters or {}).required or [] %}"
    "{%- for key, schema in ((function.parameters or {}).properties or {}) | items %}"
    "{{- ('' if loop.first else ',') ~ key ~ ': ' ~ kind(schema) }}"
    "{%- endfor %}"
    "{{- '):\\n    \"\"\"\\n    ' ~ function.description | default('') | trim ~ '\\n\\n' }}"
    "{%- for key, schema in ((function.parameters or {}).properties or {}) | items %}"
    "{{- ('    Args:' if loop.first else '') ~ '\\n    - ' ~ key ~ ' (' ~ kind(schema) ~ ') [' }}"
    "{{- ('必填' if key in required else '选填') ~ ']: ' ~ (schema.description or '') }}"
    "{%- endfor %}"
    "{%- for key, schema in ((function.returns or {}).properties or {}) | items %}"
    "{{- ('\\n    Returns:' if loop.first else '') ~ '\\n    - ' ~ key ~ ' (' ~ kind(schema) ~ '): ' }}"
    "{{- schema.description or '' }}"
    "{%- endfor %}"
    '{{- \'\\n\\n    """\' }}'
)

_MISTRAL_V3 = (
    '{{- \'{"type": "function", "function": {\' }}'
    "{%- for key, value in function | items if key != 'return' %}"
    "{{- ('' if loop.first else ', ') ~ '\"' ~ key ~ '\": ' }}"
    "{{- '\"' ~ value ~ '\"' if value is string else value | tojson }}"
    "{%- endfor %}"
    "{{- '}}' }}"
)
_COMMAND = (
    '{{- \'    {"name": "\' ~ function.name ~ \'", "description": "\' ~ (function.description | default(\'\')) }}'
    '{{- \'", "parameters": \' ~ (function.parameters | default({})) | tojson ~ \', "responses": null}\' }}'
)
_ID = " ~ ', \"id\": ' ~ id | tojson"

FORMS: Mapping[str, Callable[[Dialect], Form]] = {
    "command_r7b": lambda _: Form(
        '{{- \'    {"tool_call_id": "\' ~ number ~ \'", "tool_name": \' ~ '
        + _NAME
        + f" ~ ', \"parameters\": ' ~ {_ARGUMENTS} ~ '}}' }}}}",
        _COMMAND,
        id="number ~ ''",
    ),
    "deepseek_v3": lambda _: Form(
        _plain(between="'\\n```json\\n'"),
        "{{- tools | map(attribute='function') | list | tojson(indent=2) }}",
        whole=True,
    ),
    "deepseek_v3_2": _named(_TEXT, _FUNCTION),
    "deepseek_v4": _named(_TEXT, _FUNCTION, empty="\n"),
    "default": lambda _: Form(_plain("'Action: '", "'\\nAction Input: '"), _DEFAULT),
    "glm4": lambda _: Form(_plain(between="'\\n'"), "{{- function.name ~ '\\n\\n' ~ function | tojson(indent=4) }}"),
    "glm4_7": _pairs,
    "glm4_moe": _pairs,
    "granite": lambda _: Form(_json(), "{{- tools | tojson(indent=4) }}", whole=True),
    "granite4": lambda _: Form(_json()),
    "kimi_k2": lambda _: Form(
        _plain("'functions.'", "':' ~ number ~ '<|tool_call_argument_begin|>'"),
        id="'functions.' ~ function.name ~ ':' ~ number",
    ),
    "laguna": _pairs,
    "lfm2": lambda _: _python("literal(value)", macros=_LITERAL),
    "lfm2_5": lambda _: _python(_SINGLE),
    "ling": lambda _: Form(_json()),
    "llama3": lambda _: Form(
        "{{- '[' if loop.first and not loop.last else '' }}"
        + _json("parameters")
        + "{{- ']' if loop.last and not loop.first else '' }}",
        _INDENTED,
    ),
    "llama3_json": lambda _: Form(_json("parameters"), _INDENTED),
    "llama3_pythonic": lambda _: _python("literal(value)", _INDENTED, _LITERAL),
    "minicpm5": _named(_CDATA),
    "minimax1": lambda _: Form(_json()),
    "minimax2": _named(_TEXT, _FUNCTION),
    "mistral": lambda _: Form(_json()),
    "mistral_v3": lambda _: Form(_json(more=_ID), _MISTRAL_V3, id="id", nine=True),
    "mistral_v7": lambda _: Form(_json()),
    "mistral_v11": lambda _: Form(_plain(between="'[CALL_ID]' ~ id ~ '[ARGS]'"), id="id", nine=True),
    "mistral_v13": lambda _: Form(_plain(between="'[ARGS]'")),
    "nemotron": _named(_MIXED, _tags(enum_first=True, required_last=True), _TAGGED),
    "qwen": lambda _: Form(_json()),
    "qwen3_5": _named(_MIXED),
    "qwen3_6": _named(_TEXT),
    "qwen3_coder": _named(_MIXED, _tags(enum_first=False, required_last=False), _TAGGED),
    "seed_oss": _named(_PYTHON, _SEED, _SEED_TYPE),
}
