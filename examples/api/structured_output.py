"""An answer that is sure to be an object of a class: the server lets the model write nothing else.

python examples/api/structured_output.py --base-url http://127.0.0.1:8000/v1 --model MODEL "A cat of three years."
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Literal

from openai import LengthFinishReasonError, OpenAI
from pydantic import BaseModel, Field


class Pet(BaseModel):
    kind: Literal["cat", "dog", "bird"]
    age: int = Field(ge=0, le=99)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--api-key", default="none is needed on this machine")
    parser.add_argument("--model", required=True)
    parser.add_argument("--max-tokens", type=int, default=200)
    asked = parser.parse_args(arguments)

    with OpenAI(base_url=asked.base_url, api_key=asked.api_key) as client:
        try:
            answer = client.chat.completions.parse(
                model=asked.model,
                messages=[
                    {"role": "system", "content": "Say as JSON which pet the text is about."},
                    {"role": "user", "content": asked.text},
                ],
                response_format=Pet,
                max_tokens=asked.max_tokens,
            )
        except LengthFinishReasonError:
            sys.exit(f"the answer was not complete after {asked.max_tokens} tokens: raise --max-tokens")
    pet = answer.choices[0].message.parsed
    assert pet is not None  # a refusal would be the only other case
    print(f"a {pet.kind}, {pet.age} years old")


if __name__ == "__main__":
    main()
