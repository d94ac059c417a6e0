"""`tercet serve --detach`: a server without a terminal, and what becomes of its processes when it is killed."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tercet.cluster.process_tree import descendants, survivors
from tercet.cluster.run_record import RunBook

pytestmark = pytest.mark.slow

GONE_S_MAX = 30.0
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
