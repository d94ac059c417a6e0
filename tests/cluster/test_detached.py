"""`tercet serve --detach`: a server without a terminal, and what becomes of its processes when it is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tercet.cluster.process_tree import descendants, survivors
from tercet.cluster.run_record import RunBook

pytestmark = pytest.mark.slow

START_S_MAX = 90.0
GONE_S_MAX = 30.0
ENDED_S_MAX = 90.0
LATE = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
"""Agents of Ray's own that look for their dead head for a minute before they end."""
NEXT = "from tercet.cluster.ray_runtime import RayRuntime; RayRuntime.start_local(1).stop()"
"""All that the next server does about it, without a server."""


def test_a_killed_server_takes_its_cluster_with_it_and_the_next_one_clears_up(
    write_cluster_file: Callable[[str, int], Path], environment: dict[str, str], tmp_path: Path
):
    environment = environment | {"TERCET_RUN_DIR": str(tmp_path)}

    def tercet(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["tercet", *arguments], env=environment, capture_output=True, text=True, timeout=120
        )

    started = tercet("serve", "--detach", "-f", str(write_cluster_file("detached", 0)))
    assert started.returncode == 0, started.stderr
    assert "tercet down --name detached" in started.stdout
    record = RunBook(tmp_path).read("detached")
    assert record is not None
    assert record.server is not None
    port = record.address.rpartition(":")[2]
    directories = [
        Path(record.ray_token).parent,
        Path(f"/tmp/tercet-{os.getuid()}-detached-{port}"),
    ]
    assert all(each.is_dir() for each in directories)
    family = descendants(record.server.pid)
    late = {each for each in family if each.command in LATE}
    try:
        assert len(late) == len(LATE)
        assert len(family) >= 6, [each.command for each in family]  # Ray's own, and four of ours
        assert tercet("status").returncode == 0
    finally:
        os.kill(record.server.pid, signal.SIGKILL)
        left = survivors(family - late, GONE_S_MAX)
        commands = [each.command for each in left]
        for each in left:
            os.kill(each.pid, signal.SIGKILL)
    assert not commands
    lost = tercet("status")
    assert lost.returncode == 2
    assert "no cluster runs here" in lost.stderr
    subprocess.run([sys.executable, "-c", NEXT], env=environment, check=True, timeout=START_S_MAX)
    assert [each for each in directories if each.exists()] == []
    assert not survivors(late, 0.0)


def test_a_signal_to_the_whole_group_leaves_nothing_behind(
    write_cluster_file: Callable[[str, int], Path], environment: dict[str, str], tmp_path: Path
):
    """What systemd and `timeout` do: Ray's processes are told to end at the same moment as the server."""
    environment = environment | {"TERCET_RUN_DIR": str(tmp_path)}
    book, file = RunBook(tmp_path), write_cluster_file("grouped", 0)
    server = subprocess.Popen(
        ["tercet", "serve", "-f", file], env=environment, start_new_session=True
    )
    try:
        deadline_s = time.monotonic() + START_S_MAX
        while (record := book.read("grouped")) is None or not record.ready:
            assert time.monotonic() < deadline_s, "not ready in time"
            time.sleep(0.2)
        family = descendants(server.pid)
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(ENDED_S_MAX)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    assert not survivors(family, GONE_S_MAX)
    assert not Path(record.ray_token).parent.exists()
    assert book.read("grouped") is None
