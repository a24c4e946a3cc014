"""schemathesis: thousands of calls made of /openapi.json, valid and not; no answer is a failure of the server, and
every error is OpenAI's object. `make test-schemathesis`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

CALLS = 5_000
CHECKS = "not_a_server_error,content_type_conformance,response_schema_conformance"


def test_no_call_makes_the_server_fail(scripted: Any, tmp_path: Path) -> None:
    told = tmp_path / "events.ndjson"
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{scripted.url}/openapi.json"]
    command += ["--url", scripted.url, "-H", f"Authorization: Bearer {scripted.key}", "--checks", CHECKS]
    command += ["--max-examples", "500", "--phases", "examples,coverage,fuzzing", "--seed", "1", "--mode", "all"]
    command += ["--continue-on-failure", "--suppress-health-check", "all", "--no-shrink", "--workers", "1"]
    command += ["--report", "ndjson", "--report-ndjson-path", str(told), "--output-truncate", "true"]
    ended = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False, cwd=tmp_path)
    statuses = Counter(_statuses(told))
    print(ended.stdout[-6000:], ended.stderr[-2000:], dict(statuses))
    assert ended.returncode == 0
    assert sum(statuses.values()) >= CALLS, statuses
    assert not [status for status in statuses if status >= 500 and status != 503]
    assert statuses[200] > CALLS / 50
    assert statuses[400] > CALLS / 20


def _statuses(told: Path) -> list[int]:
    """Of every call in schemathesis' own report."""
    found: list[int] = []

    def look(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("status_code"), int):
                found.append(value["status_code"])
            for one in value.values():
                look(one)
        elif isinstance(value, list):
            for one in value:
                look(one)

    for line in told.read_text(encoding="utf-8").splitlines():
        look(json.loads(line))
    return found
