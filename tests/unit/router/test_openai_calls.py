"""What cannot be served is refused by name; what is served arrives whole."""

import json

import pytest

from tercet.errors import InvalidRequest
from tercet.ids import RequestId
from tercet.router.call import Call, ChatPrompt, TextPrompt, TokenPrompt
from tercet.router.chat import ChatMessage, Function, ToolCall
from tercet.router.openai_calls import chat_call, completion_call, decode
from tercet.router.openai_types import ChatBody, CompletionBody

MESSAGES = [{"role": "user", "content": "hi"}]


def chat(**fields: object) -> Call:
    body = json.dumps({"model": "toy", "messages": MESSAGES, **fields}).encode()
    call = chat_call(decode(body, ChatBody), RequestId("c"), None)
    call.check()
    return call


def plain(**fields: object) -> Call:
    body = json.dumps({"model": "toy", "prompt": "hi", **fields}).encode()
    call = completion_call(decode(body, CompletionBody), RequestId("c"), None)
    call.check()
    return call


def refusal(ask: object, **fields: object) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        (chat if ask == "chat" else plain)(**fields)
    return caught.value


def test_defaults_are_openais() -> None:
    sampling = chat().sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (1.0, 1.0, 0)
    assert sampling.logprobs is None
    assert plain().sampling.max_tokens == 16


def test_calls_without_a_seed_differ() -> None:
    assert chat().sampling.seed != chat().sampling.seed


def test_null_is_the_same_as_absent() -> None:
    names = ["temperature", "n", "stop", "seed", "tools", "logit_bias", "response_format", "user"]
    call = chat(**dict.fromkeys(names))
    assert call.sampling.temperature == 1.0
    assert call.choices == 1


def test_every_sampling_field_arrives() -> None:
    sampling = chat(
        max_tokens=7,
        temperature=0,
        top_p=0.5,
        top_k=3,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=-1,
        frequency_penalty=2,
        logit_bias={"5": -100},
        seed=11,
        logprobs=True,
        top_logprobs=4,
        stop_token_ids=[1, 2],
        min_tokens=2,
        ignore_eos=True,
    ).sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (7, 0.0, 0.5)
    assert (sampling.top_k, sampling.min_p, sampling.repetition_penalty) == (3, 0.1, 1.1)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (-1.0, 2.0)
    assert (sampling.logit_bias, sampling.seed, sampling.logprobs) == ({5: -100.0}, 11, 4)
    assert (sampling.stop_token_ids, sampling.min_tokens, sampling.ignore_eos) == ((1, 2), 2, True)


def test_the_rest_of_a_call_arrives() -> None:
    rest = {"cache_salt": "tenant", "prompt_cache_key": "talk-1", "kv_ttl_s": 30}
    call = chat(n=2, stop="x", priority=-3, **rest)
    assert (call.choices, call.stop, call.priority) == (2, ("x",), -3)
    assert (call.tenant_salt, call.session, call.kv_ttl_s) == ("tenant", "talk-1", 30.0)


def test_the_newer_name_of_max_tokens_goes_first() -> None:
    assert chat(max_tokens=5, max_completion_tokens=6).sampling.max_tokens == 6


def test_text_parts_become_lines() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    [prompt] = chat(messages=[{"role": "user", "content": parts}]).prompts
    assert prompt == ChatPrompt((ChatMessage("user", "a\nb"),), {})


def test_an_answer_may_be_sent_back_as_it_came() -> None:
    sent = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
        ],
    }
    result = {"role": "tool", "tool_call_id": "1", "content": "2"}
    [prompt] = chat(messages=[*MESSAGES, sent, result]).prompts
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[1].tool_calls == (ToolCall("1", Function("f", {"x": 1})),)
    assert prompt.messages[2] == ChatMessage("tool", "2", tool_call_id="1")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", (TextPrompt("a"),)),
        (["a", "b"], (TextPrompt("a"), TextPrompt("b"))),
        ([1, 2], (TokenPrompt((1, 2)),)),
        ([[1, 2], [3]], (TokenPrompt((1, 2)), TokenPrompt((3,)))),
    ],
)
def test_a_plain_prompt_has_four_shapes(prompt: object, expected: object) -> None:
    assert plain(prompt=prompt).prompts == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("functions", [{"name": "f"}]),
        ("function_call", {"name": "f"}),
        ("response_format", {"type": "json_object"}),
        ("response_format", {"type": "json_schema", "json_schema": {}}),
        ("audio", {"voice": "x"}),
        ("modalities", ["text", "audio"]),
        ("prediction", {"type": "content", "content": "x"}),
        ("reasoning_effort", "high"),
        ("web_search_options", {}),
        ("store", True),
        ("top_logprobs", 3),
        ("stream_options", {"include_usage": True}),
        ("no_such_field", 1),
        ("best_of", 2),
        ("messages", []),
        ("messages", "hi"),
        ("messages[0].role", None),
        ("temperature", "hot"),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("top_p", 0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("min_p", 2),
        ("repetition_penalty", 0),
        ("presence_penalty", 3),
        ("frequency_penalty", -3),
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("n", 0),
        ("n", 65),
        ("seed", -1),
        ("seed", 2**63),
        ("stop", ""),
        ("stop", [""]),
        ("stop", ["x"] * 17),
        ("logit_bias", {"x": 1}),
        ("logit_bias", {"1": 101}),
        ("min_tokens", -1),
        ("cache_salt", "x" * 129),
        ("priority", 2**40),
        ("kv_ttl_s", -1),
        ("kv_ttl_s", 86_401),
    ],
)
def test_a_chat_field_that_cannot_be_served_is_refused_by_name(field: str, value: object) -> None:
    sent = {field: value} if "[" not in field else {"messages": [{"role": value, "content": "x"}]}
    assert refusal("chat", **sent).field == field


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
        ("min_tokens", {"max_tokens": 2, "min_tokens": 3}),
        ("stream_options.no_such", {"stream": True, "stream_options": {"no_such": 1}}),
        ("messages[0].content", {"messages": [{"role": "user"}]}),
        ("messages[0].content[0]", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        ("messages[0].audio", {"messages": [{"role": "assistant", "content": "x", "audio": {"id": "1"}}]}),
        ("messages[0].image", {"messages": [{"role": "user", "content": "x", "image": "y"}]}),
    ],
)  # fmt: skip
def test_a_refusal_names_the_place(field: str, sent: dict[str, object]) -> None:
    assert refusal("chat", **sent).field == field


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        ("best_of", {"best_of": 2}),
        ("suffix", {"suffix": "x"}),
        ("logprobs", {"echo": True, "logprobs": 1}),
        ("prompt", {"prompt": []}),
        ("prompt", {"prompt": ["a", 1]}),
        ("prompt", {"prompt": [[1], 1]}),
        ("prompt", {"prompt": None}),
        ("top_logprobs", {"logprobs": 21}),
        ("n", {"prompt": ["a"] * 10, "n": 10}),
        ("messages", {"messages": MESSAGES}),
    ],
)
def test_a_plain_field_that_cannot_be_served_is_refused_by_name(
    field: str, sent: dict[str, object]
) -> None:
    assert refusal("plain", **sent).field == field


@pytest.mark.parametrize(
    "neutral",
    [
        {"tools": []},
        {"tool_choice": "none"},
        {"parallel_tool_calls": True},
        {"response_format": {"type": "text"}},
        {"modalities": ["text"]},
        {"store": False},
        {"service_tier": "auto"},
        {"metadata": {"a": "b"}},
        {"user": "me"},
        {"stop": []},
        {"logit_bias": {}},
    ],
)
def test_a_field_that_asks_for_nothing_is_no_reason_to_refuse(neutral: dict[str, object]) -> None:
    assert chat(**neutral).prompts


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"model": "toy"}', b"\xff", b'{"model": NaN}']
)
def test_a_body_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode(body, ChatBody)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(InvalidRequest, match="is required") as caught:
        decode(b'{"messages": []}', ChatBody)
    assert caught.value.field == "model"
