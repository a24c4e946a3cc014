"""How the server is set up, from the environment: LlamaFactory's variables under their names."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.core import env
from tunesmith.core.errors import MachineError, MissingInputError, Problem
from tunesmith.serve.auth import Keys, read_keys

__all__ = ["NAME", "Settings"]

NAME = re.compile(r"[!-~]{1,128}")
"""Of models and adapters."""
_ROOT = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")


@dataclass(frozen=True, slots=True)
class Settings:
    """`max_concurrent` None: as many requests at once as the engine takes. `remote_media`: media are fetched from https
    addresses that clients name."""

    host: str = "127.0.0.1"
    port: int = 8000
    keys: Keys = field(default_factory=Keys)
    model_name: str = "model"
    root_path: str = ""
    max_concurrent: int | None = None
    remote_media: bool = False

    @classmethod
    def from_env(cls, model_name: str, note: Callable[[str], None]) -> Settings:
        """`model_name`: where API_MODEL_NAME does not say another; `note` is told what was mended.

        Raises MachineError (exit code 78) for what cannot be right: a server that starts all the same would not be
        the one that was asked for.
        """
        settings = cls(
            host=env.get("API_HOST"),
            port=_number("API_PORT", 0, 65535),
            keys=_keys(note),
            model_name=_matching("API_MODEL_NAME", NAME, "1 to 128 visible ASCII characters") or model_name,
            root_path=_matching("FASTAPI_ROOT_PATH", _ROOT, "a path like /models/first").rstrip("/"),
            max_concurrent=_number("MAX_CONCURRENT", 1, 100_000) if env.get("MAX_CONCURRENT") else None,
            remote_media=env.get_bool("API_REMOTE_MEDIA"),
        )
        if not settings.keys and not settings.is_loopback:
            what = "a server that others can reach needs a key"
            fix = "set API_KEY (openssl rand -hex 24 makes one), or API_HOST=127.0.0.1 to listen on this machine only"
            raise MachineError(Problem("E-SERVE-002", what, where="API_HOST", got=settings.host, fix=fix))
        return settings

    @property
    def is_loopback(self) -> bool:
        """Whether nothing but this machine can reach the host that it listens on."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError:
            return False
        return all(ipaddress.ip_address(str(one[4][0]).partition("%")[0]).is_loopback for one in found)

    @property
    def hosts(self) -> frozenset[str] | None:
        """What Host headers may name; None: anything."""
        if not self.is_loopback:
            return None
        return frozenset({"localhost", "127.0.0.1", "::1", self.host.lower()})


def _keys(note: Callable[[str], None]) -> Keys:
    digests: tuple[bytes, ...] = ()
    texts = {"API_KEY": env.get("API_KEY")}
    if name := env.get("API_KEY_FILE"):
        try:
            texts["API_KEY_FILE"] = Path(name).expanduser().read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            problem = Problem("E-SERVE-003", "the file of keys cannot be read", name, str(error), "see API_KEY_FILE")
            raise MissingInputError(problem) from error
    for where, text in texts.items():
        keys, notes = read_keys(text, where)
        if text and not keys:
            raise MachineError(Problem("E-SERVE-001", f"{where} holds no key", where=where, fix="write one per line"))
        digests += keys.digests
        # A file ends with a line end; a variable that does was filled from one by mistake.
        for line in notes if where == "API_KEY" else ():
            note(line)
    return Keys(digests)


def _number(name: str, least: int, most: int) -> int:
    text = env.get(name).strip()
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        fix = f"write a number from {least} to {most}"
        raise MachineError(Problem("E-SERVE-004", f"{name} is no such number", where=name, got=text, fix=fix))
    return int(text)


def _matching(name: str, form: re.Pattern[str], words: str) -> str:
    text = env.get(name)
    if text and not form.fullmatch(text):
        raise MachineError(Problem("E-SERVE-004", f"{name} has not this form: {words}", where=name, got=text))
    return text
