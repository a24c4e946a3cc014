"""Ask about a picture. This one is made here, so that nothing has to be looked for.

python examples/api/picture.py --base-url http://127.0.0.1:8000/v1 --model MODEL "What colour is it?"
"""

from __future__ import annotations

import argparse
import base64
import struct
import zlib
from collections.abc import Sequence

from openai import BadRequestError, OpenAI


def png(red: int, green: int, blue: int, size: int = 32) -> bytes:
    """A square of one colour. A library would do as well: what is sent are the bytes of any image file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes((red, green, blue)) * size) * size
    header = struct.pack(">2I5B", size, size, 8, 2, 0, 0, 0)  # 8 bits a channel, RGB
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--api-key", default="none is needed on this machine")
    parser.add_argument("--model", required=True)
    parser.add_argument("--max-tokens", type=int, default=100)
    parser.add_argument("--colour", type=int, nargs=3, default=(220, 30, 30), metavar=("RED", "GREEN", "BLUE"))
    asked = parser.parse_args(arguments)

    picture = base64.b64encode(png(*asked.colour)).decode()
    with OpenAI(base_url=asked.base_url, api_key=asked.api_key) as client:
        try:
            answer = client.chat.completions.create(
                model=asked.model,
                messages=[
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
                            {"type": "text", "text": asked.text},
                        ],
                    }
                ],
                max_tokens=asked.max_tokens,
                temperature=0,
            )
        except BadRequestError as error:  # a model that reads text only, for instance
            parser.exit(1, f"{error.code}: {error.message}\n")
    print(answer.choices[0].message.content)
    assert answer.usage is not None
    print(f"{answer.usage.prompt_tokens} tokens of prompt, with those of the picture")


if __name__ == "__main__":
    main()
