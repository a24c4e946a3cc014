"""What a chat template looks for in the texts of a plain chat, read off its syntax tree.

A plain chat has messages of a system, a user and an assistant, each with a text, perhaps with a thought; no tools, no
calls. Most templates only write these texts, perhaps trimmed, or look for a word in them (`'</think>' in content`). Of
such a template can be said which texts it treats alike: all that hold none of the words. A template that does anything
else with a text (counts, cuts, changes letters) gets no answer.

The template is run in the mind, on values of which only the kind is known; branches that a plain chat of such texts
never takes are not looked at. Names are followed without regard to order, so a word may be found that no text meets,
and none is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import nodes

from tunesmith.render.jinja import parse
from tunesmith.render.turns import KEEPING_WORDS

__all__ = ["Reads", "reads_of"]


@dataclass(frozen=True, slots=True)
class Reads:
    """Texts are alike to a template if they hold none of `words`, are none of `exact`, begin and end with none of
    the characters `edges`, begin with none of `starts`, are not empty and have no blanks around them."""

    words: tuple[str, ...] = ()
    exact: frozenset[str] = frozenset()
    edges: frozenset[str] = frozenset()
    starts: tuple[str, ...] = ()

    def alike(self, text: str) -> bool:
        """Whether `text` is one of those."""
        if not text or text[0].isspace() or text[-1].isspace() or text in self.exact:
            return False
        if self.edges and (text[0] in self.edges or text[-1] in self.edges):
            return False
        if self.starts and text.startswith(self.starts):
            return False
        return not any(word in text for word in self.words)


def reads_of(sources: Iterable[str]) -> Reads | None:
    """None if one of these chat templates does more with a text than write it and look for words."""
    words: set[str] = set()
    exact: set[str] = set()
    edges: set[str] = set()
    for source in sources:
        tree = parse(source)
        analysis = _Analysis()
        analysis.visit(tree)
        before = ""
        while analysis.known != before:  # names get their kinds from later lines too: until nothing is added
            before = analysis.known
            analysis.visit(tree)
        if analysis.lost:
            return None
        words |= analysis.words
        exact |= analysis.exact
        edges |= analysis.edges
    return Reads(tuple(sorted(words)), frozenset(exact), frozenset(edges))


# Kinds of values: not there; none; nothing of a text; the length of a text; what splitting a text gave; a text; a text
# or something else.
ABSENT, NONE, ANY, LENGTH, LIST, TEXT, MAYBE = range(7)

_TEXT_KEYS = frozenset({"content"})
_THOUGHT_KEYS = frozenset({"reasoning_content", "reasoning", "thinking"})
_ABSENT_KEYS = frozenset(
    {"tool_calls", "tool_call_id", "tool_responses", "function_call", "name", "tools", "functions"}
)
_ROLES = frozenset({"system", "user", "assistant"})
_GIVEN = frozenset({
    "messages", "add_generation_prompt", "enable_thinking", *KEEPING_WORDS, "loop", "namespace", "range", "dict",
    "raise_exception", "strftime_now", "caller", "cycler", "joiner", "lipsum"
})  # fmt: skip
_KEYS = {
    **dict.fromkeys(_TEXT_KEYS, TEXT),
    **dict.fromkeys(_THOUGHT_KEYS, MAYBE),
    **dict.fromkeys(_ABSENT_KEYS, NONE),
}
_STRIPS = frozenset({"strip", "lstrip", "rstrip"})
_SEARCHES = frozenset({"startswith", "endswith", "split", "rsplit", "replace"})
_KEEPING_FILTERS = frozenset({"trim", "string", "safe", "default", "d"})
_WHOLE_VALUE_FILTERS = frozenset({"tojson", "pprint", "xmlattr", "items", "dictsort", "join"})
_SURE = (ABSENT, NONE, LIST, TEXT)
_TESTS: dict[str, Callable[[int], bool | None]] = {
    "defined": lambda kind: kind != ABSENT if kind in _SURE else None,
    "undefined": lambda kind: kind == ABSENT if kind in _SURE else None,
    "none": lambda kind: kind == NONE if kind in _SURE else None,
    "string": lambda kind: kind == TEXT if kind in _SURE else None,
    "iterable": lambda kind: kind in (LIST, TEXT) if kind in _SURE else None,
    "sequence": lambda kind: kind in (LIST, TEXT) if kind in _SURE else None,
    "mapping": lambda kind: False if kind in _SURE else None,
    "number": lambda kind: False if kind in _SURE else None,
    "boolean": lambda kind: False if kind in _SURE else None,
    "true": lambda kind: False if kind in _SURE else None,
    "false": lambda kind: False if kind in _SURE else None,
}


@dataclass
class _Analysis:
    words: set[str] = field(default_factory=set)
    exact: set[str] = field(default_factory=set)
    edges: set[str] = field(default_factory=set)
    names: dict[str, int] = field(default_factory=lambda: {"tools": NONE, "documents": NONE})
    attributes: dict[str, int] = field(default_factory=dict)
    macros: dict[str, nodes.Macro] = field(default_factory=dict)
    macro_kinds: dict[str, int] = field(default_factory=dict)
    called: set[str] = field(default_factory=set)
    scope: str = ""
    """The macro that is looked at; its names are its own."""
    lost: bool = False

    @property
    def known(self) -> str:
        return f"{sorted(self.names.items())} {sorted(self.attributes.items())} {self.macro_kinds} {self.called}"

    # Statements.

    def visit(self, node: nodes.Node) -> None:
        handler = _STATEMENTS.get(type(node))
        if handler is None:
            self.lost = True
        else:
            handler(self, node)

    def _body(self, body: Iterable[nodes.Node]) -> None:
        for node in body:
            self.visit(node)

    def _template(self, node: nodes.Template | nodes.CallBlock) -> None:
        self._body(node.body)

    def _macro(self, node: nodes.Macro) -> None:
        self.macros[node.name] = node
        if node.name in self.called:
            for parameter, default in zip(reversed(node.args), reversed(node.defaults), strict=False):
                self._set(self.names, f"{node.name}.{parameter.name}", self.kind(default))
            self.scope, outer = f"{node.name}.", self.scope
            self._set(self.macro_kinds, node.name, self._written(node.body))
            self.scope = outer

    def _written(self, body: Sequence[nodes.Node]) -> int:
        """The kind of what a body writes."""
        self._body(body)
        parts = [part for node in body for output in (node, *node.find_all(nodes.Output)) for part in _parts(output)]
        return TEXT if max((self.kind(part) for part in parts), default=ANY) >= TEXT else ANY

    def _assign(self, node: nodes.Assign) -> None:
        self._target(node.target, self.kind(node.node))

    def _assign_block(self, node: nodes.AssignBlock) -> None:
        self._target(node.target, self._written(node.body))

    def _target(self, target: nodes.Node, kind: int) -> None:
        if isinstance(target, nodes.Name):
            self._set(self.names, self.scope + target.name, kind)
        elif isinstance(target, nodes.NSRef):
            self._set(self.attributes, target.attr, kind)
        elif isinstance(target, nodes.Tuple):
            for item in target.items:
                self._target(item, kind)
        else:
            self.lost = True

    def _set(self, table: dict[str, int], name: str, kind: int) -> None:
        had = table.get(name, kind)
        if had != kind:
            kind = MAYBE if max(had, kind) >= TEXT else max(had, kind, ANY)
        table[name] = kind

    def _for(self, node: nodes.For) -> None:
        kind = self.kind(node.iter)
        if kind in (ABSENT, NONE):
            self._body(node.else_)
            return
        if kind >= TEXT:
            self.lost = True  # it goes through the characters
        self._target(node.target, TEXT if kind == LIST else ANY)
        if node.test is not None:
            self.kind(node.test)
        self._body([*node.body, *node.else_])

    def _if(self, node: nodes.If) -> None:
        truth = self.truth(node.test)
        if truth is not False:
            self._body(node.body)
        for other in node.elif_:
            if truth is True:
                return
            truth = self.truth(other.test)
            if truth is not False:
                self._body(other.body)
        if truth is not True:
            self._body(node.else_)

    def _output(self, node: nodes.Output | nodes.ExprStmt) -> None:
        for part in node.iter_child_nodes():
            if self.kind(part) == LENGTH:
                self.lost = True

    def _nothing(self, node: nodes.Node) -> None: ...

    # Conditions: True or False where every plain chat agrees.

    def truth(self, node: nodes.Node) -> bool | None:
        if isinstance(node, nodes.Not):
            inner = self.truth(node.node)
            return None if inner is None else not inner
        if isinstance(node, nodes.And | nodes.Or):
            decides = isinstance(node, nodes.Or)
            left = self.truth(node.left)
            if left is decides:
                return decides
            right = self.truth(node.right)
            return right if left is not None or right is decides else None
        if isinstance(node, nodes.Test):
            return self._test(node)
        if isinstance(node, nodes.Compare):
            return self._compare(node)
        if isinstance(node, nodes.Const):
            return bool(node.value)
        if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr):
            text = self.kind(node.node.node)
            self.kind(node)
            return False if text >= TEXT and node.node.attr in ("startswith", "endswith") else None
        kind = self.kind(node)
        return {ABSENT: False, NONE: False, LENGTH: True, LIST: True, TEXT: True}.get(kind)

    def _test(self, node: nodes.Test) -> bool | None:
        kind = self.kind(node.node)
        for argument in node.args:
            self.kind(argument)
        if node.name in _TESTS and not node.args:
            return _TESTS[node.name](kind)
        if kind >= LENGTH:
            self.lost = True
        return None

    def _compare(self, node: nodes.Compare) -> bool | None:
        left, operator, right = node.expr, node.ops[0].op, node.ops[0].expr
        if isinstance(left, nodes.Filter) and left.name == "length" and _number(right) == 0 and len(node.ops) == 1:
            return {TEXT: operator in ("gt", "ne", "ge")}.get(self.kind(left.node))  # a thought is not empty either
        kinds = [self.kind(left), *(self.kind(operand.expr) for operand in node.ops)]
        equal = {"eq": True, "ne": False}.get(operator)
        if max(kinds) < LENGTH:
            return self._compare_others(left, operator, right)
        constant = _texts(right if kinds[0] >= LENGTH else left)
        if len(node.ops) == 1 and min(kinds) < LENGTH and constant is not None:
            kind = max(kinds)
            if kind >= TEXT and equal is not None:
                self.exact.update(constant)
                return not equal if kind == TEXT or constant else None
            if kind >= TEXT and operator in ("in", "notin"):
                (self.words if kinds[1] >= TEXT else self.exact).update(constant)
                return operator == "notin"
        self.lost = True
        return None

    def _compare_others(self, left: nodes.Node, operator: str, right: nodes.Node) -> bool | None:
        """Of roles and keys it is known which a plain chat has."""
        if operator == "in" and isinstance(left, nodes.Const) and left.value in _ABSENT_KEYS:
            return False
        if operator == "notin" and isinstance(left, nodes.Const) and left.value in _ABSENT_KEYS:
            return True
        role = left if _key(left) == "role" else right if _key(right) == "role" else None
        texts = _texts(right if role is left else left)
        if role is not None and texts is not None and _ROLES.isdisjoint(texts):
            if operator in ("eq", "in"):
                return False
            if operator in ("ne", "notin"):
                return True
        return None

    # Expressions.

    def kind(self, node: nodes.Node | None) -> int:
        if node is None:
            return ANY
        handler = _EXPRESSIONS.get(type(node))
        if handler is not None:
            return handler(self, node)
        if isinstance(node, nodes.Const):
            return NONE if node.value is None else ANY
        if isinstance(node, nodes.List | nodes.Tuple | nodes.Dict | nodes.Pair | nodes.Keyword):
            return max([self.kind(child) for child in node.iter_child_nodes()], default=ANY)
        if max([self.kind(child) for child in node.iter_child_nodes()], default=ANY) >= LENGTH:
            self.lost = True  # arithmetic and the like
        return ANY

    def _name(self, node: nodes.Name) -> int:
        known = node.name in _GIVEN or node.name.endswith("_token")
        own = self.names.get(self.scope + node.name)
        return self.names.get(node.name, ANY if known else ABSENT) if own is None else own

    def _getattr(self, node: nodes.Getattr) -> int:
        inner = self.kind(node.node)
        if node.attr in _TEXT_KEYS or node.attr in _THOUGHT_KEYS:
            return TEXT if node.attr in _TEXT_KEYS else MAYBE
        if node.attr in self.attributes:
            return self.attributes[node.attr]
        if node.attr in _ABSENT_KEYS and inner == ANY:
            return ABSENT
        return inner

    def _getitem(self, node: nodes.Getitem) -> int:
        inner, key = self.kind(node.node), _key(node)
        if key in _TEXT_KEYS or key in _THOUGHT_KEYS:
            return TEXT if key in _TEXT_KEYS else MAYBE
        if key in _ABSENT_KEYS and inner == ANY:
            return ABSENT
        if isinstance(node.arg, nodes.Slice):
            for part in node.arg.iter_child_nodes():
                self.kind(part)
        elif self.kind(node.arg) >= LENGTH:
            self.lost = True
        if inner == LIST and _number(node.arg) in (0, -1):
            return TEXT  # a split that finds nothing gives one part
        if inner >= LENGTH:
            self.lost = True
        return inner

    def _call(self, node: nodes.Call) -> int:
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            self.lost = True
        kinds = [self.kind(argument) for argument in (*node.args, *(pair.value for pair in node.kwargs))]
        if isinstance(node.node, nodes.Getattr):
            return self._method(node.node, node.args, kinds)
        name = node.node.name if isinstance(node.node, nodes.Name) else None
        if name in self.macros:
            self.called.add(name)
            for parameter, kind in zip(self.macros[name].args, kinds, strict=False):
                self._set(self.names, f"{name}.{parameter.name}", kind)
            for pair in node.kwargs:
                self._set(self.names, f"{name}.{pair.key}", self.kind(pair.value))
            return self.macro_kinds.get(name, ANY)
        if name == "namespace":
            for pair in node.kwargs:
                self._set(self.attributes, pair.key, self.kind(pair.value))
        elif name == "dict":
            return max(kinds, default=ANY)
        elif name != "raise_exception" and max(kinds, default=ANY) >= LENGTH:
            self.lost = True
        return ANY

    def _method(self, method: nodes.Getattr, arguments: Sequence[nodes.Expr], kinds: Sequence[int]) -> int:
        inner = self.kind(method.node)
        first = arguments[0] if arguments else None
        if method.attr == "get" and isinstance(first, nodes.Const) and inner == ANY:
            found = first.value
            return _KEYS.get(found, ANY)
        if inner < LENGTH:
            if max(kinds, default=ANY) >= LENGTH:
                self.lost = True
            return ANY
        texts = _texts(first)
        if inner >= TEXT and method.attr in _STRIPS and (first is None or texts):
            self.edges.update(char for char in "".join(texts or ()) if not char.isspace())
            return inner
        if inner >= TEXT and method.attr in _SEARCHES and texts:
            self.words.update(texts)
            return LIST if "split" in method.attr else inner if method.attr == "replace" else ANY
        self.lost = True
        return inner

    def _filter(self, node: nodes.Filter) -> int:
        inner = self.kind(node.node)
        arguments = [*node.args, *(pair.value for pair in node.kwargs)]
        texts = {text for argument in arguments for text in _texts(argument) or ()}
        if max([self.kind(argument) for argument in arguments], default=ANY) >= LENGTH or texts & (
            _TEXT_KEYS | _THOUGHT_KEYS
        ):
            self.lost = True  # map(attribute="content")
        if inner < LENGTH:
            if node.name in _WHOLE_VALUE_FILTERS and not isinstance(node.node, nodes.Const):
                self.lost = True  # what is written whole may be a message
            return inner if node.name in _KEEPING_FILTERS else ANY
        if node.name in ("length", "count"):
            if inner == MAYBE:
                self.lost = True
            return LENGTH if inner == TEXT else ANY
        if inner == LIST and node.name in ("first", "last"):
            return TEXT
        if node.name not in _KEEPING_FILTERS or (node.name == "trim" and arguments):
            self.lost = True
        return inner

    def _joined(self, node: nodes.Node) -> int:
        kinds = [self.kind(child) for child in node.iter_child_nodes()]
        if LENGTH in kinds or LIST in kinds:
            self.lost = True
        return TEXT if max(kinds) >= TEXT else ANY

    def _logic(self, node: nodes.And | nodes.Or) -> int:
        """`a or b` as a value; what is not evaluated is not looked at."""
        left = self.truth(node.left)
        if left is isinstance(node, nodes.Or):
            return self.kind(node.left)
        left_kind, right_kind = self.kind(node.left), self.kind(node.right)
        return left_kind if left_kind == right_kind else MAYBE if max(left_kind, right_kind) >= TEXT else ANY

    def _condition(self, node: nodes.Node) -> int:
        self.truth(node)
        return ANY

    def _choice(self, node: nodes.CondExpr) -> int:
        truth = self.truth(node.test)
        taken = [part for part, when in ((node.expr1, True), (node.expr2, False)) if truth is not (not when)]
        kinds = [self.kind(part) for part in taken]
        return kinds[0] if len(set(kinds)) == 1 else MAYBE if max(kinds) >= TEXT else max(ANY, *kinds)


_STATEMENTS: dict[type, Callable[[_Analysis, Any], None]] = {
    nodes.Template: _Analysis._template,
    nodes.CallBlock: _Analysis._template,  # {% generation %}
    nodes.Macro: _Analysis._macro,
    nodes.Assign: _Analysis._assign,
    nodes.AssignBlock: _Analysis._assign_block,
    nodes.For: _Analysis._for,
    nodes.If: _Analysis._if,
    nodes.Output: _Analysis._output,
    nodes.ExprStmt: _Analysis._output,
    nodes.Break: _Analysis._nothing,
    nodes.Continue: _Analysis._nothing,
}
_EXPRESSIONS: dict[type, Callable[[_Analysis, Any], int]] = {
    nodes.Name: _Analysis._name,
    nodes.Getattr: _Analysis._getattr,
    nodes.Getitem: _Analysis._getitem,
    nodes.Call: _Analysis._call,
    nodes.Filter: _Analysis._filter,
    nodes.Test: _Analysis._condition,
    nodes.Compare: _Analysis._condition,
    nodes.Not: _Analysis._condition,
    nodes.Add: _Analysis._joined,
    nodes.Concat: _Analysis._joined,
    nodes.And: _Analysis._logic,
    nodes.Or: _Analysis._logic,
    nodes.CondExpr: _Analysis._choice,
}


def _parts(node: nodes.Node) -> Sequence[nodes.Node]:
    return node.nodes if isinstance(node, nodes.Output) else ()


def _key(node: nodes.Node) -> str | None:
    """The key that an attribute or a subscript asks for."""
    if isinstance(node, nodes.Getattr):
        return node.attr
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        return node.arg.value
    return None


def _number(node: nodes.Node) -> object:
    if isinstance(node, nodes.Neg) and isinstance(node.node, nodes.Const):
        return -node.node.value
    return node.value if isinstance(node, nodes.Const) else None


def _texts(node: nodes.Node | None) -> tuple[str, ...] | None:
    """The texts of a constant, or of a list of constants; None for anything else. Other constants are no texts."""
    if isinstance(node, nodes.Const):
        return (node.value,) if isinstance(node.value, str) else ()
    if isinstance(node, nodes.List | nodes.Tuple):
        parts = [_texts(item) for item in node.items]
        return None if any(part is None for part in parts) else tuple(text for part in parts for text in part or ())
    return None
