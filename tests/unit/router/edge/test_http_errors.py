"""Every refusal has OpenAI's shape, the right status, and what a client needs in order to act."""

import json

import httpx
import pytest

from tercet.errors import (
    Cancelled,
    DeadlineExceeded,
    NoWorkers,
    Overloaded,
    RateLimited,
    RequestFailed,
    TercetError,
)
from tercet.router.fake_source import FakeSource

MESSAGES = [{"role": "user", "content": "hi"}]
CHAT = {"model": "toy", "messages": MESSAGES}


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"model": "gpt"}, 404, "model_not_found", "model"),
        ({"temperature": 9}, 400, "invalid_value", "temperature"),
        ({"tools": [{}]}, 400, "invalid_value", "tools"),
        ({"max_tokens": 5000}, 400, "context_length_exceeded", "messages"),
        ({"messages": []}, 400, "invalid_value", "messages"),
    ],
)
async def test_a_wrong_request(
    http: httpx.AsyncClient, fields: dict[str, object], status: int, code: str, param: str
) -> None:
    for stream in (False, True):
        reply = await http.post("/v1/chat/completions", json={**CHAT, **fields, "stream": stream})
        assert reply.status_code == status
        error = reply.json()["error"]
        assert (error["type"], error["code"], error["param"]) == (
            "invalid_request_error",
            code,
            param,
        )
        assert error["message"]


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (Overloaded("full", 1.2), 429, "queue_full", ("2", "1200")),
        (RateLimited("enough", 0.3), 429, "rate_limited", ("1", "300")),
        (NoWorkers("none", 3.0), 503, "no_workers", ("3", "3000")),
        (RequestFailed("spent"), 502, "request_failed", None),
        (DeadlineExceeded("too late"), 504, "deadline_exceeded", None),
        (Cancelled("gone"), 499, "cancelled", None),
    ],
)
async def test_no_place_or_no_luck(
    http: httpx.AsyncClient,
    source: FakeSource,
    error: TercetError,
    status: int,
    code: str,
    retry_after: tuple[str, str] | None,
) -> None:
    source.refusal = error
    for stream in (False, True):
        reply = await http.post("/v1/chat/completions", json={**CHAT, "stream": stream})
        assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
        told = (reply.headers.get("retry-after"), reply.headers.get("retry-after-ms"))
        assert told == (retry_after or (None, None))


async def test_a_failure_in_the_middle_of_a_stream_is_its_last_event(
    http: httpx.AsyncClient, source: FakeSource
) -> None:
    source.failure, source.fails_after_tokens = RequestFailed("spent"), 3
    reply = await http.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert reply.status_code == 200
    *_, last = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
    assert json.loads(last)["error"]["code"] == "request_failed"


async def test_a_bug_is_reported_without_its_text(
    http: httpx.AsyncClient, source: FakeSource, caplog: pytest.LogCaptureFixture
) -> None:
    source.script = lambda spec: [1 // 0]
    reply = await http.post("/v1/chat/completions", json=CHAT)
    assert (reply.status_code, reply.json()["error"]["message"]) == (500, "internal error")
    assert "ZeroDivisionError" in caplog.text


async def test_a_body_that_is_not_json(http: httpx.AsyncClient) -> None:
    reply = await http.post("/v1/chat/completions", content=b"{")
    assert reply.status_code == 400
    assert "not valid JSON" in reply.json()["error"]["message"]


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_that_is_too_large(http: httpx.AsyncClient, declared: bool) -> None:
    async def chunks():  # type: ignore[no-untyped-def]
        for _ in range(70):
            yield b" " * 1024

    content = b" " * 70 * 1024 if declared else chunks()
    reply = await http.post("/v1/completions", content=content)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/v1/completions", 405),
        ("GET", "/v1/models/gpt", 404),
        ("GET", "/tercet/requests?limit=0", 400),
        ("GET", "/tercet/requests?limit=x", 400),
        ("GET", "/tercet/requests/none", 404),
    ],
)
async def test_paths_and_queries_are_refused_in_the_same_shape(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    reply = await http.request(method, path)
    assert reply.status_code == status
    assert reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("header", "value"),
    [("x-tercet-deadline-ms", "soon"), ("x-tercet-deadline-ms", "-1"), ("x-request-id", "x" * 200)],
)
async def test_headers_are_checked(http: httpx.AsyncClient, header: str, value: str) -> None:
    reply = await http.post("/v1/chat/completions", json=CHAT, headers={header: value})
    assert reply.status_code == 400
