"""On a Ray cluster that is not ours: `serve deploy`, `ray job submit`, `tercet serve --address`; and nothing of ours stays."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tercet.app.ports import free_port

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
LOOPBACK = "127.0.0.2"
START_S_MAX = 120.0
POLL_S = 0.3


@dataclass(frozen=True)
class Head:
    """A Ray head started by somebody else, and the commands people run beside it."""

    address: str
    dashboard: str
    environment: dict[str, str]

    def run(self, *command: str, fails: bool = False) -> str:
        """Run a command of the virtual environment in the repository; returns all it printed."""
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=START_S_MAX,
        )
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def left(self) -> str:
        """Tables of the living actors and the placement groups, with their names."""
        listing = ("--address", self.dashboard, "-f")
        actors = self.run("ray", "list", "actors", *listing, "state=ALIVE")
        return actors + self.run("ray", "list", "placement-groups", *listing, "state!=REMOVED")


@pytest.fixture(scope="module")
def head(
    tmp_path_factory: pytest.TempPathFactory,
    environment: dict[str, str],
    end: Callable[["subprocess.Popen[bytes]"], None],
) -> Iterator[Head]:
    """A head on loopback with a dashboard, in a short directory of its own."""
    gcs, dashboard, agent = (free_port(LOOPBACK) for _ in range(3))
    environment = environment | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",
    }
    log, temp_dir = tmp_path_factory.mktemp("head") / "ray.log", Path(f"/tmp/tercet-test-{gcs}")
    command = ["ray", "start", "--head", "--block", f"--node-ip-address={LOOPBACK}"]
    command += [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--dashboard-host={LOOPBACK}"]
    command += [f"--dashboard-agent-listen-port={agent}", "--num-cpus=4", f"--temp-dir={temp_dir}"]
    command += ["--object-store-memory=100000000"]
    with log.open("wb") as output:
        ray = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        url = f"http://{LOOPBACK}:{dashboard}"
        until(lambda: answers(f"{url}/api/version") and answers(f"http://{LOOPBACK}:{agent}/"))
        yield Head(f"{LOOPBACK}:{gcs}", url, environment)
    finally:
        end(ray)
        shutil.rmtree(temp_dir, ignore_errors=True)


def until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + START_S_MAX
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(POLL_S)


def answers(url: str) -> bool:
    """Whether anybody speaks HTTP there."""
    try:
        httpx.get(url, timeout=5)
    except httpx.TransportError:
        return False
    return True


def ready(http_port: int) -> bool:
    """Whether a front door has reached all three workers."""
    try:
        reply = httpx.get(f"http://127.0.0.1:{http_port}/tercet/status", timeout=5)
    except httpx.TransportError:
        return False
    workers = reply.json()["workers"] if reply.status_code == 200 else []
    return sum(worker["connected"] for worker in workers) == 3


def complete(http_port: int) -> str:
    body = {"model": "tiny", "prompt": "Once upon a time, long ago, there was", "max_tokens": 4}
    body["ignore_eos"] = True  # one random token in 257 would end it
    url = f"http://127.0.0.1:{http_port}/v1/completions"
    reply = httpx.post(url, json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["finish_reason"])


def test_serve_deploy_brings_up_the_whole_cluster_and_down_ends_it(
    head, write_cluster_file, tmp_path
):
    port = free_port("127.0.0.1")
    cluster_file = write_cluster_file("deployed", port)
    text = (REPOSITORY / "deploy" / "serve.yaml").read_text()
    for ours, tests in (
        ("deploy/cluster.yaml\n", f"{cluster_file}\n"),
        ("port: 8000", f"port: {port}"),
        ("tercet-demo ", "tercet-deployed "),
    ):
        assert ours in text
        text = text.replace(ours, tests)
    serve_file = tmp_path / "serve.yaml"
    serve_file.write_text(text)
    head.run("serve", "deploy", "-a", head.dashboard, str(serve_file))
    until(lambda: ready(port))
    assert complete(port) == "length"
    assert "tercet-controller:deployed" in head.left()
    assert head.left().count("tercet-worker:deployed:decode-1:") == 2, "the actor and its group"
    assert "has ended" in head.run("tercet", "down", "--address", head.address)
    assert "tercet" not in head.left()
    said = head.run("tercet", "status", "--address", head.address, fails=True)
    assert "runs no cluster of ours" in said


def test_a_job_serves_as_long_as_it_runs(head, write_cluster_file):
    port = free_port("127.0.0.1")
    cluster_file = write_cluster_file("job", port)
    log = head.run(
        *("ray", "job", "submit", "--address", head.dashboard, "--working-dir", "deploy"),
        *("--", "python", "job.py", "-f", str(cluster_file), "--seconds", "1"),
    )
    assert f"ready: http://127.0.0.1:{port}/v1" in log
    assert log.rindex("ended") > log.index("stopping the workers")
    assert "tercet" not in head.left()


@pytest.mark.parametrize("entrance", ["", "serve_proxy: false, "])
def test_serving_on_a_foreign_ray_leaves_it_as_it_was(head, write_cluster_file, tmp_path, entrance):
    port = free_port("127.0.0.1")
    cluster_file = write_cluster_file("guest", port)
    text = cluster_file.read_text()
    cluster_file.write_text(text.replace("{http_port:", f"{{{entrance}http_port:"))
    environment = head.environment | {"TERCET_RUN_DIR": str(tmp_path)}
    command = ["tercet", "serve", "-f", str(cluster_file), "--address", head.address]
    with (tmp_path / "server.log").open("wb") as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        until(lambda: server.poll() is not None or ready(port))
        assert server.poll() is None, (tmp_path / "server.log").read_text()
        assert complete(port) == "length"
        assert ("Proxy" in head.left()) == (not entrance)
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0, (tmp_path / "server.log").read_text()
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
    assert "tercet" not in head.left()
