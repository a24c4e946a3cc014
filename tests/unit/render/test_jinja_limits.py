"""What a chat template must not do, and that it does all else as jinja2 does."""

from __future__ import annotations

import time

import jinja2
import jinja2.sandbox
import pytest

from tunesmith.render.jinja import JinjaTemplate

LONG = "{% for a in range(100000) %}{% for b in range(100000) %}BODY{% endfor %}{% endfor %}"
DOUBLING = (
    "{% set ns = namespace(x='xxxxxxxxxx') %}{% for i in range(60) %}{% set ns.x = STEP %}{% endfor %}{{ ns.x|length }}"
)
TOO_MUCH = [
    LONG.replace("BODY", ""),
    LONG.replace("BODY", "x"),
    LONG.replace("BODY", "{% if a == 5 %}{% break %}{% endif %}"),
    "{% for i in range(10**9) %}{% endfor %}",
    "{% for i in range(1000000000) %}x{% endfor %}",
    "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    pytest.param(
        "{% macro twice(n) %}{% if n %}{{ twice(n - 1) }}{{ twice(n - 1) }}{% endif %}{% endmacro %}{{ twice(60) }}",
        marks=pytest.mark.slow,
    ),
    "{% for a in [[[1]]] recursive %}{{ loop([a]) }}{% endfor %}",
    "{{ 'x' * 10000000000 }}",
    "{{ 10000000000 * 'x' }}",
    "{{ ([0] * 10000000000)|length }}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ '%10000000000d' % 1 }}",
    "{{ '%10000000000d'|format(1) }}",
    "{{ '{:10000000000}'.format(1) }}",
    "{{ 'x'.ljust(10000000000) }}",
    "{{ 'x'.center(10000000000) }}",
    "{{ '1'.zfill(10000000000) }}",
    "{{ 'x'|center(10000000000) }}",
    "{{ 'x\ny'|indent(10000000000) }}",
    DOUBLING.replace("STEP", "ns.x + ns.x"),
    DOUBLING.replace("STEP", "ns.x ~ ns.x"),
    DOUBLING.replace("STEP", "[ns.x, ns.x]|join"),
    DOUBLING.replace("STEP", "''.join([ns.x, ns.x])"),
    DOUBLING.replace("STEP", "ns.x|replace('x', 'xx')"),
    DOUBLING.replace("STEP", "ns.x.replace('x', 'xx')"),
    "{% for i in range(200) %}{{ 'x' * 1000000 }}{% endfor %}",
]
REACHING_OUT = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ ''|attr('__class__') }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ self._TemplateReference__context }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "{{ raise_exception.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{% set x = namespace(__class__=1) %}",
    "{{ messages.append(1) }}{{ messages.clear() }}",
    "{{ tojson.__code__ }}",
]
AS_JINJA2 = [
    "{{ 1 + 2 }}{{ 'a' + 'b' }}{{ 'a' ~ 1 ~ none }}{{ [1] + [2] }}{{ 3 * 4 }}{{ 'ab' * 3 }}{{ 7 % 3 }}{{ 2 ** 10 }}",
    "{% for m in messages %}{{ loop.index0 % 2 == 0 }}{{ m.role ~ ': ' ~ (m.content|trim) }}{% endfor %}",
    "{% for i in range(3) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% else %}none{% endfor %}",
    "{% macro say(x, y=2) %}{{ x ~ y }}{{ caller() if caller }}{% endmacro %}{{ say('a') }}"
    "{% call say(1) %}c{% endcall %}",
    "{{ ['a', 'b']|join(', ') }}{{ 'x'|center(9) }}{{ 'a\nb'|indent(2) }}{{ 'aa'|replace('a', 'b') }}"
    "{{ '%s-%d'|format('a', 3) }}",
    "{{ 'a b'.split(' ')|map('upper')|join('~') }}{{ 'x'.ljust(4) }}|{{ '{} {:>5}'.format(1, 2) }}",
    "{% set ns = namespace(n=0) %}{% for m in messages if m.role == 'user' %}{% set ns.n = ns.n + 1 %}{% endfor %}"
    "{{ ns.n }}",
    "{% for row in [[1, [2, [3]]]] recursive %}{{ row[0] }}{% if row[1] %}{{ loop([row[1]]) }}{% endif %}{% endfor %}",
    '{{ \'{"equity": 1000000000000, "share": "%10000000000"}\'|indent(4) }}'
    "{{ '{a: 10000000000}'|replace('a', 'b') }}",
    "{{ (messages|length ~ 'x') * 2 }}{{ messages[-1]['content'][:3] ~ '...' if messages else '' ~ 'none' }}",
]
MESSAGES = [{"role": "user", "content": " hello "}, {"role": "assistant", "content": "well"}]


@pytest.mark.parametrize("source", TOO_MUCH)
def test_a_template_that_does_too_much_is_stopped(source: str) -> None:
    began = time.monotonic()
    with pytest.raises(jinja2.TemplateError):
        JinjaTemplate(source).render(messages=MESSAGES)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("source", REACHING_OUT)
def test_a_template_reaches_nothing_but_its_data(source: str) -> None:
    """Such a name is undefined or refused; nothing of the interpreter is written."""
    rows = [dict(message) for message in MESSAGES]
    try:
        text = JinjaTemplate(source).render(messages=rows)
    except jinja2.TemplateError:
        text = ""
    assert not any(word in text for word in ("class", "function", "module", "uid=", "globals", "0x"))
    assert rows == MESSAGES


@pytest.mark.parametrize("source", AS_JINJA2)
def test_all_else_is_as_in_jinja2(source: str) -> None:
    plain = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    for name in ("plain", "again"):
        assert JinjaTemplate(source).render(messages=MESSAGES) == plain.from_string(source).render(messages=MESSAGES), (
            name
        )


def test_each_rendering_begins_anew() -> None:
    template = JinjaTemplate("{% for i in range(90000) %}{% endfor %}done")
    assert {template.render() for _ in range(70)} == {"done"}
