"""A model that works out a grade point average with a function of yours.

What a model writes into a call is input like any other: it is checked here, and what is wrong with it goes back to the
model in words that it can act on, instead of ending the program.

python examples/api/tool_call.py --base-url http://127.0.0.1:8000/v1 --model MODEL \\
    "My grades are A, A, B and C, with 3, 4, 3 and 2 hours. What is my GPA?"
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from openai import OpenAI

POINTS = {"A": 4.0, "B": 3.0, "C": 2.0, "D": 1.0, "F": 0.0}
ROUNDS = 5
"""Calls in a row that a model may make before it has to answer."""

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "grade_point_average",
        "description": "The average of grades, each weighted by the hours of its course.",
        "parameters": {
            "type": "object",
            "properties": {
                "grades": {"type": "array", "items": {"type": "string", "enum": list(POINTS)}},
                "hours": {"type": "array", "items": {"type": "number"}, "description": "one for each grade"},
            },
            "required": ["grades", "hours"],
            "additionalProperties": False,
        },
    },
}


class Unfit(ValueError):
    """Arguments that the model has to correct; the message says how."""


def grade_point_average(grades: Any, hours: Any) -> float:
    """Raises Unfit for arguments that make no average."""
    if not isinstance(grades, list) or not isinstance(hours, list):
        raise Unfit("grades and hours have to be lists")
    if unknown := [grade for grade in grades if not isinstance(grade, str) or grade not in POINTS]:
        raise Unfit(f"there is no grade {', '.join(map(repr, unknown))}; the grades are {', '.join(POINTS)}")
    if len(grades) != len(hours):
        raise Unfit(f"there are {len(grades)} grades and {len(hours)} hours; give as many hours as grades")
    if any(isinstance(one, bool) or not isinstance(one, int | float) or one <= 0 for one in hours):
        raise Unfit("hours have to be numbers above 0")
    if not grades:
        raise Unfit("without any grade there is no average")
    return sum(POINTS[grade] * weight for grade, weight in zip(grades, hours, strict=True)) / sum(hours)


FUNCTIONS: Mapping[str, Callable[..., Any]] = {"grade_point_average": grade_point_average}


def result_of(name: str, arguments: str) -> dict[str, Any]:
    """What goes back to the model for a call: a result, or an error that says what to write instead."""
    if name not in FUNCTIONS:
        return {"error": f"there is no function {name!r}; there is {', '.join(FUNCTIONS)}"}
    try:
        given = json.loads(arguments)
    except ValueError as error:
        return {"error": f"the arguments are no JSON: {error}"}
    wanted = TOOL["function"]["parameters"]["required"]
    if not isinstance(given, dict) or set(given) != set(wanted):
        return {"error": f"the arguments have to be an object with {' and '.join(wanted)}"}
    try:
        return {"result": round(FUNCTIONS[name](**given), 2)}
    except Unfit as error:
        return {"error": str(error)}


def answer(client: OpenAI, model: str, question: str, max_tokens: int) -> str:
    """The model's last words. Raises SystemExit where it goes on calling."""
    messages: list[Any] = [{"role": "user", "content": question}]
    for _ in range(ROUNDS):
        reply = client.chat.completions.create(model=model, messages=messages, tools=[TOOL], max_tokens=max_tokens)
        message = reply.choices[0].message
        if not message.tool_calls:
            return message.content or ""
        messages.append(message)
        for call in message.tool_calls:
            assert call.type == "function"
            result = result_of(call.function.name, call.function.arguments)
            print(f"{call.function.name}({call.function.arguments}) -> {json.dumps(result)}", file=sys.stderr)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(result)})
    sys.exit(f"the model has made calls {ROUNDS} times in a row and has not answered")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--api-key", default="none is needed on this machine")
    parser.add_argument("--model", required=True)
    parser.add_argument("--max-tokens", type=int, default=400)
    asked = parser.parse_args(arguments)
    with OpenAI(base_url=asked.base_url, api_key=asked.api_key) as client:
        print(answer(client, asked.model, asked.question, asked.max_tokens))


if __name__ == "__main__":
    main()
