import os
import signal
import subprocess
import sys

import pytest

from tercet.cluster.process_tree import Process, descendants, end, process, survivors

GRANDPARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"


@pytest.fixture
def run():
    """Starts Python programs that say something when they are ready; ends them afterwards."""
    started = []

    def start(code: str) -> "subprocess.Popen[str]":
        program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        started.append(program)
        return program

    yield start
    for program in started:
        program.kill()
        program.wait()
        program.stdout.close()


def test_descendants_are_found_over_generations(run):
    program = run(GRANDPARENT)
    grandchild = int(program.stdout.readline())
    pids = {each.pid for each in descendants(os.getpid())}
    assert {program.pid, grandchild} <= pids
    assert os.getpid() not in pids
    os.kill(grandchild, signal.SIGKILL)


def test_a_pid_that_was_given_away_again_is_another_process(run):
    program = run(DEAF)
    program.stdout.readline()
    now = process(program.pid)
    assert now.alive
    assert not Process(program.pid, now.started_ticks - 1).alive


def test_a_zombie_is_not_alive(run):
    program = run("print(1, flush=True)")
    here = process(program.pid)
    program.stdout.read()
    assert survivors({here}, 5.0) == set()
    assert program.returncode is None, "nobody has waited for it: it is a zombie"


def test_who_does_not_end_is_killed_and_named(run):
    deaf = run(DEAF)
    deaf.stdout.readline()
    here = process(deaf.pid)
    deaf.terminate()
    assert "SIG_IGN" in here.command
    assert end({here}, 0.2) == {here}
    assert not here.alive
    assert end({here}, 0.2) == set()


def test_nobody_has_the_pid_of_nobody():
    assert process(2**22 + 1) is None
