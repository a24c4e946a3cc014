"""What a declarative template looks for in the texts of a plain chat."""

from __future__ import annotations

from tunesmith.render.jinja_reads import Reads
from tunesmith.render.slot_files import SlotFile
from tunesmith.render.slot_text import Group, Literal, Place, walk

__all__ = ["reads_of_slots"]


def reads_of_slots(slots: SlotFile) -> Reads | None:
    """None where a filter changes the letters of a text. A reply that begins as the prompt ends is read as going on
    with it, so the ends of what the prompt writes are looked for."""
    nodes = [node for slot in slots.slots if slot is not slots.tool for node in walk(slot)]
    if any("json" in node.filters for node in nodes if isinstance(node, Group | Place)):
        return None
    given = [node.text for node in walk(slots.prompt) if isinstance(node, Literal)]
    ends = {text[at:] for text in given for at in range(len(text))}
    return Reads(exact=frozenset(end[:size] for end in ends for size in range(1, len(end))), starts=tuple(ends))
