"""Plain completions, models, headers, and what operators see."""

import httpx

from tercet.router.fake_service import saying
from tercet.router.fake_source import FakeSource

CHAT = {"model": "toy", "messages": [{"role": "user", "content": "hi"}]}


async def test_plain_completions_number_their_choices_by_prompt(
    http: httpx.AsyncClient, source: FakeSource
) -> None:
    source.script = saying("x" * 100, eos=False)
    body = {"model": "toy", "prompt": ["ab", "c"], "n": 2, "echo": True}
    reply = (await http.post("/v1/completions", json=body)).json()
    assert reply["object"] == "text_completion"
    assert [(c["index"], c["text"], c["finish_reason"]) for c in reply["choices"]] == [
        (0, "ab" + "x" * 16, "length"),
        (1, "ab" + "x" * 16, "length"),
        (2, "c" + "x" * 16, "length"),
        (3, "c" + "x" * 16, "length"),
    ]
    assert reply["usage"]["prompt_tokens"] == 3


async def test_chat_logprobs_have_bytes(http: httpx.AsyncClient, source: FakeSource) -> None:
    source.script = saying("é", eos=False)
    body = {**CHAT, "logprobs": True, "top_logprobs": 2, "max_tokens": 2}
    [choice] = (await http.post("/v1/chat/completions", json=body)).json()["choices"]
    content = choice["logprobs"]["content"]
    assert [entry["bytes"] for entry in content] == [[0xC3], [0xA9]]
    assert [entry["token"] for entry in content] == ["�", "�"]
    assert [top["logprob"] for top in content[0]["top_logprobs"]] == [-0.5, -1.5]


async def test_plain_logprobs_have_offsets(http: httpx.AsyncClient, source: FakeSource) -> None:
    source.script = saying("aéb", eos=False)
    body = {"model": "toy", "prompt": "x", "logprobs": 1, "max_tokens": 4}
    [choice] = (await http.post("/v1/completions", json=body)).json()["choices"]
    assert choice["logprobs"] == {
        "tokens": ["a", "bytes:\\xc3", "bytes:\\xa9", "b"],
        "token_logprobs": [-0.5] * 4,
        "top_logprobs": [{t: -0.5} for t in ("a", "bytes:\\xc3", "bytes:\\xa9", "b")],
        "text_offset": [0, 1, 1, 2],
    }


async def test_models_are_listed_and_found(http: httpx.AsyncClient) -> None:
    listed = (await http.get("/v1/models")).json()
    assert listed["object"] == "list"
    [model] = listed["data"]
    assert (model["id"], model["object"], model["max_model_len"]) == ("toy", "model", 512)
    assert (await http.get("/v1/models/toy")).json() == model


async def test_the_clients_own_request_id_comes_back(http: httpx.AsyncClient) -> None:
    reply = await http.post("/v1/chat/completions", json=CHAT, headers={"x-request-id": "mine"})
    assert reply.headers["x-request-id"] == "mine"
    assert reply.headers["x-tercet-request-id"].startswith("chatcmpl-")


async def test_deadline_and_session_reach_the_token_level(
    http: httpx.AsyncClient, source: FakeSource
) -> None:
    await http.post(
        "/v1/chat/completions",
        json={**CHAT, "prompt_cache_key": "talk"},
        headers={"x-tercet-deadline-ms": "1500"},
    )
    assert (source.deadlines_s, source.sessions) == ([1.5], ["talk"])


async def test_a_conversation_may_be_named_by_a_header_whatever_the_body(
    http: httpx.AsyncClient, source: FakeSource
) -> None:
    headers = {"x-session-id": "agent-7"}
    await http.post("/v1/chat/completions", json=CHAT, headers=headers)
    body = {**CHAT, "prompt_cache_key": "everybody"}
    await http.post("/v1/chat/completions", json=body, headers=headers)
    await http.post("/v1/completions", json={"model": "toy", "prompt": "x"}, headers=headers)
    assert source.sessions == ["agent-7"] * 3


async def test_a_name_that_is_too_long_is_refused_by_its_field(http: httpx.AsyncClient) -> None:
    long = "x" * 129
    reply = await http.post("/v1/chat/completions", json=CHAT, headers={"x-session-id": long})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "x-session-id")
    reply = await http.post("/v1/chat/completions", json={**CHAT, "prompt_cache_key": long})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "prompt_cache_key")


async def test_health_is_life_and_ready_is_workers(
    http: httpx.AsyncClient, source: FakeSource
) -> None:
    assert (await http.get("/ready")).status_code == 200
    source.ready = False
    assert (await http.get("/health")).status_code == 200
    assert (await http.get("/ready")).status_code == 503


async def test_operators_see_status_requests_and_metrics(http: httpx.AsyncClient) -> None:
    ids = [(await http.post("/v1/chat/completions", json=CHAT)).json()["id"] for _ in range(3)]
    assert (await http.get("/tercet/status")).json()["in_flight"] == 0
    recent = (await http.get("/tercet/requests", params={"limit": 2})).json()
    assert [record["request"] for record in recent] == [ids[2], ids[1]]
    record = (await http.get(f"/tercet/requests/{ids[0]}")).json()
    assert (record["decode_worker"], record["pulled_bytes"]) == ("decode-0", 4096)
    metrics = await http.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert "tercet_requests_total" in metrics.text
