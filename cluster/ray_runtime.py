"""Ray itself: a cluster of our own on this machine, or a place in one that exists. Every trap of Ray's is met here.

- Authentication is always chosen explicitly. Left alone, `ray.init` switches it on and writes a token into the home
  directory, which breaks whatever is started next without it. Our own cluster gets a token nobody else can read.
- `127.0.0.1` is silently replaced by the address of the first network card; `127.0.0.2` is honoured, and keeps every
  socket of a cluster of our own off the network.
- `ray.init("local")` ignores what a killed `ray start` has left behind; no address does not.
- Socket paths below the temporary directory must stay under 107 bytes, so it is short.
- A dead node is noticed after 14 s by default, a frozen one after 63 s; our own processes notice in 3 s, and so shall Ray.
- Every node's dashboard agent wants port 52365 of its address, which `ray.init` cannot change; a second one there goes
  without, and takes no jobs. `ray start --dashboard-agent-listen-port` can.
- A killed driver takes Ray's processes along, but for two agents, which look for their dead head for a minute; no setting
  shortens that. The next cluster of our own ends them, and removes the directory.
- The driver prints that "a worker died", whatever `log_to_driver` says. Its deduplicator can be told what to skip.
- A call to Ray from a thread that outlives `ray.shutdown` starts another cluster, unless it is told not to.
- Serve kills its HTTP proxy when that has not started in 5 s, as on a busy machine, while `serve.start` goes on waiting for it.
- Nothing here runs `ray stop`, which ends every Ray on the machine.
"""

import logging
import math
import os
import re
import secrets
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import ray
from ray._private import auto_init_hook
from ray._private.ray_logging import stdout_deduplicator
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from tercet.cluster.belongings import PREFIX, clear_abandoned, sign
from tercet.cluster.process_tree import Process, descendants, end

LOOPBACK = "127.0.0.2"
NAMESPACE = "tercet"
STOP_PATIENCE_S = 10.0
"""How long Ray's processes may take to end before they are killed."""
REMOVALS_MAX, REMOVAL_PAUSE_S = 10, 0.3
OBJECT_STORE_BYTES = 128 * 2**20
"""Nothing of ours travels through Ray's object store; this is for Ray's own needs."""

RUN_ROOT = Path("/tmp")
TEMP_DIR_CHARS_MAX = 24
"""Ray appends up to 80 characters to it."""

SKIPPED = "RAY_DEDUP_LOGS_SKIP_REGEX"
"""What a driver does not print of all that Ray would tell it; log files have everything."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    SKIPPED: "A worker died or was killed while executing a task",  # the controller knows, and says why
}
WATCHFUL = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "50",
}
"""Read by Ray's own processes when they start; whoever runs `ray start` sets the same."""


@dataclass(slots=True)
class RayRuntime:
    """A connection to Ray; `stop` ends it, and the cluster with it when it is our own."""

    address: str
    """Of the GCS, `host:port`."""
    token: Path | None = None
    """File with the token that Ray asks for."""
    temp_dir: Path | None = None
    """Of our own cluster: its sessions, sockets, logs and token."""
    _strangers: set[Process] = field(default_factory=set)
    """Children of this process that are not Ray's."""
    _former: dict[str, str | None] = field(default_factory=dict)
    """What the environment held before."""

    @property
    def owned(self) -> bool:
        return self.temp_dir is not None

    @classmethod
    def start_local(cls, cpus: float) -> "RayRuntime":
        """Start a cluster of our own on the loopback interface. It lives as long as this process.

        `cpus` is what it offers at least, whatever the machine has: replicas then share the cores that there are.
        What killed processes have left of theirs is cleared up first.
        """
        auto_init_hook.enable_auto_connect = False
        for root in {RUN_ROOT, _short_temp_dir()}:
            clear_abandoned(root)
        temp_dir = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_short_temp_dir()))
        sign(temp_dir)
        token = temp_dir / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        strangers = descendants(os.getpid())
        runtime = cls(
            "", token, temp_dir, strangers, _set(_unset(QUIET | WATCHFUL) | _token(token))
        )
        try:
            ray.init(
                "local",
                namespace=NAMESPACE,
                num_cpus=max(os.cpu_count() or 1, math.ceil(cpus)),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _node_ip_address=LOOPBACK,
                _temp_dir=str(temp_dir / "ray"),
            )
            sign(temp_dir, descendants(os.getpid()) - strangers)
        except BaseException:
            runtime.stop()
            raise
        runtime.address = str(ray.get_runtime_context().gcs_address)
        return runtime

    @classmethod
    def attach(cls, address: str, token: Path | None = None) -> "RayRuntime":
        """Connect to a cluster that runs: `auto`, or the `host:port` of its GCS. Raises ConnectionError.

        Without a token of our own the environment decides about authentication, as for any other Ray driver.
        """
        auto_init_hook.enable_auto_connect = False
        anonymous = _unset({"RAY_AUTH_MODE": "disabled"})
        former = _set(_unset(QUIET) | (anonymous if token is None else _token(token)))
        local = address.startswith(f"{LOOPBACK}:")
        try:
            ray.init(
                address,
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _node_ip_address=LOOPBACK if local else None,
            )
        except BaseException:
            _restore(former)
            raise
        return cls(str(ray.get_runtime_context().gcs_address), token, _former=former)

    def stop(self) -> list[str]:
        """Disconnect; end a cluster of our own. Returns the command lines of processes that had to be killed."""
        if self.temp_dir is None:
            ray.shutdown()
            _restore(self._former)
            return []
        ours = {each: each.command for each in descendants(os.getpid()) - self._strangers}
        ray.shutdown()
        killed = end(set(ours), STOP_PATIENCE_S)
        _restore(self._former)  # before the token goes: a thread of Ray's may still look for it
        _remove(self.temp_dir)
        return [ours[each] for each in killed]


def _remove(folder: Path) -> None:
    """Again, where somebody who is just ending has written into it meanwhile."""
    for _ in range(REMOVALS_MAX):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(REMOVAL_PAUSE_S)


def run_dir(cluster: str) -> Path:
    """Where this user's processes of one cluster keep their sockets, on every node; a short path."""
    port = str(ray.get_runtime_context().gcs_address).rpartition(":")[2]
    return RUN_ROOT / f"{PREFIX}{os.getuid()}-{cluster}-{port}"


def _token(path: Path) -> dict[str, str]:
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}


def _unset(variables: dict[str, str]) -> dict[str, str]:
    """Those that the user has not set."""
    return {name: value for name, value in variables.items() if name not in os.environ}


def _set(variables: dict[str, str]) -> dict[str, str | None]:
    """Set variables of the environment, for us and for the processes Ray starts; returns what they were."""
    former = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    _reload()
    return former


def _restore(former: dict[str, str | None]) -> None:
    for name, value in former.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    _reload()


def _reload() -> None:
    """Make Ray look again: it has read its variables when it was imported, and would go on with what was set then."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
    skipped = os.environ.get(SKIPPED)
    stdout_deduplicator.skip_re = re.compile(skipped) if skipped else None


def _short_temp_dir() -> Path:
    """The user's choice where it leaves room for socket paths, else /tmp."""
    chosen = tempfile.gettempdir()
    return Path(chosen if len(chosen) <= TEMP_DIR_CHARS_MAX else "/tmp")
