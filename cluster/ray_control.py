"""How everybody else reaches the controller: by name, through Ray, with a bound on every wait."""

import time
from pathlib import Path
from typing import Any

import msgspec
import ray
from ray.actor import ActorClass, ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError

from tercet.cluster.controller import Controller
from tercet.cluster.ray_runtime import NAMESPACE
from tercet.cluster.status import ClusterStatus
from tercet.config import ClusterConfig
from tercet.errors import OptionError, TercetError, Unavailable

CALL_TIMEOUT_S = 10.0
SHUTDOWN_TIMEOUT_S = 30.0
"""Longer than a worker may take to end in good order."""
RESTART_S = 3.0
"""About how long Ray takes to bring a controller back."""


class ControllerHandle:
    """The controller of one cluster, for callers outside any event loop."""

    def __init__(self, cluster: str, actor: ActorHandle) -> None:
        self.cluster = cluster
        self._actor = actor

    @classmethod
    def start(
        cls, config: ClusterConfig, worker_class: "ActorClass[Any]", run_dir: Path
    ) -> "ControllerHandle":
        """Start the controller, or join the one that runs with the very same configuration.

        Raises TercetError when the cluster runs with another one: its workers would have to be replaced.
        """
        encoded = msgspec.msgpack.encode(config)
        actor = (
            ray.remote(Controller)
            .options(
                name=controller_name(config.name),
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                max_restarts=-1,
                num_cpus=0,
            )
            .remote(encoded, worker_class, str(run_dir))
        )
        handle = cls(config.name, actor)
        running = handle._ask("config", CALL_TIMEOUT_S * 3)  # its process may have to start
        if msgspec.msgpack.decode(running, type=ClusterConfig) != config:
            raise TercetError(
                f"cluster {config.name!r} runs with another configuration;"
                f" end it with `tercet down --name {config.name}` or give this one another name"
            )
        return handle

    @classmethod
    def find(cls, cluster: str) -> "ControllerHandle | None":
        """The controller, if that cluster is there."""
        try:
            return cls(cluster, ray.get_actor(controller_name(cluster), NAMESPACE))
        except ValueError:
            return None

    @staticmethod
    def clusters() -> list[str]:
        """The names of all clusters on the Ray cluster we are connected to."""
        prefix = controller_name("")
        return sorted(
            entry["name"].removeprefix(prefix)
            for entry in ray.util.list_named_actors(all_namespaces=True)
            if entry["namespace"] == NAMESPACE and entry["name"].startswith(prefix)
        )

    def status(self) -> ClusterStatus:
        return msgspec.msgpack.decode(self._ask("status", CALL_TIMEOUT_S), type=ClusterStatus)

    def drain(self, worker: str) -> None:
        """Have a worker emptied, then replaced where it is wanted; returns once that has begun. Raises OptionError."""
        if reason := self._ask("drain", CALL_TIMEOUT_S, worker):
            raise OptionError(worker, reason)

    def scale(self, prefill: int | None, decode: int | None) -> None:
        """Have so many workers from now on, None leaves a pool as it is; returns once that has begun. Raises OptionError."""
        if reason := self._ask("scale", CALL_TIMEOUT_S, prefill, decode):
            raise OptionError("scale", reason)

    def shutdown(self) -> None:
        """Stop every worker, then the controller."""
        try:
            self._ask("shutdown", SHUTDOWN_TIMEOUT_S)
        finally:
            ray.kill(self._actor, no_restart=True)

    def _ask(self, method: str, timeout_s: float, *arguments: str | int | None) -> Any:
        """Call the controller; waits for one that is being restarted. Raises Unavailable."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            left_s = deadline_s - time.monotonic()
            try:
                answer = getattr(self._actor, method).remote(*arguments)
                return ray.get(answer, timeout=max(left_s, 0.0))
            except GetTimeoutError as exc:
                raise Unavailable("the controller does not answer", RESTART_S) from exc
            except RayActorError as exc:
                if time.monotonic() >= deadline_s:
                    raise Unavailable("the controller is gone", RESTART_S) from exc
                time.sleep(0.1)


def controller_name(cluster: str) -> str:
    """The Ray name of a cluster's controller."""
    return f"tercet-controller:{cluster}"
