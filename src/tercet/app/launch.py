"""Brings a whole cluster up and down: Ray, the controller and its workers, the front door on Ray Serve."""

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import msgspec
import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.context import _get_global_client, _set_global_client
from ray.serve.exceptions import RayServeException

from tercet.app.application import application
from tercet.app.control import ensure_controller
from tercet.app.entrance import RunningServe, choose_entrance
from tercet.app.ports import with_free_ports
from tercet.cluster.belongings import sign
from tercet.cluster.placement import cpus_wanted
from tercet.cluster.process_tree import process
from tercet.cluster.ray_control import ControllerHandle
from tercet.cluster.ray_runtime import RayRuntime, run_dir
from tercet.cluster.run_record import RunRecord
from tercet.cluster.status import ClusterStatus
from tercet.config import ClusterConfig
from tercet.errors import TercetError, Unavailable

READY_POLL_S = 0.2
TAKE_DOWN_S_MAX = 15.0
"""How long a cluster on a Ray of our own may take to end in good order."""

Report = Callable[[str], None]
"""Told what is being done, in a few words."""


class Cluster:
    """A running cluster, as whoever launched it sees it."""

    def __init__(
        self, config: ClusterConfig, runtime: RayRuntime, controller: ControllerHandle
    ) -> None:
        self.config = config
        """With every port that could be chosen."""
        self.runtime = runtime
        self.controller = controller
        self.killed: list[str] = []
        """Command lines of processes that did not end by themselves; known after `launch` has ended."""

    @property
    def http(self) -> str:
        """`host:port` of the HTTP entrance."""
        return f"{self.config.front_door.host}:{self.config.front_door.http_port}"

    def record(self, *, ready: bool = False) -> RunRecord:
        """How others on this machine find it while this process lives."""
        return RunRecord(
            name=self.config.name,
            address=self.runtime.address,
            http=self.http,
            server=process(os.getpid()),
            ray_token=str(self.runtime.token) if self.runtime.token is not None else "",
            ready=ready,
        )

    def wait_ready(self, report: Report) -> ClusterStatus:
        """Return when every worker is up and every front door knows it.

        Raises TercetError when a worker is crash-looping, Unavailable after the start timeout.
        """
        deadline_s = time.monotonic() + self.config.control.start_timeout_s
        last = ""
        while True:
            status = self.controller.status()
            if status.ready:
                return status
            for worker in status.workers:
                if worker.crash_looping:
                    raise TercetError(f"{worker.worker} cannot start: {worker.reason}")
            if time.monotonic() >= deadline_s:
                raise Unavailable(f"not ready in time: {outlook(status)}", READY_POLL_S)
            if (line := outlook(status)) != last:
                report(line)
                last = line
            time.sleep(READY_POLL_S)


@contextmanager
def launch(
    config: ClusterConfig, *, address: str = "", report: Report = lambda _: None
) -> Iterator[Cluster]:
    """Run a cluster while the context lasts; afterwards nothing of it is left.

    Without an address Ray is started on this machine and ended with the cluster; with one (`auto`, or `host:port` of a
    GCS) only what is ours is added to and removed from it. Raises TercetError, ConnectionError.
    """
    with ExitStack() as stack:
        report("starting Ray")
        runtime = _connect(config, address)
        killed: list[str] = []
        stack.callback(lambda: killed.extend(runtime.stop()))
        stack.callback(shutil.rmtree, run_dir(config.name), ignore_errors=True)
        if runtime.owned:
            sign(run_dir(config.name))
        config = _with_http_entrance(config, owned=runtime.owned)
        report("starting the controller")
        controller = ensure_controller(config)
        cluster = Cluster(config, runtime, controller)
        cluster.killed = killed
        ending = _take_down_own if runtime.owned else take_down
        stack.callback(ending, controller, report=report)
        report("starting the front door")
        open_front_door(config)
        yield cluster


def open_front_door(config: ClusterConfig) -> None:
    """Start Serve where it does not run yet, and the front door on it; returns when that is up."""
    _quiet_serve()
    door = config.front_door
    if door.serve_proxy is not False:
        serve.start(http_options=HTTPOptions(host=door.host, port=door.http_port))
    elif _running_serve() is None:
        serve.start(proxy_location=ProxyLocation.Disabled)
    serve.run(application(config), name=serve_name(config.name), route_prefix="/")


def take_down(
    controller: ControllerHandle, *, keep_serve: bool = False, report: Report = lambda _: None
) -> None:
    """End a cluster: first the front door, so that requests in flight may finish, then the workers and the controller.

    Serve itself ends with the last application on it, unless it is to be kept because Ray ends next. Nothing is left to do
    where somebody else has ended the cluster, by `tercet down`.
    """
    if ControllerHandle.find(controller.cluster) is None:
        report("the cluster was ended already")
        return
    _quiet_serve()
    try:
        report("closing the front door")
        serve.delete(serve_name(controller.cluster))
        if not keep_serve and not serve.status().applications:
            serve.shutdown()
    except RayServeException as exc:
        report(f"Serve was gone already ({exc})")
    finally:
        report("stopping the workers")
        controller.shutdown()


def _take_down_own(controller: ControllerHandle, *, report: Report) -> None:
    """`take_down` where Ray ends next and takes along whatever is left.

    A signal to the whole process group ends Ray's processes together with us, and calls that wait for them never return;
    so this waits on a thread, and not for long.
    """

    def act() -> None:
        try:
            take_down(controller, keep_serve=True, report=report)
        except (RayError, TercetError, OSError, RuntimeError) as exc:
            report(f"Ray ended before us ({type(exc).__name__})")

    thread = threading.Thread(target=act, name="take-down", daemon=True)
    thread.start()
    thread.join(TAKE_DOWN_S_MAX)
    if thread.is_alive():
        report("Ray does not answer any more; ending it")


def serve_name(cluster: str) -> str:
    """The name of a cluster's Serve application."""
    return f"tercet-{cluster}"


def outlook(status: ClusterStatus) -> str:
    """One line about what a cluster still waits for."""
    parts = [
        f"{w.worker} {w.phase}" + (f" ({w.reason})" if w.reason else "") for w in status.workers
    ]
    return ", ".join(parts) or "waiting for the controller"


def _quiet_serve() -> None:
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # it tells every step


def _with_http_entrance(config: ClusterConfig, *, owned: bool) -> ClusterConfig:
    """The configuration with the HTTP entrance there will be. Raises TercetError."""
    if owned:
        _set_global_client(None)  # what Serve knows is of a Ray that this process had before
    running = None if owned else _running_serve()
    door = choose_entrance(config.front_door, running, owned=owned)
    return with_free_ports(msgspec.structs.replace(config, front_door=door))


def _running_serve() -> RunningServe | None:
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return None
    location = ProxyLocation(ray.get(client._controller.get_proxy_location.remote()))
    there = client.http_config
    return RunningServe(there.host, there.port, location is not ProxyLocation.Disabled)


def _connect(config: ClusterConfig, address: str) -> RayRuntime:
    return RayRuntime.attach(address) if address else RayRuntime.start_local(cpus_wanted(config))
