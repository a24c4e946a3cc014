"""Another server as an engine: a real one of ours, and one that misbehaves on purpose."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests.rude_server import Plan, events, rude_server
from tests.serving import ScriptedEngine, say, serving
from tunesmith.config import load_config
from tunesmith.core.errors import ConfigError, TunesmithError, UsageError
from tunesmith.core.types import PLACE, Medium, Message, Modality, ToolCall
from tunesmith.engines import make_chat_engine, make_engine
from tunesmith.engines.base import Engine, Piece, Request, Sampling
from tunesmith.engines.remote.chat import RemoteChat
from tunesmith.engines.remote.fields import as_messages
from tunesmith.engines.remote.http import Server
from tunesmith.render import make_renderer

pytestmark = pytest.mark.usefixtures("torch_one_thread")

KEY = "a-key-that-nobody-may-see"
HELLO = [Message("user", "hello")]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


def remote(url: str, **keys: Any) -> Any:
    return make_chat_engine(load_config({"infer_backend": "remote", "remote_url": url, **keys}, verb="chat"))


def chat_of(url: str, **settings: Any) -> RemoteChat:
    """Without asking which models there are."""
    server = Server(url, key=KEY, **{"retries": 0, "timeout": 5, **settings})
    server._pause = lambda seconds, line: None
    return RemoteChat(server, "m", {})


def answer(content: str | None = "Hi.", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **more}
    usage = {"prompt_tokens": 7, "completion_tokens": 2}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}


def chunk(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


@pytest.fixture(scope="module")
def real(tiny_model: Path) -> Iterator[tuple[str, Engine]]:
    """The hf engine behind our server, and the engine itself."""
    engine = make_engine(load_config({"model_name_or_path": str(tiny_model), "use_cpu": True}, verb="chat"))
    with serving(engine) as (url, _):
        yield f"{url}/v1", engine


# ---- a server that keeps the protocol ----


def test_a_chat_with_a_server_elsewhere(tiny_model: Path) -> None:
    engine = ScriptedEngine(tiny_model, say("Good ", "day."))
    with serving(engine) as (url, _), tunesmith.chat(infer_backend="remote", remote_url=f"{url}/v1/") as talk:
        assert "".join(talk.stream("hello")) == "Good day."
        assert talk.ask("and now?", temperature=0.5) == "Good day."
        assert [message.content for message in talk.messages] == ["hello", "Good day.", "and now?", "Good day."]
    first, second = engine.requests
    assert first.sampling.temperature == engine.defaults.temperature  # nobody has set one, so it is the server's
    assert second.sampling.temperature == 0.5
    named = {"infer_backend": "remote", "remote_url": f"{url}/v1", "remote_model": "nobody", "remote_retries": 0}
    with make_chat_engine(load_config(named, verb="chat")) as other, pytest.raises(TunesmithError) as caught:
        other.generate(HELLO)  # the server is gone by now
    assert caught.value.code == "E-ENGINE-020"


def test_thoughts_and_calls_come_as_the_text_of_other_engines_has_them(tiny_model: Path) -> None:
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    with_tools = load_config({"model_name_or_path": str(tiny_model), "template": "qwen3"}, verb="chat").template
    engine = ScriptedEngine(tiny_model, say("<think>\nOne and", " one.\n</think>\n\nLet me see.", f"\n{call}"))
    engine.renderer = make_renderer(with_tools, engine.tokenizer)
    with serving(engine) as (url, _), remote(f"{url}/v1") as far:
        whole = far.generate(HELLO, [TOOL])
        text = "".join(far.stream(HELLO, [TOOL]))
    assert whole.message.reasoning == "One and one."
    assert whole.message.content == "Let me see."
    assert [(call.name, call.arguments) for call in whole.message.tool_calls] == [("add", {"a": 1})]
    assert text == whole.text
    read = far.parse(text, [TOOL])
    assert (read.reasoning, read.content.strip()) == ("One and one.", "Let me see.")
    assert [(call.name, call.arguments) for call in read.tool_calls] == [("add", {"a": 1})]
    assert far.thought_marks == ("<think>", "</think>")
    assert not far.thinks_first(HELLO)


def test_results_of_calls_go_back_with_their_ids() -> None:
    talk = [
        Message("user", "2 + 2, and 3 + 3?"),
        Message("assistant", "", tool_calls=[ToolCall("add", {"a": 2}), ToolCall("add", {"a": 3}, "mine")]),
        Message("tool", "4"),
        Message("tool", "6"),
    ]
    with rude_server(Plan(body=answer())) as (url, asked):
        chat_of(url).generate(talk, [TOOL])
    _, called, four, six = asked[0].body["messages"]
    assert [call["id"] for call in called["tool_calls"]] == [four["tool_call_id"], six["tool_call_id"]]
    assert six["tool_call_id"] == "mine"
    assert json.loads(called["tool_calls"][0]["function"]["arguments"]) == {"a": 2}
    assert asked[0].body["tools"] == [TOOL]


def test_media_are_sent_as_parts_with_all_of_their_bytes(tmp_path: Path) -> None:
    from base64 import b64decode

    head = {"a.png": b"\x89PNG\r\n\x1a\n", "b.wav": b"RIFF\0\0\0\0WAVE", "c.mp4": b"\0\0\0\0ftypisom"}
    for name, data in head.items():
        (tmp_path / name).write_bytes(data)
    kinds: tuple[Modality, ...] = ("image", "audio", "video")
    media = [Medium(kind, str(tmp_path / name)) for kind, name in zip(kinds, head, strict=True)]
    (sent,) = as_messages([Message("user", f"See {PLACE} and {PLACE}{PLACE}", media=media)])
    assert [part["type"] for part in sent["content"]] == ["text", "image_url", "text", "input_audio", "video_url"]
    _, image, _, sound, film = sent["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert b64decode(image["image_url"]["url"].partition(",")[2]) == head["a.png"]
    assert (sound["input_audio"]["format"], b64decode(sound["input_audio"]["data"])) == ("wav", head["b.wav"])
    assert film["video_url"]["url"].startswith("data:video/mp4;base64,")
    with pytest.raises(UsageError, match="E-MEDIA-062"):
        as_messages([Message("user", PLACE, media=[Medium("video", str(tmp_path))])])


def test_what_somebody_has_set_is_sent_and_nothing_else() -> None:
    with rude_server(Plan(body={"data": [{"id": "m"}]}), Plan(body=answer())) as (url, asked):
        with remote(url, temperature=0.5, max_new_tokens=9) as far:
            far.generate(HELLO, stop=("x",), logit_bias={3: 1.0}, adapter="poet", seed=4)
        with remote(url, remote_model="m", do_sample=False, top_p=0.5) as far:
            far.generate(HELLO, logprobs=None)
    messages = [{"role": "user", "content": "hello"}]
    drawn = {"temperature": 0.5, "max_tokens": 9, "stop": ["x"], "logit_bias": {"3": 1.0}, "seed": 4}
    assert asked[1].body == {"model": "poet", "messages": messages, **drawn}
    assert asked[2].body == {"model": "m", "messages": messages, "temperature": 0}


@pytest.mark.parametrize("asked", [{"logprobs": 2}, {"skip_special_tokens": False}, {"max_length": 5}])
def test_what_cannot_be_asked_for_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        chat_of("http://127.0.0.1:9/v1").generate(HELLO, **asked)
    assert caught.value.code == "E-ENGINE-028"
    assert next(iter(asked)) in str(caught.value)


def test_a_server_with_several_models_wants_a_name() -> None:
    listed = [{"id": "one"}, {"id": "poet", "parent": "one"}]
    with rude_server(Plan(body={"data": listed})) as (url, _), remote(url) as far:
        assert far._model == "one"  # the other one is an adapter
    several = Plan(body={"data": [{"id": "one"}, {"id": "two"}]})
    with rude_server(several) as (url, _), pytest.raises(TunesmithError) as caught:
        remote(url)
    assert caught.value.code == "E-ENGINE-024"
    assert "remote_model: one" in str(caught.value)


# ---- token ids ----


def test_ids_give_what_the_engine_itself_gives(real: tuple[str, Engine], tiny_model: Path) -> None:
    url, near = real
    far = remote(url, remote_prompts="ids", model_name_or_path=str(tiny_model))
    prompts = [tuple(near.renderer.encode_prompt([Message("user", text)])) for text in ("a cat", "dogs", "Why?")]
    with far:
        assert far.context == near.context
        for sampling in (
            Sampling(do_sample=False, max_new_tokens=24),
            Sampling(seed=5, max_new_tokens=24, top_k=3, min_p=0.01, repetition_penalty=1.2, presence_penalty=0.5),
            Sampling(seed=6, max_new_tokens=24, stop=("e",), logit_bias={5: 2.0}),
        ):
            requests = [Request(prompt, sampling) for prompt in prompts]
            found, expected = dict(far.run_all(requests)), dict(near.run_all(requests))
            for number in range(len(requests)):
                assert found[number].text == expected[number].text
                one, other = found[number].end, expected[number].end
                assert one is not None
                assert other is not None
                assert (one.finish_reason, one.prompt_tokens) == (other.finish_reason, other.prompt_tokens)
                assert one.completion_tokens == other.completion_tokens
        with pytest.raises(TunesmithError) as caught:
            far.submit(Request((1,) * 5000, Sampling()), lambda piece: None)
        assert caught.value.code == "E-ENGINE-002"


def test_ids_refuse_what_needs_more_than_texts(real: tuple[str, Engine], tiny_model: Path) -> None:
    with remote(real[0], remote_prompts="ids", model_name_or_path=str(tiny_model)) as far:
        refused = [
            lambda: far.submit(Request((1,), Sampling(logprobs=1)), print),
            lambda: far.submit(Request((1,), Sampling(skip_special_tokens=False)), print),
            lambda: far.submit(Request((1,), constraint=object()), print),  # type: ignore[arg-type]
            lambda: far.embed([[1]]),
            lambda: far.load_adapter("a", "b"),
            lambda: far.unload_adapter("a"),
        ]
        for attempt in refused:
            with pytest.raises(UsageError) as caught:
                attempt()
            assert caught.value.code == "E-ENGINE-028"
        with pytest.raises(UsageError) as caught:
            far.submit(Request((1,), adapter="nobody"), print)
        assert caught.value.code == "E-ENGINE-006"
        with pytest.raises(UsageError) as caught:
            far.score([([1], [2])])
        assert caught.value.code == "E-ENGINE-023"  # our own server says that it does not score prompts


def test_an_echo_with_log_probabilities_scores(tiny_model: Path) -> None:
    logprobs = {
        "token_logprobs": [None, -1.0, -0.5, -3.0, -2.0],
        "top_logprobs": [None, {"a": -0.1}, {"b": -0.5}, {"c": -0.2, "d": -3.0}, {}],
    }
    listed = Plan(body={"data": [{"id": "m", "max_model_len": 99}]})
    with rude_server(listed, Plan(body={"choices": [{"logprobs": logprobs}]})) as (url, asked):
        far = remote(url, remote_prompts="ids", model_name_or_path=str(tiny_model))
        one, two = far.score([([5, 6], [7, 8]), ([5, 6], [7, 8])])
        with pytest.raises(TunesmithError) as empty:
            far.score([([], [7])])
        with pytest.raises(TunesmithError) as wrong:
            far.score([([5], [7])])
        far.close()
    assert one.logprobs == two.logprobs == (-0.5, -3.0)
    assert not one.greedy
    assert asked[1].body["prompt"] == [5, 6, 7, 8]
    assert asked[1].body["echo"] is True
    assert (empty.value.code, wrong.value.code) == ("E-ENGINE-011", "E-ENGINE-028")


def test_a_cancelled_reply_ends_here_and_there(tiny_model: Path) -> None:
    engine = ScriptedEngine(tiny_model, say(*["word "] * 500), pause=0.02)
    with serving(engine) as (url, _):
        with remote(f"{url}/v1", remote_prompts="ids", model_name_or_path=str(tiny_model)) as far:
            pieces: list[Piece] = []
            came, over = threading.Event(), threading.Event()

            def sink(piece: Piece) -> None:
                pieces.append(piece)
                came.set()
                if piece.end:
                    over.set()

            handle = far.submit(Request((5, 6), Sampling(max_new_tokens=400)), sink)
            assert came.wait(10)
            handle.cancel()
            handle.cancel()
            assert over.wait(10)
            assert pieces[-1].end is not None
            assert pieces[-1].end.finish_reason == "cancelled"
            assert engine.idle()
        with remote(f"{url}/v1") as far:
            stream = far.stream(HELLO)
            assert next(stream)
            stream.close()
            assert engine.idle()


# ---- servers that do not ----


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, {"error": {"message": "no top_k", "param": "top_k", "code": None}}, "E-ENGINE-023"),
        (400, {"error": {"message": "too long", "code": "context_length_exceeded"}}, "E-ENGINE-025"),
        (401, {"error": {"message": f"wrong key {KEY}"}}, "E-ENGINE-021"),
        (404, {"detail": "Not Found"}, "E-ENGINE-024"),
        (413, "<html>too large</html>", "E-ENGINE-025"),
        (429, {"error": "slow down"}, "E-ENGINE-022"),
        (500, {"error": {"message": "broken"}}, "E-ENGINE-026"),
        (503, "", "E-ENGINE-022"),
        (307, "", "E-ENGINE-023"),
        (200, "<html>a login</html>", "E-ENGINE-027"),
        (200, {"choices": []}, "E-ENGINE-027"),
        (
            200,
            {"choices": [{"message": {"tool_calls": [{"function": {"name": "a", "arguments": "{"}}]}}]},
            "E-ENGINE-027",
        ),
    ],
)
def test_every_answer_has_its_error(status: int, body: Any, code: str) -> None:
    headers = {"Location": "http://elsewhere.example/"} if status == 307 else {}
    with rude_server(Plan(status, body, headers)) as (url, asked):
        for ask in (lambda far: far.generate(HELLO), lambda far: list(far.stream(HELLO))):
            with pytest.raises(TunesmithError) as caught:
                ask(chat_of(url))
            assert caught.value.code in (code, "E-ENGINE-027")
            assert KEY not in str(caught.value)
            assert url in str(caught.value)
    assert asked[0].headers["authorization"] == f"Bearer {KEY}"
    if status == 400:
        assert body["error"]["message"] in str(caught.value)


def test_a_busy_server_is_asked_again() -> None:
    waits: list[float] = []
    busy = [Plan(429, "", {"Retry-After": "3"}), Plan(503, ""), Plan(502, "")]
    with rude_server(*busy, Plan(body=answer())) as (url, asked):
        far = chat_of(url, retries=3)
        far._server._pause = lambda seconds, line: waits.append(seconds)
        assert far.generate(HELLO).text == "Hi."
        assert len(asked) == 4
    assert waits == [3.0, 1.0, 2.0]  # as it says, else twice as long each time
    with rude_server(Plan(429, "", {"Retry-After": "3600"})) as (url, asked):
        with pytest.raises(TunesmithError) as caught:
            chat_of(url, retries=3).generate(HELLO)
        assert (caught.value.code, len(asked)) == ("E-ENGINE-022", 1)  # nobody waits for an hour
    with rude_server(Plan(400, "")) as (url, asked):
        with pytest.raises(TunesmithError):
            chat_of(url, retries=3).generate(HELLO)
        assert len(asked) == 1
    engine = load_config({"infer_backend": "remote", "remote_url": url, "remote_retries": 7}, verb="chat").engine
    assert engine.remote_retries == 7


def test_silence_has_an_end() -> None:
    quiet = threading.Event()
    with rude_server(Plan(body=answer(), before=lambda: quiet.wait(10))) as (url, _):
        keys = {"infer_backend": "remote", "remote_url": url, "remote_model": "m", "remote_timeout": 0.2}
        began = time.monotonic()
        with make_chat_engine(load_config(keys, verb="chat")) as far, pytest.raises(TunesmithError) as caught:
            far.generate(HELLO)
        quiet.set()
    assert caught.value.code == "E-ENGINE-020"
    assert "nothing came for 0.2 s" in str(caught.value)
    assert time.monotonic() - began < 5


def test_an_error_inside_a_stream_and_one_that_breaks_off() -> None:
    failed = {"error": {"message": f"out of memory {KEY}", "type": "server_error"}}
    cases = [
        (events(chunk(content="Good "), failed), "E-ENGINE-026"),
        (events(chunk(content="Good "), done=False), "E-ENGINE-027"),
        ([*events(chunk(content="Good "), done=False), "data: {half\n\n"], "E-ENGINE-027"),
    ]
    for parts, code in cases:
        with rude_server(Plan(parts=parts)) as (url, _):
            pieces = chat_of(url).stream(HELLO)
            assert next(pieces) == "Good "
            with pytest.raises(TunesmithError) as caught:
                next(pieces)
            assert caught.value.code == code
            assert KEY not in str(caught.value)


def test_comments_and_unusual_line_ends_of_a_stream() -> None:
    text = json.dumps(chunk(content="Hi"))
    parts = [": ping\n\n", "event: delta\r\n", f"data:{text}\r\n\r\n", f"data: {text}\n\n", "data: [DONE]"]
    with rude_server(Plan(parts=parts)) as (url, _):
        assert "".join(chat_of(url).stream(HELLO)) == "HiHi"


def test_deltas_of_thoughts_and_calls_become_one_text() -> None:
    calls = [
        chunk(tool_calls=[{"index": 0, "id": "c", "function": {"name": "add", "arguments": ""}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"a"'}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}]),
    ]
    parts = events(
        chunk(role="assistant"), chunk(reasoning="One. "), chunk(reasoning="Two."), chunk(content="So:"), *calls
    )
    with rude_server(Plan(parts=parts)) as (url, _):
        far = chat_of(url)
        text = "".join(far.stream(HELLO))
    read = far.parse(text)
    assert (read.reasoning, read.content) == ("One. Two.", "So:")
    assert [(call.name, call.arguments) for call in read.tool_calls] == [("add", {"a": 1})]


# ---- keys ----


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({}, "remote_url"),
        ({"remote_url": "127.0.0.1:8000"}, "no http"),
        ({"remote_url": "http://host:99999/v1"}, "no http"),
        ({"remote_url": "https://me:secret@host/v1"}, "REMOTE_API_KEY"),
        ({"remote_url": "http://h/v1", "adapter_name_or_path": "a"}, "remote_model"),
        ({"remote_url": "http://h/v1", "remote_prompts": "ids"}, "model_name_or_path"),
    ],
)
def test_what_a_remote_engine_needs(keys: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"infer_backend": "remote", **keys}, verb="chat")
    assert word in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_needs_ids_says_so() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"infer_backend": "remote", "remote_url": "http://h/v1", "model_name_or_path": "m"}, verb="api")
    assert "remote_prompts: ids" in str(caught.value)
    keys = {"infer_backend": "remote", "remote_url": "http://h/v1", "remote_model": "m"}
    with pytest.raises(UsageError) as refused:
        make_engine(load_config(keys, verb="chat"))
    assert refused.value.code == "E-ENGINE-029"


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("REMOTE_API_KEY", KEY)
    plans = Plan(body={"data": [{"id": "m"}]}), Plan(401, {"error": {"message": KEY}})
    with rude_server(*plans) as (url, asked), remote(url) as far, pytest.raises(TunesmithError) as caught:
        far.generate(HELLO)
    assert [one.headers["authorization"] for one in asked] == [f"Bearer {KEY}"] * 2
    assert KEY not in str(caught.value)
    remote("http://192.0.2.1/v1", remote_model="m").close()
    assert "plain http" in caplog.text
    assert KEY not in caplog.text


def test_keys_of_the_model_here_have_no_effect_on_one_elsewhere() -> None:
    keys = {"infer_backend": "remote", "remote_url": "http://h/v1", "model_name_or_path": "m", "use_kv_cache": False}
    warnings = " ".join(load_config({**keys, "template": "qwen"}, verb="chat").warnings)
    for name in ("model_name_or_path", "template", "use_kv_cache"):
        assert name in warnings
    assert "remote_url" in " ".join(load_config({"model_name_or_path": "m", "remote_url": "u"}, verb="chat").warnings)
