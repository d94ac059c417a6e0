"""A network, processes, shared memory and mounts of one's own, as long as one process lives.

Nothing has a name outside. The process ends with its standard input, so nothing is left when whoever made it is killed, and
two test runs cannot meet.
"""

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NETWORK_NAMESPACE = 0x40000000
"""CLONE_NEWNET of sched.h."""

_UNSHARE = ("unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc")
_ENTERED = ("--net", "--mount", "--pid", "--uts", "--ipc")
# Bash, because the first process of a pid namespace has to wait for orphans, which `sleep` and `cat` do not.
_FIRST_PROCESS = """
set -e
mount --make-rprivate /
mount -t sysfs sysfs /sys  # or it would show the network out here
mount -t tmpfs tmpfs /dev/shm
mkdir -p /tmp/ray
mount -t tmpfs tmpfs /tmp/ray
ip link set lo up
hostname "$0"
echo up
while read -r; do :; done
"""
_PROBE = """
ip link add br0 type bridge
tc qdisc add dev lo root tbf rate 1mbit burst 10kb latency 1ms
ip tuntap add dev tap0 mode tap
"""
_LIBC = ctypes.CDLL(None, use_errno=True)


def lacking() -> str:
    """Why there can be no lab here; empty if there can."""
    missing = [
        tool
        for tool in ("unshare", "nsenter", "ip", "bridge", "tc", "bash")
        if not shutil.which(tool)
    ]
    if missing:
        return f"hosts as namespaces need {', '.join(missing)}"
    probe = subprocess.run(
        [*_UNSHARE, "bash", "-ec", _PROBE], capture_output=True, text=True, timeout=30
    )
    return f"hosts as namespaces: {probe.stderr.strip()}" if probe.returncode else ""


@contextmanager
def inside(pid: int) -> Iterator[None]:
    """This thread's sockets are opened in the network of that process; those it has stay where they are."""
    home, there = (os.open(f"/proc/{who}/ns/net", os.O_RDONLY) for who in ("thread-self", pid))
    try:
        _enter(there)
        yield
    finally:
        _enter(home)
        os.close(home)
        os.close(there)


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, NETWORK_NAMESPACE):
        raise OSError(ctypes.get_errno(), "setns")


class Namespaces:
    """A process that does nothing, and the namespaces that last as long as it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._unshare = subprocess.Popen(
            [*_UNSHARE, "--kill-child=KILL", "bash", "-c", _FIRST_PROCESS, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._unshare.stdout is not None
        said = self._unshare.stdout.readline()
        assert said == b"up\n", f"{name} did not come up"
        parent = self._unshare.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        self.pid = int(children[0])
        self._pid_space = os.readlink(f"/proc/{self.pid}/ns/pid")

    def command(self, *arguments: str) -> list[str]:
        """The command line that runs another one there."""
        return [*self.entrance, *arguments]

    @property
    def entrance(self) -> tuple[str, ...]:
        return ("nsenter", f"--target={self.pid}", *_ENTERED, "--")

    def run(self, *arguments: str) -> str:
        """Run a command there to its end; returns what it says."""
        return subprocess.check_output(self.command(*arguments), text=True, timeout=60)

    def processes(self) -> set[int]:
        """All of them, as pids out here."""
        return _processes("pid", self._pid_space)

    def freeze(self) -> None:
        """Every process stops where it is; the network still answers for it, as a host's does that swaps to death."""
        stopped: set[int] = set()
        while new := self.processes() - stopped:  # one may have been born meanwhile
            for pid in new:
                os.kill(pid, signal.SIGSTOP)
            stopped |= new

    def thaw(self) -> None:
        # `nsenter` stops along with its child, and has to go on along with it.
        for pid in self.processes() | _processes("pid_for_children", self._pid_space):
            os.kill(pid, signal.SIGCONT)

    def end(self) -> None:
        """Power loss: every process is killed at once. Idempotent."""
        waiting = _processes("pid_for_children", self._pid_space) - self.processes()
        self._unshare.kill()  # its child, the first process, is killed with it, and so is everything else
        self._unshare.communicate()
        for pid in waiting - {self._unshare.pid}:
            os.kill(pid, signal.SIGCONT)


def _processes(kind: str, namespace: str) -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "ns" / kind) == namespace:
                    found.add(int(entry.name))
            except OSError:
                continue  # it has ended, or is about to
    return found
