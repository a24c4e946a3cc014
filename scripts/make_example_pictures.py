"""Write the pictures of examples/data and the rows about them: python scripts/make_example_pictures.py"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

from PIL import Image, ImageDraw

FOLDER = Path(__file__).parents[1] / "examples" / "data"
COLOURS = {"red": "#d02020", "green": "#20a030", "blue": "#2040d0"}
SHAPES = ("circle", "square", "triangle")
SIZE = 56  # pixels
PLACES = {
    "circle": lambda draw, colour: draw.ellipse((10, 10, 45, 45), fill=colour),
    "square": lambda draw, colour: draw.rectangle((10, 10, 45, 45), fill=colour),
    "triangle": lambda draw, colour: draw.polygon(((28, 8), (8, 46), (48, 46)), fill=colour),
}


def main() -> None:
    (FOLDER / "pictures").mkdir(exist_ok=True)
    things = list(product(COLOURS, SHAPES))
    for colour, shape in things:
        picture = Image.new("RGB", (SIZE, SIZE), "white")
        PLACES[shape](ImageDraw.Draw(picture), COLOURS[colour])
        picture.quantize(4).save(FOLDER / _file(colour, shape), optimize=True)
    rows = [_row("<image>What is this?", f"A {colour} {shape}.", (colour, shape)) for colour, shape in things]
    for one, other in zip(things[::3], things[1::3], strict=True):  # two of one colour
        question = f"<image>Here is a {one[1]}.<image>And what is this?"
        rows.append(_row(question, f"A {other[0]} {other[1]}.", one, other))
    _write("pictures_openai.jsonl", rows)
    pairs = []
    for number, (colour, shape) in enumerate(things):
        wrong = things[(number + 4) % len(things)]  # neither its colour nor its shape
        asked = {"from": "human", "value": "<image>What is this?"}
        chosen, rejected = ({"from": "gpt", "value": f"A {c} {s}."} for c, s in ((colour, shape), wrong))
        row = {"conversations": [asked], "chosen": chosen, "rejected": rejected, "images": [_file(colour, shape)]}
        pairs.append(row)
    _write("picture_pairs_sharegpt.jsonl", pairs)


def _file(colour: str, shape: str) -> str:
    return f"pictures/{colour}_{shape}.png"


def _row(question: str, answer: str, *things: tuple[str, str]) -> dict[str, object]:
    said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": said, "images": [_file(*thing) for thing in things]}


def _write(name: str, rows: list[dict[str, object]]) -> None:
    (FOLDER / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
