"""The frame of a page: its head, its style, and a policy that lets a browser run nothing, and load nothing but pictures
that stand in the page itself."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from html import escape as _escape

from tunesmith._version import __version__

__all__ = ["cells", "escape", "page", "table"]

STYLE = """
:root { color-scheme: light dark; --ink: #1c2128; --dim: #626b76; --paper: #fff; --box: #f5f6f8; --line: #d9dde3;
  --error: #b3261e; --warning: #8a5300; --note: #35607e; --good: #1a6b3a;
  --trained: #c4ecd0; --prompt: #dbe8fb; --system: #e9e0f8; --tool: #d3efef; --history: #fbeccb; --template: #e6e8eb;
  --media: #f6d5ea; --cut: #f9d9d6; --bar: #4c86c6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --dim: #9aa4b0; --paper: #14171b; --box: #1d2127;
  --line: #353b44; --error: #ff8a80; --warning: #f3b95f; --note: #8fc3ea; --good: #7fd6a0;
  --trained: #1e5233; --prompt: #1f3554; --system: #3a2d57; --tool: #154848; --history: #54400f; --template: #30353c;
  --media: #55264a; --cut: #5c2622; --bar: #5f9ad8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 70rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0; } p { margin: .35rem 0; }
.dim { color: var(--dim); } code, .strip { font-family: ui-monospace, monospace; }
code { font-size: .92em; overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: .5rem 0; } .wide { overflow-x: auto; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--dim); } .n { text-align: right; font-variant-numeric: tabular-nums; }
.cards { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1rem 0; }
.card { background: var(--box); border-radius: .5rem; padding: .6rem 1rem; min-width: 7rem; }
.card b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.finding, .row { border: 1px solid var(--line); border-left: .3rem solid var(--line); border-radius: .4rem;
  padding: .7rem 1rem; margin: .8rem 0; }
.finding.error { border-left-color: var(--error); } .finding.warning { border-left-color: var(--warning); }
.finding.note { border-left-color: var(--note); }
.badge { font-weight: 600; margin-right: .5rem; }
.error > .head .badge, .card.error b { color: var(--error); } .note > .head .badge, .card.note b { color: var(--note); }
.warning > .head .badge, .card.warning b { color: var(--warning); } .good { color: var(--good); }
details { margin: .4rem 0; } summary { cursor: pointer; overflow-wrap: anywhere; }
.strip { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--box); border-radius: .4rem;
  padding: .6rem .7rem; margin: .4rem 0; font-size: 13px; line-height: 1.75; max-height: 32rem; overflow-y: auto; }
.strip span { border-radius: .2rem; padding: .1rem 0; box-shadow: inset -1px 0 0 var(--paper); }
.trained { background: var(--trained); font-weight: 600; } .prompt { background: var(--prompt); }
.system { background: var(--system); } .tool { background: var(--tool); } .template { background: var(--template); }
.media { background: var(--media); } .history, .given, .weight { background: var(--history); }
.cut { background: var(--cut); text-decoration: line-through; }
.weighted { border-bottom: 2px solid var(--good); }
.legend span { display: inline-block; padding: 0 .5rem; border-radius: .2rem; margin: 0 .5rem .3rem 0; }
figure { display: inline-block; vertical-align: top; margin: .4rem 1rem .4rem 0; max-width: 21rem; }
figure img { display: block; max-width: 100%; height: auto; image-rendering: pixelated; margin-bottom: .3rem; }
figcaption { font-size: 13px; overflow-wrap: anywhere; }
.chart { display: block; max-width: 100%; height: auto; } .chart .bar { fill: var(--bar); }
.chart text { fill: var(--dim); font: 11px system-ui, sans-serif; } .chart .axis { stroke: var(--line); }
.chart .mark { stroke: var(--error); stroke-dasharray: 3 2; } .chart .marked { fill: var(--error); }
"""
_HASH = b64encode(sha256(STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; img-src data:; base-uri 'none'; form-action 'none'"
# A page is text in the order in which it stands: characters that turn writing around would show another order.
_TURNING = {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F)}
_CONTROL = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
_CONTROL |= dict.fromkeys((*range(0x80, 0xA0), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF), 0xFFFD)


def escape(text: object) -> str:
    """A text of anybody as text of the page: no markup, no control characters, in the order in which it stands."""
    return _escape(str(text).translate(_CONTROL).translate(_TURNING))


def page(title: str, body: Iterable[str]) -> str:
    """A whole page; `body` is made of escaped pieces."""
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            *body,
            f'<p class="dim">Tunesmith {escape(__version__)}</p>',
            "</body>",
            "</html>",
            "",
        ]
    )


def cells(values: Iterable[object], tag: str = "td") -> str:
    """A row of a table; numbers, and texts that begin with a digit, stand to the right."""
    row = []
    for value in values:
        text = f"{value:,}" if isinstance(value, int) else str(value)
        right = ' class="n"' if isinstance(value, int) or text[:1].isdigit() or text == "-" else ""
        row.append(f"<{tag}{right}>{escape(text)}</{tag}>")
    return f"<tr>{''.join(row)}</tr>"


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table with a head."""
    return f'<div class="wide"><table>{cells(head, "th")}{"".join(cells(row) for row in rows)}</table></div>'
