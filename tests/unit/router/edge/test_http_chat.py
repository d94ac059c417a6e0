import json

import httpx

from tercet.router.fake_service import saying
from tercet.router.fake_source import FakeSource

ASK = {"model": "toy", "messages": [{"role": "user", "content": "hi"}]}


async def test_a_chat_answer_is_whole(http: httpx.AsyncClient, source: FakeSource) -> None:
    source.cached_tokens = 3
    reply = await http.post("/v1/chat/completions", json=ASK)
    assert reply.status_code == 200
    body = reply.json()
    assert body["object"] == "chat.completion"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"content": "Hello, world", "role": "assistant", "refusal": None},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ]
    prompt = len("<|turn|>user\nhi<|turn|>assistant\n") - 2 * len("<|turn|>") + 2
    assert body["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": 13,
        "total_tokens": prompt + 13,
        "prompt_tokens_details": {"cached_tokens": 3},
    }
    assert reply.headers["x-tercet-request-id"] == body["id"]
    assert source.specs[0].id == body["id"]


async def test_a_chat_stream_ends_with_usage_and_done(http: httpx.AsyncClient) -> None:
    reply = await http.post(
        "/v1/chat/completions",
        json={**ASK, "stream": True, "stream_options": {"include_usage": True}},
    )
    events = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "H"}
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks[:-1])
    assert text == "Hello, world"
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]][-1] == "stop"
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 13


async def test_a_stop_string_ends_the_answer_and_the_generation(
    http: httpx.AsyncClient, source: FakeSource
) -> None:
    source.script = saying("one two three " * 20)
    reply = await http.post("/v1/chat/completions", json={**ASK, "stop": ["ee o"]})
    choice = reply.json()["choices"][0]
    assert choice["message"]["content"] == "one two thr"
    assert choice["finish_reason"] == "stop"
    assert source.history.recent(1)[0].output_tokens < 30
