"""`tercet serve --detach`: a server without a terminal, and what becomes of its processes when it is killed."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tercet.cluster.process_tree import descendants, survivors
from tercet.cluster.run_record import RunBook

pytestmark = pytest.mark.slow

START_S_MAX = 90.0
GONE_S_MAX = 30.0
ENDED_S_MAX = 40.0
LATE = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
"""Agents of Ray's own that look for their dead head for a minute before they end."""


def test_a_killed_server_takes_its_cluster_with_it(
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
    family = descendants(record.server.pid)
    try:
        assert len(family) >= 6, [each.command for each in family]  # Ray's own, and four of ours
        assert tercet("status").returncode == 0
    finally:
        os.kill(record.server.pid, signal.SIGKILL)
        late = {each for each in family if each.command in LATE}
        left = survivors(family - late, GONE_S_MAX)
        commands = [each.command for each in left]
        for each in left | late:
            if each.alive:
                os.kill(each.pid, signal.SIGKILL)
        port = record.address.rpartition(":")[2]
        shutil.rmtree(Path(record.ray_token).parent)
        shutil.rmtree(f"/tmp/tercet-{os.getuid()}-detached-{port}", ignore_errors=True)
    assert not commands
    lost = tercet("status")
    assert lost.returncode == 2
    assert "no cluster runs here" in lost.stderr


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
