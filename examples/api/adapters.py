"""The same question to a model and to each of its adapters: a request names an adapter as its model.

tunesmith api --model_name_or_path BASE 'adapters={"poet": "saves/poet"}'
python examples/api/adapters.py --base-url http://127.0.0.1:8000/v1 "Describe the sea."
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from openai import OpenAI


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--api-key", default="none is needed on this machine")
    parser.add_argument("--max-tokens", type=int, default=60)
    asked = parser.parse_args(arguments)

    with OpenAI(base_url=asked.base_url, api_key=asked.api_key) as client:
        names = [model.id for model in client.models.list()]  # the model itself first
        for name in names:
            answer = client.chat.completions.create(
                model=name,
                messages=[{"role": "user", "content": asked.question}],
                max_tokens=asked.max_tokens,
                temperature=0,
            )
            print(f"--- {name}\n{answer.choices[0].message.content}")


if __name__ == "__main__":
    main()
