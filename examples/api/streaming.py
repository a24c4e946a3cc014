"""A reply while it is written, thoughts and all, and what it cost.

python examples/api/streaming.py --base-url http://127.0.0.1:8000/v1 --model MODEL "What does a cat like?"
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from openai import OpenAI


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--api-key", default="none is needed on this machine")
    parser.add_argument("--model", required=True)
    parser.add_argument("--max-tokens", type=int, default=200)
    asked = parser.parse_args(arguments)

    with OpenAI(base_url=asked.base_url, api_key=asked.api_key) as client:
        stream = client.chat.completions.create(
            model=asked.model,
            messages=[{"role": "user", "content": asked.question}],
            max_tokens=asked.max_tokens,
            stream=True,
            stream_options={"include_usage": True},
        )
        for chunk in stream:
            for choice in chunk.choices:
                # Not in OpenAI's own types: what models think before they answer.
                if thought := getattr(choice.delta, "reasoning_content", None):
                    print(thought, end="", file=sys.stderr, flush=True)
                if choice.delta.content:
                    print(choice.delta.content, end="", flush=True)
            if chunk.usage is not None:  # the last chunk has no choices
                print(f"\n({chunk.usage.prompt_tokens} + {chunk.usage.completion_tokens} tokens)", file=sys.stderr)


if __name__ == "__main__":
    main()
