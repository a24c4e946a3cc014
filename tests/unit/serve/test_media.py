"""Pictures in requests, with the official client and a small model that sees."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from tests.seeing import coloured, seeing_model
from tests.serving import serving
from tests.unit.serve.conftest import Site
from tunesmith.config import load_config
from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import PLACE, Medium, Message
from tunesmith.engines import make_engine
from tunesmith.engines.base import Engine
from tunesmith.media.fetch import Media
from tunesmith.media.settle import Settler
from tunesmith.serve.limits import LIMITS
from tunesmith.serve.service import Service

pytestmark = pytest.mark.usefixtures("torch_one_thread")


@pytest.fixture(scope="module")
def engine(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    model = seeing_model(tmp_path_factory.mktemp("sees"), stories)
    with make_engine(load_config({"model_name_or_path": str(model), "use_cpu": True}, {}, verb="api")) as made:
        yield made


@pytest.fixture
def sees(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[openai.OpenAI, Service]]]:
    """Makes a server around the engine, and a client."""
    from contextlib import ExitStack

    monkeypatch.setattr(engine, "close", lambda: None)  # it serves the next one too
    with ExitStack() as stack:

        def make(**settings: Any) -> tuple[openai.OpenAI, Service]:
            url, service = stack.enter_context(serving(engine, **settings))
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
            return stack.enter_context(client), service

        yield make


def png(name: str = "red", seed: int = 0) -> bytes:
    file = io.BytesIO()
    coloured(name, seed).save(file, "PNG")
    return file.getvalue()


def address(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def asked(url: str, text: str = "The color is") -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    return {"model": "tiny", "messages": [{"role": "user", "content": parts}], "max_tokens": 8, "temperature": 0}


def error_of(client: openai.OpenAI, request: dict[str, Any]) -> Any:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**request)
    return caught.value


def test_a_picture_is_seen(sees: Callable[..., Any], engine: Engine, tmp_path: Path) -> None:
    client, service = sees()
    settler = Settler(None, None, tmp_path)
    for name in ("red", "black"):
        medium = settler.settle(Medium("image", png(name)))
        expected = engine.generate(
            [Message("user", f"{PLACE}The color is", media=[medium])], do_sample=False, max_new_tokens=8
        )
        answer = client.chat.completions.create(**asked(address(png(name))))
        assert answer.choices[0].message.content == expected.text
        assert answer.usage.prompt_tokens == expected.prompt_tokens > 16  # tokens of a picture
        chunks = client.chat.completions.create(**asked(address(png(name))), stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected.text
    told = client.post("/../tokenize", body={"messages": asked(address(png()))["messages"]}, cast_to=object)
    assert told["count"] == expected.prompt_tokens
    assert not service.running


def test_files_of_a_request_go_with_it(
    sees: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    client, _ = sees()
    client.chat.completions.create(**asked(address(png())))
    list(client.chat.completions.create(**asked(address(png())), stream=True))
    error_of(client, asked(address(b"no picture")))
    assert list(tmp_path.iterdir()) == []


TEXT = "data:text/plain;base64,aGVsbG8="
SOUND = address(b"RIFF\x24\0\0\0WAVEfmt ", "audio/wav")


@pytest.mark.parametrize(
    ("url", "code", "word"),
    [
        ("data:image/png;base64,!!!", "invalid_image", "it is not base64"),
        ("data:image/png,AAAA", "invalid_image", "has the form"),
        (TEXT, "invalid_image", "it is no image"),
        (SOUND, "invalid_image", ""),
        (address(png()[:20]), "invalid_image", ""),
        ("https://example.org/cat.png", "invalid_image", "only data: addresses are read"),
        ("file:///etc/passwd", "invalid_image", "files of this machine"),
        ("/etc/passwd", "invalid_image", "files of this machine"),
        ("ftp://example.org/cat.png", "invalid_image", ""),
    ],
)
def test_what_is_no_picture_is_told_with_its_place(sees: Callable[..., Any], url: str, code: str, word: str) -> None:
    client, _ = sees()
    error = error_of(client, asked(url))
    assert error.param == "messages[0].content[0].image_url.url"
    assert error.code == code
    assert word in error.message
    assert "/tmp/" not in error.message


def test_limits_of_media(sees: Callable[..., Any]) -> None:
    client, _ = sees(limits=replace(LIMITS, media_bytes=300, media_pixels=1500))
    error = error_of(client, asked(address(bytes(1000))))
    assert (error.code, error.param) == ("media_too_large", "messages[0].content[0].image_url.url")
    client, _ = sees(limits=replace(LIMITS, media_pixels=1500))
    client.chat.completions.create(**asked(address(png())))  # 1,024 pixels
    two = asked(address(png()))
    two["messages"] = [*two["messages"], {"role": "assistant", "content": " red"}, *two["messages"]]
    error = error_of(client, two)
    assert (error.code, error.param) == ("media_too_large", "messages[2].content[0].image_url.url")
    assert "2,048 pixels" in error.message


def test_kinds_that_the_model_does_not_take(sees: Callable[..., Any], site: Callable[..., Site]) -> None:
    client, _ = sees()
    part = {"type": "input_audio", "input_audio": {"data": base64.b64encode(b"RIFF").decode(), "format": "wav"}}
    error = error_of(client, {"model": "tiny", "messages": [{"role": "user", "content": [part]}]})
    assert (error.code, error.param) == ("unsupported_content_type", "messages[0].content[0].input_audio.data")
    assert "it reads text and images" in error.message
    found = site().ask("POST", "/v1/chat/completions", asked(address(png()))).error
    assert (found["code"], found["param"]) == ("unsupported_content_type", "messages[0].content[0].image_url.url")
    assert "it reads text only" in found["message"]


def test_addresses_are_fetched_where_that_is_switched_on(sees: Callable[..., Any]) -> None:
    client, service = sees(remote_media=True)
    assert service.fetcher.policy.remote
    fetched: list[str] = []

    def get(url: str) -> Media:
        fetched.append(url)
        return Media(png(), "image/png")

    service.fetcher = SimpleNamespace(get=get)
    there = client.chat.completions.create(**asked("https://example.org/red.png")).choices[0].message.content
    assert fetched == ["https://example.org/red.png"]
    assert there == client.chat.completions.create(**asked(address(png()))).choices[0].message.content


def test_a_picture_that_cannot_be_read_later_is_told_with_its_place(
    sees: Callable[..., Any], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> Any:
        raise DataError(Problem("E-MEDIA-014", "the file is damaged", "somewhere"))

    client, _ = sees()
    monkeypatch.setattr(engine.renderer.media, "inputs", fail)
    error = error_of(client, asked(address(png())))
    assert (error.code, error.param) == ("invalid_image", "messages[0].content[0].image_url.url")
    assert "the file is damaged" in error.message
