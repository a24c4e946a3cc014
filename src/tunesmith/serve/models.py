"""GET /v1/models and /v1/models/{id}; /v1/adapters to list, load and unload adapters by name."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from tunesmith.core.errors import TunesmithError
from tunesmith.serve.body import read_json
from tunesmith.serve.errors import ApiError, as_api_error, invalid, not_found
from tunesmith.serve.fields import Body, text
from tunesmith.serve.service import Service

__all__ = ["ADAPTER", "adapters", "load_adapter", "model", "models", "unload_adapter"]

ADAPTER = Body({"name": text(1, 64)}, ["name"])
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _model(service: Service, name: str) -> dict[str, Any]:
    parent = None if name == service.settings.model_name else service.settings.model_name
    return {
        "id": name,
        "object": "model",
        "created": service.created,
        "owned_by": "tunesmith",
        "parent": parent,
        "max_model_len": service.made.context,
        "task": service.task,
    }


async def models(http: Request) -> Any:
    service: Service = http.scope["service"]
    return JSONResponse({"object": "list", "data": [_model(service, name) for name in service.names]})


async def model(http: Request) -> Any:
    service: Service = http.scope["service"]
    name = http.path_params["name"]
    service.adapter(name)
    return JSONResponse(_model(service, name))


async def adapters(http: Request) -> Any:
    """Those that are loaded, and those that may be."""
    service: Service = http.scope["service"]
    loaded = set(service.made.adapters)
    found = await asyncio.to_thread(_found, service.adapter_dir)
    data = [
        {"id": name, "object": "adapter", "loaded": name in loaded, "loadable": name in found}
        for name in sorted(loaded | found)
    ]
    return JSONResponse({"object": "list", "data": data})


def _found(folder: Path | None) -> set[str]:
    if folder is None or not folder.is_dir():
        return set()
    return {one.name for one in folder.iterdir() if _is_adapter(one, folder)}


def _is_adapter(path: Path, folder: Path) -> bool:
    """A folder with an adapter that lies in `folder` itself: a link that leads elsewhere is none."""
    whole = path.resolve()
    return (
        _NAME.fullmatch(path.name) is not None
        and whole == folder.resolve() / path.name
        and (whole / "adapter_config.json").is_file()
    )


def _guarded(service: Service) -> None:
    if not service.settings.keys:
        message = "adapters are loaded and unloaded by who has a key: start the server with API_KEY"
        raise ApiError(403, message, code="key_needed")


async def load_adapter(http: Request) -> Any:
    """{"name": NAME}: the folder of that name in `adapter_dir`."""
    service: Service = http.scope["service"]
    _guarded(service)
    found = ADAPTER.read(await read_json(http, service.limits))
    name, folder = found["name"], service.adapter_dir
    if not _NAME.fullmatch(name):
        raise invalid("name is that of a folder in the server's adapter_dir, and no path", "name")
    if name == service.settings.model_name:
        raise ApiError(409, "this is the name of the model itself", param="name", code="name_taken")
    if name in service.engine.adapters:
        return JSONResponse({"id": name, "object": "adapter", "loaded": True})
    if folder is None or not await asyncio.to_thread(_is_adapter, folder / name, folder):
        raise not_found(f"there is no adapter {name!r} to load", "name", "adapter_not_found")
    try:
        await asyncio.to_thread(service.engine.load_adapter, name, str(folder.resolve() / name))
    except TunesmithError as error:
        raise as_api_error(error, "name") from None
    return JSONResponse({"id": name, "object": "adapter", "loaded": True})


async def unload_adapter(http: Request) -> Any:
    service: Service = http.scope["service"]
    _guarded(service)
    name = http.path_params["name"]
    if name not in service.engine.adapters:
        raise not_found(f"there is no adapter {name!r} that is loaded", "name", "adapter_not_found")
    try:
        await asyncio.to_thread(service.engine.unload_adapter, name)
    except TunesmithError as error:
        raise as_api_error(error, "name") from None
    return JSONResponse({"id": name, "object": "adapter", "loaded": False})
