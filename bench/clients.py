"""Many clients of `tunesmith api` at once: what each of them waits, and what the server holds.

    python bench/clients.py [--clients 64] [--requests 200] [--tokens 32] [--model stories260K] [--json FILE]
    python bench/clients.py --table FILE

Every client asks for one streamed completion after the other, on a connection for each, as the simplest programs do.
Server and clients share the cores of this machine. Told are errors, the time to the first token, the rate over all, and
memory of the server by quarters of the run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ASSETS = Path(os.environ.get("TUNESMITH_ASSETS", "../shared/assets"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=200, help="of each client")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--model", default="stories260K", help="stories260K (test assets) or a folder")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, help="print the Markdown table of a JSON file of this script")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.table.read_text())))
        return
    folder = ASSETS / "models" / options.model if options.model == "stories260K" else Path(options.model)
    found = {name: getattr(options, name) for name in ("clients", "requests", "tokens")} | {"model": folder.name}
    command = [sys.executable, "-m", "tunesmith", "api", f"model_name_or_path={folder}", "use_cpu=true"]
    with subprocess.Popen(command, env={**os.environ, "API_PORT": "0"}, stderr=subprocess.PIPE, text=True) as process:
        try:
            port = _port(process)
            ask = {"model": folder.name, "max_tokens": options.tokens, "temperature": 0, "stream": True}
            ask |= {"stream_options": {"include_usage": True}}
            found["alone"] = asyncio.run(_ask_all(port, ask, 1, min(options.requests, 50), process.pid))
            found["together"] = asyncio.run(_ask_all(port, ask, options.clients, options.requests, process.pid))
        finally:
            process.terminate()
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r" at http://\S+:(\d+)/v1", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()  # or the pipe fills up
            return int(found[1])
    sys.exit("the server did not start")


async def _ask_all(port: int, ask: dict[str, Any], clients: int, requests: int, pid: int) -> dict[str, Any]:
    """Milliseconds to the first token of every request, seconds over all, tokens, errors, memory by quarters."""
    first: list[float] = []
    tokens, errors, done = 0, list[str](), 0
    memory: list[int] = []

    async def client(number: int) -> None:
        nonlocal tokens, done
        for turn in range(requests):
            # As many prompts as each client asks, in another order for each: tokenizers keep up to 10,000 texts.
            prompt = f"Once upon a time there were {(turn + 7 * number) % requests} cats"
            try:
                wait, count = await _stream(port, {**ask, "prompt": prompt})
                first.append(wait)
                tokens += count
            except (OSError, ValueError, AssertionError) as error:
                errors.append(f"{type(error).__name__}: {error}")
            done += 1
            if done % max(clients * requests // 4, 1) == 0:
                memory.append(_resident(pid))

    begin = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    seconds = time.perf_counter() - begin
    return {"first_ms": first, "seconds": seconds, "tokens": tokens, "errors": errors, "memory_kb": memory}


async def _stream(port: int, ask: dict[str, Any]) -> tuple[float, int]:
    """(milliseconds until the first piece, tokens of the reply)."""
    body = json.dumps(ask)
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    begin = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        status = await reader.readline()
        assert b" 200 " in status, status.decode()
        wait, count, ended = None, 0, False
        async for line in reader:
            if line.startswith(b"data: "):
                wait = wait or 1000 * (time.perf_counter() - begin)
                if line.startswith(b"data: [DONE]"):
                    ended = True
                elif b'"choices":[]' in line.replace(b" ", b""):
                    count = json.loads(line[6:])["usage"]["completion_tokens"]
        assert ended, "the stream was cut"
        return wait or 0.0, count
    finally:
        writer.close()


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        f"| {found['model']}, {found['tokens']} tokens | errors | first token: median | 95 % | longest "
        "| longest/median | tokens/s | memory of the server |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, clients in (("alone", 1), ("together", found["clients"])):
        one = found[name]
        times = sorted(one["first_ms"])
        median = statistics.median(times)
        memory = ", ".join(f"{kilobytes / 1024:.0f}" for kilobytes in one["memory_kb"])
        who = f"{clients} client{'s' if clients > 1 else ''}, {len(times) + len(one['errors']):,} requests"
        cells = [f"{len(one['errors'])}", f"{median:.1f} ms", f"{times[int(0.95 * len(times))]:.1f} ms"]
        cells += [f"{times[-1]:.1f} ms", f"{times[-1] / median:.1f}", f"{one['tokens'] / one['seconds']:,.0f}"]
        lines.append(f"| {who} | " + " | ".join([*cells, f"{memory} MB"]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
