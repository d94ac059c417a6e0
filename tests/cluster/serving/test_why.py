"""Why a request went where it went: over HTTP, over gRPC and from the command line, of a cluster that is real."""

import json
import subprocess
from pathlib import Path
from typing import Any, Protocol

import grpc
import httpx
import msgspec
import pytest
from openai import OpenAI

from tercet.pb import tercet_pb2 as pb
from tercet.pb import tercet_pb2_grpc
from tercet.router.explanation import Explanation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ASK = {"x-tercet-explain": "1"}
PROMPT = list(range(40, 240))


class RunningCluster(Protocol):
    """What these tests use of the fixture."""

    http_url: str
    grpc: str

    def note(self, run_dir: Path) -> None: ...


def roles(route: dict[str, Any]) -> list[str]:
    return [choice["role"] for choice in route["choices"]]


def body(**options: object) -> dict[str, object]:
    return {"model": "demo", "prompt": PROMPT, "max_tokens": 8, "temperature": 0, **options}


def test_http_says_it_in_a_header_and_the_openai_client_streams_on(cluster: RunningCluster) -> None:
    url = f"{cluster.http_url}/v1/completions"
    plain = httpx.post(url, json=body(), timeout=60)
    asked = httpx.post(url, json=body(n=2), headers=ASK, timeout=60)
    assert "x-tercet-route" not in plain.headers
    line = json.loads(asked.headers["x-tercet-route"])
    assert [route["index"] for route in line["routes"]] == [0, 1]
    assert all(roles(route)[-1] == "decode" for route in line["routes"])
    with OpenAI(base_url=f"{cluster.http_url}/v1", api_key="none", timeout=60) as client:
        stream = client.completions.create(
            model="demo", prompt=PROMPT, max_tokens=8, temperature=0, stream=True, extra_headers=ASK
        )
        text = "".join(chunk.choices[0].text for chunk in stream)
    assert text == plain.json()["choices"][0]["text"]
    assert json.loads(stream.response.headers["x-tercet-route"])["routes"]


def test_grpc_says_it_in_its_trailing_metadata(cluster: RunningCluster) -> None:
    request = pb.GenerateRequest(
        tokens=pb.TokenIds(ids=[number + 7 for number in PROMPT]),
        sampling=pb.Sampling(max_tokens=8, temperature=0),
    )
    with grpc.insecure_channel(cluster.grpc) as channel:
        stub = tercet_pb2_grpc.TercetStub(channel)  # type: ignore[no-untyped-call]
        stream = stub.GenerateStream(request, metadata=tuple(ASK.items()), timeout=60)
        final = list(stream)[-1].final
        [route] = json.loads(dict(stream.trailing_metadata())["x-tercet-route"])["routes"]
    workers = [choice["worker"] for choice in route["choices"]]
    taken = final.routes[0]
    if (
        route["reason"] == "apart"
    ):  # a busy machine may make the prefill pool look too late for that
        assert roles(route) == ["prefill", "decode"]
        assert workers == [taken.prefill_worker, taken.decode_worker]
    else:
        assert roles(route) == ["decode"]
        assert workers == [taken.decode_worker]


def test_tercet_why_tells_the_story_by_every_id(
    cluster: RunningCluster, environment: dict[str, str], tmp_path: Path
) -> None:
    cluster.note(tmp_path)

    def why(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = ["tercet", "why", *arguments, "--run-dir", str(tmp_path)]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    prompt = [number + 13 for number in PROMPT]
    headers = {"x-request-id": "my own"}
    url = f"{cluster.http_url}/v1/completions"
    reply = httpx.post(url, json=body(prompt=prompt), headers=headers, timeout=60)
    told = why(reply.json()["id"])
    assert told.returncode == 0, told.stderr
    named = why("my own", "--json")
    assert named.returncode == 0, named.stderr
    [known] = msgspec.json.decode(named.stdout, type=list[Explanation])
    [record] = known.requests
    assert record.request == reply.json()["id"]
    for words in ("admitted", "waited", f"{record.reason}:", "first token", "finished"):
        assert words in told.stdout
    for choice in record.choices:
        assert f"{choice.worker} to " in told.stdout
        assert f"→ {choice.worker}" in told.stdout
    assert ("handed off" in told.stdout) == (record.prefill_worker is not None)
    lost = why("chatcmpl-nobody")
    assert lost.returncode == 2
    assert "no front door remembers 'chatcmpl-nobody'" in lost.stderr
