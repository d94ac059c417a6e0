"""Where control plane and data plane meet: the controller is handed the actor class whose name it does not know."""

import ray

from tercet.cluster.ray_control import ControllerHandle
from tercet.cluster.ray_runtime import run_dir
from tercet.config import ClusterConfig
from tercet.workers.actor import WorkerActor


def ensure_controller(config: ClusterConfig) -> ControllerHandle:
    """The controller of this cluster, started if there is none. Ray must be connected.

    Raises TercetError when it runs with another configuration, Unavailable when it does not answer.
    """
    return ControllerHandle.start(config, ray.remote(WorkerActor), run_dir(config.name))
