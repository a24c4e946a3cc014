"""Where tools stand in a declarative template that names a dialect and no places for it.

As LlamaFactory places them: what the dialect says about the tools follows the system text (a chat without one gets a
system message of it), calls stand in the assistant's reply, and a result is written as a question is.
"""

from __future__ import annotations

from collections.abc import Callable

from tunesmith.render.slot_text import ALWAYS, Choice, Group, Literal, Node, Place, Slot, parse_condition, walk

__all__ = ["has_place", "replace_place", "tools_after_system", "tools_alone", "tools_in_prefix"]


def has_place(slot: Slot, name: str) -> bool:
    return any(isinstance(node, Place) and node.name == name for node in walk(slot))


def replace_place(slot: Slot, name: str, new: Callable[[Place], Slot]) -> Slot:
    """The slot with other nodes wherever it holds the place."""
    nodes: list[Node] = []
    for node in slot:
        if isinstance(node, Place) and node.name == name:
            nodes += new(node)
        elif isinstance(node, Choice):
            inner = tuple((condition, replace_place(branch, name, new)) for condition, branch in node.branches)
            nodes.append(Choice(inner))
        elif isinstance(node, Group):
            nodes.append(Group(replace_place(node.nodes, name, new), node.filters, node.whole))
        else:
            nodes.append(node)
    return tuple(nodes)


def tools_after_system(system: Slot, place: str, gap: str, when: str, text: str) -> Slot:
    """A system slot with the tools behind the system text. `place`: where that stands, content or system; `gap`: what
    the dialect wants between the two; `when`: facts of a chat whose tools stand here; `text`: the fact that there is a
    text."""
    between = (Choice(((parse_condition(text), (Literal(gap),)),)),) if gap else ()
    tools = Choice(((parse_condition(when), (*between, Place("tools"))),))
    return replace_place(system, place, lambda found: (found, tools))


def tools_alone(system: Slot, otherwise: Slot) -> Slot:
    """What a chat without a system message begins with: the system slot of the tools alone, if it offers any."""
    written = replace_place(system, "content", lambda _: (Place("tools"),))
    rest = ((ALWAYS, otherwise),) if otherwise else ()
    return (Choice(((parse_condition("tools"), written), *rest)),)


def tools_in_prefix(prefix: Slot, gap: str) -> Slot | None:
    """A prefix that holds the system text, with the tools behind it. None where that depends on facts."""
    if not any(isinstance(node, Place) and node.name == "system" for node in prefix):
        return None
    return tools_after_system(prefix, "system", gap, when="tools", text="system_text")
