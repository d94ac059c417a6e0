"""Claim: HTTP from the front door's own process costs a fifth of what it costs through Ray Serve's proxy, or less.

    python bench/ingress.py [--streams 16] [--tokens 150] [--pause-ms 30] [--rounds 3]

One Serve replica plays tokens from a script through the whole text level, as in `edge.py`, and is reached both ways by turns:
through Serve's proxy, and at an HTTP server of its own. Figures are processor time of the proxy and the replica per token, the
median of the rounds. Prints a table and writes bench/results/ingress.json.
"""

import argparse
import asyncio
import json
import os
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
from fastapi import FastAPI
from ray import serve
from ray.serve.config import HTTPOptions

from edge import over_http
from tercet.app.ports import free_port
from tercet.cluster.process_tree import descendants
from tercet.cluster.ray_runtime import RayRuntime
from tercet.router.fake_service import fake_service, saying
from tercet.router.fake_source import FakeSource
from tercet.router.http import build_api
from tercet.router.http_server import start_http

RESULT = Path(__file__).parent / "results" / "ingress.json"
HOST = "127.0.0.1"
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PROXY = "ray::ProxyActor"


@dataclass(frozen=True, slots=True)
class Figures:
    """One way in."""

    way: str
    streams: int
    tokens: int
    pause_ms: float
    proxy_us_per_token: float
    replica_us_per_token: float

    @property
    def us_per_token(self) -> float:
        return self.proxy_us_per_token + self.replica_us_per_token


class Played:
    """A replica as the front door's, whose tokens come from a script."""

    async def __init__(self, port: int, pause_s: float) -> None:  # type: ignore[misc]  # Serve awaits it
        source = FakeSource(saying("abcdefgh " * 20_000, eos=False), pause_s=pause_s)
        self._service = fake_service(source, context_tokens_max=1 << 20)
        self._http = start_http(self.__serve_build_asgi_app__(), HOST, port)

    def __serve_build_asgi_app__(self) -> FastAPI:
        api = build_api(lambda: self._service)
        api.get("/pid")(os.getpid)
        return api


@dataclass(frozen=True, slots=True)
class Stage:
    """Where both ways lead in, and whose processor time counts."""

    proxy_port: int
    own_port: int
    proxy_pid: int
    replica_pid: int


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


async def measure(stage: Stage, way: str, args: argparse.Namespace) -> Figures:
    port = stage.own_port if way == "own server" else stage.proxy_port
    await over_http(port, args.tokens)  # warm
    before = cpu_s(stage.proxy_pid), cpu_s(stage.replica_pid)
    async with asyncio.TaskGroup() as group:
        for _ in range(args.streams):
            group.create_task(over_http(port, args.tokens))
    total = args.streams * args.tokens
    proxy = (cpu_s(stage.proxy_pid) - before[0]) / total * 1e6
    replica = (cpu_s(stage.replica_pid) - before[1]) / total * 1e6
    return Figures(way, args.streams, args.tokens, args.pause_ms, proxy, replica)


def set_up(pause_s: float) -> Stage:
    proxy_port, own_port = free_port(HOST), free_port(HOST)
    serve.start(http_options=HTTPOptions(host=HOST, port=proxy_port))
    deployment = serve.deployment(
        serve.ingress()(Played), max_ongoing_requests=1024, ray_actor_options={"num_cpus": 0.1}
    )
    serve.run(deployment.bind(own_port, pause_s), name="ingress", route_prefix="/")
    proxies = [each.pid for each in descendants(os.getpid()) if each.command.startswith(PROXY)]
    replica = int(httpx.get(f"http://{HOST}:{own_port}/pid").text)
    return Stage(proxy_port, own_port, proxies[0], replica)


def median(rows: list[Figures]) -> Figures:
    return sorted(rows, key=lambda row: row.us_per_token)[len(rows) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=150)
    parser.add_argument("--pause-ms", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    runtime = RayRuntime.start_local(2)
    try:
        stage = set_up(args.pause_ms / 1e3)
        ways = ("Serve's proxy", "own server")
        rounds = [
            [asyncio.run(measure(stage, way, args)) for way in ways] for _ in range(args.rounds)
        ]
    finally:
        runtime.stop()
    rows = [median([each[number] for each in rounds]) for number in range(len(ways))]
    ratios = [proxied.us_per_token / own.us_per_token for proxied, own in rounds]
    for row in rows:
        print(
            f"{row.way:14} proxy {row.proxy_us_per_token:5.0f} us, replica {row.replica_us_per_token:5.0f} us a token"
        )
    print(
        f"ratio {statistics.median(ratios):.1f}, over the rounds {min(ratios):.1f} to {max(ratios):.1f}"
    )
    RESULT.parent.mkdir(exist_ok=True)
    result = {"rows": [asdict(row) for row in rows], "ratios": [round(each, 2) for each in ratios]}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
