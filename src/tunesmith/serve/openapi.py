"""GET /openapi.json: the routes and the bodies that they take, made of the tables that read them. JSON schemas say what
a field may be alone; what goes with what is said by errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from tunesmith._version import __version__
from tunesmith.serve import chat, completions, embeddings, models, scores, vocabulary
from tunesmith.serve.fields import Body
from tunesmith.serve.request import CHAT, COMPLETION

__all__ = ["BODIES", "document"]

BODIES: dict[Any, Body] = {
    chat.create: CHAT,
    completions.create: COMPLETION,
    embeddings.create: embeddings.EMBEDDING,
    scores.evaluate: scores.EVALUATION,
    scores.rerank: scores.RERANK,
    models.load_adapter: models.ADAPTER,
    vocabulary.tokenize: vocabulary.TOKENIZE,
    vocabulary.detokenize: vocabulary.DETOKENIZE,
}
"""By endpoint."""

_TEXT = {"type": ["string", "null"]}
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {"message": {"type": "string"}, "type": {"type": "string"}, "param": _TEXT, "code": _TEXT},
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}


@cache
def document(routes: tuple[tuple[str, str, Any], ...], names: tuple[str, ...], open_paths: tuple[str, ...]) -> Any:
    """In OpenAPI 3.1, for routes as (method, path, endpoint). `names`: of models; `open_paths` need no key."""
    paths: dict[str, dict[str, Any]] = {}
    for method, path, endpoint in routes:
        paths.setdefault(path.replace(":path}", "}"), {})[method.lower()] = {
            **_operation(path, endpoint, names),
            **({"security": []} if path in open_paths else {}),
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tunesmith", "version": __version__},
        "paths": paths,
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}],
    }


def _operation(path: str, endpoint: Any, served: Sequence[str]) -> dict[str, Any]:
    errors = {"description": "an error", "content": {"application/json": {"schema": _ERROR}}}
    found: dict[str, Any] = {"responses": {"200": {"description": "the answer"}, "default": errors}}
    if names := re.findall(r"{(\w+)", path):
        found["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if body := BODIES.get(endpoint):
        schema = body.schema
        if "model" in schema["properties"]:
            schema["properties"]["model"] = {"enum": list(served)}
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return found
