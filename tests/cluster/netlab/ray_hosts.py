"""A cluster of ours on a Ray cluster of several hosts: a head with the front door, and hosts with places for workers."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from netlab.lab import Host, Lab

from tercet.cluster.ray_runtime import WATCHFUL
from tercet.cluster.status import ClusterStatus

BIN = Path(sys.executable).parent
GCS_PORT, HTTP_PORT = 6379, 8000
NAME = f"spread-{os.getpid()}"
"""The file system is the same on all hosts, and for other test runs here."""
START_S_MAX = 240.0
POLL_S = 0.5
PLACES = {"prefill_place": 1, "decode_place": 1}
"""Of each host: the two decode workers cannot share one."""

CLUSTER_FILE = """\
name: {name}
model: {{path: {checkpoint}, name: demo}}
engine: {{kv_blocks: 512}}
pools:
  prefill: {{replicas: 1, resources: {{cpus: 0, custom: {{prefill_place: 1}}}}}}
  decode: {{replicas: 2, resources: {{cpus: 0, custom: {{decode_place: 1}}}}}}
router: {{local_prefill_tokens_max: 12}}
front_door: {{host: 0.0.0.0, http_port: {http_port}, grpc_port: 9000, cpus: 0.1}}
"""


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ours = {"PATH": f"{BIN}:{kept['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}
    return kept | ours | WATCHFUL | {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}


@dataclass
class RayHosts:
    """Ray's processes on the hosts of a lab, and `tercet serve` on the head."""

    lab: Lab
    directory: Path
    head: Host = field(init=False)
    workers: list[Host] = field(default_factory=list)
    _processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def http(self) -> str:
        return f"http://{self.head.address}:{HTTP_PORT}"

    def start(self, checkpoint: Path) -> None:
        """Return when every worker is up."""
        self.head = self.lab.boot("head")
        head = ("--head", f"--port={GCS_PORT}", "--include-dashboard=false", "--num-cpus=2")
        self._ray(self.head, *head)
        self._until(self._gcs_listens)
        for name in ("b", "c"):
            self.add(name)
        file = self.directory / "cluster.yaml"
        text = CLUSTER_FILE.format(name=NAME, checkpoint=checkpoint, http_port=HTTP_PORT)
        file.write_text(text)
        self._spawn("serve", self.head, "tercet", "serve", "-f", str(file), *self._where)
        self.until(lambda status: status.ready)

    def add(self, name: str) -> Host:
        """One more host with places for workers."""
        host = self.lab.boot(name)
        self.workers.append(host)
        self.join(host)
        return host

    def join(self, host: Host) -> None:
        """Its place in the Ray cluster, which it may have lost; whoever runs hosts starts Ray again, and so do we."""
        process = self._processes.get(host.name)
        if process is None or process.poll() is not None:
            places = f"--resources={json.dumps(PLACES)}"
            gcs = f"--address={self.head.address}:{GCS_PORT}"
            self._ray(host, gcs, "--num-cpus=0", places)

    def status(self) -> ClusterStatus | None:
        """None while nobody answers."""
        command = self.head.command("tercet", "status", "--json", "--name", NAME, *self._where)
        done = subprocess.run(command, env=environment(), capture_output=True, timeout=90)
        return msgspec.json.decode(done.stdout, type=ClusterStatus) if done.stdout else None

    def until(self, holds: Callable[[ClusterStatus], bool]) -> ClusterStatus:
        """The first status of which this holds."""
        found: list[ClusterStatus] = []

        def look() -> bool:
            for host in self.workers:
                self.join(host)
            now = self.status()
            if now is not None and holds(now):
                found.append(now)
            return bool(found)

        self._until(look)
        return found[0]

    def log(self, name: str) -> str:
        """What a process has printed."""
        path = self.directory / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def end(self) -> None:
        """The hosts end with the lab; here they only leave in good order, so that this is tried, too."""
        down = self.head.command("tercet", "down", "--name", NAME, *self._where)
        subprocess.run(down, env=environment(), capture_output=True, timeout=90, check=True)
        # It removes what killed hosts have left of their sockets, all hosts having the same /tmp.
        self._processes["serve"].wait(60)

    def reap(self) -> None:
        """Call when every host has ended."""
        for process in self._processes.values():
            process.wait()

    @property
    def _where(self) -> tuple[str, ...]:
        return (
            "--address", f"{self.head.address}:{GCS_PORT}", "--run-dir", str(self.directory / "run"),
        )  # fmt: skip

    def _ray(self, host: Host, *arguments: str) -> None:
        address = f"--node-ip-address={host.address}"
        store = f"--object-store-memory={80 * 2**20}"
        self._spawn(host.name, host, "ray", "start", "--block", address, store, *arguments)

    def _spawn(self, name: str, host: Host, *command: str) -> None:
        with (self.directory / f"{name}.log").open("ab") as output:
            self._processes[name] = subprocess.Popen(
                host.command(*command),
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _gcs_listens(self) -> bool:
        try:
            socket.create_connection((self.head.address, GCS_PORT), 1).close()
        except OSError:
            return False
        return True

    def _until(self, holds: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + START_S_MAX
        while not holds():
            for name in ("head", "serve"):
                process = self._processes.get(name)
                assert process is None or process.poll() is None, self.log(name)
            logs = "\n".join(self.log(name)[-2000:] for name in self._processes)
            assert time.monotonic() < deadline_s, f"{self.status()}\n{logs}"
            time.sleep(POLL_S)
